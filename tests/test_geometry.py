"""Receptive fields and the cells of a rectangle, against formulas written down elsewhere."""

import math

import numpy as np
import pytest

from convnet import Net
from convnet.geometry import Field, cells, field
from convnet.source import Source
from tests.tooling import ROOT

ODD = """
[data]
type=data
dataIdx=0
imgSize=41
channels=1
[labels]
type=data
dataIdx=1
[conv1]
type=conv
inputs=data
filters=2
filterSize=5
stride=2
padding=1
[pool1]
type=pool
pool=avg
inputs=conv1
sizeX=3
stride=2
start=-1
[a]
type=conv
inputs=pool1
filters=2
filterSize=3
padding=1
[b]
type=conv
inputs=pool1
filters=2
filterSize=1
[both]
type=concat
inputs=a,b
[conv2]
type=conv
inputs=both
filters=2
filterSize=4
[fc]
type=fc
inputs=conv2
outputs=classes
[probs]
type=softmax
inputs=fc
[logprob]
type=cost.logreg
inputs=labels,probs
"""


def graph(name: str):
    return Source.read(ROOT / "layer_configs" / f"{name}.cfg").graph({}, 1000)


@pytest.mark.parametrize(
    "layer,found",
    [
        ("conv1", (7, 2, 2)),
        ("pool1", (11, 4, 4)),
        ("conv2", (27, 8, 12)),
        ("pool2", (43, 16, 20)),
        ("conv3", (75, 16, 20)),
        ("conv4", (107, 16, 20)),
        ("conv5", (139, 16, 20)),
    ],
)
def test_zf5_as_published(layer, found):
    """Spec: SPP-net 1.1, of the authors' prototxt."""
    assert field(graph("spp_zf5"), layer) == found


def test_what_a_cell_sees():
    """The pixels with a gradient are those of the field, for every cell that has all of them."""
    net = Net(Source("odd.cfg", ODD).graph({}, 3), seed=1)
    for layer in ("conv1", "pool1", "both", "conv2"):
        of = field(net.graph, layer)
        side = net.graph.shapes[layer][0]
        for at in range(side):
            first = of.centre - (of.size - 1) / 2 + at * of.stride
            if first < 0 or first + of.size > 41:
                continue
            touched = np.zeros((41, 41), bool)
            images = np.random.default_rng(at).normal(0, 1, (1, 41, 41, 1))
            base = net.fprop({"data": images}, [layer])[0][layer][0, at, at]
            for pixel in range(41):
                other = images.copy()
                other[0, pixel, :] += 1.0
                other = net.fprop({"data": other}, [layer])[0][layer][0, at, at]
                touched[pixel] = not np.allclose(base, other, rtol=1e-9)
            seen = np.flatnonzero(touched.any(1))
            assert (seen[0], seen[-1]) == (first, first + of.size - 1), (layer, at)


def test_what_is_no_map():
    with pytest.raises(ValueError, match=r"\[fc\] is no map of the image"):
        field(Source("odd.cfg", ODD).graph({}, 3), "fc")


ZF5 = Field(139, 16, 20)
WINDOWS = [(x, x + w) for x in range(0, 300, 7) for w in (1, 5, 17, 33, 64, 150, 224)]


def test_release():
    """The authors' numbers, counted from 1: o0 = 21, o = 6.5, S = 16 (spec: SPP-net 2.4)."""
    side, collapsed = 33, 0
    for begin, end in WINDOWS:
        left, right = begin + 1, end
        first = math.floor((left - 21 + 6.5) / 16 + 0.5) + 1
        last = math.ceil((right - 21 - 6.5) / 16 - 0.5) + 1
        if last < first:
            first = last = int((first + last) / 2)
            collapsed += 1
        want = min(max(first, 1), side) - 1, min(max(last, 1), side)
        assert cells(ZF5, "release", begin, end, side, 13) == want, (begin, end)
    assert collapsed > 10
    # in words: the first cell whose centre > l - 1.5, the last whose centre < r + 1.5
    centres = 20 + 16 * np.arange(side)
    for begin, end in WINDOWS:
        inside = np.flatnonzero((centres > begin - 1.5) & (centres < end - 1 + 1.5))
        if len(inside):
            assert cells(ZF5, "release", begin, end, side, 13) == (inside[0], inside[-1] + 1)


def test_paper():
    """Cells whose centre is strictly between the first and the last pixel."""
    centres = 20 + 16 * np.arange(33)
    several = 0
    for begin, end in WINDOWS:
        inside = np.flatnonzero((centres > begin) & (centres < end - 1))
        if len(inside):
            several += len(inside) > 1
            assert cells(ZF5, "paper", begin, end, 33, 13) == (inside[0], inside[-1] + 1)
    assert several > 100


@pytest.mark.parametrize("semantics", ["crop", "paper", "release"])
def test_never_empty_and_never_outside(semantics):
    for side in (1, 2, 13):
        for begin, end in WINDOWS:
            first, after = cells(ZF5, semantics, begin, end, side, 13)
            assert 0 <= first < after <= side


def test_crop():
    """13 cells for 224 pixels, moved by one for 16 pixels, the last ones at the border."""
    at = [cells(ZF5, "crop", y, y + 224, 16, 13) for y in range(0, 49, 8)]
    assert at == [(0, 13), (1, 14), (1, 14), (2, 15), (2, 15), (3, 16), (3, 16)]
