"""Caffe's models (.caffemodel) and mean images (.binaryproto), of all three layouts it has had.

    V0        layers=2 { layer=1 { name=1 type=2 blobs=50 } bottom=2 top=3 }    2013
    V1        layers=2 { name=4 type=5 (a number) bottom=2 top=3 blobs=6 }      2014
    current   layer=100 { name=1 type=2 bottom=3 top=4 blobs=7 }                since 2015

A blob has its shape as four numbers (1 to 4) or as a list (7), its numbers as floats (5), doubles
(8) or, in models that OpenCV has shrunk, halves (12). Only layers with blobs are looked at; fields
of forks are passed over. BatchNorm and Scale right behind a layer are multiplied into its weights;
what else has blobs is lost, and said to be.
"""

import math
import struct
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from convnet.foreign import wire
from convnet.foreign.found import Found, Input, Layer, floats, fold
from convnet.refused import Refused, shaped

V1_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}
V0_TYPES = {"conv": "Convolution", "innerproduct": "InnerProduct"}
MEAN = (104.0, 117.0, 123.0)  # blue, green, red of ImageNet: what nearly all of them subtract
DIMENSIONS = {"Convolution": 4, "InnerProduct": 2}  # of the weights of what has counterparts here
RAW = {0: "<f8", 1: "<f4", 2: "<f2"}  # what field 10 of a blob says of field 12
# where the fields are: (name, type, bottom, top, blobs)
V0, V1, NOW = (1, 2, None, None, 50), (4, 5, 2, 3, 6), (1, 2, 3, 4, 7)
BATCH_NORM = 139  # a layer's batch_norm_param, in which eps is 3
INNER_PRODUCT, TRANSPOSE = 117, 6  # inner_product_param; its flag that weights are (in, out)


class _Raw(NamedTuple):
    """A layer as it stands in the file."""

    name: str
    kind: str
    bottoms: list[str]
    tops: list[str]
    blobs: list[np.ndarray]
    eps: float
    turned: bool


def read(path: str, data: memoryview) -> Found:
    """The layers of a .caffemodel. Refused if it is none or is damaged."""
    found = Found(path, "Caffe", [], Input(True, MEAN))
    makers: dict[str, int] = {}  # number of the layer whose output, normalised or not, is a top
    every = [*map(_raw, _messages(data))]
    readers = Counter(name for raw in every for name in {*raw.bottoms} - {*raw.tops})
    for raw in every:
        at = makers.get(raw.bottoms[0]) if raw.bottoms else None
        if raw.kind in DIMENSIONS and 1 <= len(raw.blobs) <= 2:
            found.layers.append(_layer(raw))
            at = len(found.layers) - 1
        elif raw.blobs and (why := _lost(raw, at, readers)):
            found.lost.append(f"{raw.name}: of type {raw.kind}, {why}")
            at = None
        elif raw.blobs and at is not None:
            found.layers[at] = _normalised(found.layers[at], raw)
        else:
            at = None  # what is behind a relu is no longer the layer's own
        for top in raw.tops:
            makers.pop(top, None)
            if at is not None:
                makers[top] = at
    if not found.layers and not found.lost:
        raise Refused("holds no layer with weights; is it a .caffemodel?")
    return found


def mean(data: memoryview) -> np.ndarray:
    """The image (H, W, C) of a .binaryproto, as the channels stand there. Refused."""
    image = floats(_blob(data))
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3 or len(image) not in (1, 3):
        raise Refused(f"holds {'x'.join(map(str, image.shape))} numbers, which are no image")
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def _messages(data: memoryview):
    """Each layer, with the places of its fields."""
    for number, value in wire.fields(data):
        if isinstance(value, int) or number not in (2, 100):
            continue
        inside = dict(wire.fields(value)).get(1) if number == 2 else None
        if inside is not None and not isinstance(inside, int):
            yield V0, inside
        else:
            yield NOW if number == 100 else V1, value


