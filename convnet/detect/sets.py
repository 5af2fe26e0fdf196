"""A detection set: photos, and where on them are objects of which classes."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from convnet.loader import BadImage, DataError
from convnet.providers import fingerprint, printable
from convnet.providers._decode import SIDEWAYS, decode, pixels, turned_by


@dataclass(frozen=True)
class Photo:
    """A photo and the objects on it: boxes (N, 4) as in convnet/detect, labels (N,) from 0.

    name: as lists and result files of the set have it. difficult: (N,) bool, objects that are hard
    to tell; a detector neither gains nor loses by them (VOC's difficult, COCO's crowds). unknown:
    classes of which the photo may show objects without a box (the blacklist of ILSVRC); a detection
    of them counts neither way. number: of the photo in the set's own files, where it has one.
    """

    name: str
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    unknown: frozenset[int] = frozenset()
    number: int | None = None

    def pixels(self) -> np.ndarray:
        """The photo as uint8 (height, width, 3). DataError where the file is not what it was."""
        try:
            picture, size = decode(str(self.path), 3)
        except BadImage as e:
            raise DataError(f"{printable(str(self.path))}: {e}") from None
        if size != (self.height, self.width):
            raise DataError(
                f"{printable(str(self.path))}: is {size[1]}x{size[0]} pixels; its boxes are for "
                f"{self.width}x{self.height}"
            )
        return pixels(picture)

    @cached_property
    def mark(self) -> str:
        """Changes when the file does. DataError where it cannot be read."""
        try:
            data = self.path.read_bytes()
        except OSError as e:
            raise DataError(f"{printable(str(self.path))}: {e.strerror.lower()}") from None
        return f"{len(data)}-{zlib.crc32(data):08x}"

    @property
    def easy(self) -> np.ndarray:
        """(N,) bool: the objects that are not difficult."""
        return ~self.difficult


@dataclass(frozen=True)
class InMemory(Photo):
    """A photo of which the pixels, uint8 (height, width, 3), are there already."""

    picture: np.ndarray | None = None

    def pixels(self) -> np.ndarray:
        """The photo as uint8 (height, width, 3)."""
        return self.picture


@dataclass(frozen=True)
class DetectionSet:
    """Photos of one kind; `classes` by name, label c is classes[c].

    numbers: of the classes in the set's own files, where they have any (COCO, ILSVRC). kind: voc,
    coco, ilsvrc or photos, which says how it is evaluated and what its result files look like.
    """

    name: str
    classes: list[str]
    photos: list[Photo]
    kind: str = "photos"
    numbers: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)  # on what is odd in it, for the user

    def count(self) -> np.ndarray:
        """(classes,) objects of each class that are not difficult."""
        found = [photo.labels[photo.easy] for photo in self.photos]
        return np.bincount(np.concatenate([*found, []]).astype(int), minlength=len(self.classes))

    @property
    def fingerprint(self) -> str:
        """Changes when a photo's name, size, length of its file or objects do."""
        rows = [(p.name, p.width, p.height, p.path.stat().st_size) for p in self.photos]
        objects = [(p.boxes, p.labels, p.difficult) for p in self.photos]
        return fingerprint(self.classes, rows, *(a for of_one in objects for a in of_one))


def limited(photos: DetectionSet, most: int, seed: int = 0) -> DetectionSet:
    """At most so many photos of each class, drawn with a seed (R-CNN takes 1,000 of ILSVRC's)."""
    order = np.random.default_rng(seed).permutation(len(photos.photos))
    have, keep = np.zeros(len(photos.classes), int), []
    for i in order:
        shown = np.unique(photos.photos[i].labels)
        if len(shown) and (have[shown] < most).any():
            have[shown] += 1
            keep.append(i)
    return replace(photos, photos=[photos.photos[i] for i in sorted(keep)])


def no_objects() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels and difficult of a photo without any."""
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)


def of_photos(paths: Iterable[str | Path], classes: list[str]) -> DetectionSet:
    """Photos of which nobody knows what is on them. DataError where one cannot be read."""
    found = []
    for path in map(Path, paths):
        try:
            height, width = decode(str(path), 3, least=1)[1]
        except BadImage as e:
            raise DataError(f"{printable(str(path))}: {e}") from None
        found.append(Photo(path.stem, path, width, height, *no_objects()))
    return DetectionSet("photos", classes, found)


class Notes:
    """What is odd in a set: a line for each kind, with the first place and how many there are."""

    def __init__(self):
        self.found: dict[str, list[str]] = {}

    def add(self, what: str, where: str) -> None:
        """Something of a kind at a place."""
        self.found.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        """One for each kind."""
        return [
            f"{where[0]}: {what}" + (f", and in {len(where) - 1} more" if len(where) > 1 else "")
            for what, where in self.found.items()
        ]


def objects(
    rows: list[tuple[list[float], int, bool]], size: tuple[int, int], where: str, notes: Notes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels and difficult of (box, label, difficult) rows on a photo of (width, height).

    Boxes are cut to the photo, and left out where nothing is left of them; both are noted.
    """
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    edges = np.array([*size, *size], np.float32)
    inside = np.clip(boxes, 0, edges)
    if (inside != boxes).any():
        notes.add("a box reaches outside of the photo and was cut", where)
    stay = (inside[:, 2:] > inside[:, :2]).all(1) & np.isfinite(boxes).all(1)
    if not stay.all():
        notes.add("a box without an inside on the photo was left out", where)
    labels = np.array([row[1] for row in rows], np.int32)
    difficult = np.array([row[2] for row in rows], bool)
    return inside[stay], labels[stay], difficult[stay]


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of an image by its header, turned as its EXIF tag says. DataError."""
    try:
        with Image.open(path) as picture:
            size = picture.size
            return size[::-1] if turned_by(picture) in SIDEWAYS else size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        why = "no such file" if isinstance(e, FileNotFoundError) else "cannot be read as an image"
        raise DataError(f"{printable(str(path))}: {why}") from None
