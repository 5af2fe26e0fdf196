"""Windows of maps: what a pyramid makes of them is what it makes of the cells, cut out."""

import numpy as np
import pytest

from convnet.cfg import CfgError
from convnet.net import Net
from convnet.source import Source
from tests import contract
from tests.contract import layer_class, make

rng = np.random.default_rng(3)


def some(n: int, images: int, H: int, W: int) -> np.ndarray:
    """n windows (n, 1, 1, 5) of maps of H x W cells, in the order of their images."""
    rows = np.empty((n, 1, 1, 5), np.int32)
    for row, image in zip(rows[:, 0, 0], np.sort(rng.integers(0, images, n))):
        (t, b), (l, r) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (H, W))
        row[:] = image, t, l, b, r
    return rows


def both(**keys):
    """A layer that reads a map, and one of the same keys that reads windows as well."""
    alone = make(keys.pop("type", "spp"), **keys)
    windowed = make(alone.type, **keys)
    windowed.inputs = ["in0", "in1"]
    return alone, windowed


@pytest.mark.parametrize("levels", ("6,3,2,1", "1,2,3,6", "4,3,2,1", "5", "2,2,1"))
@pytest.mark.parametrize("keep", ("max", "avg"))
def test_windows_are_maps_cut_out(levels, keep):
    alone, windowed = both(levels=levels, pool=keep)
    x = rng.standard_normal((3, 9, 14, 5)).astype(np.float32)
    windows = some(40, 3, 9, 14)
    y, bprop = windowed.fprop(contract.run(), {}, x, windows)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    (dx,), _ = bprop(dy, {0})
    wanted = np.zeros(x.shape)
    for row, got, d in zip(windows[:, 0, 0], y, dy):
        n, t, l, b, r = row
        one, back = alone.fprop(contract.run(), {}, x[n : n + 1, t:b, l:r].copy())
        np.testing.assert_array_equal(one[0], got)
        wanted[n, t:b, l:r] += back(d[None], {0})[0][0][0]
    np.testing.assert_allclose(dx, wanted, atol=2e-5)


def test_levels_made_of_the_finest_keep_a_nan():
    _, windowed = both(levels="6,3,2,1")
    x = np.zeros((1, 13, 13, 1), np.float32)
    x[0, 12, 0] = np.nan
    windows = np.array([[0, 0, 0, 13, 13], [0, 0, 0, 12, 13]], np.int32).reshape(2, 1, 1, 5)
    y, _ = windowed.fprop(contract.run(), {}, x, windows)
    at = np.flatnonzero(np.isnan(y[0]))
    assert at.tolist() == [30, 36 + 6, 45 + 2, 49] and not np.isnan(y[1]).any()


def test_a_pool_that_is_a_level_cuts_windows_into_its_bins():
    pool = layer_class("pool")
    alone, windowed = both(type="pool", pool="max", sizeX=3, stride=2)
    assert windowed.shape((13, 13, 2), (1, 1, 5)) == (6, 6, 2) and isinstance(alone, pool)
    windowed.level, windowed.trained_on = 6, (13, 13, 2)
    spp, _ = both(levels="6")
    x, windows = rng.standard_normal((2, 17, 21, 4)).astype(np.float32), some(15, 2, 17, 21)
    y, _ = windowed.fprop(contract.run(), {}, x, windows)
    for (n, t, l, b, r), got in zip(windows[:, 0, 0], y):
        one, _ = spp.fprop(contract.run(), {}, x[n : n + 1, t:b, l:r].copy())
        np.testing.assert_array_equal(one.reshape(6, 6, 4), got)


@pytest.mark.parametrize("row", (
    [2, 0, 0, 3, 3], [-1, 0, 0, 3, 3], [0, -1, 0, 3, 3], [0, 0, 2, 3, 2], [1, 0, 0, 10, 3],
    [1, 0, 0, 3, 15],
))  # fmt: skip
def test_windows_outside_of_the_maps(row):
    _, windowed = both(levels="2")
    x = np.zeros((2, 9, 14, 1), np.float32)
    windows = np.array([[0, 0, 0, 9, 14], row], np.int32).reshape(2, 1, 1, 5)
    with pytest.raises(ValueError, match=r"^window 1 is \[.*not inside 2 maps of 9x14 cells$"):
        windowed.fprop(contract.run(), {}, x, windows)


def test_windows_out_of_order():
    _, windowed = both(levels="2")
    windows = np.array([[1, 0, 0, 2, 2], [0, 0, 0, 2, 2]], np.int32).reshape(2, 1, 1, 5)
    with pytest.raises(ValueError, match="in the order of their images"):
        windowed.fprop(contract.run(), {}, np.zeros((2, 3, 3, 1), np.float32), windows)


DETECTOR = """
[data]
type=data
dataIdx=0
imgSize=25
[labels]
type=data
dataIdx=1
[windows]
type=data
dataIdx=2
[conv1]
type=conv
inputs=data
filters=4
filterSize=3
padding=1
stride=2
initW=0.2
[p3]
type=pool
pool=max
inputs=conv1,windows
sizeX=5
stride=4
[p1]
type=pool
pool=max
inputs=conv1,windows
sizeX=13
stride=13
[fc2]
type=fc
inputs=p3,p1
outputs=classes
initW=0.2
[probs]
type=softmax
inputs=fc2
[logprob]
type=cost.logreg
inputs=labels,probs
"""


def test_a_net_with_windows_learns_on_images_of_any_size():
    """Its pools are levels; the gradient of conv1 is that of finite differences."""
    net = Net(Source("d.cfg", DETECTOR).graph(classes=3))
    images = rng.standard_normal((2, 30, 44, 3))
    windows, labels = some(7, 2, 15, 22), rng.integers(0, 3, (7, 1, 1, 1)).astype(np.int32)
    given = {"data": images, "windows": windows, "labels": labels}
    w = net.weights["conv1"]["W0"] = net.weights["conv1"]["W0"].astype(np.float64)
    for layer, arrays in net.weights.items():
        net.weights[layer] = {k: v.astype(np.float64) for k, v in arrays.items()}
    w = net.weights["conv1"]["W0"]
    outs, tape = net.fprop(given, net.graph.costs, train=True)
    got = net.bprop(tape, net.cost_gradients(outs))["conv1", "W0"]
    assert outs["logprob"].shape == (7, 1, 1, 2)
    for at in ((0, 0, 0, 0), (1, 2, 1, 3), (2, 1, 2, 2)):
        sums, was = [], w[at]
        for step in (1e-6, -1e-6):
            w[at] = was + step
            sums.append(net.fprop(given, net.graph.costs)[0]["logprob"][..., 0].sum())
        w[at] = was
        assert abs((sums[0] - sums[1]) / 2e-6 - got[at]) < 1e-5 * abs(got).max()


def test_a_pool_that_is_no_level_has_no_windows():
    text = DETECTOR.replace("sizeX=5\nstride=4", "sizeX=3\nstride=2\nstart=-1")
    with pytest.raises(CfgError, match=r"d.cfg:20: \[p3\] is no level of a pyramid on a 13x13 map"):
        Source("d.cfg", text).graph(classes=3)


def test_other_tools_say_whose_the_cfg_is():
    graph = Source("d.cfg", DETECTOR).graph(classes=3)
    why = r"d.cfg:11: \[windows\] dataIdx=2: only tools/detect.py has windows to give"
    with pytest.raises(CfgError, match=why):
        graph.check_no_windows()
