"""A net as an ONNX model for images of one size, written without the onnx package.

What a layer becomes is said by the layer itself, in its method `onnx`, with this file's Builder:

    def onnx(self, g, w, x):
        y = g.op("Gemm", g.flat(x), g.const(w["W0"]), g.const(w["b"]))
        return g.value(y, self.shape(x.shape), flat=True)

Opset 13, which every runtime since 2020 knows. Images come in as they are, uint8 (N, H, W, C) of
0..255; the first nodes subtract the mean. Inside maps are (N, C, H, W), as ONNX's operators want
them; what comes out is (N, H, W, C) as Net.features gives it, but (N, numbers) of what has one row
and column, where that gives (N, 1, 1, numbers). N is open.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from convnet import __version__
from convnet.cli import UsageError
from convnet.foreign.wire import Message
from convnet.graph import Shape, dims
from convnet.net import Net
from convnet.providers import printable
from convnet.views import warp_mean
from convnet.work import needed

INPUT = "images"  # the name of the model's input

IR, OPSET = 7, 13
LARGEST = (1 << 31) - 1  # bytes of a message of Protocol Buffers
FLOAT, UINT8, INT64 = 1, 2, 7  # as TensorProto counts types
TYPES = {"float32": FLOAT, "int64": INT64}


class Value(NamedTuple):
    """The output of a layer: name of the tensor, shape (H, W, C).

    flat: it is (N, H * W * C), counted as row, column, channel; else it is (N, C, H, W).
    """

    name: str
    shape: Shape
    flat: bool = False


class Builder:
    """Nodes and constants of a model, in order."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, list[str], str, dict]] = []
        self.constants: dict[str, np.ndarray] = {}
        self.layer = ""  # whose nodes are being made; their names begin with it

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output; returns its name."""
        name = f"{self.layer}:{len(self.nodes)}"
        self.nodes.append((kind, list(inputs), name, attributes))
        return name

    def const(self, values: Any) -> str:
        """An array, or a number, as a tensor; returns its name. Floats become float32."""
        array = np.asarray(values)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)
        name = f"{self.layer}.{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(array).reshape(array.shape)
        return name

    def value(self, name: str, shape: Shape, flat: bool = False) -> Value:
        """What a layer makes: maps (N, C, H, W), or flat (N, numbers)."""
        return Value(name, shape, flat)

    def maps(self, x: Value) -> str:
        """The tensor (N, C, H, W) of a value."""
        if not x.flat:
            return x.name
        if x.shape[:2] == (1, 1):
            return self.op("Reshape", x.name, self.const([0, x.shape[2], 1, 1]))
        rows = self.op("Reshape", x.name, self.const([0, *x.shape]))
        return self.op("Transpose", rows, perm=[0, 3, 1, 2])

    def flat(self, x: Value) -> str:
        """The tensor (N, numbers) of a value, counted as row, column, channel."""
        if x.flat:
            return x.name
        return self.op("Flatten", self.rows(x), axis=1)

    def rows(self, x: Value) -> str:
        """The tensor (N, H, W, C) of maps; not turned where they have one row and column."""
        if x.shape[:2] == (1, 1):
            return x.name
        return self.op("Transpose", x.name, perm=[0, 2, 3, 1])

    def alike(self, *xs: Value) -> list[Value]:
        """Values of one shape in one form: as they are if all are flat, else as maps."""
        if all(x.flat for x in xs):
            return [*xs]
        return [x._replace(name=self.maps(x), flat=False) for x in xs]


def model(
    net: Net, layers: Iterable[str], size: tuple[int, int] | None = None
) -> tuple[list[Any], dict[str, tuple]]:
    """The bytes of a model in pieces, and the sides of its outputs, but for N, by name.

    layers: as a user names them, `probs`, `conv5:pre`, `spp`; size: rows and columns of the images,
    None for the net's own. Raises UsageError: a layer without a form in ONNX, a size that the net
    cannot take, a model of more than 2 GB.
    """
    own = net.graph.shapes[net.graph.feeds[0]]
    image = (*(size or own[:2]), own[2])
    try:
        wanted = {name: net.graph.parts(name) for name in layers}
    except ValueError as e:
        raise UsageError(str(e)) from None
    if INPUT in wanted:
        raise UsageError(f"--layer={INPUT}: is what the model's input is called")
    g, outputs = Builder(), {}
    ends = [part for parts in wanted.values() for part in parts]
    _check(net, image, ends)
    made = nodes(g, net, _images(g, net, image), ends)
    for name, parts in wanted.items():
        g.layer = name
        outputs[name] = _out(g, name, [made[part] for part in parts])
    about = {"classes": "\n".join(map(printable, net.classes))}  # each on one line
    return pieces(g, {INPUT: (UINT8, image)}, outputs, about), outputs


def _check(net: Net, image: Shape, ends: list[str]) -> None:
    """UsageError where images of this size cannot be, before their mean is made."""
    order = needed(net.graph, ends)
    _shapes(net, image, order)
    weights = sum(w.nbytes for name in order for w in net.weights[name].values())
    _refuse_too_large(4 * math.prod(image) + weights, f" for images of {dims(image)}")


def _shapes(net: Net, image: Shape, order: Iterable[str]) -> None:
    """UsageError where these layers cannot be run on such images."""
    try:
        net.graph.shapes_at({net.graph.feeds[0]: image}, order)
    except ValueError as e:
        raise UsageError(str(e)) from None


def _refuse_too_large(size: int, why: str = "") -> None:
    if size > LARGEST:
        raise UsageError(f"the model{why} would be {size / 1e9:.1f} GB; ONNX holds 2 GB")


def nodes(g: Builder, net: Net, images: Value, ends: list[str]) -> dict[str, Value]:
    """Add what runs from images, less their mean, to some layers; the values of all by name.

    Raises UsageError.
    """
    graph, data = net.graph, net.graph.feeds[0]
    order, made = needed(graph, ends), {}
    _shapes(net, images.shape, order)
    for l in graph.layers:
        if l.name not in order:
            continue
        if not l.inputs and l.name != data:
            by = next((o for o in graph.layers if o.name in order and l.name in o.reads), None)
            who = f"[{by.name}] type={by.type}: reads [{l.name}];" if by else f"[{l.name}]:"
            raise UsageError(f"{who} an ONNX model takes images only")
        g.layer = l.name
        weights = {k: net.device.numpy(w) for k, w in net.weights[l.name].items()}
        try:
            made[l.name] = l.onnx(g, weights, *[made[name] for name in l.reads] or [images])
        except ValueError as e:
            raise UsageError(f"[{l.name}] type={l.type}: {e}") from None
    return made


def _images(g: Builder, net: Net, image: Shape) -> Value:
    """The images as float32 (N, C, H, W), less the mean."""
    g.layer = INPUT
    mean = net.mean_image
    if mean.shape != image:
        mean = warp_mean(mean, *image[:2])
    pixels = g.op("Transpose", g.op("Cast", INPUT, to=FLOAT), perm=[0, 3, 1, 2])
    return Value(g.op("Sub", pixels, g.const(mean.transpose(2, 0, 1)[None])), image)


def _out(g: Builder, name: str, values: list[Value]) -> tuple[int, ...]:
    """Name an output of the model, (N, H, W, C) or (N, numbers); returns its sides but for N."""
    x, sides = values[0], values[0].shape
    if len(values) > 1:
        tensor, sides = g.op("Concat", *map(g.flat, values), axis=1), (sum(map(_count, values)),)
    elif sides[:2] == (1, 1):
        tensor, sides = g.flat(x), sides[2:]
    elif x.flat:
        tensor = g.op("Reshape", x.name, g.const([0, *sides]))
    else:
        tensor = g.rows(x)
    g.nodes.append(("Identity", [tensor], name, {}))
    return sides


def _count(x: Value) -> int:
    return math.prod(x.shape)


def pieces(
    g: Builder,
    inputs: Mapping[str, tuple[int, Iterable[int]]],
    outputs: Mapping[str, Iterable[int]],
    about: Mapping[str, str],
) -> list[Any]:
    """The bytes of a model; inputs: (FLOAT or UINT8, sides without N) by name; outputs: sides.

    UsageError where they are more than a file of this kind holds.
    """
    graph = Message()
    for kind, reads, output, attributes in g.nodes:
        graph.add(1, _node(kind, reads, output, attributes))
    graph.add(2, "convnet")
    for name, array in g.constants.items():
        graph.add(5, _tensor(name, array))
    for name, (kind, sides) in inputs.items():
        graph.add(11, _info(name, kind, sides))
    for name, sides in outputs.items():
        graph.add(12, _info(name, FLOAT, sides))
    opset = Message((1, ""), (2, OPSET))
    whole = Message((1, IR), (2, "convnet"), (3, __version__), (7, graph), (8, opset))
    for key, text in about.items():
        whole.add(14, Message((1, key), (2, text)))
    _refuse_too_large(len(whole))
    return whole.pieces


def _node(kind: str, inputs: list[str], output: str, attributes: dict) -> Message:
    node = Message(*((1, name) for name in inputs), (2, output), (3, output), (4, kind))
    for name, value in attributes.items():
        attribute = Message((1, name))
        if isinstance(value, float):
            attribute.add(2, value)
            attribute.add(20, 1)
        elif isinstance(value, int):
            attribute.add(3, value)
            attribute.add(20, 2)
        else:
            for item in value:
                attribute.add(8, int(item))
            attribute.add(20, 7)
        node.add(5, attribute)
    return node


def _tensor(name: str, array: np.ndarray) -> Message:
    made = Message(*((1, n) for n in array.shape), (2, TYPES[array.dtype.name]), (8, name))
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    made.add(9, memoryview(little.reshape(-1).view(np.uint8)))
    return made


def _info(name: str, kind: int, shape: Iterable[int]) -> Message:
    sides = Message((1, Message((2, "N"))))
    for n in shape:
        sides.add(1, Message((1, int(n))))
    return Message((1, name), (2, Message((1, Message((1, kind), (2, sides))))))
