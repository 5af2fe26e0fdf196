"""Which windows of the photos the net is fine-tuned on (SPP-net, section 4.2; Fast R-CNN, 2.3)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from convnet.detect.boxes import encoded, overlap
from convnet.detect.sets import DetectionSet, Photo
from convnet.loader import DataError

STD = np.array([0.1, 0.1, 0.2, 0.2])  # what targets of boxes are divided by, to be of order 1


@dataclass(frozen=True)
class Recipe:
    """How windows are drawn, and at which rates the net learns, for so many batches each."""

    stages: tuple[tuple[float, int], ...]
    random_scale: bool  # a window at any of the scales, not at the one that serves it
    batch: int = 128
    share: float = 0.25  # of a batch that shows objects
    object_from: float = 0.5  # least overlap with an object to be one
    ground: tuple[float, float] = (0.1, 0.5)  # overlaps of what is background, the last excluded
    mirrors: bool = True
    each: int = 64  # windows of one photo, at most

    @property
    def batches(self) -> int:
        """How many there are."""
        return sum(count for _, count in self.stages)

    @property
    def objects(self) -> int:
        """Windows of a batch that show objects."""
        return round(self.batch * self.share)


RECIPES = {  # short: for sets of some hundred photos, and for a CPU
    "short": Recipe(((1e-2, 1500), (1e-3, 500)), True),
    "release": Recipe(((1e-3, 30_000), (1e-4, 30_000), (1e-5, 140_000)), True),
    "paper": Recipe(((1e-4, 250_000), (1e-5, 50_000)), False, mirrors=False),
}


class Labelled(NamedTuple):
    """Boxes of a photo, its objects first, and what they show."""

    boxes: np.ndarray  # (N, 4)
    labels: np.ndarray  # (N,) class of the object that each overlaps most, from 0; -1 for none
    best: np.ndarray  # (N,) that overlap
    objects: np.ndarray  # (N, 4) that object; the box itself where there is none


def candidates(photo: Photo, proposals: np.ndarray) -> np.ndarray:
    """Objects and proposals of a photo, (N, 4) float32."""
    return np.concatenate([photo.boxes, proposals]).astype(np.float32)


def labelled(photo: Photo, proposals: np.ndarray, difficult: bool) -> Labelled:
    """Objects and proposals of a photo. difficult: whether such objects count."""
    use = np.ones(len(photo.boxes), bool) if difficult else photo.easy
    boxes, objects = candidates(photo, proposals), photo.boxes[use]
    if not len(objects):
        return Labelled(boxes, np.full(len(boxes), -1), np.zeros(len(boxes)), boxes)
    found = overlap(boxes, objects)
    which = found.argmax(1)
    best = found[np.arange(len(boxes)), which]
    labels = np.where(best > 0, photo.labels[use][which], -1)
    return Labelled(boxes, labels, best, objects[which])


class Draw(NamedTuple):
    """Windows of one photo for fine-tuning, those of objects first."""

    photo: Photo
    mirror: bool
    boxes: np.ndarray
    labels: np.ndarray  # (n,) int32, background 0
    targets: np.ndarray  # (n, 4) float32, encoded over STD; 0 of the background
    objects: int  # how many of them show objects


class Draws:
    """Windows of photos in random order, the same ones for a seed wherever one begins.

    boxes_of: the proposals of a photo. DataError for a set of which no window shows an object or
    none the background.
    """

    def __init__(
        self,
        photos: DetectionSet,
        boxes_of: Callable[[Photo], np.ndarray],
        recipe: Recipe,
        seed: int,
        difficult: bool,
    ):
        self.photos, self.boxes_of, self.recipe = photos, boxes_of, recipe
        self.seed, self.difficult = seed, difficult
        if not any(len(p.boxes) for p in photos.photos):
            raise DataError(f"{photos.name}: no photo has an object; there is nothing to learn")

    def since(self, start: int) -> Iterator[Draw]:
        """Draws without end from number `start` on: photo after photo, pass after pass."""
        photos = self.photos.photos
        last = {"shows an object": start, "is background": start}  # draws that had one
        for number in range(start, 1 << 62):
            turn, at = divmod(number, len(photos))
            order = np.random.default_rng([self.seed, 11, turn]).permutation(len(photos))
            found = self._of(photos[order[at]], np.random.default_rng([self.seed, 12, number]))
            for kind, there in zip(last, (found.labels > 0, found.labels == 0)):
                last[kind] = number if there.any() else last[kind]
                if number - last[kind] > 2 * len(photos):
                    raise DataError(f"{self.photos.name}: no window {kind}; {self._why()}")
            yield found

    def _why(self) -> str:
        """Why windows of a kind may be missing."""
        low, high = self.recipe.ground
        if not self.difficult and not any(p.easy.any() for p in self.photos.photos):
            return "all objects are difficult; --difficult learns from these too"
        return (
            f"objects are overlapped by {self.recipe.object_from} and more, background by {low} to "
            f"{high}; are these the proposals of this set?"
        )

    def _of(self, photo: Photo, rng: np.random.Generator) -> Draw:
        recipe = self.recipe
        found = labelled(photo, self.boxes_of(photo), self.difficult)
        low, high = recipe.ground
        shows = np.flatnonzero((found.best >= recipe.object_from) & (found.labels >= 0))
        rest = np.flatnonzero((found.best >= low) & (found.best < high))
        most = round(recipe.each * recipe.share)
        shows = rng.permutation(shows)[:most]
        rest = rng.permutation(rest)[: recipe.each - most]
        at = np.concatenate([shows, rest])
        labels, targets = np.zeros(len(at), np.int32), np.zeros((len(at), 4), np.float32)
        labels[: len(shows)] = found.labels[shows] + 1
        targets[: len(shows)] = encoded(found.boxes[shows], found.objects[shows]) / STD
        mirror = recipe.mirrors and rng.random() < 0.5
        if mirror:
            targets[:, 0] *= -1
        return Draw(photo, mirror, found.boxes[at], labels, targets, len(shows))

    def scales(self, draw: Draw, number: int, count: int) -> np.ndarray | None:
        """A scale of `count` for each of its windows; None: the one that serves it."""
        if not self.recipe.random_scale or count == 1:
            return None
        return np.random.default_rng([self.seed, 13, number]).integers(0, count, len(draw.labels))
