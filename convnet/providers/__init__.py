"""Where images come from: one file per data source, and the file name is its name.

A provider fills in the attributes below and `_read`, which makes raw views; what all of them share
is here: the order of an epoch, batches, the mean image, colour noise, bad images. The batches of
an epoch depend on the data, the options, seed and epoch, and on nothing else: neither on the
number of worker processes nor on the batch at which a run is taken up again.
"""

import contextlib
import hashlib
import importlib
import math
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from convnet import files, views
from convnet.cfg import nearest
from convnet.loader import Bad, BadImage, DataError

__all__ = ["BadImage", "Batch", "DataError", "DataOptions", "Provider", "Split", "name_for",
           "names", "provider_class"]  # fmt: skip

MEAN_OF = 10_000  # images whose mean is the mean image, at most
SPLITS = ("train", "test")


def names() -> list[str]:
    """The names of all providers: the files of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def provider_class(name: str) -> type["Provider"]:
    """The class of convnet/providers/<name>.py. Raises DataError where there is no such file."""
    if name not in names():
        raise DataError(f"no data provider {name!r}{nearest(name, names())}; has {names()}")
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Provider) and c.__module__ == module.__name__
    )


def name_for(path: str | None) -> str:
    """The provider that recognises what is at a path; for what none does, "images".

    Raises DataError where it cannot be looked at.
    """
    try:
        return next((name for name in names() if provider_class(name).recognises(path)), "images")
    except OSError as e:
        raise DataError(f"{printable(str(path))}: {files.unread(e) or e}") from None


@dataclass(frozen=True)
class DataOptions:
    """How images are read and varied; the defaults are those of the SPP-net paper."""

    seed: int = 0  # of order and augmentation; 0 or more
    crop: str = "random"  # for training: "random" place, one of centre and "corners", or "centre"
    mirror: bool | None = None  # mirror half of the training images; None: if it suits the data
    color_noise: float | None = None  # std of AlexNet's alpha, 0: none; None: what suits the data
    test_fraction: float = 0.2  # of every class, where the data has no test set of its own
    split_seed: int = 0  # draws that test set; not `seed`, so that all runs share one test set
    workers: int | None = None  # processes that decode; 0: none; None: min(cores, 4)
    on_bad_image: str = "skip"  # or "stop"
    resize_to: int | None = None  # shorter side before cropping; None: see the provider

    def check(self) -> None:
        """Raises DataError for a value that is none."""
        for name, words in ("crop", views.CROPS), ("on_bad_image", ("skip", "stop")):
            if getattr(self, name) not in words:
                raise DataError(f"{name}={getattr(self, name)}: must be one of {', '.join(words)}")
        if not 0 < self.test_fraction < 1:
            raise DataError(f"test_fraction={self.test_fraction}: must be between 0 and 1")
        for name in ("seed", "split_seed", "workers", "color_noise"):
            if (getattr(self, name) or 0) < 0:
                raise DataError(f"{name}={getattr(self, name)}: must be 0 or more")


class Split(NamedTuple):
    """The images of training or test: what they show, int64, and what they are called.

    A label of -1 says that nobody has told what the image shows.
    """

    labels: np.ndarray
    keys: Sequence[str]

    @property
    def size(self) -> int:
        """How many images."""
        return len(self.labels)


class Batch(NamedTuple):
    """Some images, ready for the net."""

    images: np.ndarray  # (n, S, S, C) float32, 0 to 255 minus the mean image
    labels: np.ndarray  # (n,) int32
    indices: np.ndarray  # (n,) int64, which images of the split
    number: int  # of the batch in its epoch, from 0


class Provider:
    """A data set. Subclasses set classes, size, channels, splits and fingerprint.

    One whose data has images to test with of its own sets divided to False, so that a test_fraction
    that is given, and would mean nothing, is refused.
    """

    mirror = True  # whether mirrored images show the same class
    noise = 0.1  # what color_noise=None means
    divided = True  # whether options.test_fraction may say what is tested with
    piece: int | None = None  # most images that _read is asked for at once; None: a whole batch

    classes: list[str]
    size: int  # side S of what the net gets, in pixels
    channels: int  # 1 or 3
    splits: dict[str, Split]
    fingerprint: str  # changes when images or labels do

    def __init__(self, path: str | None, size: int | None, channels: int | None,
                 options: DataOptions | None = None):  # fmt: skip
        """Find the data; decode next to nothing. Raises DataError.

        size: side of the net's input, None for the data's own; channels: 1, 3, None likewise.
        """
        self.options = options or DataOptions()
        self.options.check()
        if size is not None and size < 1:
            raise DataError(f"size={size}: must be 1 or more")
        if channels not in (None, 1, 3):
            raise DataError(f"channels={channels}: images have 1 (grey) or 3 (colour)")
        self.bad: dict[str, str] = {}  # key of a bad image -> what is wrong
        self.warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
        self._mean: np.ndarray | None = None
        self._pca: tuple[np.ndarray, np.ndarray] | None = None
        self.path = path
        try:
            self._open(path, size, channels)
        except OSError as e:  # of a folder, of which there may be many
            where = printable(str(e.filename or path))
            raise DataError(f"{where}: {files.unread(e) or e}") from None
        if self.options.resize_to is not None and self.options.resize_to < self.size:
            raise DataError(
                f"resize_to={self.options.resize_to}: smaller than the net's input, {self.size}"
            )

    @classmethod
    def recognises(cls, path: str | None) -> bool:
        """Whether what is at a path looks like data of this kind, and of no other."""
        return False

    def test_with(self, name: str) -> None:
        """Let `test` be other images than those that runs are tested with. Raises DataError."""
        raise DataError(f"--split={name}: only ImageNet's own layout has a split of this name "
                        "(--data-provider=ilsvrc)")  # fmt: skip

    def _open(self, path: str | None, size: int | None, channels: int | None) -> None:
        """Set the attributes of the class."""
        raise NotImplementedError

    def _read(self, split: str, jobs: Iterable[tuple]) -> Iterator[tuple[np.ndarray, Bad]]:
        """For each job (indices, draws or None): (raw views (n, S, S, C), {position: reason}).

        draws None asks for the centre view. The array may be overwritten at the next job; its
        values are 0 to 255, uint8 or float32, its channels 1 or `channels`.
        """
        raise NotImplementedError

    def _image(self, split: str, index: int) -> np.ndarray:
        """One image as it is stored, uint8 (H, W, channels). Raises BadImage."""
        raise NotImplementedError

    def close(self) -> None:
        """End worker processes, if there are any; the provider is of no use afterwards."""

    def __enter__(self) -> "Provider":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def fit(self) -> int:
        """The shorter side that an image is resized to before views of the net's size are cut."""
        return self.options.resize_to or views.default_fit(self.size)

    @property
    def train(self) -> Split:
        """The images to train on."""
        return self.splits["train"]

    @property
    def test(self) -> Split:
        """The images to test with."""
        return self.splits["test"]

    def batch_count(self, split: str, batch_size: int) -> int:
        """Batches of an epoch, a last short one included."""
        return math.ceil(self.splits[split].size / batch_size)

    def batches(self, split: str, batch_size: int, epoch: int = 0, start: int = 0,
                train: bool | None = None, size: Callable[[int], int] | None = None,
                empty: Callable = np.empty) -> Iterator[Batch]:  # fmt: skip
        """The batches of one epoch from number `start` on, a last short one included.

        train (default: split == "train"): in random order and augmented; else in file order and
        the centre of each image. size(number of the batch): the views of side S, and the mean,
        resized to this side, as multi-size training does. A bad image is left out of its batch, and
        a batch of nothing but bad images is left out. empty(shape, dtype) gives the memory of
        Batch.images. Raises DataError.
        """
        train = split == "train" if train is None else train
        seed, total = self.options.seed, self.splits[split].size
        noise = self._noise if train else 0.0
        pca = self.pca if noise else None
        means = {self.size: self.mean}
        order = self.mixed(split, epoch) if train else np.arange(total)
        chunks = [order[i : i + batch_size] for i in range(0, total, batch_size)][start:]
        parts = (part for chunk in chunks for part in self._parts(chunk))
        jobs = ((part, views.draws(seed, epoch, part) if train else None) for part in parts)
        with contextlib.closing(self._read(split, jobs)) as reader:
            kept = 0
            for number, chunk in enumerate(chunks, start):
                side = size(number) if size else self.size
                if side not in means:
                    means[side] = views.warp_mean(self.mean, side, side)
                images = empty((len(chunk), side, side, self.channels), np.float32)
                good: list[int] = []
                for part in self._parts(chunk):
                    raw, bad = next(reader)
                    keep = self._good(split, part, bad)
                    if not keep:
                        continue
                    raw = raw if len(keep) == len(raw) else raw[keep]
                    rows = images[len(good) : len(good) + len(keep)]
                    rows[...] = self._sized(raw, side)
                    rows -= means[side]
                    if noise:
                        shift = views.colour_noise(views.draws(seed, epoch, part), pca, noise)
                        rows += shift[keep, None, None]
                    good += part[keep].tolist()
                kept += len(good)
                if good:
                    labels = self.splits[split].labels[good].astype(np.int32)
                    yield Batch(images[: len(good)], labels, np.array(good), number)
        if not kept and not start:
            raise DataError(f"{self.path}: no image of {split} can be read")

    def images(self, split: str, indices: Iterable[int]) -> list[np.ndarray | None]:
        """The images at full size, each uint8 (H, W, channels); None for a bad one."""
        found = []
        for index in indices:
            try:
                found.append(self._image(split, index))
            except BadImage as e:
                self.report(split, index, str(e))
                found.append(None)
        return found

    def seen(
        self, which: Sequence[tuple[str, int]], look: Callable[[np.ndarray], Sequence[np.ndarray]]
    ) -> Iterator[tuple[int, Sequence[np.ndarray]]]:
        """(position in `which`, look(image)) of images (split, index) at full size, in order.

        A bad image is left out. look may be called in another process. Raises DataError.
        """
        for position, (split, index) in enumerate(which):
            try:
                yield position, look(self._image(split, index))
            except BadImage as e:
                self.report(split, index, str(e))

    @property
    def mean(self) -> np.ndarray:
        """The mean of the centre views of (at most 10,000) training images, float32 (S, S, C)."""
        if self._mean is None:
            self._measure()
        return self._mean

    @mean.setter
    def mean(self, value: np.ndarray | float) -> None:
        """Use this mean: an image (S, S, C), a number for each channel, or one number."""
        shape = (self.size, self.size, self.channels)
        try:
            self._mean = np.broadcast_to(np.asarray(value, np.float32), shape)
        except ValueError:
            raise DataError(f"the mean image is {np.shape(value)}, the input {shape}") from None

    @property
    def pca(self) -> tuple[np.ndarray, np.ndarray]:
        """How colours vary in these images: (standard deviations (3,), directions (3, 3))."""
        if self._pca is None:
            self._measure()
        return self._pca

    @pca.setter
    def pca(self, value: tuple[np.ndarray, np.ndarray]) -> None:
        self._pca = value

    def _measure(self) -> None:
        """Compute what is not known of mean and pca, in one pass."""
        few = views.spread(self.train.size, MEAN_OF)
        parts = [p for i in range(0, len(few), 256) for p in self._parts(few[i : i + 256])]
        total = np.zeros((self.size, self.size, self.channels))
        square, count = np.zeros((self.channels, self.channels)), 0
        with contextlib.closing(self._read("train", ((p, None) for p in parts))) as reader:
            for part in parts:
                raw, bad = next(reader)
                good = self._good("train", part, bad)
                total += raw[good].sum(axis=0, dtype=np.float64)
                pixels = raw[good].reshape(-1, raw.shape[3]).astype(np.float32) / 255
                square += (pixels.T @ pixels).astype(np.float64) * 255**2
                count += len(good)
        if not count:
            raise DataError(f"{self.path}: no image of train can be read")
        if self._mean is None:
            self._mean = (total / count).astype(np.float32)
        if self._pca is None and self.channels == 3:
            colour = total.sum(axis=(0, 1)) / (count * self.size**2)
            outer = np.outer(colour, colour)
            self._pca = views.principal(square / (count * self.size**2) - outer)

    @property
    def _noise(self) -> float:
        given = self.options.color_noise
        return 0.0 if self.channels == 1 else self.noise if given is None else given

    @property
    def mirrors(self) -> bool:
        """Whether training mirrors half of the images, and a test may mirror views."""
        return self.mirror if self.options.mirror is None else self.options.mirror

    def mixed(self, split: str, epoch: int) -> np.ndarray:
        """The order of the images in an epoch of training."""
        rng = np.random.default_rng([self.options.seed, epoch])
        return rng.permutation(self.splits[split].size)

    def _parts(self, chunk: np.ndarray) -> list[np.ndarray]:
        step = self.piece or len(chunk)
        return [chunk[i : i + step] for i in range(0, len(chunk), step)]

    def _good(self, split: str, part: np.ndarray, bad: Bad) -> list[int]:
        """The positions in `part` of what is not bad; reports what is."""
        for i, why in bad.items():
            self.report(split, part[i], why)
        return [i for i in range(len(part)) if i not in bad]

    def report(self, split: str, index: int, why: str) -> None:
        """Say once that an image is bad; DataError where that is to stop the run."""
        self._report(self.splits[split].keys[index], why)

    def _report(self, key: str, why: str) -> None:
        if key in self.bad:
            return
        self.bad[key] = why
        line = f"{printable(key)}: {why}"
        if self.options.on_bad_image == "stop":
            raise DataError(line)
        self.warn(f"bad image left out: {line}")

    @staticmethod
    def _sized(raw: np.ndarray, size: int) -> np.ndarray:
        """The views (n, S, S, C), each resized to this side if that is another."""
        if raw.shape[1] == size:
            return raw
        whole = np.rint(raw).astype(np.uint8)
        return np.stack([views.resize(view, size, size) for view in whole])


def printable(name: str) -> str:
    """A file name on one line: as it is, or quoted where it holds a newline or worse."""
    return name if name.isprintable() else ascii(name)


def stratified(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices for training and for testing, each in order: `fraction` of each class for testing.

    The whole is rounded up, the classes such that they add up to it (largest remainder). A class
    of two or more has images on both sides.
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * fraction
    take = np.floor(exact).astype(int)
    missing = math.ceil(round(exact.sum(), 6)) - take.sum()
    take[np.argsort(take - exact, kind="stable")[:missing]] += 1
    take = np.clip(take, np.minimum(1, counts - 1), counts - 1)
    test = np.zeros(len(labels), bool)
    for c, n in zip(classes, take):
        of_class = np.flatnonzero(labels == c)
        test[np.random.default_rng([seed, int(c)]).permutation(of_class)[:n]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def fingerprint(*parts: Iterable) -> str:
    """A short hash of names, sizes, labels or arrays; equal data gives an equal one."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part))
        else:
            text = "\0".join(map(str, part))
            digest.update(text.encode("utf-8", "surrogateescape"))
        digest.update(b"\0\0")
    return digest.hexdigest()[:16]
