"""The nets of layer_configs/: sizes of all maps and counts of weights as they were published.

Counts need no weights; the steps of training are of the same nets with few filters.
"""

import math
import re

import numpy as np
import pytest

from convnet import Net
from convnet.sgd import Sgd
from convnet.source import Source
from convnet.summary import macs_of, table, totals
from tests.tooling import ROOT

NAMES = sorted(p.stem for p in (ROOT / "layer_configs").glob("*.cfg") if "-params" not in p.stem)
PYRAMIDS = {"{}": (), "spp_{}": (3, 2, 1), "spp_{}_4321": (4, 3, 2, 1), "spp_{}_6321": (6, 3, 2, 1)}
# The layers in front of what a pyramid replaces: name, side of the map at 224 and, where the net is
# trained at 180 too, there; of a convolution filterSize x inputs of a filter x filters.
# He et al. 2014 (arXiv 1406.4729), table 1, and their release of ZF-5 (conv2 is 26 there, 27 in the
# table). Of Overfeat 37 is where the table prints 36, from which conv2 with the padding that the
# authors' offset needs makes 17.
ZF5 = """
    conv1 110/88 7x3x96   pool1 55/44  conv2 26/20 5x96x256   pool2 13/10
    conv3 13/10 3x256x384  conv4 13/10 3x384x384  conv5 13/10 3x384x256
"""
CONVNET5 = """
    conv1 55 11x3x96  conv2 55 5x96x256  pool2 27  conv3 27 3x256x384  pool3 13
    conv4 13 3x384x384  conv5 13 3x384x256
"""
OVERFEAT5 = """
    conv1 109/87 7x3x96  pool1 37/29  conv2 35/27 5x96x256  pool2 18/14
    conv3 18/14 3x256x512  conv4 18/14 3x512x512  conv5 18/14 3x512x512
"""
OVERFEAT7 = OVERFEAT5 + "conv6 18/14 3x512x512  conv7 18/14 3x512x512"
# Krizhevsky et al. 2012, figure 2: half of the maps go into each filter of conv2, conv4 and conv5.
ALEXNET = """
    conv1 55 11x3x96  pool1 27  conv2 27 5x48x256  pool2 13
    conv3 13 3x256x384  conv4 13 3x192x384  conv5 13 3x192x256
"""
# Simonyan and Zisserman 2014 (arXiv 1409.1556), section 2.1 and table 1, column D.
VGG16 = """
    conv1_1 224 3x3x64    conv1_2 224 3x64x64                          pool1 112
    conv2_1 112 3x64x128  conv2_2 112 3x128x128                        pool2 56
    conv3_1 56 3x128x256  conv3_2 56 3x256x256    conv3_3 56 3x256x256  pool3 28
    conv4_1 28 3x256x512  conv4_2 28 3x512x512    conv4_3 28 3x512x512  pool4 14
    conv5_1 14 3x512x512  conv5_2 14 3x512x512    conv5_3 14 3x512x512
"""
# Szegedy et al. 2014 (arXiv 1409.4842), table 1: name, side, inputs, #1x1, #3x3 reduce, #3x3, #5x5
# reduce, #5x5, pool proj, and its last column, millions of operations (5a prints 54, its filters
# make 51).
MODULES = """
    3a 28 192   64  96 128 16  32  32 128    3b 28 256  128 128 192 32  96  64 304
    4a 14 480  192  96 208 16  48  64  73    4b 14 512  160 112 224 24  64  64  88
    4c 14 512  128 128 256 24  64  64 100    4d 14 512  112 144 288 32  64  64 119
    4e 14 528  256 160 320 32 128 128 170    5a  7 832  256 160 320 32 128 128  51
    5b  7 832  384 192 384 48 128 128  71
"""
GOOGLENET = (
    "conv1 112 7x3x64  pool1 56  conv2r 56 1x64x64  conv2 56 3x64x192  pool2 28  pool3 14  pool4 7"
)
ROWS = np.reshape(MODULES.split(), (9, 10))
for at, S, C, a, b, c, d, e, f, _ in ROWS:
    GOOGLENET += f"""
        inc{at}_1x1 {S} 1x{C}x{a}  inc{at}_3x3r {S} 1x{C}x{b}  inc{at}_3x3 {S} 3x{b}x{c}
        inc{at}_5x5r {S} 1x{C}x{d}  inc{at}_5x5 {S} 5x{d}x{e}  inc{at}_proj {S} 1x{C}x{f}"""
