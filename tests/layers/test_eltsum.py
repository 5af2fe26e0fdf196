"""eltsum and eltmax: known numbers, ties, and inputs that do not fit."""

import numpy as np
import pytest

from tests.layers._one import build, run, wrong

A, B, C = (np.array(v, float).reshape(1, 1, 1, 3) for v in ([1, 5, 2], [4, 5, -6], [4, 5, 3]))
DY = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
ABC = "in0,in1,in2"


@pytest.mark.parametrize(
    "keys,want,factors",
    [
        ([], [9, 15, -1], [1, 1, 1]),
        (["coeffs=2"], [18, 30, -2], [2, 2, 2]),
        (["coeffs=1,-1,5e-1"], [-1, 2.5, 9.5], [1, -1, 0.5]),
    ],
)
def test_sum(keys, want, factors):
    y, bprop = build("eltsum", *keys, inputs=ABC).fprop(run(), {}, A, B, C)
    np.testing.assert_allclose(y.ravel(), want)
    dxs, _ = bprop(DY, {0, 1, 2})
    for dx, factor in zip(dxs, factors):
        np.testing.assert_allclose(dx, factor * DY)
    assert bprop(DY, {1})[0][0] is None


def test_sum_of_one():
    y, _ = build("eltsum", "coeffs=-2").fprop(run(), {}, A)
    np.testing.assert_allclose(y, -2 * A)


def test_coeffs_are_counted():
    assert "must have 1 or 3 items" in wrong("eltsum", "coeffs=1,2", inputs=ABC)


def test_max_and_its_ties():
    y, bprop = build("eltmax", inputs=ABC).fprop(run(), {}, A, B, C)
    np.testing.assert_array_equal(y.ravel(), [4, 5, 3])
    dxs, _ = bprop(DY, {0, 1, 2})
    np.testing.assert_array_equal([dx.ravel() for dx in dxs], [[0, 2, 0], [1, 2, 0], [1, 2, 3]])
    assert bprop(DY, {2})[0][:2] == [None, None]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_nan_is_the_greatest(at):
    xs = [A, B, C]
    xs[at] = np.full_like(A, np.nan)
    y, _ = build("eltmax", inputs=ABC).fprop(run(), {}, *xs)
    assert np.isnan(y).all()


@pytest.mark.parametrize("type", ["eltsum", "eltmax"])
def test_shapes_must_be_equal(type):
    layer = build(type, inputs="in0,in1")
    with pytest.raises(ValueError, match="equal shape, has 3x4x2, 3x4x1"):
        layer.shape((3, 4, 2), (3, 4, 1))


def test_max_of_one():
    with pytest.raises(ValueError, match="two inputs or more"):
        build("eltmax").shape((1, 1, 2))
