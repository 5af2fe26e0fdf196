"""Sections -> layers -> shapes -> a net that runs: sizes, wires, sharing, pyramids."""

import numpy as np
import pytest

from convnet import Net
from convnet.cfg import CfgError
from convnet.source import Source

HEAD = """[data]
type=data
dataIdx=0
imgSize=13
channels=3
scale=0.0156
[labels]
type=data
dataIdx=1
"""
TAIL = """[fc6]
type=fc
inputs={}
outputs=classes
[probs]
type=softmax
inputs=fc6
[logprob]
type=cost.logreg
inputs=labels,probs
"""
CONV = "[conv]\ntype=conv\ninputs=data\nfilters=4\nfilterSize=3\npadding=1\nneuron=relu\n"
POOL = "[pool{0}x{0}]\ntype=pool\npool=max\ninputs=conv\nsizeX={1}\nstride={2}\n"
LEVELS = {1: (13, 13), 2: (7, 6), 3: (5, 4), 4: (4, 3), 6: (3, 2)}
SPP = "[spp]\ntype=spp\ninputs=conv\nlevels={}\npool=max\n"


def graph(text: str, *overrides: str, classes: int = 5):
    return Source("n.cfg", text, overrides=overrides).graph(None, classes)


def net(text: str, seed: int = 0, classes: int = 5) -> Net:
    return Net(graph(text, classes=classes), seed=seed)


def pyramid(*levels: int) -> str:
    pools = "".join(POOL.format(n, *LEVELS[n]) for n in levels)
    return HEAD + CONV + pools + TAIL.format(",".join(f"pool{n}x{n}" for n in levels))


def shipped(name: str, classes: int = 1000):
    return Source.read(f"layer_configs/{name}.cfg").graph({0: (224, 224, 3)}, classes)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


# -------------------------------------------------------------------- the shipped nets


def test_a_net_without_pyramid_says_what_it_takes():
    with pytest.raises(ValueError) as e:
        shipped("zf5").shapes_at({"data": (180, 180, 3)})
    assert str(e.value) == (
        "[fc6] gets 5x5x256, its weights are for 6x6x256: this net takes images of 224x224 only; "
        "a pyramid (type=spp) in front of the first fc layer lifts that"
    )
    with pytest.raises(ValueError, match=r"\[data\] has 3 channels, got 1"):
        shipped("zf5").shapes_at({"data": (224, 224, 1)})
    with pytest.raises(ValueError, match=r"\[rnorm1\] size=3 is more than the 2x2 map"):
        shipped("zf5").shapes_at({"data": (7, 7, 3)})


# -------------------------------------------------------------------- pyramids


def test_pools_of_the_poster_are_a_pyramid_at_any_size():
    """The same numbers as type=spp with the same weights, on 13x13 and on a 300x200 image."""
    pools, spp = net(pyramid(3, 2, 1)), net(HEAD + CONV + SPP.format("3,2,1") + TAIL.format("spp"))
    weights = spp.own_weights()
    parts = [pools.weights["fc6"][f"W{i}"] for i in range(3)]
    shared = {k: v for k, v in pools.own_weights().items() if not k.startswith("fc6/W")}
    spp.set_weights({**shared, "fc6/W0": np.concatenate(parts)})
    assert weights["fc6/W0"].shape == (14 * 4, 5)
    rng = np.random.default_rng(0)
    for shape in ((2, 13, 13, 3), (1, 300, 200, 3), (1, 5, 29, 3), (1, 2, 1, 3)):
        x = {"data": rng.normal(0, 50, shape).astype(np.float32)}
        np.testing.assert_array_equal(pools.run(x, "pool1x1").ravel(),
                                      spp.run(x, "spp")[..., -4:].ravel())  # fmt: skip
        np.testing.assert_allclose(pools.run(x, "probs"), spp.run(x, "probs"), rtol=2e-4)
    assert pools.graph.shapes_at({"data": (300, 200, 3)})["pool3x3"] == (3, 3, 4)