def _raw(found: tuple) -> _Raw:
    (name, kind, bottom, top, blob), data = found
    got: dict[Any, list] = {
        n: [] for n in (name, kind, bottom, top, blob, BATCH_NORM, INNER_PRODUCT)
    }
    for number, value in wire.fields(data):
        if number in got:
            got[number].append(value)
    called = wire.text(got[name][-1]) if got[name] else ""
    word = got[kind][-1] if got[kind] else ""
    word = V1_TYPES.get(word, str(word)) if isinstance(word, int) else wire.text(word)
    eps = [v for p in got[BATCH_NORM] for number, v in wire.inside(p) if number == 3]
    if eps and (isinstance(eps[-1], int) or len(eps[-1]) != 4):
        raise Refused(f"layer {called}: eps is no float")
    return _Raw(
        called,
        V0_TYPES.get(word, word),
        [wire.text(v) for v in got[bottom]],
        [wire.text(v) for v in got[top]],
        [_array(called, v) for v in got[blob]],
        struct.unpack("<f", eps[-1])[0] if eps else 1e-5,
        any(n == TRANSPOSE and v for p in got[INNER_PRODUCT] for n, v in wire.inside(p)),
    )


def _lost(raw: _Raw, at: int | None, readers: Counter[str]) -> str:
    """Why the weights of a layer cannot go into the one before it, number `at`; "" if they can."""
    if raw.kind not in ("BatchNorm", "Scale"):
        return "which has no counterpart here"
    if at is None:
        return "which has a counterpart only right behind a Convolution or InnerProduct"
    if readers[raw.bottoms[0]] > 1:
        return f"works on {raw.bottoms[0]}, which others read as it was; no counterpart here"
    return ""


def _layer(raw: _Raw) -> Layer:
    """Weights as (out, in, rows, columns) or (out, in): old blobs have four numbers always."""
    W, wanted = raw.blobs[0], DIMENSIONS[raw.kind]
    if W.ndim < wanted or math.prod(W.shape[: W.ndim - wanted]) != 1:
        shape = "x".join(map(str, W.shape)) or "1"
        raise Refused(f"layer {raw.name}: {shape} weights cannot be those of a {raw.kind}")
    bias = raw.blobs[1].reshape(-1) if len(raw.blobs) > 1 else None
    W = W.reshape(W.shape[W.ndim - wanted :])
    W = np.ascontiguousarray(W.T) if raw.turned and wanted == 2 else W
    return Layer(raw.name, [W], bias, raw.kind)


def _normalised(layer: Layer, raw: _Raw) -> Layer:
    """The layer with a BatchNorm or a Scale in it. Refused where that does not fit."""
    blobs = [blob.reshape(-1) for blob in raw.blobs]
    ones, zeros = (np.full(len(layer.kernels[0]), n, np.float32) for n in (1, 0))
    if raw.kind == "BatchNorm" and len(blobs) == 3 and len(blobs[2]) == 1:
        share = blobs[2][0]  # what the sums of mean and variance are to be divided by
        mean, variance = (blob / share if share else 0 * blob for blob in blobs[:2])
        return fold(layer, mean, variance, ones, zeros, raw.eps)
    if raw.kind == "Scale" and len(blobs) in (1, 2):
        return fold(layer, zeros, ones, blobs[0], blobs[1] if len(blobs) > 1 else zeros, 0.0)
    raise Refused(f"layer {raw.name}: {len(blobs)} blobs cannot be those of a {raw.kind}")


def _array(name: str, blob: Any) -> np.ndarray:
    try:
        return floats(_blob(blob))
    except Refused as e:
        raise Refused(f"layer {name}: a blob {e}") from None


def _blob(data: Any) -> np.ndarray:
    """The array of a blob. Refused where it does not hold as many numbers as it says."""
    old, shape, kind = [None] * 4, None, 1
    pieces: dict[str, list] = {"<f4": [], "<f8": [], "raw": []}
    for number, value in wire.inside(data):
        if isinstance(value, int):
            if number in (1, 2, 3, 4):
                old[number - 1] = value
            kind = value if number == 10 else kind
        elif number == 7:
            shape = [n for k, v in wire.fields(value) if k == 1 for n in wire.varints(v)]
        elif number in (5, 8, 12):
            pieces[{5: "<f4", 8: "<f8", 12: "raw"}[number]].append(value)
    word, parts = next(((w, p) for w, p in pieces.items() if p), ("<f4", []))
    word = RAW.get(kind, "") if word == "raw" else word
    if not word:
        raise Refused(f"has numbers of kind {kind}, which are none of floats")
    joined = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(joined) % np.dtype(word).itemsize:
        raise Refused("ends in the middle of a number")
    values = np.frombuffer(joined, word)
    if shape is None:
        shape = [1 if n is None else n for n in old] if any(old) else [len(values)]
    return shaped(values, shape)