TRUNKS = {
    "zf5": ZF5, "convnet5": CONVNET5, "overfeat5": OVERFEAT5, "overfeat7": OVERFEAT7,
    "alexnet": ALEXNET, "vgg16": VGG16, "googlenet": GOOGLENET,
}  # fmt: skip
# (layer that the pyramid reads, side of its map, channels, bins without a pyramid)
LAST = {
    "zf5": ("conv5", 13, 256, 36), "convnet5": ("conv5", 13, 256, 36),
    "overfeat5": ("conv5", 18, 512, 36), "overfeat7": ("conv7", 18, 512, 36),
    "alexnet": ("conv5", 13, 256, 36), "vgg16": ("conv5_3", 14, 512, 49),
    "googlenet": ("inc5b", 7, 1024, 1),
}  # fmt: skip
# Caffe's bvlc_alexnet; torchvision's VGG16_Weights.IMAGENET1K_V1; Caffe's bvlc_googlenet without
# auxiliary classifiers, and these; in millions ZF-5 of the authors' release.
WEIGHTS = {"alexnet": 60_965_224, "vgg16": 138_357_544, "googlenet": 6_998_552 + 6_379_728}
MILLIONS = {"zf5": 62.36, "spp_zf5": 39.29, "spp_zf5_4321": 56.07, "spp_zf5_6321": 77.04}
VARIANTS = [(net, form.format(net), levels) for net in TRUNKS for form, levels in PYRAMIDS.items()]
TWINS = [("zf5", "spp_zf5", 10), ("overfeat7", "spp_overfeat7", 14)]


def source(name: str, *overrides: str) -> Source:
    return Source.read(ROOT / "layer_configs" / f"{name}.cfg", overrides=overrides)


def graph_of(name: str, classes: int = 1000):
    return source(name).graph({}, classes)


def trunk(net: str, at180: bool = False) -> dict[str, tuple]:
    """{layer: (side of its map, filterSize, inputs, filters)} of a table, of pools (side,)."""
    rows = re.findall(r"(\w+) (\d+)(?:/(\d+))?(?: +(\d+)x(\d+)x(\d+))?", TRUNKS[net])
    kept = ((name, (b if at180 else a, *conv)) for name, a, b, *conv in rows)
    return {name: tuple(int(n) for n in numbers if n) for name, numbers in kept}


def check_trunk(graph, rows: dict[str, tuple]) -> tuple[int, int]:
    """The layers of a table are the net's; their weights and multiply-adds."""
    weights = macs = 0
    for name, (side, *conv) in rows.items():
        assert graph.shapes[name][:2] == (side, side), name
        if conv:
            F, C, K = conv
            l, own = graph.by_name[name], (F * F * C + 1) * K
            assert (graph.shapes[name][2], graph.weights_of(l)) == (K, own), name
            assert macs_of(graph, l) == side**2 * F * F * C * K, name
            weights, macs = weights + own, macs + macs_of(graph, l)
    convs = {l.name for l in graph.layers if l.type == "conv" and not l.name.startswith("aux")}
    assert convs == {name for name, row in rows.items() if row[1:]}
    return weights, macs


def levels_of(graph) -> tuple:
    """The levels of the pyramid, in the order in which the fc layer behind it reads them."""
    reader = graph.by_name.get("fc_spp") or graph.by_name.get("fc6")
    pools = [graph.by_name[name] for name in reader.reads] if reader else []
    return tuple(n for l in pools for n in (l.levels if l.type == "spp" else [l.level]) if n)


@pytest.mark.parametrize("name", NAMES)
def test_each_has_its_rates(name):
    """And the cost that a prediction looks at is the first."""
    assert source(name).params_text
    assert graph_of(name).costs[0] == "logprob"


