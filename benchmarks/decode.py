"""JPEG files to batches of 224 x 224 for training, views a second on one core: ours and peers.

    python benchmarks/decode.py
    python benchmarks/decode.py --data photos/ --rounds 21 --json decode.json

One process, one thread, no loader processes; the rows take turns, each turn once through all
images, and the median turn counts. The clock is the processor time of all threads together, so
that neither other programs nor hidden threads count. A turn, from the files to float batches:

    ours       the `images` provider as tools/train.py has it, --workers=0, no colour noise: fitted
               to 256, random crop of 224, mirrored by chance, minus the mean image
    rrc        torchvision's reference for ImageNet: RandomResizedCrop(224), RandomHorizontalFlip,
               ToTensor, Normalize, a stack of the batch
    resize256  the pipeline of 2014, which is what ours computes: Resize(256), RandomCrop(224), the
               rest as above
    decode     Pillow opens and decodes the file and nothing else, which no row here can avoid

For the peers see torch_views.py; the ratio is to the faster of both. Without --data the images are
made up, 500 x 375 at --quality: a 1/f spectrum in brightness and colour, sharp edges, some grain.
"""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from pictures import photo
from PIL import Image
from torch_views import S, opened, pipelines

from convnet import machine

SUFFIXES = ".jpg", ".jpeg"
NAMES = {"ours": "convnet", "rrc": "RandomResizedCrop(224)", "decode": "Pillow's decoding alone",
         "resize256": "Resize(256), RandomCrop(224)"}  # fmt: skip


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="DIR", help="use the .jpg and .jpeg files in here")
    parser.add_argument("--images", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="(default: 32)")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="(default: 11)")
    parser.add_argument("--quality", type=int, default=90, metavar="Q", help="(default: 90)")
    parser.add_argument("--json", metavar="FILE", help="write the figures, each turn too")
    args = parser.parse_args()
    if args.images < 4 or args.batch < 1 or args.rounds < 1:
        parser.error("it takes --images=4 or more, --batch=1, --rounds=1")
    return args


# ---------------------------------------------------------------- the images


def prepare(args, folder: Path) -> list[str]:
    """Put the images into train/ and test/ of the folder, two classes; the paths to train on."""
    if args.data:
        found = [p for p in sorted(Path(args.data).rglob("*")) if p.suffix.lower() in SUFFIXES]
        found = found[: args.images]
        if len(found) < 4:
            sys.exit(f"decode.py: --data={args.data}: it takes 4 .jpg files at least")
    rng = np.random.default_rng(0)
    for i in range(args.images if not args.data else len(found)):
        path = folder / "train" / f"class{i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if args.data:
            shutil.copy(found[i], path)
        else:
            photo(rng).save(path, quality=args.quality)
    for i in range(2):
        (folder / "test" / f"class{i}").mkdir(parents=True)
        shutil.copy(folder / "train" / f"class{i}" / f"{i}.jpg", folder / "test" / f"class{i}")
    return [str(p) for p in sorted((folder / "train").rglob("*.jpg"))]


# ---------------------------------------------------------------- measure and tell


def rows(args, folder: Path, paths: list[str]) -> tuple[dict, str]:
    """{name: one turn of it}, taking the number of the turn; what the peers are."""
    from convnet.device import Cpu
    from convnet.providers import DataOptions, provider_class

    options = DataOptions(workers=0, color_noise=0.0)
    provider = provider_class("images")(str(folder), S, 3, options)
    provider.mean = np.random.default_rng(0).uniform(90, 150, (S, S, 3))
    theirs, empty = pipelines(), Cpu().host_empty  # a training's batches come from an arena, too

    def ours(turn):
        for _ in provider.batches("train", args.batch, turn, empty=empty):
            pass

    def of(transform):
        def turn(_):
            for i in range(0, len(paths), args.batch):
                theirs.stack([transform(opened(p)) for p in paths[i : i + args.batch]])

        return turn

    def decode(_):
        for path in paths:
            with Image.open(path) as img:
                img.load()

    turns = {"ours": ours, "rrc": of(theirs.rrc), "resize256": of(theirs.resize256)}
    return {**turns, "decode": decode}, theirs.version


def measure(args) -> dict:
    """All figures."""
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare(args, Path(folder))
        size = sum(Path(p).stat().st_size for p in paths) / len(paths)
        turns, version = rows(args, Path(folder), paths)
        rates = {name: [] for name in turns}
        for i in range(args.rounds + 1):  # the first warms up
            for name, turn in turns.items():
                start = time.process_time()
                turn(i)
                if i:
                    rates[name].append(len(paths) / (time.process_time() - start))
    found = {name: median(r) for name, r in rates.items()}
    theirs = max(found["rrc"], found["resize256"])
    return {
        "ours": found["ours"], "peer": theirs, "ratio": found["ours"] / theirs,
        "unit": "views/s on one core", "rows": found, "turns": rates, "peers": version,
        "images": len(paths), "bytes": size, "pillow": Image.__version__,
        "machine": machine.describe(), "commit": machine.commit(),
        "command": " ".join(["python", *sys.argv]),
    }  # fmt: skip


def main() -> None:
    """Measure, tell, write."""
    args = arguments()
    figures = measure(args)
    where = figures["machine"]
    print(f"{where['cpu']}, {where['system']}, Python {platform.python_version()}")
    print(f"Pillow {figures['pillow']}; {figures['peers']}; commit {figures['commit']}")
    print(figures["command"])
    print(f"{figures['images']} JPEG files, {figures['bytes'] / 1e3:.0f} kB each in the mean; "
          f"{args.rounds} rounds\n")  # fmt: skip
    print(f"{'':30}{'views/s':>9}{'us':>8}{'ours is':>9}")
    for name, rate in figures["rows"].items():
        print(f"{NAMES[name]:30}{rate:9.0f}{1e6 / rate:8.0f}{figures['ours'] / rate:8.2f}x")
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
