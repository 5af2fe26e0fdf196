"""Scale and cells of a box: both sets of formulas, one box at a time, against convnet/detect."""

import math

import numpy as np
import pytest

from convnet.detect.windows import (
    ONE,
    SCALES,
    SEMANTICS,
    Aim,
    aim_of,
    best_scales,
    cells,
    distinct,
    resized,
)
from convnet.geometry import Field, field
from convnet.source import Source
from tests.tooling import ROOT

ZF5 = Field(139, 16, 20)
AIM = Aim(224, 13 * 16)


def boxes_of(n=2000, h=375, w=500, seed=1):
    """Log-uniform boxes of whole pixels inside of a photo."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(4), np.log([w, h]), (n, 2))).astype(int)
    first = np.floor(rng.uniform(0, 1, (n, 2)) * (np.array([w, h]) - sides + 1)).astype(int)
    return np.concatenate([first, first + sides], 1).astype(np.float32)


def test_sizes_of_the_resized_photo():
    """The longer side is rounded up, as MATLAB's imresize does; maps as the paper's net has."""
    assert resized(375, 500, 688) == (688, 918)  # 917.33
    assert resized(500, 375, 480) == (640, 480)
    assert resized(1, 1, 688) == (688, 688)
    graph = Source.read(ROOT / "layer_configs/spp_zf5_6321.cfg").graph({}, 10)
    assert field(graph, "conv5") == ZF5
    assert aim_of(graph, "conv5", ZF5) == AIM
    maps = [(480, 29, 39), (576, 35, 47), (688, 42, 56), (874, 53, 71), (1200, 74, 99)]
    for scale, rows, columns in maps:
        image = (*resized(375, 500, scale), 3)
        assert graph.shapes_at({"data": image}, ["data", *layers(graph)])["conv5"][:2] == (
            rows, columns)  # fmt: skip


def layers(graph):
    names = [l.name for l in graph.layers if l.inputs]
    return names[: names.index("conv5") + 1]


def scale_by_hand(box, h, w, semantics):
    """Section 2.3, as written."""
    l, t, r, b = box[0] + 1, box[1] + 1, box[2], box[3]  # counted from 1, both included
    area, m = (r - l + 1) * (b - t + 1), min(h, w)
    if semantics == "release":
        e = math.floor(13 * 16 * m / math.sqrt(area) + 0.5)
        far = [abs(s - e) for s in SCALES["release"]]
    else:
        far = [abs(area * (s / m) ** 2 - 224**2) for s in SCALES["paper"]]
    return far.index(min(far))


def cells_by_hand(box, scale, h, w, rows, columns, semantics):
    """Section 2.4, as written: boxes counted from 1, cells from 0, both ends included."""
    m, o0, o, S, found = min(h, w), 21, 6.5, 16, []
    for first, last, side in ((box[1], box[3], rows), (box[0], box[2], columns)):
        first += 1
        if semantics == "release":
            a, b = ((x - 1) * (scale - 1) / (m - 1) + 1 for x in (first, last))
            L, R = math.floor((a - o0 + o) / S + 0.5), math.ceil((b - o0 - o) / S - 0.5)
        else:  # pixels counted from the centre of cell 0, which is pixel 20 from 0
            a, b = (((x - 1) * scale / m) - 20 for x in (first, last))
            L, R = math.floor(a / S) + 1, math.ceil(b / S) - 1
        if R < L:
            L = R = int(((L + 1) + (R + 1)) / 2) - 1  # C truncates, on numbers counted from 1
        found.append([min(max(x, 0), side - 1) for x in (L, R)])
    (top, bottom), (left, right) = found
    return [top, left, bottom + 1, right + 1]


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("h,w", [(375, 500), (500, 333), (120, 160)])
def test_every_box_as_by_hand(semantics, h, w):
    scales, boxes = SCALES[semantics], boxes_of(h=h, w=w)
    which = best_scales(boxes, h, w, scales, AIM, semantics)
    by_hand = [scale_by_hand(box, h, w, semantics) for box in boxes.tolist()]
    np.testing.assert_array_equal(which, by_hand)
    assert len(set(by_hand)) == 5
    sides = np.array([[-(-n // 16) - 1 for n in resized(h, w, s)] for s in scales])
    got = cells(boxes, np.array(scales)[which], (h, w), sides[which], ZF5, semantics)
    for box, k, mine in zip(boxes.tolist(), which, got.tolist()):
        assert mine == cells_by_hand(box, scales[k], h, w, *sides[k], semantics)


def test_known_answers():
    """A box of 100 x 100 on 375 x 500: 208 * 375 / 100 = 780; the paper wants 224 * 375 / 100."""
    box = np.array([[50, 60, 150, 160]], np.float32)
    for semantics, scale in (("release", 688), ("paper", 864)):
        which = best_scales(box, 375, 500, SCALES[semantics], AIM, semantics)[0]
        assert SCALES[semantics][which] == scale
    # 50 (s-1)/(m-1) = 91.844 -> (91.844 - 20 + 6.5)/16 + .5 = 5.397 -> 5; right 149: 273.69 ->
    # (273.69 - 26.5)/16 - .5 = 14.95 -> 15; top 60: 110.21 -> 6.54 -> 6; bottom 159: 16.096 -> 17
    got = cells(box, [688], (375, 500), np.array([[42, 56]]), ZF5, "release")
    assert got.tolist() == [[6, 5, 18, 16]]
    # paper: 50 * 688/375 = 91.73 - 20 = 71.73/16 = 4.48 -> 5; 149: 253.37/16 = 15.8 -> 15; top
    # 60: 90.08/16 = 5.63 -> 6; bottom 159: 271.71/16 = 16.98 -> 16
    got = cells(box, [688], (375, 500), np.array([[42, 56]]), ZF5, "paper")
    assert got.tolist() == [[6, 5, 17, 16]]


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_no_window_is_empty_or_outside(semantics):
    """Boxes of a pixel, of no pixel, outside, and photos of a pixel: a cell of the map each."""
    boxes = [[0, 0, 1, 1], [5, 5, 5, 5], [9, 9, 3, 3], [-50, -9, 2000, 1999], [499, 374, 500, 375]]
    boxes = np.array([*boxes, [900, 900, 950, 950], [0.5, 0.25, 0.75, 9.5]], np.float32)
    for photo in (375, 500), (1, 1), (1, 700):
        which = best_scales(boxes, *photo, SCALES[semantics], AIM, semantics)
        scales = np.array(SCALES[semantics])[which]
        got = cells(boxes, scales, photo, np.tile([[42, 56]], (len(boxes), 1)), ZF5, semantics)
        top, left, bottom, right = got.T
        assert (top >= 0).all() and (left >= 0).all() and (top < bottom).all()
        assert (bottom <= 42).all() and (right <= 56).all() and (left < right).all()
    whole = cells(boxes[3:4], ONE, (375, 500), np.array([[42, 56]]), ZF5, semantics)
    assert whole.tolist() == [[0, 0, 42, 56]]


def test_the_two_differ_as_measured():
    """Scales differ for about 14 % of log-uniform boxes, cells are the same for about 64 %."""
    boxes = boxes_of(20_000)
    which = {s: best_scales(boxes, 375, 500, SCALES["release"], AIM, s) for s in SEMANTICS}
    assert 0.05 < (which["release"] != which["paper"]).mean() < 0.25
    scales = np.array(SCALES["release"])[which["release"]]
    sides = np.array([[-(-n // 16) - 1 for n in resized(375, 500, s)] for s in SCALES["release"]])
    found = [cells(boxes, scales, (375, 500), sides[which["release"]], ZF5, s) for s in SEMANTICS]
    assert 0.5 < (found[0] == found[1]).all(1).mean() < 0.75


def test_identical_windows_are_one():
    scale, at = [1, 0, 1, 1, 0], np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [0, 2, 3, 4],
                                           [1, 2, 3, 4]])  # fmt: skip
    found = distinct(scale, at)
    assert len(found.cells) == 3 and found.scale.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(found.cells[found.of], at)
    np.testing.assert_array_equal(found.scale[found.of], scale)
    assert len(distinct([], np.zeros((0, 4), np.int32)).cells) == 0
