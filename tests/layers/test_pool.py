"""type=pool: known answers, ties, borders, a brute-force reference, levels of a pyramid."""

import numpy as np
import pytest

from tests.contract import forward, make

rng = np.random.default_rng(3)


def brute(x, keep, sizeX, stride, start, outputs, total=False):
    """Window by window, as the docstring of layers/pool.py says it."""
    N, C = len(x), x.shape[3]
    y = np.zeros((N, *outputs, C))
    for p, q in np.ndindex(*outputs):
        u, v = start + p * stride, start + q * stride
        part = x[:, max(u, 0) : u + sizeX, max(v, 0) : v + sizeX].reshape(N, -1, C)
        if keep == "avg":
            y[:, p, q] = part.sum(1) if total else part.mean(1)
        else:
            at = (part if keep == "max" else abs(part)).argmax(1)[:, None]
            y[:, p, q] = np.take_along_axis(part, at, 1)[:, 0]
    return y


@pytest.mark.parametrize(
    "side,sizeX,stride,start,out",
    [(24, 3, 2, 0, 12), (32, 3, 2, 0, 16), (55, 3, 2, 0, 27), (13, 3, 2, 0, 6), (6, 4, 4, -2, 2)],
)
def test_sides_of_cuda_convnet(side, sizeX, stride, start, out):
    pool = make("pool", pool="max", sizeX=sizeX, stride=stride, start=start)
    assert pool.shape((side, side, 8)) == (out, out, 8)


@pytest.mark.parametrize("side", [1, 2, 7, 28])
def test_pixels_around_the_map(side):
    """Caffe's 3x3 windows with stride 1 and a pad of 1: as many as there are pixels."""
    pool = make("pool", pool="max", sizeX=3, stride=1, start=-1, end=1)
    assert pool.shape((side, side + 1, 8)) == (side, side + 1, 8)