@pytest.mark.parametrize("net,name,levels", VARIANTS)
def test_sizes(net, name, levels):
    graph, (last, side, C, bins) = graph_of(name), LAST[net]
    weights, macs = check_trunk(graph, trunk(net))
    assert graph.shapes[last] == (side, side, C)
    assert levels_of(graph) == levels
    numbers = C * (sum(n * n for n in levels) or bins)
    if net == "googlenet":
        if levels:  # fc_spp
            weights, macs, numbers = weights + (numbers + 1) * 1024, macs + numbers * 1024, 1024
        weights += (numbers + 1) * 1000
        macs += numbers * 1000
        for maps in 512, 528:  # section 5: 1x1 with 128 filters on a mean of 4x4, 1024, classes
            weights += (maps + 1) * 128 + (2048 + 1) * 1024 + 1025 * 1000
            macs += (14 if levels else 4) ** 2 * maps * 128 + 2048 * 1024 + 1024 * 1000
    else:
        weights += (numbers + 1) * 4096 + 4097 * 4096 + 4097 * 1000
        macs += numbers * 4096 + 4096 * 4096 + 4096 * 1000
    assert totals(graph)["weights"] == weights == WEIGHTS.get(name, weights)
    assert totals(graph)["macs"] == macs
    assert round(weights / 1e6, 2) == MILLIONS.get(name, round(weights / 1e6, 2))


@pytest.mark.parametrize("net,name,levels", [v for v in VARIANTS if v[2]])
def test_a_variant_has_another_pooling_and_nothing_else(net, name, levels):
    """But for GoogLeNet's fc_spp and its auxiliary classifiers. It takes images of other sizes."""
    has, had = source(name).sections(), source(net).sections()
    moved = {one for one in has[0].keys() | had[0].keys() if has[0].get(one) != had[0].get(one)}
    pools = {one for one in moved if one.startswith(("pool", "spp", "aux"))}
    assert moved - pools == ({"fc_spp", "drop"} if net == "googlenet" else {"fc6"})
    assert has[1] == had[1] and has[1].default == had[1].default
    graph = graph_of(name)
    at = graph.shapes_at({"data": (180, 301, 3)})
    assert at["probs"] == (1, 1, 1000) and at[LAST[net][0]] != graph.shapes[LAST[net][0]]
    with pytest.raises(ValueError):
        graph_of(net).shapes_at({"data": (180, 180, 3)})


def test_multiply_adds_as_published():
    """Of the modules of GoogLeNet; torchvision's GFLOPS of VGG-16; He et al.'s trunks."""
    graph = graph_of("googlenet")
    for at, *_, millions in ROWS:
        inside = (l for l in graph.layers if l.name.startswith(f"inc{at}_"))
        assert abs(sum(macs_of(graph, l) for l in inside) / 1e6 - int(millions)) < 1, at
    assert round(totals(graph_of("vgg16"))["macs"] / 1e9, 2) == 15.47
    for net, billions in ("zf5", 1.11), ("overfeat5", 2.83), ("overfeat7", 4.36):
        assert round(check_trunk(graph_of(net), trunk(net))[1] / 1e9, 2) == billions


@pytest.mark.parametrize(
    "net,step,centre", [("zf5", 16, 20), ("overfeat5", 12, 14), ("overfeat7", 12, 14)]
)
def test_where_the_cells_are(net, step, centre):
    """Pixels from cell to cell and of the first, from 0, as the authors' detection has them."""
    graph, jump, at = graph_of(net), 1, 0.0
    for name in trunk(net):
        l = graph.by_name[name]
        conv = l.type == "conv"
        size, pad = (l.filterSize[0], l.padding[0]) if conv else (l.sizeX, 0)
        at += jump * ((size - 1) / 2 - pad)
        jump *= l.stride[0] if conv else l.stride
    assert (jump, at) == (step, centre)


