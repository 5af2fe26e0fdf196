"""Detections of several models together: non-maximum suppression on their union (SPP-net, 4.4)."""

from collections.abc import Sequence

import numpy as np

from convnet.detect.boxes import nms
from convnet.detect.detections import Found


def union(found: Sequence[Found], at: float) -> Found:
    """What several models have found on one photo; a box that overlaps a better one of its class
    by more than `at` goes. Of equal scores the earlier model's stays."""
    boxes, scores, labels = (np.concatenate(x) for x in zip(*found[::-1]))
    kept = [np.zeros(0, np.int64)]
    for c in np.unique(labels):
        here = np.flatnonzero(labels == c)
        kept.append(here[nms(boxes[here], scores[here], at)])
    rows = np.concatenate(kept)
    return Found(boxes[rows], scores[rows], labels[rows])
