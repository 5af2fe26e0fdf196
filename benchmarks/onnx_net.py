"""A net's inference as an ONNX file: one function for each type=, as in torch_net.py.

Values are (N, C, H, W). `order` of a value says which number of convnet's (row, column, channel)
stands where, so that the weights of an fc are put into the order of what it reads.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from convnet.cli import UsageError
from convnet.work import needed

OPSET, IR = 17, 10


class Value(NamedTuple):
    """A tensor of the graph: its name, (H, W, C), and where convnet's numbers are, flat."""

    name: str
    shape: tuple
    order: np.ndarray


def pixels(shape: tuple) -> np.ndarray:
    """The order of a map."""
    return np.arange(math.prod(shape)).reshape(shape).transpose(2, 0, 1).reshape(-1)


class Writer:
    """Nodes and constants of a graph, as they are added."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, op: str, *inputs: str, **attributes) -> str:
        """A node; the name of its output."""
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def constant(self, values) -> str:
        """An array; its name."""
        name = f"constant_{len(self.constants)}"
        values = np.ascontiguousarray(values, np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name


def write(net, path: str, shape: tuple, upto: str) -> np.ndarray:
    """The net from images (N, H, W, C) to a layer; where each of convnet's numbers comes out."""
    out, values, graph = Writer(), {}, net.graph
    for l in graph.layers:
        if l.name not in needed(graph, [upto]):
            continue
        if l.type not in OPS:
            raise UsageError(f"[{l.name}] type={l.type}: not known here; has {sorted(OPS)}")
        given = [Value("images", shape[1:], pixels(shape[1:]))]
        xs = [values[read] for read in l.reads] or given
        made = l.shape(*[x.shape for x in xs])
        name, order = OPS[l.type](out, l, net.weights[l.name], made, *xs)
        values[l.name] = Value(name, made, order)
    last = values[upto]
    name = out.add("Flatten", last.name)
    N, H, W, C = shape
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [N, C, H, W])
    end = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [N, math.prod(last.shape)])
    made = helper.make_graph(out.nodes, "net", [images], [end], out.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=IR), path)
    return np.argsort(last.order)


# ---------------------------------------------------------------- one for each type


def data(out, l, w, made, x):
    return (out.add("Mul", x.name, out.constant(l.scale)) if l.scale != 1 else x.name), x.order


def conv(out, l, w, made, *xs):
    if w["b"].ndim != 1:
        raise UsageError(f"[{l.name}] sharedBiases=0: not known here")
    parts = []
    for i, x in enumerate(xs):
        size, stride, pad = l.filterSize[i], l.stride[i], l.padding[i]
        more = [out.constant(w["b"])] if i == 0 else []
        weights = out.constant(w[f"W{i}"].transpose(3, 2, 0, 1))
        ends = [max(0, (n - 1) * stride + size - pad - side) for n, side in zip(made, x.shape[:2])]
        parts.append(
            out.add("Conv", x.name, weights, *more, kernel_shape=[size] * 2, group=l.groups[i],
                    strides=[stride] * 2, pads=[pad, pad, *ends])
        )  # fmt: skip
    return (parts[0] if len(parts) == 1 else out.add("Sum", *parts)), pixels(made)


def windows(out, kind, x, made, size, stride, start=(0, 0), **more):
    """A pool of `made` windows of `size` in both directions; pads do not count."""
    if max(start) > 0 or kind not in ("max", "avg"):
        raise UsageError(f"pool={kind} from start={start[0]}: not known here")
    ends = [max(0, b + (n - 1) * s + f - side)
            for b, n, s, f, side in zip(start, made, stride, size, x.shape)]  # fmt: skip
    op = {"max": "MaxPool", "avg": "AveragePool"}[kind]
    return out.add(op, x.name, kernel_shape=[*size], strides=[*stride],
                   pads=[-start[0], -start[1], *ends], **more)  # fmt: skip


