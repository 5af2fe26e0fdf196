"""What is wrong with the detections that are wrong (Hoiem, Chodpathumwan, Dai 2012).

Of the best n detections of a class, n its objects:

correct        overlap with an object of it by at least 0.5, each object once
localisation   overlap by 0.1 to 0.5, or an object that is taken already
similar        overlap of at least 0.1 with an object of a class like it
other          overlap of at least 0.1 with an object of any other class
background     the rest
"""

from collections.abc import Mapping, Sequence

import numpy as np

from convnet.detect.boxes import overlap
from convnet.detect.detections import Found
from convnet.detect.evaluate import IGNORED, RIGHT, judge
from convnet.detect.sets import DetectionSet

KINDS = ("correct", "localisation", "similar", "other", "background")
LEAST = 0.1

VOC = (
    ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    ("bird", "cat", "cow", "dog", "horse", "person", "sheep"),
    ("chair", "diningtable", "sofa"),
    ("aeroplane", "bird"),
)  # what is like what, of VOC's classes: vehicles, animals and people, furniture, what flies


def likes(classes: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """The classes like each: of VOC's by the table above, of others none."""
    return {
        name: frozenset(other for group in VOC if name in group for other in group) - {name}
        for name in classes
    }


def shares(
    photos: DetectionSet, found: list[Found], similar: Mapping[str, frozenset[str]] | None = None
) -> np.ndarray:
    """(classes, KINDS) share of each kind among the best detections; NaN without any."""
    similar = likes(photos.classes) if similar is None else similar
    counts, made = photos.count(), np.full((len(photos.classes), len(KINDS)), np.nan)
    for c, name in enumerate(photos.classes):
        like = [photos.classes.index(o) for o in similar.get(name, ()) if o in photos.classes]
        rows = [_kinds(p, f, c, like) for p, f in zip(photos.photos, found)]
        scores = np.concatenate([s for s, _ in rows])
        kinds = np.concatenate([k for _, k in rows])[np.argsort(-scores, kind="stable")]
        kinds = kinds[: counts[c]]
        if len(kinds):
            made[c] = np.bincount(kinds, minlength=len(KINDS)) / len(kinds)
    return made


def _kinds(photo, found: Found, c: int, like: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(scores, kinds) of the detections of a class on a photo that count."""
    scores, verdicts = judge(photo, found, c, "area", 0.5)
    mine = found.labels == c
    order = np.argsort(-found.scores[mine].astype(np.float64), kind="stable")
    boxes = found.boxes[mine][order]
    every = overlap(boxes, photo.boxes)

    def near(labels) -> np.ndarray:
        there = every[:, np.isin(photo.labels, labels)]
        return there.max(1, initial=0) >= LEAST

    others = [o for o in np.unique(photo.labels) if o != c and o not in like]
    kinds = np.select(
        [verdicts == RIGHT, near([c]), near(like), near(others)], [0, 1, 2, 3], default=4
    )
    stay = verdicts != IGNORED
    return scores[stay], kinds[stay]
