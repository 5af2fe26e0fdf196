"""Where every number of every input ends up."""

import numpy as np

from tests.layers._one import build, run


def joined(*shapes, N=2):
    """Inputs of numbers counted up, and what concat makes of them."""
    ends = np.cumsum([N * np.prod(s) for s in shapes])
    xs = [
        np.arange(e - N * np.prod(s), e, dtype=float).reshape(N, *s) for s, e in zip(shapes, ends)
    ]
    layer = build("concat", inputs=",".join(f"in{i}" for i in range(len(xs))))
    y, bprop = layer.fprop(run(), {}, *xs)
    assert y.shape[1:] == layer.shape(*shapes)
    return xs, y, bprop


def test_equal_sides_join_their_channels():
    xs, y, bprop = joined((3, 2, 1), (3, 2, 4), (3, 2, 2))
    np.testing.assert_array_equal(y, np.concatenate(xs, axis=3))
    dxs, _ = bprop(y, {0, 1, 2})
    for x, dx in zip(xs, dxs):
        np.testing.assert_array_equal(dx, x)


def test_other_sides_are_flattened():
    xs, y, bprop = joined((3, 2, 2), (2, 3, 5), (1, 1, 4))
    np.testing.assert_array_equal(y, np.hstack([x.reshape(2, -1) for x in xs])[:, None, None])
    dxs, _ = bprop(y, {0, 1, 2})
    for x, dx in zip(xs, dxs):
        np.testing.assert_array_equal(dx, x)


def test_gradients_only_where_wanted():
    xs, y, bprop = joined((1, 1, 3), (1, 1, 4))
    (a, b), _ = bprop(y, {1})
    assert a is None
    np.testing.assert_array_equal(b, xs[1])
