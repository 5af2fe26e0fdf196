"""What a score says: from which one a detection is shown, and how likely it is to be right.

Both are told from detections on photos to learn from, whose objects are known.
"""

import numpy as np

from convnet.detect.detections import Found
from convnet.detect.evaluate import IGNORED, RIGHT, judge
from convnet.detect.sets import DetectionSet


def judged(photos: DetectionSet, found: list[Found], c: int) -> tuple[np.ndarray, np.ndarray]:
    """(scores, right or not) of the detections of a class on all photos, as VOC judges them."""
    pairs = [judge(p, f, c, "area", 0.5) for p, f in zip(photos.photos, found)]
    scores, truth = (np.concatenate(x) for x in zip(*pairs))
    return scores[truth != IGNORED], truth[truth != IGNORED] == RIGHT


def threshold(scores: np.ndarray, right: np.ndarray, objects: int) -> float:
    """The score from which precision and recall have the largest harmonic mean (F1).

    Halfway to the next lower score; NaN where no detection is right.
    """
    if not right.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of equal scores, all
    f1 = 2 * hits[ends] / (ends + 1 + objects)
    at = ends[int(f1.argmax())]
    below = scores[at + 1] if at + 1 < len(scores) else scores[at]
    return float((scores[at] + below) / 2)


def sigmoid(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """(a, b): a detection is right with a probability of 1 / (1 + exp(-(a score + b))).

    Platt's: a logistic regression on the score, its slope held back a little (C=1), so that it is
    finite where scores tell all apart. Without both kinds of detections, the share of
    right ones whatever the score, counting one more of each kind.
    """
    from sklearn.linear_model import LogisticRegression

    if right.all() or not right.any():
        odds = (right.sum() + 1) / ((~right).sum() + 1)
        return 0.0, float(np.log(odds))
    fitted = LogisticRegression(C=1.0).fit(scores[:, None], right)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def probability(found: Found, sigmoids: np.ndarray) -> Found:
    """The detections with probabilities instead of scores; sigmoids: (classes, 2)."""
    a, b = sigmoids[found.labels].T
    scores = 1 / (1 + np.exp(-(a * found.scores + b)))
    return found._replace(scores=scores.astype(np.float32))


def learned(photos: DetectionSet, found: list[Found]) -> tuple[np.ndarray, np.ndarray]:
    """(thresholds (classes,), sigmoids (classes, 2)) from detections on photos."""
    counts, thresholds, sigmoids = photos.count(), [], []
    for c in range(len(photos.classes)):
        scores, right = judged(photos, found, c)
        thresholds.append(threshold(scores, right, counts[c]))
        sigmoids.append(sigmoid(scores, right))
    known = [score for score in thresholds if not np.isnan(score)]
    usual = float(np.median(known)) if known else 0.0  # for a class of which none was right
    return np.nan_to_num(thresholds, nan=usual), np.array(sigmoids)
