"""type=rnorm: known answers and a brute-force reference."""

import numpy as np
import pytest

from tests.contract import forward, make


def brute(x, n, a, beta, k):
    y = np.empty_like(x)
    for r, s in np.ndindex(x.shape[1:3]):
        u, v = r - n // 2, s - n // 2
        part = x[:, max(u, 0) : u + n, max(v, 0) : v + n]
        y[:, r, s] = x[:, r, s] * (k + a / n**2 * (part**2).sum((1, 2))) ** -beta
    return y


@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_brute_force(n, beta):
    x = np.random.default_rng(n).standard_normal((2, 6, 8, 3))
    layer = make("rnorm", size=n, scale=3, pow=beta, minDiv=1.5)
    wanted = brute(x, n, 3, beta, 1.5)
    np.testing.assert_allclose(forward(layer, x), wanted, rtol=1e-12)
    np.testing.assert_array_equal(forward(layer, x, train=False), forward(layer, x))


def test_the_divisor_is_not_cut_at_the_border():
    """Ones: 4, 6 or 9 pixels inside the window, always divided by 9."""
    y = forward(make("rnorm", size=3, scale=9, pow=1), np.ones((1, 3, 3, 1)))[0, :, :, 0]
    np.testing.assert_allclose(1 / y, [[5, 7, 5], [7, 10, 7], [5, 7, 5]])


def test_an_even_window_lies_to_the_left_and_top():
    x = np.ones((1, 1, 1, 1)) * np.array([[1.0, 2, 4], [0, 0, 0], [0, 0, 0]])[None, :, :, None]
    y = forward(make("rnorm", size=2, scale=4, pow=1), x)[0, 0, :, 0]
    np.testing.assert_allclose(y, [1 / (1 + 1), 2 / (1 + 5), 4 / (1 + 20)])


def test_defaults_are_those_of_the_imagenet_files():
    layer = make("rnorm", size=3)
    assert (layer.scale, layer.pow, layer.minDiv) == (0.0001, 0.75, 1)
    assert type(layer).keys()["scale"].rate and type(layer).keys()["minDiv"].rate


def test_size_is_at_most_the_side():
    assert make("rnorm", size=4).shape((4, 7, 2)) == (4, 7, 2)
    with pytest.raises(ValueError, match="size=5 is more than the 4x7 map"):
        make("rnorm", size=5).shape((4, 7, 9))
