"""Known probabilities, and numbers that a careless e^x does not survive."""

import numpy as np

from tests.layers._one import build, run


def probs(values, shape):
    return build("softmax").fprop(run(), {}, np.array(values, float).reshape(shape))


def test_known_values():
    y, _ = probs(np.log([1, 2, 5, 3, 3, 2]), (2, 1, 1, 3))
    np.testing.assert_allclose(y.reshape(2, 3), [[1 / 8, 2 / 8, 5 / 8], [3 / 8, 3 / 8, 2 / 8]])


def test_all_numbers_of_a_case_share_one_sum():
    y, _ = probs(np.zeros(24), (2, 2, 3, 2))
    assert y.shape == (2, 2, 3, 2)
    np.testing.assert_allclose(y, 1 / 12)


def test_huge_numbers():
    y, bprop = probs([1e4, -1e4, 1e4 - np.log(3)], (1, 1, 1, 3))
    np.testing.assert_allclose(y.ravel(), [0.75, 0, 0.25], rtol=1e-9)
    (dx,), _ = bprop(np.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3), {0})
    np.testing.assert_allclose(dx.ravel(), [0.75 * -0.5, 0, 0.25 * 1.5], rtol=1e-9)


def test_a_shift_changes_nothing():
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 2))
    a, b = probs(x, x.shape)[0], probs(x + 100, x.shape)[0]
    np.testing.assert_allclose(a, b, rtol=1e-12)
