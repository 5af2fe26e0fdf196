"""Images out of shards next to loose files and a tar file; an epoch of as many as ImageNet has.

    python benchmarks/data.py
    python benchmarks/data.py --only=epoch --records=1281167

read   records a second in one process, in random order, --files of them of some 50 kB (ImageNet at
       256 pixels), from memory (hot) and, after the system was told to forget them, from the disk:
       shards as training reads them (pread, with CRC-32), and unchecked; as h5py reads them; loose
       files; a tar file by tarfile, at random (headers read before) and from beginning to end.
       Rounds take turns, the median counts; hot ones by the time of the processor alone, so that
       other programs do not count.
epoch  a set of --records tiny images: what it takes to open it, to mix and to read an epoch of
       them, not decoded, and how much memory.
pack   tools/make_data.py on a tar of --records tiny images in ImageNet's layout: images a second,
       and the most memory that its main process had.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import h5py
import numpy as np
from PIL import Image

from convnet import machine, shards
from convnet.providers import DataOptions, packed
from convnet.shards import Place, Places, Record

ROOT = Path(__file__).resolve().parent.parent
CLASSES, VAL = 1000, 100


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="read,epoch,pack", metavar="A,B")
    parser.add_argument("--files", type=int, default=3000, metavar="N", help="(default: 3000)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="(default: 7)")
    parser.add_argument("--records", type=int, default=1_281_167, metavar="N",
                        help="(default: 1281167, as many as ILSVRC 2012 trains on)")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="of make_data.py")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    return parser.parse_args()


# ---------------------------------------------------------------- read


def written(folder: Path, count: int) -> tuple[list[bytes], list[Path]]:
    """The same records as a shard, as files, as a tar file; the files that hold them."""
    rng = np.random.default_rng(0)
    data = [rng.bytes(int(n)) for n in rng.lognormal(10.7, 0.4, count).clip(2000, 300_000)]
    made = (Record(piece, i % 10, i, f"{i}.jpg") for i, piece in enumerate(data))
    shards.write(folder / "x.h5", made, [], {"side": 0, "of": ""})
    with tarfile.open(folder / "x.tar", "w") as tar:
        for i, piece in enumerate(data):
            path = folder / f"{i % 10}" / f"{i}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(piece)
            tar.add(path, f"{i % 10}/{i}.jpg")
    os.sync()
    return data, [folder / "x.h5", folder / "x.tar", *folder.rglob("*.jpg")]


def readers(folder: Path, file, tar) -> dict[str, Callable[[np.ndarray], int]]:
    """{name: reads these records, returns the bytes}, of a shard and a tar that are open."""
    shard, places = shards.read(folder / "x.h5"), Places([str(folder / "x.h5")])
    names = tar.getmembers()

    begin, length = (shard.begin + shard.offset).tolist(), np.diff(shard.offset).tolist()
    crc32 = shard.crc32.tolist()

    def ours(order):
        return sum(len(places(Place(0, begin[i], length[i], crc32[i]))) for i in order)

    def unchecked(order):
        return sum(len(places(Place(0, begin[i], length[i]))) for i in order)

    def by_h5py(order):
        images, offset = file["bytes"], shard.offset
        return sum(len(images[offset[i] : offset[i + 1]]) for i in order)

    def loose(order):
        return sum(len((folder / f"{i % 10}" / f"{i}.jpg").read_bytes()) for i in order)

    def at_random(order):
        return sum(len(tar.extractfile(names[i]).read()) for i in order)

    def in_order(_):
        with tarfile.open(folder / "x.tar") as again:
            return sum(len(again.extractfile(member).read()) for member in again)

    return {
        "shard": ours,
        "shard, unchecked": unchecked,
        "shard by h5py": by_h5py,
        "loose files": loose,
        "tarfile, at random": at_random,
        "tarfile, in order": in_order,
    }


def forget(paths: list[Path]) -> None:
    """Ask the system to drop these files from its memory."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def read(args) -> dict:
    """Records a second, {"hot": {...}, "cold": {...}}."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, paths = written(folder, args.files)
        with h5py.File(folder / "x.h5") as file, tarfile.open(folder / "x.tar") as tar:
            return rates(args, readers(folder, file, tar), paths, sum(map(len, data)), len(data))


def rates(args, turns: dict, paths: list[Path], total: int, count: int) -> dict:
    """Records a second of readers of so many bytes in so many records; printed too."""
    rng, found = np.random.default_rng(0), {}
    for state, clock in ("hot", time.process_time), ("cold", time.perf_counter):
        each = {name: [] for name in turns}
        for round_ in range(args.rounds + 1):  # the first warms up
            order = rng.permutation(count)
            for name, turn in turns.items():
                if state == "cold":
                    forget(paths)
                start = clock()
                assert turn(order) == total
                if round_:
                    each[name].append(count / (clock() - start))
        found[state] = {name: median(r) for name, r in each.items()}
        print(f"{state:22}{'records/s':>11}{'MB/s':>8}{'the shard is':>14}")
        for name, rate in found[state].items():
            print(f"  {name:20}{rate:11.0f}{rate * total / count / 1e6:8.0f}"
                  f"{found[state]['shard'] / rate:13.2f}x")  # fmt: skip
    return found


# ---------------------------------------------------------------- epoch


def tiny() -> list[bytes]:
    """Files of some hundred bytes, of a few kinds."""
    rng, found = np.random.default_rng(0), []
    for _ in range(100):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(out, "JPEG")
        found.append(out.getvalue())
    return found


def large_set(folder: Path, count: int, each: int = 4600) -> None:
    """A set of so many; 4,600 are half a GB of ImageNet."""
    kinds, sums = tiny(), {"train": [], "test": []}
    order = np.random.default_rng(0).permutation(count)
    for split, whole in ("train", order), ("test", np.arange(100)):
        for number, begin in enumerate(range(0, len(whole), each)):
            made = (Record(kinds[i % 100], i * CLASSES // len(whole), i,
                           f"train/n{i % CLASSES:08}/n{i % CLASSES:08}_{i}.JPEG")
                    for i in whole[begin : begin + each].tolist())  # fmt: skip
            path = folder / packed.name_of(split, number)
            shards.write(path, made, [], {"side": 0, "of": ""})
            sums[split].append(shards.read(path).about["tables"])
    about = {"format": packed.FORMAT, "source": "images", "shards": sums}
    about["classes"] = [f"n{i:08}" for i in range(CLASSES)]
    (folder / packed.INDEX).write_text(json.dumps(about))


def epoch(args) -> dict:
    """Seconds and memory of a set of many records."""
    with tempfile.TemporaryDirectory() as temporary:
        large_set(Path(temporary), args.records)
        before, start = machine.resident(), time.perf_counter()
        machine.forget_peak()
        with packed.Packed(temporary, 224, 3, DataOptions(workers=0)) as data:
            opened, places = time.perf_counter() - start, data.viewer(lambda file, draw: None)
            start = time.perf_counter()
            order = data.mixed("train", 0)
            mixed = time.perf_counter() - start
            assert len(np.unique(order)) == args.records
            start = time.perf_counter()
            for i in order:
                places(data.item("train", i), None)
            taken = time.perf_counter() - start
            held, peak = machine.resident() - before, machine.peak() - before
    figures = {"open_s": opened, "mix_s": mixed, "read_s": taken, "MB": held / 1e6,
               "peak_MB": peak / 1e6, "records": args.records}  # fmt: skip
    print(f"a set of {args.records:,} tiny images: opened in {opened:.1f} s; an epoch is mixed in "
          f"{mixed:.2f} s and read, not decoded, in {taken:.0f} s "
          f"({1e6 * (mixed + taken) / args.records:.0f} us an image)\n"
          f"memory: {held / 1e6:.0f} MB more than before, {peak / 1e6:.0f} MB at most")  # fmt: skip
    return figures


# ---------------------------------------------------------------- pack


def large_tars(folder: Path, count: int) -> None:
    """ILSVRC2012_img_train.tar and so on, with made-up images and a devkit."""
    from scipy.io import savemat

    kinds, wnids = tiny(), [f"n{i:08}" for i in range(CLASSES)]

    def add(tar, name, data):
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))

    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for c, part in enumerate(np.array_split(np.arange(count), CLASSES)):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w") as inner:
                for i in part:
                    add(inner, f"{wnids[c]}_{i}.JPEG", kinds[i % 100])
            add(outer, f"{wnids[c]}.tar", out.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        for i in range(VAL):
            add(tar, f"ILSVRC2012_val_{i + 1:08}.JPEG", kinds[i])
    kit = folder / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    rows = np.array([(i + 1, w) for i, w in enumerate(wnids)],
                    [("ILSVRC2012_ID", object), ("WNID", object)])  # fmt: skip
    savemat(kit / "meta.mat", {"synsets": rows})
    truth = "".join(f"{i % CLASSES + 1}\n" for i in range(VAL))
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


def pack(args) -> dict:
    """Images a second, and memory, of tools/make_data.py."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "in").mkdir()
        large_tars(folder / "in", args.records)
        argv = [sys.executable, ROOT / "tools" / "make_data.py", folder / "in"]
        argv += [f"--out={folder / 'out'}", "--shard-size=4"]
        argv += [] if args.workers is None else [f"--workers={args.workers}"]
        start = time.perf_counter()
        with subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, cwd=ROOT) as process:
            lines = process.stdout.read().decode().splitlines()
            _, status, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - start
        if status:
            sys.exit(f"data.py: make_data.py ended with {status}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{lines[-1].partition(': ')[2]}\npacked in {taken:.0f} s, {args.records / taken:.0f} "
          f"images/s; {peak / 1e6:.0f} MB of memory at most, libraries and all")  # fmt: skip
    return {"seconds": taken, "images_per_s": args.records / taken, "peak_MB": peak / 1e6}


def main() -> None:
    """Measure, tell, write."""
    args = arguments()
    where = machine.describe()
    print(f"{where['cpu']}, {where['system']}; commit {where['commit']}")
    parts = {"read": read, "epoch": epoch, "pack": pack}
    found = {name: parts[name](args) for name in args.only.split(",")}
    if args.json:
        Path(args.json).write_text(json.dumps({**found, "machine": where}, indent=1) + "\n")


if __name__ == "__main__":
    main()
