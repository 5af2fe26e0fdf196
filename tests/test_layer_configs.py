"""The nets of layer_configs/: sizes of all maps and counts of weights as they were published.

Counts need no weights; the steps of training are of the same nets with few filters.
"""

import numpy as np
import pytest

from convnet import Net
from convnet.sgd import Sgd
from convnet.source import Source
from convnet.summary import macs_of, totals
from tests.tooling import ROOT

NAMES = sorted(p.stem for p in (ROOT / "layer_configs").glob("*.cfg") if "-params" not in p.stem)
# Simonyan and Zisserman 2014 (arXiv 1409.1556), section 2.1 and table 1, column D: 3x3 filters with
# padding 1 keep the map, 2x2 pools with stride 2 halve it.
VGG16 = """
    conv1_1 224x224x64   conv1_2 224x224x64                         pool1 112x112x64
    conv2_1 112x112x128  conv2_2 112x112x128                        pool2 56x56x128
    conv3_1 56x56x256    conv3_2 56x56x256    conv3_3 56x56x256     pool3 28x28x256
    conv4_1 28x28x512    conv4_2 28x28x512    conv4_3 28x28x512     pool4 14x14x512
    conv5_1 14x14x512    conv5_2 14x14x512    conv5_3 14x14x512     pool5 7x7x512
    fc6 1x1x4096         fc7 1x1x4096         fc8 1x1x1000
"""
# He et al. 2014 (arXiv 1406.4729): table 1 gives filters and 18x18 from conv2's pool on; 37 is
# where it prints 36, from which conv2 with the padding that the authors' offset needs makes 17.
OVERFEAT7 = """
    conv1 109x109x96  pool1 37x37x96  conv2 35x35x256  pool2 18x18x256
    conv3 18x18x512   conv4 18x18x512  conv5 18x18x512  conv6 18x18x512  conv7 18x18x512
    pool3x3 3x3x512   pool2x2 2x2x512 pool1x1 1x1x512
    fc6 1x1x4096      fc7 1x1x4096    fc8 1x1x1000
"""


def source(name: str, *overrides: str) -> Source:
    return Source.read(ROOT / "layer_configs" / f"{name}.cfg", overrides=overrides)


def pairs(text: str) -> dict[str, tuple]:
    words = text.split()
    return {name: tuple(map(int, by.split("x"))) for name, by in zip(words[::2], words[1::2])}


def maps(shapes: dict[str, tuple]) -> dict[str, tuple]:
    """The shapes of conv, pool and fc layers, which are what the tables list."""
    kept = ("conv", "pool", "fc")
    return {k: v for k, v in shapes.items() if k.startswith(kept) and not k.endswith("_neuron")}


@pytest.mark.parametrize("name", NAMES)
def test_each_has_its_rates(name):
    assert source(name).params_text
    assert source(name).graph({}, 1000).costs == ["logprob"]


def test_vgg16():
    graph = source("vgg16").graph({}, 1000)
    assert maps(graph.shapes) == pairs(VGG16)
    # torchvision.models.VGG16_Weights.IMAGENET1K_V1: num_params 138357544, 15.47 GFLOPS
    assert totals(graph)["weights"] == 138_357_544
    assert round(totals(graph)["macs"] / 1e9, 2) == 15.47
    kinds = [l.type for l in graph.layers]
    assert kinds.count("conv") + kinds.count("fc") == 16 and kinds.count("dropout") == 2


def test_overfeat7_spp():
    graph = source("overfeat7_spp").graph({}, 1000)
    assert maps(graph.shapes) == pairs(OVERFEAT7)
    assert [graph.by_name[name].level for name in graph.by_name["fc6"].reads] == [3, 2, 1]
    # filters of table 1; 14 bins of 512 channels in front of fc6
    conv = (7 * 7 * 3 + 1) * 96 + (5 * 5 * 96 + 1) * 256 + (9 * 256 + 1) * 512
    conv += 4 * (9 * 512 + 1) * 512
    assert totals(graph)["weights"] == conv + (7168 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    places = 109**2 * 147 * 96 + 35**2 * 2400 * 256 + 18**2 * 512 * 9 * (256 + 4 * 512)
    assert sum(macs_of(graph, l) for l in graph.layers if l.type == "conv") == places


def test_where_the_cells_of_overfeat7_are():
    """Step 12 and the first centre at pixel 15, counted from 1, as the authors' detection has."""
    graph, step, centre = source("overfeat7_spp").graph({}, 1000), 1, 1.0
    for name in ("conv1", "pool1", "conv2", "pool2", *(f"conv{i}" for i in range(3, 8))):
        l = graph.by_name[name]
        conv = l.type == "conv"
        size, pad = (l.filterSize[0], l.padding[0]) if conv else (l.sizeX, 0)
        centre += step * ((size - 1) / 2 - pad)
        step *= l.stride[0] if conv else l.stride
    assert (step, centre) == (12, 15)


def test_overfeat7_at_180():
    """The paper's second size of training: a map of 14x14, and the same weights."""
    at = source("overfeat7_spp").graph({}, 1000).shapes_at({"data": (180, 180, 3)})
    assert at["conv7"] == (14, 14, 512)
    assert [at[f"pool{n}x{n}"] for n in (3, 2, 1)] == [(3, 3, 512), (2, 2, 512), (1, 1, 512)]


SMALL = {
    "overfeat7_spp": [f"conv{i}.filters=8" for i in range(1, 8)],
    "vgg16": ["data.imgSize=32"]
    + [f"conv{b}_{i}.filters=8" for b in range(1, 6) for i in range(1, 3 + (b > 2))],
}


@pytest.mark.parametrize("name", SMALL)
def test_training(name):
    """Steps on one batch, with few filters, lower its loss; the first is that of a guess."""
    few = [*SMALL[name], "fc6.outputs=32", "fc7.outputs=32", "drop6.enable=0", "drop7.enable=0"]
    net = Net(source(name, *few).graph({}, 10), seed=1)
    rng, sgd, losses = np.random.default_rng(0), Sgd(net), []
    images = rng.normal(0, 60, (2, *net.graph.shapes["data"])).astype(np.float32)
    for _ in range(30):
        outs, tape = net.fprop(net.feed(images, np.array([3, 7])), ["logprob"], train=True)
        gradients = net.bprop(tape, net.cost_gradients(outs), lazy=True)
        assert not sgd.first_not_finite(gradients)
        assert {layer for layer, _ in gradients} == {n for n, w in net.weights.items() if w}
        sgd.update(gradients, len(images), 0.0)
        losses.append(outs["logprob"][..., 0].mean())
    assert abs(losses[0] - np.log(10)) < 0.5 and losses[-1] < losses[0] - 0.5, losses
