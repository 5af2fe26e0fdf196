"""A folder of pictures: JPEG, PNG, BMP, WebP, GIF, TIFF or PNM, of any size and mode.

    photos/train/cat/1.jpg  photos/train/dog/..  photos/test/cat/..     (or val/ for test/)
    photos/cat/1.jpg        photos/dog/..           one fifth of each class is kept for testing

The folders are the classes, in order of their names; a class may have folders of its own. Each
image is fitted and cropped as `Reader` says (convnet/providers/_decode.py), in worker processes.
Small images that need no resizing, such as CIFAR's as files, are decoded once and stay in memory.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnet import loader
from convnet.cfg import nearest
from convnet.loader import FEW, Bad, BadImage, DataError, Loader
from convnet.providers import Provider, Split, fingerprint, printable, stratified
from convnet.providers._decode import OTHER_SIZE, SUFFIXES, Decoded, Reader, Seen, Whole, pixels
from convnet.providers._memory import Frame
from convnet.providers._tree import Disk

SMALL = 64  # pixels; images with sides up to this may stay in memory
MOST = 512 << 20  # bytes of memory for them, in both splits together
PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")  # archives, mostly
MANY = 200  # images that are read sooner by processes, a second for their start included


class Images(Provider):
    divided = False  # until it is
    piece = loader.PIECE

    def _open(self, path, size, channels):
        self.channels = channels or 3
        self._loader: Loader | None = None
        self._small: dict[str, tuple[np.ndarray, Bad] | None] = {}
        if not path:
            raise DataError(f"{type(self).__name__.lower()}: needs the folder that holds them")
        self._root = Path(path)
        self._tree = self._found()
        self._list()
        self._side = self._probe()
        if not size and not self._side:
            raise DataError(f"{printable(path)}: the images have no common size; set imgSize=")
        self.size = size or self._side

    def _found(self) -> Disk:
        """Where the images are. Raises DataError."""
        if not self._root.is_dir():
            why = "a file, not a folder" if self._root.exists() else "no such folder"
            if self._root.is_file() and self._root.name.lower().endswith(PACKED):
                why += "; unpack it into one"
                why += " (a .tar that is not compressed is read as it is)"
            raise DataError(f"{printable(self.path)}: {why}")
        return Disk(self._root)

    def _list(self) -> None:
        """Set classes, splits and fingerprint."""
        found = self._both() if self._tree.has("train") else self._divided(self._classes(""))
        self.classes = list(found["train"])
        self.splits = {split: self._split(found[split]) for split in ("train", "test")}
        sizes = [str(n) for split in found.values() for files in split.values() for _, n in files]
        about = [sizes, self.classes]
        for split in self.splits.values():
            about += [split.keys, split.labels]
        self.fingerprint = fingerprint(*about)

    def _both(self) -> dict:
        """{split: {class: files}} of a folder with train/ and test/ or val/."""
        train = self._classes("train")
        other = next((name for name in ("test", "val") if self._tree.folders(name)), None)
        if other is None:
            return self._divided(train)
        test = self._classes(other)
        for name in test:
            if name not in train:
                known = nearest(name, train)
                where = printable(str(self._root / other / name))
                raise DataError(f"{where}: no such class in train{known}")
        return {"train": train, "test": test}

    def _classes(self, path: str) -> dict[str, list[tuple[str, int]]]:
        """{class: [(path, bytes) of each image]} of a folder of folders, all sorted by name."""
        names = self._tree.folders(path)
        found = {name: self._tree.files(str(Path(path, name))) for name in names}
        self._report_broken()
        where = printable(str(self._root / path))
        if not found:
            flat = "; images must be in one folder for each class" if self._tree.files(path) else ""
            raise DataError(f"{where}: no folder of images in it{flat}")
        for name, files in found.items():
            if not files:
                raise DataError(f"{where}/{printable(name)}: no image in it ({' '.join(SUFFIXES)})")
        if tars := self._tree.tars(path):
            others = f" and {len(tars) - 1} more" if len(tars) > 1 else ""
            self.warn(f"{where}: {printable(tars[0])}{others} left out, as there are folders, too; "
                      "unpack it into one")  # fmt: skip
        if len(found) == 1:
            only = printable(*found)
            raise DataError(f"{where}: only one class, {only}; it takes two to classify")
        return found

    def _report_broken(self) -> None:
        """Tell of links that lead nowhere, as of bad images; the fingerprint knows none of them."""
        for key, why in self._tree.broken.items():
            self._report(key, why)

    def _divided(self, classes: dict) -> dict:
        """{split: {class: files}}: a part of each class is for testing."""
        self.divided = True
        lone = next((name for name, files in classes.items() if len(files) < 2), None)
        if lone is not None:
            raise DataError(f"{printable(self.path)}: class {printable(lone)} has one image; "
                            "it takes two, one of them to test with")  # fmt: skip
        names = [name for name, files in classes.items() for _ in files]
        files = [file for of_class in classes.values() for file in of_class]
        labels = np.unique(names, return_inverse=True)[1]
        sides = stratified(labels, self.options.test_fraction, self.options.split_seed)
        found = {}
        for split, side in zip(("train", "test"), sides):
            found[split] = {name: [] for name in classes}
            for i in side:
                found[split][names[i]].append(files[i])
        return found

    def _split(self, classes: dict[str, list]) -> Split:
        label = {name: i for i, name in enumerate(self.classes)}
        labels = [label[name] for name, files in classes.items() for _ in files]
        keys = [path for files in classes.values() for path, _ in files]
        return Split(np.array(labels, np.int64), keys)

    def item(self, split: str, index: int) -> Any:
        """The path of an image, or where else a process that decodes it finds it: see viewer."""
        return os.path.join(self._root, self.splits[split].keys[index])  # noqa: PTH118 (speed)

    def changed(self, split: str, index: int) -> int:
        """When an image was written or put where it is, in ns."""
        return self._tree.changed(self.splits[split].keys[index])

    def viewer(self, view: Callable) -> Callable:
        """view(item(...), draw), given a view of what Pillow opens."""
        return view

    def _decode(self, split: str, index: int, least: int | None = None) -> tuple:
        """As decode, of an image of the set. Raises BadImage."""
        return self.viewer(Decoded(self.channels, least))(self.item(split, index), None)

    def _probe(self) -> int | None:
        """Decode one image of each class; the side S if all of them are S x S.

        Raises DataError for a class without an image that can be read.
        """
        sizes = set()
        begins = np.searchsorted(self.train.labels, range(len(self.classes) + 1))
        for label, name in enumerate(self.classes):
            for index in range(*begins[label : label + 2]):
                try:
                    sizes.add(self._decode("train", index, least=1)[1])
                    break
                except BadImage as e:
                    self.report("train", index, str(e))
            else:
                raise DataError(f"{printable(self.path)}: no image of class {printable(name)} "
                                "can be read")  # fmt: skip
        h, w = sizes.pop()
        return h if not sizes and h == w else None

    def _read(self, split: str, jobs: Iterable[tuple]) -> Iterator[tuple[np.ndarray, Bad]]:
        small = self._in_memory(split)
        if small is None:
            yield from self._read_files(split, jobs)
            return
        o, (images, bad) = self.options, small
        frame = Frame(self._side, self.size, o.resize_to, o.crop, self.mirrors)
        for indices, draws in jobs:
            here = {i: bad[index] for i, index in enumerate(indices) if index in bad}
            yield frame.cut(images[indices], draws), here

    def _read_files(self, split: str, jobs: Iterable[tuple]) -> Iterator[tuple[np.ndarray, Bad]]:
        if self._loader is None:
            o, shape = self.options, (self.size, self.size, self.channels)
            view = Reader(self.size, self.channels, o.resize_to, o.crop, self.mirrors)
            self._loader = Loader(self.viewer(view), shape, self._workers)
        yield from self._loader.run(
            [(self.item(split, i), None if draws is None else draws[n])
             for n, i in enumerate(indices)]
            for indices, draws in jobs
        )  # fmt: skip

    def _in_memory(self, split: str) -> tuple[np.ndarray, Bad] | None:
        """(all images of the split, {index: reason}) if they are small and need no resizing."""
        if split not in self._small:
            self._small[split] = self._load(split) if self._can_stay else None
        return self._small[split]

    @property
    def _can_stay(self) -> bool:
        side, total = self._side, self.train.size + self.test.size
        if not side or side > SMALL or total * side * side * self.channels > MOST:
            return False
        return side == (self.options.resize_to or self.size)

    def _load(self, split: str) -> tuple[np.ndarray, Bad] | None:
        n, side, bad = self.splits[split].size, self._side, {}
        images = np.empty((n, side, side, self.channels), np.uint8)
        starts = range(0, n, self.piece)
        pieces = ([(self.item(split, i), None) for i in range(s, min(n, s + self.piece))]
                  for s in starts)  # fmt: skip
        workers = self._workers if n > 1000 else 0  # a process takes a second to start
        view = self.viewer(Whole(side, self.channels))
        with Loader(view, images.shape[1:], workers) as small:
            for start, (part, wrong) in zip(starts, small.run(pieces)):
                images[start : start + len(part)] = part
                bad |= {start + i: why for i, why in wrong.items()}
        return None if OTHER_SIZE in bad.values() else (images, bad)

    @property
    def _workers(self) -> int:
        given = self.options.workers
        return loader.default_workers() if given is None else given

    def _image(self, split: str, index: int) -> np.ndarray:
        return pixels(self._decode(split, index)[0])

    def seen(
        self, which: Sequence[tuple[str, int]], look: Callable[[np.ndarray], Sequence[np.ndarray]]
    ) -> Iterator[tuple[int, Sequence[np.ndarray]]]:
        """As of Provider, with worker processes."""
        workers = self._workers if self.options.workers or len(which) >= MANY else 0
        parts = [range(i, min(i + FEW, len(which))) for i in range(0, len(which), FEW)]
        pieces = ([(self.item(*which[i]), None) for i in part] for part in parts)
        with Loader(self.viewer(Seen(look, self.channels)), None, workers) as reader:
            for part, (made, bad) in zip(parts, reader.run(pieces)):
                for n, position in enumerate(part):
                    if n in bad:
                        self.report(*which[position], bad[n])
                    else:
                        yield position, made[n]

    def close(self) -> None:
        """End the worker processes."""
        if self._loader:
            self._loader.close()
