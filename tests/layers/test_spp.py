"""type=spp: the bins, a brute-force reference, and that it is the pyramid of plain pools."""

import itertools

import numpy as np
import pytest

from convnet.cfg import parse
from tests.contract import forward, layer_class, make

rng = np.random.default_rng(4)


def bins(side: int, n: int) -> list[tuple]:
    """[floor(i*side/n), ceil((i+1)*side/n)) in fractions of whole numbers."""
    return [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)]


def brute(x, levels, keep):
    """Bin by bin, in the order level, row, column, channel."""
    keep = {"max": np.max, "avg": np.mean}[keep]
    rows = [
        keep(x[:, top:bottom, left:right], (1, 2))
        for n in levels
        for top, bottom in bins(x.shape[1], n)
        for left, right in bins(x.shape[2], n)
    ]
    return np.concatenate(rows, 1)[:, None, None]


@pytest.mark.parametrize("side", range(1, 41))
def test_bins_of_every_side(side):
    """Levels 1 to 8: n bins, none empty, which cover the side and overlap by 1 at most."""
    levels = range(1, 9)
    for n in levels:
        cut = bins(side, n)
        assert len(cut) == n and (cut[0][0], cut[-1][1]) == (0, side)
        assert all(left < right for left, right in cut)
        assert all(0 <= end - begin <= 1 for (_, end), (begin, _) in itertools.pairwise(cut))
    layer = make("spp", levels=",".join(map(str, levels)))
    x = rng.standard_normal((1, side, 41 - side, 2))
    np.testing.assert_array_equal(forward(layer, x), brute(x, levels, "max"))
    layer = make("spp", levels=",".join(map(str, levels)), pool="avg")
    np.testing.assert_allclose(forward(layer, x), brute(x, levels, "avg"), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("keep", ["max", "avg"])
@pytest.mark.parametrize("side,rules", [
    (13, {6: (3, 2), 3: (5, 4), 2: (7, 6), 1: (13, 13)}),
    (18, {6: (3, 3), 3: (6, 6), 2: (9, 9), 1: (18, 18)}),
])  # fmt: skip
def test_it_is_the_pyramid_of_pools(keep, side, rules):
    x, dy = rng.standard_normal((2, side, side, 3)), rng.standard_normal((2, 1, 1, 150))
    y, dx = forward(make("spp", levels="6,3,2,1", pool=keep), x, dy)
    parts, total, at = [], 0, 0
    for n, (sizeX, stride) in rules.items():
        pool = make("pool", pool=keep, sizeX=sizeX, stride=stride)
        part, back = forward(pool, x, dy[..., at : at + n * n * 3].reshape(2, n, n, 3))
        parts.append(part.reshape(2, 1, 1, -1))
        total, at = total + back, at + n * n * 3
    same = np.testing.assert_array_equal if keep == "max" else np.testing.assert_allclose
    same(y, np.concatenate(parts, -1))
    np.testing.assert_allclose(dx, total, atol=1e-13)


def test_ties_and_overlapping_bins():
    """On one pixel all four bins of level 2 are that pixel; equal pixels all get the gradient."""
    dy = np.array([1.0, 10, 100, 1000]).reshape(1, 1, 1, 4)
    y, dx = forward(make("spp", levels="2"), np.full((1, 1, 1, 1), 7.0), dy)
    assert (y == 7).all() and dx.item() == 1111
    y, dx = forward(make("spp", levels="1"), np.array([[[[5.0], [5], [4]]]]), dy[..., :1])
    assert y.item() == 5 and dx.ravel().tolist() == [1, 1, 0]


def test_a_nan_stays_one():
    x = np.zeros((1, 4, 4, 1))
    x[0, 3, 0, 0] = np.nan
    y = forward(make("spp", levels="2,1"), x).ravel()
    assert np.isnan(y).tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("text", ["0", "3,-1", "3,,1", "six"])
def test_levels_that_cannot_be(text):
    section = parse(f"[spp]\ntype=spp\ninputs=a\nlevels={text}")["spp"]
    (note,) = layer_class("spp")(section, {}).notes
    assert "levels" in str(note) and "must be whole numbers" in str(note)
