"""Boxes: conventions, overlap against counted pixels, suppression against its definition."""

import numpy as np
import pytest

from convnet.detect import boxes


def some(rng, n, side=30):
    corners = rng.integers(0, side, (n, 2, 2))
    low, high = corners.min(1), corners.max(1) + 1
    return np.concatenate([low, high], 1).astype(np.float32)


def test_voc_boxes_include_their_last_pixel_and_count_from_1():
    one = boxes.from_voc(np.array([1, 1, 1, 1]))
    assert one.tolist() == [[0, 0, 1, 1]] and boxes.area(one) == [1]
    both = np.array([[3, 4, 10, 12], [1, 1, 500, 375]], np.float32)
    assert boxes.to_voc(boxes.from_voc(both)).tolist() == both.tolist()


def test_overlap_is_that_of_counted_pixels():
    rng = np.random.default_rng(0)
    a, b = some(rng, 12), some(rng, 9)
    found = boxes.overlap(a, b)
    for i, j in np.ndindex(12, 9):
        grid = np.zeros((2, 31, 31), bool)
        for plane, (l, t, r, d) in zip(grid, (a[i].astype(int), b[j].astype(int))):
            plane[t:d, l:r] = True
        assert found[i, j] == grid.all(0).sum() / grid.any(0).sum()


def test_boxes_without_an_inside_overlap_nothing():
    flat = np.array([[5, 5, 5, 9], [8, 8, 3, 3]], np.float32)
    assert boxes.area(flat).tolist() == [0, 0]
    assert not boxes.overlap(flat, np.concatenate([flat, [[0, 0, 9, 9]]])).any()


def test_clipping_and_mirroring():
    out = np.array([[-3, 2, 50, 60]], np.float32)
    assert boxes.clipped(out, 40, 30).tolist() == [[0, 2, 40, 30]]
    box = np.array([[1, 2, 11, 7]], np.float32)
    assert boxes.mirrored(box, 40).tolist() == [[29, 2, 39, 7]]
    assert boxes.mirrored(boxes.mirrored(box, 40), 40).tolist() == box.tolist()


def by_definition(found, scores, at):
    """Take the best, drop what overlaps it too much, and again; the later of equals first."""
    left, kept = list(range(len(found))), []
    while left:
        best = max(left, key=lambda i: (scores[i], i))
        kept.append(best)
        shared = boxes.overlap(found[[best]], found[left])[0]
        left = [i for i, o in zip(left, shared) if o <= at and i != best]
    return kept


@pytest.mark.parametrize("at", (0.0, 0.3, 0.5, 1.0))
def test_nms_is_its_definition(at):
    rng = np.random.default_rng(1)
    found = some(rng, 60)
    scores = rng.integers(0, 15, 60) / 7  # many are equal
    assert boxes.nms(found, scores, at).tolist() == by_definition(found, scores, at)


def test_a_box_that_overlaps_by_exactly_the_threshold_stays():
    pair = np.array([[0, 0, 10, 1], [7, 0, 10, 1]], np.float32)  # 3 of 10 pixels
    assert boxes.nms(pair, np.array([1.0, 0.5])).tolist() == [0, 1]
    assert boxes.nms(pair, np.array([1.0, 0.5]), 0.29).tolist() == [0]


def test_nms_of_nothing_and_of_points():
    assert boxes.nms(np.zeros((0, 4), np.float32), np.zeros(0)).tolist() == []
    points = np.zeros((3, 4), np.float32)
    assert boxes.nms(points, np.array([1.0, 3.0, 2.0])).tolist() == [1, 2, 0]
