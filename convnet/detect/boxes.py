"""Boxes, float32 (N, 4): left, top, right, bottom in pixels from 0, right and bottom excluded.

Widths are right - left, which for boxes of whole pixels is VOC's x2 - x1 + 1.
"""

import numpy as np

BLOCK = 256  # boxes whose overlaps with all others nms has at once


def from_voc(boxes: np.ndarray) -> np.ndarray:
    """Boxes of [x1, y1, x2, y2] counted from 1, the last pixel included, as VOC and MATLAB do."""
    return (np.reshape(boxes, (-1, 4)) - np.array([1, 1, 0, 0])).astype(np.float32)


def to_voc(boxes: np.ndarray) -> np.ndarray:
    """[x1, y1, x2, y2] counted from 1, the last pixel included."""
    return boxes + np.array([1, 1, 0, 0], np.float32)


def area(boxes: np.ndarray) -> np.ndarray:
    """(N,) pixels of each box; 0 for one that has no inside."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M): pixels that two boxes share, of those that one or the other has (IoU).

    In float64. 0 where both are without an inside.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    shared = _common(a, b, 0) * _common(a, b, 1)
    either = area(a)[:, None] + area(b) - shared
    return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)


def _common(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    """(N, M): pixels along an axis that two boxes share."""
    made = np.minimum.outer(a[:, axis + 2], b[:, axis + 2])
    made -= np.maximum.outer(a[:, axis], b[:, axis])
    return np.maximum(made, 0, out=made)


def clipped(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """The boxes cut to an image of this size."""
    edges = np.array([width, height, width, height], np.float32)
    return np.minimum(np.maximum(boxes, 0), edges)


def mirrored(boxes: np.ndarray, width: int) -> np.ndarray:
    """The boxes in the mirror image, left for right, of an image so wide."""
    turned = boxes.copy()
    turned[:, 0], turned[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return turned


def nms(boxes: np.ndarray, scores: np.ndarray, at: float = 0.3) -> np.ndarray:
    """Non-maximum suppression: the numbers of the boxes that are kept, best first.

    A box goes where its overlap with a better one that is kept is more than `at`; exactly `at`
    stays. Of equal scores the later box comes first, as in the authors' release.
    """
    order = np.lexsort((-np.arange(len(scores)), -np.asarray(scores)))
    best, alive, kept = boxes[order], np.ones(len(order), bool), []
    for begin in range(0, len(order), BLOCK):
        some = begin + np.flatnonzero(alive[begin : begin + BLOCK])
        stay = ~(overlap(best[some], best[begin:]) > at)
        for i, row in zip(some, stay):
            if alive[i]:
                kept.append(order[i])
                alive[begin:] &= row  # itself too, and better ones, whose turn is over
    return np.array(kept, np.int64)


def encoded(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(N, 4): what makes of each box the object beside it (R-CNN, appendix C).

    Shift of the centre in widths and heights of the box, logarithm of the factors of width and
    height; in float64.
    """
    (centre, sides), (wanted, grown) = _middle(boxes), _middle(objects)
    return np.concatenate([(wanted - centre) / sides, np.log(grown / sides)], 1)


def decoded(boxes: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The boxes (N, 4), each changed by its row of what `encoded` gives."""
    centre, sides = _middle(boxes)
    centre, sides = centre + by[:, :2] * sides, sides * np.exp(np.clip(by[:, 2:], -8, 8))
    return np.concatenate([centre - sides / 2, centre + sides / 2], 1).astype(np.float32)


def _middle(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and sides of boxes, (N, 2) each; a side of 0 is a thousandth of a pixel."""
    boxes = boxes.astype(np.float64)
    return (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