@pytest.mark.parametrize("trial", range(60))
def test_random_windows(trial):
    rng = np.random.default_rng(trial)
    keep = ("max", "avg", "maxabs")[trial % 3]
    H, W = rng.integers(1, 12, 2)
    sizeX = int(rng.integers(1, min(H, W) + 1))
    stride = int(rng.integers(1, sizeX + 1))
    start = int(rng.integers(-sizeX + 1, min(H, W) - sizeX + 1))
    end = int(rng.integers(sizeX - stride + 1))
    total = keep == "avg" and trial % 2
    keys = {"sizeX": sizeX, "stride": stride, "start": start, "end": end}
    pool = make("pool", pool=keep, **keys, sum=int(total))
    outputs = [-(-(int(side) + end - start - sizeX) // stride) + 1 for side in (H, W)]
    x = rng.standard_normal((2, H, W, 3))
    wanted = brute(x, keep, sizeX, stride, start, outputs, total)
    np.testing.assert_allclose(forward(pool, x), wanted, rtol=1e-12, atol=1e-15)


def test_the_mean_of_a_cut_window():
    x = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    y, dx = forward(make("pool", pool="avg", sizeX=2, stride=2), x, np.ones((1, 2, 2, 1)))
    assert y.ravel().tolist() == [3, 4.5, 7.5, 9]
    assert dx.ravel().tolist() == [0.25, 0.25, 0.5, 0.25, 0.25, 0.5, 0.5, 0.5, 1]
    y, dx = forward(make("pool", pool="avg", sizeX=2, stride=2, sum=1), x, np.ones((1, 2, 2, 1)))
    assert y.ravel().tolist() == [12, 9, 15, 9]
    assert (dx == 1).all()


def test_ties_all_get_the_gradient():
    x = np.array([[2.0, 2, 1], [0, 2, -3]]).reshape(1, 2, 3, 1)
    y, dx = forward(make("pool", pool="max", sizeX=2, stride=1), x, np.array([[[[1.0], [10]]]]))
    assert y.ravel().tolist() == [2, 2]
    assert dx.ravel().tolist() == [1, 11, 0, 0, 11, 0]


def test_maxabs_keeps_the_sign_and_prefers_plus():
    pool = make("pool", pool="maxabs", sizeX=2, stride=2)
    x = np.array([[1.0, -5, -3, 3], [2, 4, -3, 0]]).reshape(1, 2, 4, 1)
    y, dx = forward(pool, x, np.array([[[[1.0], [10]]]]))
    assert y.ravel().tolist() == [-5, 3]
    assert dx.ravel().tolist() == [0, 1, 0, 10, 0, 0, 0, 0]
    np.testing.assert_array_equal(forward(pool, x[:, ::-1, ::-1].copy()).ravel(), [3, -5])


@pytest.mark.parametrize("keep", ["max", "maxabs", "avg"])
@pytest.mark.parametrize("at", range(4))
def test_a_nan_stays_one(keep, at):
    x = np.array([1.0, 2, 3, 4]).reshape(1, 2, 2, 1)
    x.flat[at] = np.nan
    assert np.isnan(forward(make("pool", pool=keep, sizeX=2, stride=2), x)).all()


def test_the_lowest_numbers():
    x = np.full((1, 2, 2, 1), -np.inf)
    assert forward(make("pool", pool="max", sizeX=2, stride=2), x).item() == -np.inf


@pytest.mark.parametrize(
    "keys,why",
    [
        ({"sizeX": 2, "stride": 2, "sum": 1}, "sum=1 goes with pool=avg"),
        ({"sizeX": 2, "stride": 3}, "stride=3 is more than sizeX=2"),
        ({"sizeX": 6, "stride": 1}, "sizeX=6 is more than the 7x5 map"),
        ({"sizeX": 3, "stride": 1, "start": 3}, "sizeX=3 from start=3 is more than the 7x5 map"),
        ({"sizeX": 3, "stride": 1, "start": -3}, "start=-3: the first window lies outside"),
        (
            {"sizeX": 2, "stride": 2, "outputsX": 4},
            "outputsX=4: the last window lies outside the 7x5",
        ),
        ({"sizeX": 2, "stride": 1, "end": 2}, "end=2: the last window lies outside the 7x5"),
    ],
)
def test_windows_that_cannot_be(keys, why):
    with pytest.raises(ValueError, match=why):
        make("pool", pool="max", **keys).shape((7, 5, 3))


def test_outputs_by_hand():
    pool = make("pool", pool="max", sizeX=2, stride=2, outputsX=3)
    assert pool.shape((7, 5, 3)) == (3, 3, 3)
    x = rng.standard_normal((2, 7, 5, 3))
    np.testing.assert_array_equal(forward(pool, x), brute(x, "max", 2, 2, 0, (3, 3)))


@pytest.mark.parametrize(
    "side,sizeX,stride,n",
    [
        (13, 3, 2, 6), (13, 4, 3, 4), (13, 5, 4, 3), (13, 7, 6, 2), (13, 13, 13, 1),
        (18, 3, 3, 6), (18, 6, 6, 3), (18, 9, 9, 2), (18, 18, 18, 1),
        (10, 2, 1, 9), (18, 5, 4, 0), (10, 4, 3, 3), (13, 3, 3, 0), (13, 7, 7, 0), (13, 14, 1, 0),
    ],
)  # fmt: skip
def test_pools_of_the_paper_are_recognised(side, sizeX, stride, n):
    """SPP-net's sizeX = ceil(a/n), stride = floor(a/n), where that does give n x n."""
    keys = {"pool": "max", "sizeX": sizeX, "stride": stride}
    assert make("pool", **keys).pyramid((side, side, 4)) == n
    assert make("pool", **keys).pyramid((side, side + 1, 4)) == 0
    assert make("pool", **keys, start=-1).pyramid((side, side, 4)) == 0
    assert make("pool", **keys, end=1).pyramid((side, side, 4)) == 0
    assert make("pool", **(keys | {"pool": "avg"}), sum=1).pyramid((side, side, 4)) == 0


@pytest.mark.parametrize("keep", ["max", "avg", "maxabs"])
def test_a_level_on_other_maps(keep):
    pool = make("pool", pool=keep, sizeX=5, stride=4)
    pool.level, pool.trained_on = 3, (13, 13, 2)
    x = rng.standard_normal((2, 13, 13, 2))
    plain = make("pool", pool=keep, sizeX=5, stride=4)
    np.testing.assert_array_equal(forward(pool, x), forward(plain, x))
    assert pool.shape((11, 2, 2)) == (3, 3, 2)
    x = rng.standard_normal((2, 11, 2, 2))
    y, dx = forward(pool, x, np.ones((2, 3, 3, 2)))
    for p, (top, bottom) in enumerate([(0, 4), (3, 8), (7, 11)]):
        for q, (left, right) in enumerate([(0, 1), (0, 2), (1, 2)]):
            part = x[:, top:bottom, left:right].reshape(2, -1, 2)
            wanted = brute(part[:, :, None], keep, part.shape[1], 1, 0, (1, 1))[:, 0, 0]
            np.testing.assert_allclose(y[:, p, q], wanted, rtol=1e-12)
    assert dx.sum() == pytest.approx(y.size)
