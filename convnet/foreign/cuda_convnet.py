"""Checkpoints of cuda-convnet and cuda-convnet2: pickles of Python 2, as they are or in a zip.

{"model_state": {"layers": [{"name", "type", "weights", "biases", ...}], ...}, "op": options}. The
first version has a list of layers, the second a dict by name. Weights lie as (channels * rows *
columns, filters) for a convolution, (inputs, outputs) for an fc layer, both with channels first;
biases that are not shared as one row for each filter and place. The options are objects of the
program; stand-ins take their place (convnet/unpickle.py).
"""

import io
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from convnet.foreign.found import Found, Layer, floats
from convnet.refused import Refused, shaped
from convnet.unpickle import ARRAYS, Array, Nothing, Unpickler, text, why


class _Known(dict):
    """The names that a checkpoint may say: arrays, and the program's own modules."""

    own = re.compile(r"(python_util\.)?(options|util|gpumodel|data|ordereddict)|convnet|layer")

    def __contains__(self, name: Any) -> bool:
        return super().__contains__(name) or bool(self.own.fullmatch(name[0]))

    def __missing__(self, name: Any) -> type:
        return Nothing


KNOWN = _Known({
    **ARRAYS,
    ("numpy.core.multiarray", "scalar"): Nothing,
    ("copy_reg", "_reconstructor"): Nothing,
    ("copyreg", "_reconstructor"): Nothing,
    ("__builtin__", "object"): Nothing,
    ("builtins", "object"): Nothing,
})  # fmt: skip


def newest(folder: Path) -> Path | None:
    """The newest file <epoch>.<batch> of a folder of checkpoints, None if there is none."""
    found = [(p, re.fullmatch(r"(\d+)\.(\d+)", p.name)) for p in folder.iterdir() if p.is_file()]
    named = [(tuple(map(int, match.groups())), path) for path, match in found if match]
    return max(named)[1] if named else None


def read_zip(path: str, archive: zipfile.ZipFile) -> Found:
    """The layers of a checkpoint written with --zip-save. Refused."""
    inside = archive.infolist()
    if not inside:
        raise Refused("is an empty zip file")
    return read(path, memoryview(archive.read(inside[0])))


def read(path: str, data: memoryview) -> Found:
    """The layers of a checkpoint. Refused."""
    try:
        content = Unpickler(io.BytesIO(data), KNOWN).load()
    except Exception as e:  # a damaged pickle may raise about anything
        raise Refused(
            f"is no checkpoint of cuda-convnet: {why(e)}; nothing in it was run"
        ) from None
    state = _get(content, "model_state")
    layers = _get(state, "layers")
    if isinstance(layers, dict):
        layers = [*layers.values()]
    if not isinstance(layers, list):
        raise Refused("is no checkpoint of cuda-convnet: it has no model_state with layers")
    found = Found(path, "cuda-convnet", [])
    for layer in layers:
        name, kind = (text(_get(layer, key)) for key in ("name", "type"))
        there = _list(_get(layer, "weights"))
        weights = [a for a in map(_array, there) if a is not None]
        if there:
            try:
                if len(weights) < len(there):
                    raise Refused("has weights that are no matrix of floats")
                found.layers.append(_layer(name, kind, layer, weights))
            except Refused as e:
                found.lost.append(f"{name}: of type={kind}, {e}")
    if not found.layers and not found.lost:
        raise Refused("holds no layer with weights")
    return found


def _layer(name: str, kind: str, layer: dict, weights: list[np.ndarray]) -> Layer:
    """Refused where it has no counterpart here."""
    bias = _array(_get(layer, "biases"))
    if kind == "fc":
        kernels = [w.T for w in weights]
    elif kind == "conv" and not any(_list(_get(layer, "randSparse"))):
        sides = _list(_get(layer, "filterSize"))
        if len(sides) != len(weights):
            raise Refused(f"has {len(weights)} weights for {len(sides)} inputs")
        kernels = [_maps(w, F) for w, F in zip(weights, sides)]
    else:
        raise Refused("which has no counterpart here")
    kernels, K = [floats(k) for k in kernels], len(kernels[0])
    if bias is not None and bias.size != K:
        side = math.isqrt(bias.size // K)
        bias = shaped(bias.reshape(-1), (K, side, side))
    elif bias is not None:
        bias = bias.reshape(-1)
    return Layer(name, kernels, None if bias is None else floats(bias), kind)


def _maps(w: np.ndarray, F: Any) -> np.ndarray:
    """The weights of a convolution, (out, in, rows, columns). Refused where they are none."""
    if type(F) is not int or F < 1 or len(w) % (F * F):
        raise Refused(f"has {len(w)} rows of weights for filterSize={text(F):.20}")
    return w.T.reshape(w.shape[1], len(w) // (F * F), F, F)


def _get(found: Any, key: str) -> Any:
    """What a dict of Python 2 or 3 has under this key, None if it is no dict."""
    if not isinstance(found, dict):
        return None
    return found.get(key, found.get(key.encode()))


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [value] if value is not None else []


def _array(value: Any) -> np.ndarray | None:
    """An array of two dimensions at least; None for what is none."""
    array = value.array if isinstance(value, Array) else None
    if array is None or array.dtype.kind != "f" or array.ndim != 2:
        return None
    return array