@pytest.mark.parametrize("net,name,side", TWINS)
def test_the_nets_at_180(net, name, side):
    """Their weights are those of the net at 224, and so is what they make of 180x180 pixels."""
    at224, at180 = graph_of(name), graph_of(f"{name}_180")
    check_trunk(at180, trunk(net, at180=True))
    assert at180.shapes[LAST[net][0]][:2] == (side, side)
    assert levels_of(at180) == (3, 2, 1)
    shapes = [{(l.name, k): w.shape for l in g.layers for k, w in g.asked(l).items()}
              for g in (at224, at180)]  # fmt: skip
    assert shapes[0] == shapes[1]
    small = few(name)
    nets = [Net(source(which, *small).graph({}, 10), seed=1) for which in (name, f"{name}_180")]
    images = np.random.default_rng(0).normal(0, 60, (2, 180, 180, 3)).astype(np.float32)
    probs = [n.run({"data": images}, "probs") for n in nets]
    np.testing.assert_array_equal(*probs)


def few(name: str) -> list[str]:
    """Overrides for 8 filters in each convolution, 32 outputs, and no dropout."""
    found = []
    for l in graph_of(name).layers:
        found += [f"{l.name}.filters=8"] * (l.type == "conv")
        found += [f"{l.name}.enable=0"] * (l.type == "dropout")
        found += [f"{l.name}.outputs=32"] * (l.type == "fc" and l.section["outputs"] != "classes")
    return found


S32, S64 = ["data.imgSize=32"], ["data.imgSize=64"]
SLOW = ["DEFAULT.epsW=0.002", "DEFAULT.epsB=0.002"]  # GoogLeNet on so few images
SMALL = {
    "spp_zf5_6321": S64, "spp_convnet5": [], "spp_overfeat7_4321": S64, "alexnet": [],
    "vgg16": S32, "spp_vgg16": S32, "spp_googlenet_4321": S64 + SLOW,
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_training(name):
    """Steps on one batch, with few filters, lower its loss; the first is that of a guess."""
    net = Net(source(name, *few(name), *SMALL[name]).graph({}, 10), seed=1)
    rng, sgd, losses = np.random.default_rng(0), Sgd(net), []
    images = rng.normal(0, 60, (2, *net.graph.shapes["data"])).astype(np.float32)
    for _ in range(30):
        outs, tape = net.fprop(net.feed(images, np.array([3, 7])), net.graph.costs, train=True)
        gradients = net.bprop(tape, net.cost_gradients(outs), lazy=True)
        assert not sgd.first_not_finite(gradients)
        assert {layer for layer, _ in gradients} == {n for n, w in net.weights.items() if w}
        sgd.update(gradients, len(images), 0.0)
        losses.append([outs[cost][..., 0].mean() for cost in net.graph.costs])
    first, last = np.array(losses)[[0, -1]]
    assert (abs(first - math.log(10)) < 0.5).all() and (last < first - 0.5).all(), losses


def test_torchvisions_alexnet():
    """Parameters as its AlexNet_Weights.IMAGENET1K_V1 tells, 0.714 G multiply-adds."""
    graph = graph_of("alexnet_torchvision")
    sides = [graph.shapes[name][0] for name in ("conv1", "pool1", "pool2", "pool5")]
    assert sides == [55, 27, 13, 6] and totals(graph)["weights"] == 61_100_840
    assert round(totals(graph)["macs"] / 1e9, 3) == 0.714


def test_the_tables_of_the_docs():
    """docs/nets.md names every net, with what tools/check.py says of it."""
    shown = {}
    for row in re.findall(r"^\| `\w+` .*$", (ROOT / "docs" / "nets.md").read_text(), re.M):
        name, *_, cells = [cell.strip() for cell in row.strip("|").split("|", 3)]
        found = re.findall(r"[\d.]+ \w, [\d.]+ \w", cells)
        forms = PYRAMIDS if len(found) > 1 else ["{}"]
        shown |= {form.format(name.strip("`")): figures for form, figures in zip(forms, found)}
    assert sorted(shown) == NAMES
    for name, figures in shown.items():
        classes = 10 if name.startswith(("cifar", "spp_small")) else 1000
        said = table(graph_of(name, classes)).splitlines()[-1]
        assert said == "{} weights, {} multiply-adds an image".format(*figures.split(", ")), name