@pytest.mark.parametrize("other", [(3, 5, 4), (6, 4, 2), (11, 3, 1)])
def test_what_is_no_pyramid(other):
    """Two pools that make as many bins, or one beside a pool of other windows: all stay windows."""
    pools = POOL.format(3, 5, 4) + POOL.format(*other).replace("[pool", "[other")
    names = f"pool3x3,other{other[0]}x{other[0]}"
    built = graph(HEAD + CONV + pools + TAIL.format(names))
    assert [built.by_name[name].level for name in names.split(",")] == [0, 0]
    with pytest.raises(ValueError, match="this net takes images of 13x13 only"):
        built.shapes_at({"data": (26, 26, 3)})


@pytest.mark.parametrize("levels", [(4, 3, 2, 1), (3, 2), (6, 3, 2, 1)])
def test_editing_the_pyramid_changes_the_inputs_of_fc6_only(levels):
    before, after = graph(pyramid(3, 2, 1)), graph(pyramid(*levels))
    for name in ("data", "labels", "conv", "fc6", "probs", "logprob"):
        assert after.shapes[name] == before.shapes[name]
    fc6 = after.by_name["fc6"]
    asked = after.asked(fc6)
    assert [asked[f"W{i}"].shape for i in range(len(levels))] == [(4 * n * n, 5) for n in levels]
    assert [after.by_name[n].level for n in fc6.reads] == list(levels)


# -------------------------------------------------------------------- names and wires


def test_a_neuron_is_a_layer_of_its_own():
    made = net(pyramid(3, 2, 1))
    assert [l.name for l in made.layers][2:4] == ["conv", "conv_neuron"]
    assert made.by_name["pool1x1"].reads == ["conv_neuron"]
    assert made.graph.resolve("conv") == "conv_neuron"
    assert made.graph.resolve("conv:pre") == "conv"
    x = {"data": np.random.default_rng(1).normal(0, 50, (2, 13, 13, 3)).astype(np.float32)}
    before, after = made.run(x, "conv:pre"), made.run(x, "conv")
    assert before.min() < 0
    np.testing.assert_array_equal(np.maximum(before, 0), after)
    with pytest.raises(ValueError, match="no layer 'conf'; did you mean 'conv'"):
        made.run(x, "conf")


def test_a_section_may_have_the_name_of_a_neuron():
    text = pyramid(3, 2, 1).replace("[fc6]", "[conv_neuron]\ntype=dropout\ninputs=pool1x1\n[fc6]")
    built = graph(
        text.replace("inputs=pool3x3,pool2x2,pool1x1", "inputs=pool3x3,conv_neuron,pool2x2")
    )
    names = [l.name for l in built.layers]
    assert len(set(names)) == len(names)
    assert built.by_name["pool1x1"].reads == ["conv_neuron.1"]
    assert built.by_name["fc6"].reads == ["pool3x3", "conv_neuron", "pool2x2"]


def test_run_from_one_layer_to_another_is_the_whole():
    made = net(pyramid(3, 2, 1))
    x = {"data": np.random.default_rng(2).normal(0, 50, (3, 20, 15, 3)).astype(np.float32)}
    whole, conv = made.run(x, "probs"), made.run(x, "conv")
    np.testing.assert_array_equal(made.run({"conv": conv}, "probs"), whole)
    np.testing.assert_allclose(made.run({"conv": conv}, "probs", batch=2), whole, rtol=1e-5)
    pools = {name: made.run({"conv": conv}, name) for name in ("pool3x3", "pool2x2", "pool1x1")}
    np.testing.assert_array_equal(made.run(pools, "probs"), whole)
    pools.pop("pool2x2")
    with pytest.raises(ValueError, match="layer 'data' needs data, none is given"):
        made.run(pools, "probs")


