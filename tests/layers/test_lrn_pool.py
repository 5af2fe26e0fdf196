"""Response normalisation and max pool in one pass against the two plain kernels in turn."""

import numba
import numpy as np
import pytest

from convnet.layer import Run
from layers import _lrn_pool
from tests import contract

# shape and keys of the rnorm, keys of the pool behind it
CASES = """
    13x11x32  size=3 scale=2               | sizeX=3 stride=2
    13x11x96  size=3 scale=2               | sizeX=3 stride=2
    12x9x33   size=3 scale=2 pow=0.6       | sizeX=2 stride=2
    9x12x1    size=5 scale=9 minDiv=0.5    | sizeX=3 stride=2 start=-1
    7x8x70    size=4 scale=3 pow=0.5       | sizeX=3 stride=1
    6x6x3     size=1 scale=1               | sizeX=4 stride=3
    5x4x35    size=2 scale=2               | sizeX=5 stride=2 start=-2
    3x3x40    size=3 scale=9               | sizeX=3 stride=3
"""


def cases():
    return [" ".join(line.split()) for line in CASES.strip().splitlines()]


def both(line):
    """The layers, and the shape of their input."""
    left, right = line.split(" | ")
    rnorm = contract.build("rnorm", left)
    middle = "x".join(map(str, rnorm.shapes[0]))
    return rnorm.layer, contract.build("pool", f"{middle} pool=max {right}").layer, rnorm.shapes[0]


def data(shape, n, pool, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (n, *shape)).astype(np.float32)
    return x, rng.normal(0, 1, (n, *pool.shape(shape))).astype(np.float32)


def fused(rnorm, pool, x, dy):
    y, bprop = rnorm.fprop(Run(contract.Poisoned(), True, 0, True, pool), {}, x)
    return y, bprop(dy, {0})[0][0]


def plain(rnorm, pool, x, dy):
    run = Run(contract.Poisoned(), True, 0)
    z, rnorm_back = rnorm.fprop(run, {}, x)
    y, pool_back = pool.fprop(run, {}, z)
    return y, rnorm_back(pool_back(dy, {0})[0][0], {0})[0][0]


def off(got, wanted):
    """The share of numbers that differ by more than 1e-5 of the largest."""
    return (~(abs(got - wanted) <= 1e-5 * abs(wanted).max())).mean()  # NaN is off, too


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("line", cases())
def test_as_the_two_in_turn(line, n):
    rnorm, pool, shape = both(line)
    assert rnorm.takes(pool, (n, *shape))
    x, dy = data(shape, n, pool)
    (y, dx), (wanted_y, wanted_dx) = fused(rnorm, pool, x, dy), plain(rnorm, pool, x, dy)
    assert off(y, wanted_y) == 0
    # where two numbers of a window are equal but for the last bit, another one may win
    assert off(dx, wanted_dx) < 1e-3


def test_equal_numbers_all_get_the_gradient():
    rnorm, pool, shape = both("12x12x35 size=3 scale=2 | sizeX=4 stride=4")
    x, dy = data(shape, 2, pool)
    x[:] = 1.5
    (y, dx), (wanted_y, wanted_dx) = fused(rnorm, pool, x, dy), plain(rnorm, pool, x, dy)
    assert off(y, wanted_y) == 0
    assert off(dx, wanted_dx) == 0
    rnorm, pool, shape = both("12x12x35 size=1 scale=2 | sizeX=4 stride=4")
    _, dx = fused(rnorm, pool, x, np.ones_like(dy))
    assert len(np.unique(dx)) == 1 and dx[0, 0, 0, 0] != 0


@pytest.mark.parametrize("channels", [1, 40])
def test_a_nan_stays_one(channels):
    rnorm, pool, shape = both(f"13x11x{channels} size=3 scale=2 | sizeX=3 stride=2")
    x, dy = data(shape, 2, pool)
    x[1, 6, 5, channels - 1] = np.nan
    (y, _), (wanted_y, _) = fused(rnorm, pool, x, dy), plain(rnorm, pool, x, dy)
    assert np.isnan(wanted_y).any()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted_y))


def test_any_number_of_threads():
    rnorm, pool, shape = both(cases()[2])
    x, dy = data(shape, 3, pool)
    with_all = fused(rnorm, pool, x, dy)
    threads = numba.get_num_threads()
    try:
        for count in {1, min(2, threads)}:
            numba.set_num_threads(count)
            for got, wanted in zip(fused(rnorm, pool, x, dy), with_all):
                np.testing.assert_array_equal(got, wanted)
    finally:
        numba.set_num_threads(threads)


def test_tasks_of_any_size(monkeypatch):
    """Rows at the ends of a task are computed by both neighbours, to the same bits."""
    rnorm, pool, shape = both(cases()[1])
    x, dy = data(shape, 2, pool)
    found = []
    for rows in (1, 2, 5, 100):
        monkeypatch.setattr(_lrn_pool, "_share", lambda images, of, rows=rows: min(rows, of))
        found.append(fused(rnorm, pool, x, dy))
    for got in found[1:]:
        for one, other in zip(got, found[0]):
            np.testing.assert_array_equal(one, other)


def test_what_it_takes():
    rnorm, pool, shape = both(cases()[0])
    assert rnorm.takes(pool, (1, *shape))
    average = contract.build("pool", "13x11x32 pool=avg sizeX=3 stride=2").layer
    assert not rnorm.takes(average, (1, *shape))
    assert not rnorm.takes(contract.build("neuron", "13x11x32 neuron=relu").layer, (1, *shape))
    pool.level = 3
    assert not rnorm.takes(pool, (1, *shape))


@pytest.mark.parametrize("value", [1e15, 1e20, -3e38, np.inf, np.nan])
def test_numbers_whose_squares_overflow(value):
    """As finite as by the plain kernels, and the others' outputs are the same."""
    rnorm, pool, shape = both("13x11x32  size=3 scale=2 | sizeX=3 stride=2")
    x, dy = data(shape, 1, pool)
    x[0, 6, 5, 7] = value
    got, wanted = fused(rnorm, pool, x, dy), plain(rnorm, pool, x, dy)
    for a, b in zip(got, wanted):
        assert np.isfinite(a).all() == np.isfinite(b).all()
        if np.isfinite(b).all():
            assert off(a, b) == 0
