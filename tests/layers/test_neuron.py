"""Every neuron at points of known value, its slope at the corners, and what it refuses."""

import numpy as np
import pytest

from convnet.layer import Layer
from layers.neuron import TABLE, neuron_of
from tests.layers._one import build, load, run, wrong

POINTS = [
    # neuron, x, value, slope
    ("ident", -3.5, -3.5, 1),
    ("relu", -2, 0, 0),
    ("relu", 0, 0, 0),
    ("relu", 1.5, 1.5, 1),
    ("logistic", 0, 0.5, 0.25),
    ("logistic", np.log(3), 0.75, 0.1875),
    ("logistic", -1000, 0, 0),
    ("abs", -2, 2, -1),
    ("abs", 0, 0, -1),
    ("abs", 3, 3, 1),
    ("softrelu", 0, np.log(2), 0.5),
    ("softrelu", np.log(3), np.log(4), 0.75),
    ("softrelu", 5, 5 + np.log1p(np.exp(-5)), 1 / (1 + np.exp(-5))),
    ("softrelu", 1000, 1000, 1),
    ("softrelu", -30, np.exp(-30), np.exp(-30)),
    ("square", -3, 9, -6),
    ("sqrt", 4, 2, 0.25),
    ("sqrt", 0, 0, np.inf),
    ("log[0.5]", 1.5, np.log(2), 0.5),
    ("tanh[1.7159,0.66666]", 0, 0, 1.7159 * 0.66666),
    ("tanh[2,1]", np.log(2), 1.2, 2 * (1 - 0.36)),
    ("brelu[6]", -1, 0, 0),
    ("brelu[6]", 0, 0, 0),
    ("brelu[6]", 2, 2, 1),
    ("brelu[6]", 6, 6, 0),
    ("brelu[6]", 7, 6, 0),
    ("linear[-2,3]", 4, -5, -2),
    ("drelu[2]", 0, 0, 0),
    ("drelu[2]", 2 * np.log(2), 2 * np.log(2) - 1.2, 0.36),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text,x,value,slope", POINTS)
def test_known_points(text, x, value, slope, dtype):
    layer = build("neuron", f"neuron={text}")
    assert not layer.notes
    y, bprop = layer.fprop(run(), {}, np.full((1, 1, 1, 3), x, dtype))
    (dx,), _ = bprop(np.full((1, 1, 1, 3), 2, dtype), {0})
    assert y.dtype == dx.dtype == dtype
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(y.ravel(), [value] * 3, rtol=rtol, atol=1e-15)
    np.testing.assert_allclose(dx.ravel(), [2 * slope] * 3, rtol=rtol, atol=1e-15)


def test_every_neuron_has_a_point_and_an_example():
    assert {p[0].partition("[")[0] for p in POINTS} == set(TABLE)
    assert all(f"neuron={name}" in load("neuron").examples for name in TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_nan_stays_a_nan(name):
    text = {"": name, "a": f"{name}[1]", "a,b": f"{name}[1,1]"}[TABLE[name].parameters]
    y, _ = build("neuron", f"neuron={text}").fprop(run(), {}, np.full((1, 1, 1, 1), np.nan))
    assert np.isnan(y).all()


def test_no_gradient_where_none_is_wanted():
    for text in ("ident", "relu", "square"):
        _, bprop = build("neuron", f"neuron={text}").fprop(run(), {}, np.ones((2, 1, 1, 3)))
        assert bprop(np.ones((2, 1, 1, 3)), set()) == ([None], {})


@pytest.mark.parametrize(
    "text,chosen",
    [
        ("relu", ("relu", 0, 0)),
        ("tanh[1.7159,0.66666]", ("tanh", 1.7159, 0.66666)),
        ("tanh [ 1.5 , -2 ]", ("tanh", 1.5, -2)),
        ("linear[1e-1,-2.5E+1]", ("linear", 0.1, -25)),
        ("log[.5]", ("log", 0.5, 0)),
    ],
)
def test_reads(text, chosen):
    assert neuron_of(text) == chosen


@pytest.mark.parametrize(
    "text,why",
    [
        ("rleu", "no neuron is called 'rleu'; did you mean 'relu'?"),
        ("ReLU", "no neuron is called 'ReLU'; did you mean 'relu'?"),
        ("maxout", "no neuron is called 'maxout'; there are ident, relu, logistic"),
        ("tanh", "tanh takes 2 parameters: tanh[a,b]; got 0"),
        ("tanh[1]", "tanh takes 2 parameters: tanh[a,b]; got 1"),
        ("log[1,2]", "log takes 1 parameter: log[a]; got 2"),
        ("relu[1]", "relu takes no parameters: relu; got 1"),
        ("tanh(1.7,0.6)", "parameters stand in square brackets: tanh[1.7,0.6]"),
        ("tanh[1,]", "the parameters of tanh[a,b] must be numbers"),
        ("linear[nan,1]", "the parameters of linear[a,b] must be finite numbers"),
        ("tanh[0,1]", "a must not be 0 in tanh[a,b]"),
        ("drelu[0]", "a must not be 0 in drelu[a]"),
        ("brelu[-1]", "a must be above 0 in brelu[a]"),
        ("tanh[1,2", "must be a name, or a name and its parameters"),
    ],
)
def test_refuses(text, why):
    assert why in wrong("neuron", f"neuron={text}")


def test_neuron_is_needed():
    assert "needs neuron=" in wrong("neuron")


def test_only_this_type_keeps_its_neuron():
    assert Layer.splits and not load("neuron").splits
