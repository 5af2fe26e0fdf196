"""Kill a small training run with SIGKILL at random moments, go on each time, compare the end.

    python benchmarks/kill9.py --kills=50

Prints how many of the newest checkpoints could not be read, how many batches were lost, and
whether the last checkpoint and metrics.jsonl are what an undisturbed run leaves, bit for bit.
Exit status 1 if not.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from convnet import files, runfolder
from convnet.checkpoint import CheckpointError

ROOT = Path(__file__).resolve().parent.parent
SAVED = b"saved "
TIMES = ("seconds", "images_per_s")
BATCHES = 6  # of an epoch of 1,437 digits at 256 a batch


def start(folder: Path, epochs: int) -> subprocess.Popen:
    """A process that trains in this folder, from where the folder is."""
    argv = [sys.executable, str(ROOT / "tools" / "train.py")]
    if runfolder.newest(folder):
        argv.append(f"--resume={folder}")
    else:
        argv += [f"--layer-def={ROOT / 'layer_configs' / 'spp_small.cfg'}", "--minibatch=256"]
        argv += [f"--epochs={epochs}", "--test-freq=1", f"--save-path={folder}"]
        argv += ["--set=conv1.filters=8", "--set=conv2.filters=16"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def live(folder: Path, epochs: int, rng: random.Random) -> bool:
    """Start, kill at a random moment, False if the run came to its end before.

    One in five while it starts, two at any time, two as soon as a checkpoint is being written.
    """
    process, kind = start(folder, epochs), rng.randrange(5)
    if kind == 0:
        time.sleep(rng.uniform(0, 4))
    elif kind < 3:
        while process.poll() is None and not any(folder.glob(".*.part")):
            pass
        time.sleep(rng.uniform(0, 0.002))
    else:
        saves = rng.randint(1, 4)
        for line in process.stdout:
            saves -= line.startswith(SAVED)
            if not saves:
                break
        time.sleep(rng.uniform(0, 0.3))
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def rows(folder: Path) -> list[dict]:
    """What metrics.jsonl tells, without the times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


def finish(folder: Path, epochs: int) -> Path:
    """Let the run come to its end; its last checkpoint."""
    process = start(folder, epochs)
    _, error = process.communicate()
    if process.returncode:
        sys.exit(f"the run ended with {process.returncode}: {error.decode()}")
    return runfolder.newest(folder)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    epochs = max(8, 2 + args.kills // 2)  # so many that it does not end before it is killed
    rng, began = random.Random(args.seed), time.perf_counter()
    kills = unreadable = torn = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder, undisturbed = Path(temporary) / "killed", Path(temporary) / "undisturbed"
        folder.mkdir()
        while kills < args.kills and live(folder, epochs, rng):
            kills += 1
            torn += len(list(files.leftovers(folder)))
            try:
                unreadable += bool(runfolder.newest(folder) and runfolder.find(folder)[2])
            except CheckpointError:
                unreadable += 1
        last = finish(folder, epochs)
        left = len(list(files.leftovers(folder)))
        shutil.move(folder, Path(temporary) / "done")
        killed = Path(temporary) / "done"
        same = (killed / last.name).read_bytes() == finish(undisturbed, epochs).read_bytes()
        lines = rows(killed) == rows(undisturbed)
    print(f"{kills} kills in {time.perf_counter() - began:.0f} s of a run of "
          f"{epochs * BATCHES} batches with a checkpoint after each")  # fmt: skip
    print(f"newest checkpoint unreadable: {unreadable}")
    print(f"killed in the middle of writing one: {torn}; files of these left at the end: {left}")
    print(f"last checkpoint the same bits as undisturbed: {'yes' if same else 'NO'}")
    print(f"metrics.jsonl the same but for times: {'yes' if lines else 'NO'}")
    return 0 if same and lines and not (unreadable or left) and kills == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
