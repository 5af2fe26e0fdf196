"""dropout and dropout2: what comes out in training and in a test, and how random the mask is."""

import numpy as np
import pytest

from tests.layers._one import build, run, wrong

ONES = np.ones((20, 10, 10, 50))  # 100 000 numbers


def mask(keep=0.5, seed=1, ones=ONES):
    """The mask as booleans, flat."""
    y, _ = build("dropout2", f"keep={keep}").fprop(run(seed=seed), {}, ones)
    assert set(np.unique(y)) <= {0, 1}
    return y.ravel() == 1


@pytest.mark.parametrize(
    "type,keys,train,test",
    [
        ("dropout", "keep=0.25", {0, 4}, {1}),
        ("dropout", "keep=1", {1}, {1}),
        ("dropout", "keep=0.25 enable=false", {1}, {1}),
        ("dropout2", "keep=0.25", {0, 1}, {0.25}),
        ("dropout2", "keep=1", {1}, {1}),
        ("dropout2", "keep=0.25 enable=false", {0.25}, {0.25}),
    ],
)
def test_factors(type, keys, train, test):
    layer = build(type, *keys.split())
    for mode, factors in ((True, train), (False, test)):
        y, bprop = layer.fprop(run(mode), {}, ONES)
        assert set(np.unique(y)) == factors
        (dx,), _ = bprop(ONES, {0})
        np.testing.assert_array_equal(dx, y)  # the same mask in both passes
        assert bprop(ONES, set()) == ([None], {})


def test_keep_is_half_unless_said_otherwise():
    layer = build("dropout")
    assert layer.keep == 0.5 and layer.enable


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_rate(keep):
    n = ONES.size
    rates = np.array([mask(keep, seed).mean() for seed in range(20)])
    sigma = np.sqrt(keep * (1 - keep) / n)
    assert abs(rates - keep).max() < 4 * sigma
    assert abs(rates.mean() - keep) < 4 * sigma / np.sqrt(len(rates))
    assert sigma / 2 < rates.std() < 2 * sigma


@pytest.mark.parametrize("lag", [1, 2, 3, 50, 500, 5000])
def test_neighbours_are_independent(lag):
    m = mask()
    assert chi_square(m[:-lag], m[lag:]) < 25


@pytest.mark.parametrize("other", [2, 3, 2**32 + 1, 2**63 + 1, 1 + 0x9E3779B97F4A7C15])
def test_seeds_are_independent(other):
    a, b = mask(seed=1), mask(seed=other)
    assert chi_square(a, b) < 25
    assert chi_square(a[:-1], b[1:]) < 25 and chi_square(a[1:], b[:-1]) < 25


def chi_square(a, b):
    """Pearson's statistic of two rows of coins, 3 degrees of freedom: above 25 once in 50 000."""
    counts = np.bincount(2 * a + b, minlength=4)
    return ((counts - a.size / 4) ** 2 / (a.size / 4)).sum()


def test_the_statistic_can_fail():
    m = mask()
    assert chi_square(m, m) > 1000


def test_one_mask_for_every_dtype():
    small = ONES.astype(np.float32)
    y, _ = build("dropout", "keep=0.25").fprop(run(), {}, small)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.ravel() == 4, mask(0.25))


def test_known_bits():
    """SplitMix64 in whole numbers of Python: the generator may not change between versions."""

    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    step = 0x9E3779B97F4A7C15
    for seed in (0, 7, 2**63 + 5, 2**64 - 1):
        start = mix((seed + step) % 2**64)
        want = [mix((start + i * step) % 2**64) >> 32 < 0.3 * 2**32 for i in range(1000)]
        got = mask(0.3, seed, np.ones((10, 1, 1, 100)))
        np.testing.assert_array_equal(got, want)


def test_what_is_dropped_is_zero_even_if_it_was_infinite():
    y, _ = build("dropout").fprop(run(), {}, np.full((4, 1, 1, 25), np.inf))
    assert set(np.unique(y)) == {0, np.inf}


@pytest.mark.parametrize("type", ["dropout", "dropout2"])
@pytest.mark.parametrize("keep", ["0", "1.5", "-1", "nan"])
def test_refuses(type, keep):
    assert "must be above 0 and not above 1" in wrong(type, f"keep={keep}")


def test_words_that_are_no_number():
    assert "keep=half: must be a number" in wrong("dropout", "keep=half")
    assert "must be 1, yes" in wrong("dropout", "enable=maybe")
