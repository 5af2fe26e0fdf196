"""Average precision, the two ways in which PASCAL VOC counts it."""

from typing import NamedTuple

import numpy as np


class Precision(NamedTuple):
    """Average precision of a ranking."""

    eleven: float  # VOC 2007: mean of the best precision at a recall of 0, 0.1, ... 1 or more
    area: float  # VOC 2010 and later: under the best precision at each recall or more


def curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) of what scores highest, one point for each different score.

    truth: whether each case is positive; there is one at least. Cases of equal score come in
    together, so that their order does not matter.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order], dtype=np.int64)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    return hits[last] / hits[-1], hits[last] / (last + 1)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> Precision:
    """Of a ranking by score. ValueError where nothing is positive, or a score is no number."""
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if not truth.any():
        raise ValueError("no positive case")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    return averaged(*curve(scores, truth))


def averaged(recall: np.ndarray, precision: np.ndarray) -> Precision:
    """Of a curve with recall rising, which need not reach 1: beyond its end precision is 0."""
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or more
    at = np.searchsorted(recall, np.arange(11) / 10)
    area = np.sum(np.diff(recall, prepend=0) * best)
    return Precision(float(np.append(best, 0)[at].mean()), float(area))
