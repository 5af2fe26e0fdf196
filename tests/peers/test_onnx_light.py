"""Nets of others: the graphs of AlexNet and ZFNet that the onnx package carries, built as cfgs.

They come with what they are to give. All their weights are one number, and so is all that they
give; so the same graphs are run with random weights as well, next to onnxruntime.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs onnx: make peer")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: make peer")

from convnet import Net  # noqa: E402
from convnet.foreign.found import Layer  # noqa: E402
from convnet.foreign.layout import to_ours, weighty  # noqa: E402
from convnet.foreign.onnx import model  # noqa: E402
from convnet.source import Source  # noqa: E402
from tests.peers.test_onnx import compare, outputs_of, run  # noqa: E402

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NETS = "light_bvlc_alexnet", "light_zfnet512"
HEAD = """
[data]
type=data
dataIdx=0
imgSize={side}
channels={channels}

[labels]
type=data
dataIdx=1
"""


class Graph(NamedTuple):
    """A graph of the package: its nodes with weights and without, and what they are made of."""

    image: tuple[str, list[int]]  # name and sides of the input
    nodes: list
    weights: dict[str, tuple[list[int], float]]  # sides, and the number that all of them are
    others: list  # initializers that are no weights
    output: str


def attributes(node) -> dict:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def graph_of(name: str) -> Graph:
    path = FOLDER / f"{name}.onnx"
    if not path.is_file():
        pytest.skip("this onnx package has no light models")
    graph = onnx.load(path).graph
    given = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights, nodes, sides = {}, [], set()
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        number = onnx.numpy_helper.to_array(attributes(node)["value"]).item()
        weights[node.output[0]] = given[node.input[0]].tolist(), number
        sides.add(node.input[0])
    (image,) = (i for i in graph.input if i.name not in given)
    shape = [n.dim_value for n in image.type.tensor_type.shape.dim]
    others = [tensor for tensor in graph.initializer if tensor.name not in sides]
    return Graph((image.name, shape), nodes, weights, others, graph.output[0].name)


class Built(NamedTuple):
    """The same net here."""

    net: Net
    layers: dict[str, tuple[str, str]]  # layer -> names of its weights there
    names: dict[str, str]  # tensor there -> layer


def built(graph: Graph) -> Built:
    """Each node as a section; a relu goes with what is before it."""
    _, channels, side, _ = graph.image[1]
    names, layers, sections, rates = {graph.image[0]: "data"}, {}, {}, {}
    for node in graph.nodes:
        kind, told, last = node.op_type, attributes(node), names[node.input[0]]
        section: dict = {"inputs": last}
        if kind == "Relu":
            sections[last]["neuron"] = "relu"
            names[node.input[0]] += ":pre"
        if kind in ("Relu", "Reshape", "Dropout"):
            names[node.output[0]] = last
            continue
        if kind in ("Conv", "MaxPool"):
            (F,), (stride,) = {*told["kernel_shape"]}, {*told["strides"]}
            before, behind = told["pads"][0], told["pads"][3]
            assert told["pads"] == [before, before, behind, behind]
            side = (side + before + behind - F) // stride + 1
        if kind == "Conv":
            (K, *_), _ = graph.weights[node.input[1]]
            groups = told.get("group", 1)
            section |= {"type": "conv", "filters": K // groups, "groups": groups, "filterSize": F}
            section |= {"stride": stride, "padding": before, "rounding": "floor"}
            assert before == behind
        elif kind == "MaxPool":
            section |= {"type": "pool", "pool": "max", "sizeX": F, "stride": stride}
            section |= {"start": -before, "outputsX": side}
        elif kind == "LRN":
            section |= {"type": "cmrnorm", "size": told["size"]}
        elif kind == "Gemm":
            assert told == {"transB": 1}
            section |= {"type": "fc", "outputs": graph.weights[node.input[1]][0][0]}
        elif kind == "Softmax":
            section |= {"type": "softmax"}
        else:
            raise AssertionError(kind)
        name = f"{section['type']}{len(sections)}"
        if kind in ("Conv", "Gemm"):
            layers[name] = node.input[1], node.input[2]
        if kind == "LRN":
            rates[name] = {"scale": told["alpha"], "pow": told["beta"], "minDiv": told["bias"]}
        sections[name], names[node.output[0]] = section, name
    sections["cost"] = {"type": "cost.logreg", "inputs": f"labels,{names[graph.output]}"}
    text = HEAD.format(side=graph.image[1][2], channels=channels) + cfg(sections)
    net = Net(Source("light.cfg", text, "rates.cfg", cfg(rates)).graph({}, 1000))
    net.mean = np.zeros_like(net.mean_image)
    return Built(net, layers, names)


def cfg(sections: dict[str, dict]) -> str:
    lines = (
        [f"[{name}]", *(f"{k}={v}" for k, v in keys.items()), ""] for name, keys in sections.items()
    )
    return "\n".join(line for some in lines for line in some)


def fill(made: Built, arrays: dict[str, np.ndarray]) -> None:
    """Their weights into our net."""
    graph = made.net.graph
    assert {l.name for l in weighty(graph)} == {*made.layers}
    for l in weighty(graph):
        W, b = (arrays[name] for name in made.layers[l.name])
        for name, array in to_ours(graph, l, Layer(l.name, [W], b)).items():
            made.net.weights[l.name][name][...] = array


def theirs(graph: Graph, arrays: dict, image: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
    """What onnxruntime makes of a graph with these weights."""
    h = onnx.helper
    value = h.make_tensor_value_info
    constants = [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()]
    made = h.make_graph(
        graph.nodes, "net", [value(graph.image[0], onnx.TensorProto.FLOAT, graph.image[1])],
        [value(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [*constants, *graph.others],
    )  # fmt: skip
    made = h.make_model(made, opset_imports=[h.make_opsetid("", 9)], ir_version=7)
    return outputs_of(made.SerializeToString(), {graph.image[0]: image})


def rows(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) or (N, numbers) as (N, H, W, C)."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x[:, None, None]


@pytest.mark.parametrize("name", NETS)
def test_what_comes_with_the_graph(name):
    """Its own weights and image; its output, and the numbers that the softmax is of."""
    graph = graph_of(name)
    made = built(graph)
    assert len(made.layers) == 8
    arrays = {k: np.full(sides, n, np.float32) for k, (sides, n) in graph.weights.items()}
    fill(made, arrays)
    shape = graph.image[1]
    count = np.prod(shape)
    image = (np.arange(count).reshape(shape) / count).astype(np.float32)
    tensor = onnx.TensorProto()
    tensor.ParseFromString((FOLDER / f"{name}_output_0.pb").read_bytes())
    probs = made.net.run({"data": rows(image)}, made.names[graph.output])
    np.testing.assert_allclose(probs[0, 0], onnx.numpy_helper.to_array(tensor), rtol=1e-4)
    (logits,) = theirs(graph, arrays, image, [graph.nodes[-1].input[0]])
    mine = made.net.run({"data": rows(image)}, made.names[graph.nodes[-1].input[0]])
    compare(mine, rows(logits))
    assert np.ptp(logits) < 1e-5 * logits.mean()  # that is why there is another test


@pytest.mark.parametrize("name", NETS)
def test_random_weights(name):
    """Every map on the way; and the net that is exported from here gives the same once more."""
    graph = graph_of(name)
    made, rng = built(graph), np.random.default_rng(3)
    arrays = {}
    for key, (sides, _) in graph.weights.items():
        scale = np.sqrt(2 / np.prod(sides[1:])) if len(sides) > 1 else 0.5
        arrays[key] = (scale * rng.standard_normal(sides)).astype(np.float32)
    fill(made, arrays)
    pixels = rng.integers(0, 256, (1, *graph.image[1][2:], 3), np.uint8)
    image = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    wanted = [node.output[0] for node in graph.nodes if node.op_type not in ("Reshape", "Dropout")]
    found = dict(zip(wanted, theirs(graph, arrays, image, wanted), strict=True))
    for tensor, map_ in found.items():
        mine = made.net.run({"data": pixels.astype(np.float32)}, made.names[tensor])
        compare(mine, rows(map_))
    for node in graph.nodes:
        if node.op_type == "LRN":
            before, behind, told = found[node.input[0]], found[node.output[0]], attributes(node)
            assert abs(behind - before / told["bias"] ** told["beta"]).max() > 1, "vacuous"
    assert np.ptp(found[graph.output]) > 0.1, "vacuous"
    last = made.names[graph.output]
    (again,) = run(model(made.net, [last])[0], {"images": pixels})
    compare(again, found[graph.output])
