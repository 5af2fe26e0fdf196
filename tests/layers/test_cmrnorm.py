"""type=cmrnorm: known answers and a brute-force reference."""

import numpy as np
import pytest

from tests.contract import forward, make


def brute(x, n, a, beta, k, blocked):
    y = np.empty_like(x)
    for c in range(x.shape[3]):
        first = c // n * n if blocked else c - n // 2
        part = x[..., max(first, 0) : first + n]
        y[..., c] = x[..., c] * (k + a / n * (part**2).sum(-1)) ** -beta
    return y


@pytest.mark.parametrize("n", range(2, 8))
@pytest.mark.parametrize("blocked", [0, 1])
@pytest.mark.parametrize("beta", [0.75, 1.2])
def test_brute_force(n, blocked, beta):
    x = np.random.default_rng(n).standard_normal((2, 3, 2, 7))
    layer = make("cmrnorm", size=n, scale=3, pow=beta, minDiv=2, blocked=blocked)
    np.testing.assert_allclose(forward(layer, x), brute(x, n, 3, beta, 2, blocked), rtol=1e-12)
    np.testing.assert_array_equal(forward(layer, x, train=False), forward(layer, x))


def test_the_first_map_sums_three_and_divides_by_five():
    y = forward(make("cmrnorm", size=5, scale=5, pow=1), np.ones((1, 1, 1, 7))).ravel()
    np.testing.assert_allclose(1 / y, [1 + 3, 1 + 4, 1 + 5, 1 + 5, 1 + 5, 1 + 4, 1 + 3])


def test_an_even_window_holds_one_map_more_below():
    x = np.array([1.0, 2, 4, 8]).reshape(1, 1, 1, 4)
    y = forward(make("cmrnorm", size=2, scale=2, pow=1), x).ravel()
    np.testing.assert_allclose(y, [1 / (1 + 1), 2 / (1 + 5), 4 / (1 + 20), 8 / (1 + 80)])


def test_blocks_are_aligned():
    x = np.array([1.0, 2, 4, 8, 16]).reshape(1, 1, 1, 5)
    y = forward(make("cmrnorm", size=3, scale=3, pow=1, blocked=1), x).ravel()
    np.testing.assert_allclose(x.ravel() / y, [1 + 21, 1 + 21, 1 + 21, 1 + 320, 1 + 320])


def test_alexnets_numbers_as_caffe_counts_them():
    """Caffe's alpha is the scale of the cfg: both divide by the number of maps."""
    x = np.random.default_rng(0).uniform(-50, 50, (1, 2, 2, 9))
    y = forward(make("cmrnorm", size=5, scale=0.0001, pow=0.75, minDiv=2), x)
    total = sum(np.pad(x**2, [(0, 0)] * 3 + [(2, 2)])[..., k : k + 9] for k in range(5))
    np.testing.assert_allclose(y, x / (2 + 0.0001 / 5 * total) ** 0.75, rtol=1e-12)


def test_size_is_at_most_the_maps():
    assert make("cmrnorm", size=4).shape((3, 7, 4)) == (3, 7, 4)
    with pytest.raises(ValueError, match="size=5 is more than the 4 maps"):
        make("cmrnorm", size=5).shape((9, 9, 4))
