"""Folders of images into sets of shards (convnet/providers/packed.py), and the check of such sets.

The images to train on are mixed once, by a draw that is the same each time, and cut into shards of
so many. Processes read and check them, this one writes: one shard at a time, in order. So what is
written depends on the images and the options alone, and a run that was killed has lost one shard.
When it goes on, names and sizes tell whether the images are still the same; a shard that is older
than one of its images, or has others than the split has now, is made again.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from convnet import files, loader, shards, views
from convnet.cli import UsageError
from convnet.given import check_fraction, count
from convnet.ilsvrc import FOLDER
from convnet.loader import FEW, BadImage, DataError, Loader
from convnet.providers import DataOptions, name_for, printable, provider_class
from convnet.providers._decode import Decoded, decode
from convnet.providers.images import Images
from convnet.providers.packed import (
    FORMAT,
    INDEX,
    NAME,
    UNLABELLED,
    Packed,
    name_of,
    read_index,
    sealed,
    strays,
)
from convnet.shards import Record, Shard

SAMPLE = 64  # images, whose median size says how many go into a shard
LOCK = ".packing.lock"  # in the folder while it is packed into
MIX = 2012  # the seed


@dataclass(frozen=True)
class Treated:
    """view(file, None): (the image as it is to be packed, its (h, w)).

    resize: where the shorter side is longer than this, a JPEG file of that; else the file as it is,
    once it could be decoded.
    """

    resize: int | None
    quality: int

    def __call__(self, file: str | io.BytesIO, draw: None) -> tuple[bytes, tuple[int, int]]:
        """Raises BadImage."""
        try:
            data = Path(file).read_bytes() if isinstance(file, str) else file.getvalue()
        except OSError as e:
            raise BadImage(e.strerror.lower()) from None
        picture, size = decode(io.BytesIO(data), 3, self.resize or 1)
        if not self.resize or min(size) <= self.resize:
            return data, size
        h, w = views.fitted(*size, self.resize)
        small, out = picture.resize((w, h), 2), io.BytesIO()  # bilinear, as in training
        small.save(out, "JPEG", quality=self.quality)
        return out.getvalue(), (h, w)


class Packing:
    """A set that is made of the images of a provider, in a folder."""

    def __init__(self, source: Images, folder: Path, args: Any):
        """Raises DataError for images that cannot be read, UsageError for another set's folder."""
        self.source, self.folder = source, folder
        self.treat = Treated(args.resize, args.quality)
        workers = loader.default_workers() if args.workers is None else args.workers
        self.loader = Loader(source.viewer(self.treat), None, workers)
        self.splits = {name: s for name, s in source.splits.items() if s.size or name != UNLABELLED}
        # the splits that submissions are made of: a bad image keeps its place
        self.keeping = {"test", UNLABELLED} if hasattr(source, "devkit") else set()
        self.changed = False  # whether anything was to do
        self.each = max(1, (args.shard_size << 20) // self._typical())
        what = source.fingerprint, args.resize, args.resize and args.quality, self.each
        self.of = " ".join(map(str, what))

    def _typical(self) -> int:
        """The bytes of an image, packed: the median of some."""
        split = "train" if self.splits["train"].size else "test"
        view, sizes = self.source.viewer(self.treat), []
        for i in views.spread(self.splits[split].size, SAMPLE):
            with contextlib.suppress(BadImage):
                sizes.append(len(view(self.source.item(split, i), None)[0]))
        if not sizes:
            raise DataError(f"{printable(self.source.path)}: no image of {split} can be read")
        return max(1, int(median(sizes)))

    def run(self) -> None:
        """Make what is missing."""
        made, bad, without = {}, Counter(), []
        for split, images in self.splits.items():
            order = np.arange(images.size)
            if split == "train":
                order = np.random.default_rng(MIX).permutation(images.size)
            parts = [order[i : i + self.each] for i in range(0, len(order), self.each)]
            made[split] = []
            for number, part in enumerate(parts):
                shard = self._shard(split, number, part)
                made[split].append(shard.about["tables"])
                lost = len(part) - len(shard)
                bad["left out"] += lost
                bad["kept without bytes"] += len(shard.left_out) - lost
                if lost and split in self.keeping:  # packed when none kept its place
                    without.append(Path(shard.path).name)
        self._finish(made)
        if without:
            print(f"{', '.join(without)}: bad images have no place, so that submissions lack them; "
                  "deleted and packed again they have one, but that makes another set",
                  file=sys.stderr)  # fmt: skip
        _tell(self.folder, bad, "" if self.changed else "; nothing to do")

    def _shard(self, split: str, number: int, part: np.ndarray) -> Shard:
        """The shard of these images, made unless it is there."""
        path = self.folder / name_of(split, number)
        if path.exists():
            found = shards.read(path, len(self.source.classes))
            if found.about.get("of") != self.of:
                raise UsageError(f"{self.folder}: holds shards of other images or options; name "
                                 "another folder, or delete it")  # fmt: skip
            why = self._outdated(found, split, part)
            if why is None:
                return found
            (self.folder / INDEX).unlink(missing_ok=True)  # of a set that is no more
            print(f"{path.name}: is made again, {why}")
        self.changed = True
        began = _clock(self.folder)
        left_out, about = [], {"of": self.of, "side": 0}
        size = shards.write(path, self._records(split, part, left_out, about), left_out, about)
        os.utime(path, ns=(began, began))  # what is changed while it is written is newer
        shard = shards.read(path)
        print(f"{path.name}: {count(len(shard), 'image')}, {size / 1e6:.1f} MB", flush=True)
        return shard

    def _outdated(self, found: Shard, split: str, part: np.ndarray) -> str | None:
        """Why a shard is not what it would be now: None if it is."""
        if not self._holds(found, split, part):
            return f"the images of {split} are others"
        made = Path(found.path).stat().st_mtime_ns
        newer = next((i for i in part if self.source.changed(split, i) >= made), None)
        return None if newer is None else f"{printable(self.splits[split].keys[newer])} is newer"

    def _holds(self, found: Shard, split: str, part: np.ndarray) -> bool:
        """Whether a shard is of these images, by their places, labels and names."""
        images, there = self.splits[split], part[np.isin(part, found.position)]
        kept = int((np.diff(found.offset) == 0).sum())  # of those left out; older sets keep none
        if len(part) - len(there) != len(found.left_out) - kept:
            return False
        if not np.array_equal(there, found.position):
            return False
        names = [images.keys[i] for i in there]
        return np.array_equal(images.labels[there], found.label) and names == shards.keys(found)

    def _records(self, split: str, part: np.ndarray, left_out: list, about: dict) -> Iterator:
        """A Record of each image that can be read; left_out gets the others, about their side.

        In a split that submissions are made of the others have one without bytes: each has a line.
        """
        images, sizes = self.splits[split], set()
        groups = [part[i : i + FEW] for i in range(0, len(part), FEW)]
        pieces = ([(self.source.item(split, i), None) for i in group] for group in groups)
        with _bar(len(part), split) as bar:
            for group, (made, bad) in zip(groups, self.loader.run(pieces)):
                for n, i in enumerate(group):
                    if n in bad:
                        self.source.report(split, i, bad[n])
                        left_out.append(f"{images.keys[i]}: {bad[n]}")
                        if split not in self.keeping:
                            continue
                        made[n] = b"", None
                    else:
                        sizes.add(made[n][1])
                    yield Record(made[n][0], images.labels[i], i, images.keys[i])
                bar.update(len(group))
        h, w = sizes.pop() if len(sizes) == 1 else (0, 1)
        about["side"] = h if h == w else 0

    def _finish(self, made: dict[str, list[int]]) -> None:
        """Write what makes a set of the shards."""
        kind = "images"
        if devkit := getattr(self.source, "devkit", None):
            _copy_devkit(devkit, self.folder / FOLDER / "data")
        if hasattr(self.source, "devkit"):
            kind = "ilsvrc"
        about = {"format": FORMAT, "source": kind, "classes": self.source.classes, "of": self.of}
        about["shards"] = made
        index, path = json.dumps(sealed(about), indent=1).encode(), self.folder / INDEX
        self.changed |= not path.is_file() or path.read_bytes() != index
        files.replace(path, [index])
        for path in strays(self.folder, made):
            with contextlib.suppress(DataError):
                if shards.read(path).about.get("of") == self.of:  # of a split that had more images
                    path.unlink()
                    print(f"{path.name}: is deleted, no image is left for it")


def _clock(folder: Path) -> int:
    """The time, in ns, that a file written now gets; file systems count in steps."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _copy_devkit(devkit, folder: Path) -> None:
    """The files that say which class has which number, and what the images of val show."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (devkit.meta, devkit.truth, devkit.blacklist_file):
        if path is not None:
            shutil.copy(path, folder)


def _bar(total: int, what: str):
    """A bar on a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit="img", leave=False, disable=not sys.stderr.isatty())


def _tell(folder: Path, bad: Counter | None = None, ending: str = "") -> None:
    """What is in a finished set; bad: what has become of so many bad images."""
    with Packed(str(folder), 1, 3, DataOptions(workers=0)) as packed:
        told = [f"{count(split.size, 'image')} of {name}" for name, split in packed.splits.items()]
        told.append(count(len(packed.classes), "class", "es"))
    told += [f"{count(n, 'bad image')} {what}" for what, n in (bad or {}).items() if n]
    print(f"{printable(str(folder))}: {', '.join(told)}{ending}")


def pack(args) -> int:
    """tools/make_data.py SOURCE --out=DIR"""
    name = name_for(args.source)
    kind = provider_class(name)
    if not issubclass(kind, Images) or issubclass(kind, Packed):
        raise UsageError(f"{printable(args.source)}: is {name}; what can be packed is images in "
                         "folders or tar files, ImageNet (docs/imagenet.md)")  # fmt: skip
    given = {"test_fraction": args.test_fraction, "on_bad_image": args.on_bad_image}
    given = {option: value for option, value in given.items() if value is not None}
    folder = Path(args.out)
    if Path(args.source).resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(f"--out={args.out}: is in the folder that it is made from")
    if folder.resolve() in Path(args.source).resolve().parents:
        raise UsageError(f"--out={args.out}: is a folder that {printable(args.source)} is in; name "
                         "another")  # fmt: skip
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(kind(args.source, 1, 3, DataOptions(workers=0, **given)))
        check_fraction(args.test_fraction, source)
        _add_unlabelled(source)
        packing = Packing(source, folder, args)
        stack.callback(packing.loader.close)
        if folder.is_file():
            raise UsageError(f"--out={args.out}: is a file; name a folder")
        if not folder.exists():
            stack.callback(_remove_empty, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_ours(folder)
            with _alone(folder):
                files.sweep(folder)
                packing.run()
        except OSError as e:
            raise UsageError(f"--out={args.out}: {files.advice(e)}") from None
    return 0


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # there is something in it, as there should be
        folder.rmdir()


def _check_ours(folder: Path) -> None:
    """UsageError for a folder of other things, among which a set would be hard to find."""
    names = os.listdir(folder)  # noqa: PTH208 (there may be many)
    begun = any(NAME.fullmatch(n) or n == LOCK or files.PART.fullmatch(n) for n in names)
    begun |= INDEX in names and FORMAT in (folder / INDEX).read_text("utf-8", "replace")
    others = [n for n in names if n[0] != "." and n != "lost+found"]  # which systems put there
    if others and not begun:
        raise UsageError(f"--out={folder}: holds other things, such as {printable(min(others))}; "
                         "name a new folder, or an empty one")  # fmt: skip


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others from packing into a folder: of two, each would take the other's shards away."""
    path = folder / LOCK
    try:
        file = files.locked(path)
    except files.Held as e:
        raise UsageError(f"--out={folder}: process {e} packs into this folder; wait for its end, "
                         "or name another folder") from None  # fmt: skip
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows deletes no file that is open
                path.unlink()


def _add_unlabelled(source: Images) -> None:
    """Let ILSVRC's test images, where there are some, be a split of their own."""
    if hasattr(source, "devkit") and (found := source.unlabelled("test")):
        source.splits[UNLABELLED] = found


def check(args) -> int:
    """tools/make_data.py --check=DIR: 0 if every image is as it was packed and can be decoded."""
    folder = Path(args.check)
    with Packed(str(folder), 1, 3, DataOptions(workers=0)) as packed:
        workers = loader.default_workers() if args.workers is None else args.workers
        with Loader(packed.viewer(Whole()), None, workers) as reader:
            bad = sum(_check_split(packed, name, reader) for name in packed.splits)
    for path in strays(folder, read_index(folder)["shards"]):
        print(f"{printable(str(path))}: is none of the shards that {INDEX} names; nothing reads it",
              file=sys.stderr)  # fmt: skip
    if bad:
        raise DataError(f"{printable(str(folder))}: {count(bad, 'bad image')}; delete the shards "
                        f"that hold them, {shards.AGAIN}")  # fmt: skip
    _tell(folder)
    return 0


@dataclass(frozen=True)
class Whole:
    """view(file, None): nothing, if the image can be decoded."""

    def __call__(self, file: io.BytesIO, draw: None) -> None:
        """Raises BadImage."""
        Decoded(3, 1)(file, draw)


def _check_split(packed: Packed, split: str, reader: Loader) -> int:
    """How many images of a split are bad; a line for each."""
    size = packed.splits[split].size
    images = [i for i in range(size) if packed.item(split, i).length]  # others were bad before
    parts = [images[i : i + FEW] for i in range(0, len(images), FEW)]
    pieces = ([(packed.item(split, i), None) for i in part] for part in parts)
    wrong = 0
    with _bar(len(images), split) as bar:
        for part, (_, bad) in zip(parts, reader.run(pieces)):
            for n, why in bad.items():
                bar.write(f"{printable(packed.splits[split].keys[part[n]])}: {why}", sys.stderr)
            wrong += len(bad)
            bar.update(len(part))
    return wrong