def test_images_of_any_sizes():
    made = net(pyramid(3, 2, 1))
    rng = np.random.default_rng(3)
    sizes = [(20, 30), (20, 30), (64, 13), (13, 13), (20, 30)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    for view in ("centre", "full", "asis", "ten"):
        probs = made.predict(images, view, batch=2)
        assert probs.shape == (5, 5)
        np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
        one = np.concatenate([made.predict([image], view) for image in images])
        np.testing.assert_allclose(probs, one, rtol=1e-5)
    maps = made.features(images, "conv", "asis")
    assert [m.shape for m in maps] == [(*size, 4) for size in sizes]
    assert made.features(images, "conv:pre").shape == (5, 13, 13, 4)
    assert made.features(images, "fc6", "full").shape == (5, 1, 1, 5)


# -------------------------------------------------------------------- gradients

SHARED = (
    HEAD.replace("imgSize=13", "imgSize=6")
    + """[a]
type=conv
inputs=data
filters=3
filterSize=3
padding=1
neuron=tanh[1,1]
[b]
type=conv
inputs=a
filters=3
filterSize=3
padding=1
weightSource=a
initB=0.1
neuron=tanh[1,1]
[both]
type=eltsum
inputs=a,b,a
coeffs=1,0.5,2
[c]
type=conv
inputs=both,both
filters=3
filterSize=3
padding=1
weightSource=,a
"""
    + TAIL.format("c,both")
)


def gradients(made: Net, seed: int = 0):
    """Analytic gradients, and a function from (layer, weight, index) to the numeric one."""
    for name, w in made.own_weights().items():
        layer, key = name.split("/")
        made.weights[layer][key] = w.astype(np.float64)
    for (layer, key), (owner, source) in made.shared.items():
        made.weights[layer][key] = made.weights[owner][source]
    rng = np.random.default_rng(seed)
    side = made.graph.size
    given = made.feed(rng.normal(0, 50, (2, side, side, 3)), np.array([1, 3]))
    given["data"] = given["data"].astype(np.float64)

    def loss():
        return made.fprop(given, ["logprob"], train=True)[0]["logprob"][..., 0].sum()

    def numeric(layer, key, index, eps=1e-6):
        w = made.weights[layer][key]
        was, ends = w[index], []
        for w[index] in (was + eps, was - eps):
            ends.append(loss())
        w[index] = was
        return (ends[0] - ends[1]) / (2 * eps)

    outs, tape = made.fprop(given, ["logprob"], train=True)
    return made.bprop(tape, made.cost_gradients(outs)), numeric


def test_shared_weights_and_inputs_read_twice_add_their_gradients():
    made = net(SHARED)
    assert made.shared == {("b", "W0"): ("a", "W0"), ("c", "W1"): ("a", "W0")}
    assert made.weights["b"]["W0"] is made.weights["a"]["W0"] is made.weights["c"]["W1"]
    assert "b/W0" not in made.own_weights()
    found, numeric = gradients(made)
    assert set(found) == {tuple(name.split("/")) for name in made.own_weights()}
    rng = np.random.default_rng(4)
    for (layer, key), g in found.items():
        assert np.abs(g).max() > 1e-3
        for _ in range(4):
            index = tuple(rng.integers(0, n) for n in g.shape)
            np.testing.assert_allclose(g[index], numeric(layer, key, index), rtol=1e-5, atol=1e-8)


def test_the_owner_of_shared_weights_says_whether_they_learn():
    rest = {("a", "b"), ("b", "b"), ("c", "W0"), ("c", "b")}
    fc = {("fc6", "W0"), ("fc6", "W1"), ("fc6", "b")}
    sharer, _ = gradients(Net(graph(SHARED, "b.epsW=0")))
    np.testing.assert_array_equal(sharer["a", "W0"], gradients(net(SHARED))[0]["a", "W0"])
    owner, _ = gradients(Net(graph(SHARED, "a.epsW=0")))
    assert set(owner) == rest | fc


def test_frozen_layers_get_no_gradient():
    frozen = Net(graph(SHARED, "a.epsW=0", "a.epsB=0"))
    assert frozen.learns["a"] == set()
    assert frozen.learns["a_neuron"] == set()
    assert frozen.learns["b"] == {"b"}
    assert frozen.learns["both"] == {1}
    found, _ = gradients(frozen)
    assert ("a", "W0") not in found
    assert ("a", "b") not in found
    whole, _ = gradients(net(SHARED))
    for name, g in found.items():
        np.testing.assert_allclose(g, whole[name], rtol=1e-12)


def test_a_bad_share_is_found_without_making_a_net():
    with pytest.raises(CfgError, match=r"n.cfg:36: \[c\] weightSource=,d: no weights 'd' above"):
        graph(SHARED.replace("weightSource=,a", "weightSource=,d"))
