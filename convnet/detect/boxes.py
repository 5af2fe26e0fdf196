"""Boxes, float32 (N, 4): left, top, right, bottom in pixels from 0, right and bottom excluded.

Widths are right - left, which for boxes of whole pixels is VOC's x2 - x1 + 1.
"""

import numpy as np


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
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.maximum(np.minimum(a[:, None, 2:], b[None, :, 2:]) - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    either = area(a)[:, None] + area(b)[None] - shared
    return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)


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
    at_once = boxes.astype(np.float64)[order]
    sizes, alive, kept = area(at_once), np.ones(len(order), bool), []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(order[i])
        rest = i + 1 + np.flatnonzero(alive[i + 1 :])
        low = np.maximum(at_once[i, :2], at_once[rest, :2])
        sides = np.maximum(np.minimum(at_once[i, 2:], at_once[rest, 2:]) - low, 0)
        shared = sides[:, 0] * sides[:, 1]
        either = np.maximum(sizes[i] + sizes[rest] - shared, np.finfo(float).tiny)
        alive[rest[shared / either > at]] = False
    return np.array(kept, np.int64)
