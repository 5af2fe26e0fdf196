"""Where weights go: by name, by order, by hand; how they are turned; what the table says."""

import numpy as np
import pytest

from convnet import Net, cfg
from convnet.foreign import begin, own
from convnet.foreign.found import Found, Input, Layer, WeightsError
from convnet.foreign.layout import pieces, to_found, to_ours
from convnet.foreign.match import match, mean_of
from convnet.graph import Graph
from tests.tooling import TINY

RNG = np.random.default_rng(1)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def tiny(text: str = TINY, size=(9, 7), classes: int = 4) -> Net:
    text = text.replace("imgSize=16\n", "")
    return Net(Graph(cfg.parse(text), feeds={0: (*size, 3)}, classes=classes), seed=3)


def layers_of_tiny() -> list[Layer]:
    return [
        Layer("conv1", [array(6, 3, 3, 3)], array(6)),
        Layer("fc1", [array(20, 6 * 14)], array(20)),
        Layer("fc2", [array(4, 20)], array(4)),
    ]


def by_hand(layers: list[Layer], x: np.ndarray) -> np.ndarray:
    """The net of TINY for one picture (channels, rows, columns), as a Caffe user would write it."""
    conv, fc1, fc2 = layers
    _, H, W = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    y = np.empty((6, H, W))
    for p in range(H):
        for q in range(W):
            y[:, p, q] = conv.kernels[0].reshape(6, -1) @ padded[:, p : p + 3, q : q + 3].ravel()
    y = np.maximum(y + conv.bias[:, None, None], 0)
    numbers = []
    for n in 3, 2, 1:
        bins = np.empty((6, n, n))
        for i in range(n):
            for j in range(n):
                rows = slice(i * H // n, -(-(i + 1) * H // n))
                columns = slice(j * W // n, -(-(j + 1) * W // n))
                bins[:, i, j] = y[:, rows, columns].max((1, 2))
        numbers.append(bins.ravel())
    hidden = np.maximum(fc1.kernels[0] @ np.concatenate(numbers) + fc1.bias, 0)
    return fc2.kernels[0] @ hidden + fc2.bias


@pytest.mark.parametrize(
    "given",
    [
        Input(),
        Input(True, (100.0, 110.0, 120.0), 1.0),
        Input(False, (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)),
        Input(True, 128.0, (50.0, 60.0, 70.0)),
    ],
)
def test_the_net_gives_what_the_other_gave(given):
    layers, net = layers_of_tiny(), tiny()
    begin.fill(net, Found("x", "X", layers, given))
    net.mean = mean_of(given, (9, 7, 3))
    image = RNG.integers(0, 256, (9, 7, 3), np.uint8)
    theirs = image[..., ::-1] if given.bgr else image
    want = by_hand(layers, ((theirs - np.array(given.mean)) / given.std).transpose(2, 0, 1))
    got = net.features(image[None], "fc2", view="asis").ravel()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * abs(want).max())


SPLIT = """
data type=data dataIdx=0 channels=3
labels type=data dataIdx=1
a type=conv inputs=data filters=2 filterSize=3 groups=1
b type=conv inputs=data filters=4 filterSize=3
c type=conv inputs=a,b filters=5 filterSize=3 sharedBiases=0
pool type=pool inputs=c pool=max sizeX=2 stride=2
drop type=dropout inputs=pool
both type=concat inputs=drop,a
fc type=fc inputs=both,c outputs=3
probs type=softmax inputs=fc
cost type=cost.logreg inputs=labels,probs
"""


def split() -> Net:
    rows = [line.split() for line in SPLIT.strip().splitlines()]
    text = "\n".join("\n".join([f"[{name}]", *keys]) for name, *keys in rows)
    return Net(Graph(cfg.parse(text), feeds={0: (9, 8, 3)}), seed=1)


def test_what_an_fc_layer_reads():
    graph = split().graph
    assert graph.shapes["both"] == (1, 1, 3 * 2 * 5 + 7 * 6 * 2)
    assert pieces(graph, "both") == [(3, 2, 5), (7, 6, 2)]
    assert pieces(graph, "fc") == [(1, 1, 3)] and pieces(graph, "c") == [(5, 4, 5)]
    assert pieces(tiny().graph, "drop") == [(1, 1, 20)]
    assert pieces(tiny().graph, "spp") == [(3, 3, 6), (2, 2, 6), (1, 1, 6)]


def test_every_layer_there_and_back():
    net = split()
    for l in net.graph.layers:
        if arrays := net.weights[l.name]:
            theirs = to_found(net.graph, l, arrays)
            for name, back in to_ours(net.graph, l, theirs).items():
                np.testing.assert_array_equal(back, arrays[name])
    assert theirs.kernels[0].shape == (3, 114)
    W = net.weights["fc"]["W0"]  # numbers are 3x2 cells of 5 channels first
    assert theirs.kernels[0][1, 4 * 6 + 2 * 2 + 1] == W[(2 * 2 + 1) * 5 + 4, 1]


def test_one_kernel_there_is_cut_for_two_inputs_here():
    graph, W = split().graph, array(5, 6, 3, 3)
    made = to_ours(graph, graph.by_name["c"], Layer("c", [W], array(5)))
    np.testing.assert_array_equal(made["W1"], W[:, 2:].transpose(2, 3, 1, 0))
    assert made["b"].shape == (5, 4, 5) and (made["b"] == made["b"][0, 0]).all()
    with pytest.raises(ValueError, match="has 1 inputs there, 2 here"):
        to_ours(graph, graph.by_name["c"], Layer("c", [W[:, 1:]], array(5)))


def test_fc_written_as_convolution():
    net = tiny()
    W = array(4, 20, 1, 1)
    made = to_ours(net.graph, net.by_name["fc2"], Layer("x", [W], None))
    np.testing.assert_array_equal(made["W0"], W[:, :, 0, 0].T)
    assert not made["b"].any()


# ---------------------------------------------------------------- what goes where


def test_by_name_the_rest_stays():
    net = tiny()
    before = net.weights["fc2"]["W0"].copy()
    conv, fc1, _ = layers_of_tiny()
    other = Layer("fc2", [array(1000, 20)], array(1000))
    made = match(net.graph, Found("x", "X", [other, fc1, Layer("extra", [array(2, 2)]), conv]))
    assert made.how == "by name" and made.unused == ["fc2", "extra"]
    assert made.table().splitlines() == [
        "conv1  conv1  6x3x3x3 -> 3x3x3x6  out,in,y,x -> y,x,in,out, times 64",
        "fc1    fc1    20x84 -> 84x20  out,(c,y,x) -> (y,x,c),out",
        "fc2    fc2    as initialised: W0 is 20x1000 there, 20x4 here",
        "not used: fc2, extra",
    ]
    made = match(net.graph, Found("x", "X", layers_of_tiny()))
    assert made.rows[2].said == "4x20 -> 20x4  out,in -> in,out"
    begin.fill(net, Found("x", "X", [other, fc1, conv]))
    np.testing.assert_array_equal(net.weights["fc2"]["W0"], before)
    np.testing.assert_array_equal(net.weights["conv1"]["b"], conv.bias)


def test_by_order_and_by_hand():
    net, layers = tiny(), layers_of_tiny()
    renamed = [layer._replace(name=f"f.{i}") for i, layer in enumerate(layers)]
    made = match(net.graph, Found("x", "X", renamed))
    assert made.how == "by order" and len(made.filled) == 3
    extra = [Layer("aux", [array(10, 20)]), *renamed[:2], Layer("aux2", [array(8, 20)]), renamed[2]]
    made = match(net.graph, Found("x", "X", extra), {"fc2": "f.2", "conv1": "f.0", "fc1": "f.1"})
    assert len(made.filled) == 3 and made.unused == ["aux", "aux2"]


def test_what_is_not_said_by_hand_is_matched_as_without(capsys):
    net, layers = tiny(), layers_of_tiny()
    conv, fc1, fc2 = (layer._replace(name=f"f.{i}") for i, layer in enumerate(layers))
    made = match(net.graph, Found("x", "X", [fc2, conv, fc1]), {"fc2": "f.2"})
    assert made.how == "by --map, the rest by order" and made.unused == []
    assert [row.source for row in made.filled] == ["f.0", "f.1", "f.2"]
    made = match(net.graph, Found("x", "X", [fc2, conv]), {"fc2": "f.2"})
    assert made.left[0].said == "as initialised: the file has none for it"
    made = match(net.graph, Found("x", "X", [fc2, layers[1], conv]), {"conv1": "f.0"})
    assert made.how == "by --map, the rest by name" and made.unused == ["f.2"]
    assert [row.source for row in made.filled] == ["f.0", "fc1"]


def test_by_hand_of_what_is_not_there():
    net, renamed = tiny(), [layer._replace(name=f"f.{layer.name}") for layer in layers_of_tiny()]
    for pair, why in (("fc9", "f.2"), "the net has no layer 'fc9'"), (("fc2", "f.c2"), "x has no"):
        with pytest.raises(WeightsError, match=why):
            match(net.graph, Found("x", "X", renamed), dict([pair]))


def test_the_weights_of_another_net():
    found = Found("x.pth", "X", [Layer("conv1", [array(8, 3, 5, 5)], array(8))])
    with pytest.raises(WeightsError) as e:
        match(tiny().graph, found)
    assert str(e.value) == (
        "x.pth: the weights of another net, none fits; "
        "[conv1] W0 is 5x5x3x8 there, 3x3x3x6 here"
    )  # fmt: skip


def test_pixels_that_no_weights_read():
    """An input of another scale could not be made up for."""
    text = TINY.replace("inputs=data\n", "inputs=norm\n").replace(
        "[conv1]", "[norm]\ntype=cmrnorm\ninputs=data\nsize=3\n[conv1]"
    )
    found = Found("x", "X", layers_of_tiny(), Input(False, 0.0, 1 / (1 / 64)))
    assert len(match(tiny(text).graph, found).filled) == 3
    with pytest.raises(WeightsError, match=r"\[norm\] reads these without weights"):
        match(tiny(text).graph, Found("x", "X", layers_of_tiny()))


def test_a_pyramid_of_pools_fits_one_of_type_spp():
    """At the size of the training both are the same numbers, so the nets agree."""
    pools = "".join(
        f"[pool{n}]\ntype=pool\npool=max\ninputs=conv1\nsizeX={s}\nstride={t}\n"
        for n, s, t in ((3, 4, 4), (2, 6, 6), (1, 12, 12))
    )
    at = TINY.index("[spp]")
    text = TINY[:at] + pools + TINY[TINY.index("[fc1]") :].replace("=spp", "=pool3,pool2,pool1")
    one, other = tiny(text, (12, 12)), tiny(size=(12, 12))
    one.mean = array(12, 12, 3) + 99
    begin.fill(other, own.of("x", one.graph, one.own_weights(), one.mean))
    other.mean = one.mean
    images = RNG.integers(0, 256, (2, 12, 12, 3), np.uint8)
    np.testing.assert_allclose(one.predict(images), other.predict(images), rtol=1e-5)


def test_means():
    np.testing.assert_array_equal(mean_of(Input(True, (1, 2, 3)), (2, 2, 3))[0, 1], [3, 2, 1])
    image = array(6, 8, 3)
    np.testing.assert_array_equal(mean_of(Input(False, image), (4, 4, 3)), image[1:5, 2:6])
    for bad, why in ((array(3, 8, 3), "less than"), ((1, 2), "the mean has 2 channels")):
        with pytest.raises(ValueError, match=why):
            mean_of(Input(False, bad), (4, 4, 3))
