"""How many of the objects proposals find: share of objects that one of the first n overlaps."""

from collections.abc import Callable

import numpy as np

from convnet.detect.boxes import overlap
from convnet.detect.sets import DetectionSet, Photo

OVERLAPS = (0.5, 0.6, 0.7, 0.8, 0.9)
COUNTS = (10, 50, 100, 500, 1000, 2000, 5000, 10_000)


def recall(
    photos: DetectionSet, boxes_of: Callable[[Photo], np.ndarray]
) -> tuple[list[int], np.ndarray]:
    """(numbers of boxes, the last as many as the photo with most has; (numbers, OVERLAPS) recall).

    Difficult objects do not count. NaN in a set without objects.
    """
    best, most = [], 0
    for photo in photos.photos:
        boxes = boxes_of(photo)
        most = max(most, len(boxes))
        objects = photo.boxes[photo.easy]
        if not len(objects):
            continue
        reached = np.zeros((len(COUNTS) + 1, len(objects)))
        if len(boxes):
            running = np.maximum.accumulate(overlap(boxes, objects), 0)
            ends = np.minimum([*COUNTS, len(boxes)], len(boxes)) - 1
            reached = running[ends]
        best.append(reached)
    rows = [i for i, n in enumerate(COUNTS) if n < most]
    every = np.concatenate(best, 1) if best else np.full((len(COUNTS) + 1, 1), np.nan)
    shares = np.stack([np.where(np.isnan(every), np.nan, every >= at).mean(1)
                       for at in OVERLAPS], 1)  # fmt: skip
    return [*(COUNTS[i] for i in rows), most], shares[[*rows, -1]]


def table(photos: DetectionSet, boxes_of: Callable[[Photo], np.ndarray]) -> str:
    """A line for each number of boxes."""
    counts, shares = recall(photos, boxes_of)
    rows = [f"{'boxes':>7}  recall at an overlap of " + "  ".join(f"{at:5}" for at in OVERLAPS)]
    for n, row in zip(counts, shares):
        rows.append(f"{n:7,}  {'':24}" + "  ".join(f"{100 * share:5.1f}" for share in row))
    return "\n".join(rows)
