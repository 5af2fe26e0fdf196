"""Between the arrays of our layers and the form of found.Layer, both ways.

         conv                                fc
ours     (rows, columns, in of a group, out)  (inputs, out), counted as row, column, channel
others   (out, in of a group, rows, columns)  (out, inputs), counted as channel, row, column

What an fc layer reads may be several maps one behind the other, a pyramid: each is turned for
itself. So weights of a net whose pyramid is written as pools fit one that says type=spp.
"""

import math

import numpy as np

from convnet import layer as layers
from convnet.foreign.found import Layer
from convnet.graph import Graph, Shape


def pieces(graph: Graph, name: str) -> list[Shape]:
    """The maps (H, W, C) that the numbers of a layer's output are, one behind the other."""
    l, shape = graph.by_name[name], graph.shapes[name]
    if shape[:2] != (1, 1) or not l.inputs:
        return [shape]
    ins = [graph.shapes[n] for n in l.reads]
    if l.bins() and shape[2] == ins[0][2] * sum(n * n for n in l.bins()):
        return [(n, n, ins[0][2]) for n in l.bins()]
    if math.prod(shape) == sum(map(math.prod, ins)) and not l.weights(*ins):  # it moves numbers
        return [piece for n in l.reads for piece in pieces(graph, n)]
    return [shape]


def weighty(graph: Graph) -> list[layers.Layer]:
    """The layers with weights of their own, in order."""
    return [l for l in graph.layers if graph.weights_of(l)]


def to_found(graph: Graph, l: layers.Layer, arrays: dict[str, np.ndarray]) -> Layer:
    """{"W0": ..., "b": ...} of a layer as a found.Layer."""
    kernels = []
    for i, name in enumerate(l.reads):
        W = arrays[f"W{i}"]
        if W.ndim == 4:
            kernels.append(W.transpose(3, 2, 0, 1))
            continue
        at, parts = 0, []
        for H, width, C in pieces(graph, name):
            part = W[at : at + H * width * C].reshape(H, width, C, -1)
            parts.append(part.transpose(3, 2, 0, 1).reshape(W.shape[1], -1))
            at += H * width * C
        kernels.append(np.concatenate(parts, axis=1))
    bias = arrays["b"]
    return Layer(l.name, kernels, bias.transpose(2, 0, 1) if bias.ndim == 3 else bias, l.type)


def to_ours(graph: Graph, l: layers.Layer, theirs: Layer) -> dict[str, np.ndarray]:
    """The arrays of a layer of ours. ValueError("why") where they do not fit."""
    asked = {name: weight.shape for name, weight in graph.asked(l).items()}
    kernels = [name for name in asked if name != "b"]
    made = {}
    if len(asked[kernels[0]]) == 4:
        for name, W in zip(kernels, _split(theirs, [asked[k][2] for k in kernels])):
            F, _, C, K = asked[name]
            if W.ndim == 2 and W.size == F * F * C * K:
                W = W.reshape(K, C, F, F)
            made[name] = W.transpose(2, 3, 1, 0) if W.ndim == 4 else W
    else:
        if len({len(W) for W in theirs.kernels}) > 1:
            raise ValueError("its inputs there have weights for different numbers of outputs")
        whole = np.concatenate([W.reshape(len(W), -1) for W in theirs.kernels], axis=1)
        at = 0
        for name, read in zip(kernels, l.reads):
            made[name] = _rows(whole[:, at : at + asked[name][0]], pieces(graph, read))
            at += asked[name][0]
        if whole.shape[1] != at:
            made[kernels[0]] = whole.T
    K = asked[kernels[0]][-1]
    bias = np.zeros(K, np.float32) if theirs.bias is None else theirs.bias
    made["b"] = bias.transpose(1, 2, 0) if bias.ndim == 3 else bias
    if bias.ndim == 1 and len(asked["b"]) == 3 and len(bias) == K:
        made["b"] = np.broadcast_to(bias, asked["b"])
    for name, shape in asked.items():
        if made[name].shape != shape:
            raise ValueError(f"{name} is {_x(made[name].shape)} there, {_x(shape)} here")
    return {name: np.ascontiguousarray(array, np.float32) for name, array in made.items()}


def _split(theirs: Layer, channels: list[int]) -> list[np.ndarray]:
    """The kernels of a convolution, one over all maps cut at our several inputs."""
    if len(theirs.kernels) == len(channels):
        return theirs.kernels
    W = theirs.kernels[0]
    if len(theirs.kernels) > 1 or W.shape[1] != sum(channels):
        raise ValueError(f"has {len(theirs.kernels)} inputs there, {len(channels)} here")
    return np.split(W, np.cumsum(channels)[:-1], axis=1)


def _rows(W: np.ndarray, maps: list[Shape]) -> np.ndarray:
    """(out, channel row column, ...) -> (row column channel, ..., out)."""
    if W.shape[1] != sum(map(math.prod, maps)):
        return W.T
    at, parts = 0, []
    for H, width, C in maps:
        part = W[:, at : at + H * width * C].reshape(-1, C, H, width)
        parts.append(part.transpose(2, 3, 1, 0).reshape(-1, len(W)))
        at += H * width * C
    return np.concatenate(parts)


def _x(shape: tuple) -> str:
    return "x".join(map(str, shape))