def pool(out, l, w, made, x):
    if l.level and x.shape[:2] != l.trained_on[:2]:
        return bins(out, l.pool, x, l.level), pixels(made)
    more = {"count_include_pad": 1} if l.sum else {}
    window = [l.sizeX] * 2, [l.stride] * 2, [l.start] * 2
    name = windows(out, l.pool, x, made, *window, **more)
    return (out.add("Mul", name, out.constant(l.sizeX**2)) if l.sum else name), pixels(made)


def bins(out, kind, x, n):
    """n x n bins where these are windows of one size at one stride."""
    found = []
    for side in x.shape[:2]:
        edges = [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)]
        sizes = {end - begin for begin, end in edges}
        steps = {b[0] - a[0] for a, b in itertools.pairwise(edges)}
        if len(sizes) > 1 or len(steps) > 1:
            raise UsageError(f"{n} bins of {side} pixels: not known here")
        found.append((sizes.pop(), steps.pop() if steps else 1))
    size, stride = zip(*found)
    return windows(out, kind, x, (n, n), size, stride)


def spp(out, l, w, made, x):
    names, orders, begin = [], [], 0
    for n in l.levels:
        names.append(out.add("Flatten", bins(out, l.pool, x, n)))
        orders.append(begin + pixels((n, n, x.shape[2])))
        begin += len(orders[-1])
    return out.add("Concat", *names, axis=1), np.concatenate(orders)


def fc(out, l, w, made, *xs):
    flat = [out.add("Flatten", x.name) for x in xs]
    name = flat[0] if len(xs) == 1 else out.add("Concat", *flat, axis=1)
    weights = np.concatenate([w[f"W{i}"][x.order] for i, x in enumerate(xs)])
    return out.add("Gemm", name, out.constant(weights), out.constant(w["b"])), pixels(made)


def neuron(out, l, w, made, x):
    name, a, b = l.neuron
    ways: dict[str, Callable] = {
        "ident": lambda: x.name,
        "relu": lambda: out.add("Relu", x.name),
        "logistic": lambda: out.add("Sigmoid", x.name),
        "abs": lambda: out.add("Abs", x.name),
        "tanh": lambda: out.add(
            "Mul", out.add("Tanh", out.add("Mul", x.name, out.constant(b))), out.constant(a)
        ),
    }
    if name not in ways:
        raise UsageError(f"[{l.name}] neuron={name}: not known here; has {sorted(ways)}")
    return ways[name](), x.order


def rnorm(out, l, w, made, x):
    """The border is cut, the divisor size^2 stays."""
    before = l.size // 2
    pads = [before, before, l.size - 1 - before, l.size - 1 - before]
    mean = out.add("AveragePool", out.add("Mul", x.name, x.name), kernel_shape=[l.size] * 2,
                   pads=pads, count_include_pad=1)  # fmt: skip
    under = out.add("Add", out.add("Mul", mean, out.constant(l.scale)), out.constant(l.minDiv))
    return out.add("Mul", x.name, out.add("Pow", under, out.constant(-l.pow))), x.order


def cmrnorm(out, l, w, made, x):
    if l.blocked or l.size % 2 == 0:
        raise UsageError(f"[{l.name}] blocked=1, and an even size: not known here")
    name = out.add("LRN", x.name, alpha=l.scale, beta=l.pow, bias=l.minDiv, size=l.size)
    return name, x.order


def dropout(out, l, w, made, x):
    return x.name, x.order


def dropout2(out, l, w, made, x):
    return out.add("Mul", x.name, out.constant(l.keep)), x.order


def softmax(out, l, w, made, x):
    return out.add("Softmax", out.add("Flatten", x.name), axis=1), x.order


OPS = {
    "data": data, "conv": conv, "pool": pool, "spp": spp, "fc": fc, "neuron": neuron,
    "rnorm": rnorm, "cmrnorm": cmrnorm, "dropout": dropout, "dropout2": dropout2,
    "softmax": softmax,
}  # fmt: skip
