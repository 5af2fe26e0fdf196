"""State dicts, {"features.0.weight": array, ...}, as PyTorch calls its weights, to layers.

A layer is what stands in front of the last dot: its weight is (out, in of a group, rows, columns)
of a convolution, (out, in) of a linear layer. Batch normalisations, which have a running_mean, are
multiplied into the layer before them; the file does not say their eps, PyTorch's default is taken.
Other floats, as the one dimension of a PReLU's weight, are lost, and said to be.
Our own export has weight.0, weight.1 where a convolution has several inputs.
"""

import re

import numpy as np

from convnet.foreign.found import Found, Input, Layer, floats, fold
from convnet.refused import Refused

INPUT = Input(False, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # torchvision's
EPS = 1e-5
PARTS = r"(.+)\.(weight|bias|running_mean|running_var|weight\.[0-9]{1,9})"


def layers_of(found: Found, arrays: dict[str, np.ndarray]) -> Found:
    """Add the layers that the arrays make, in their order. Refused."""
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        match = re.fullmatch(PARTS, name)
        if match:
            try:
                grouped.setdefault(match[1], {})[match[2]] = floats(array)
            except Refused as e:
                raise Refused(f"{name} {e}") from None
        elif not name.endswith("num_batches_tracked"):
            floating = array.dtype.kind == "f"  # others are counts and indices, which nobody trains
            where = found.lost if floating else found.notes
            where.append(
                f"{name}: is no weight or bias of a layer (a buffer, if nobody trained it)"
            )
    before = len(found.lost)
    for name, parts in grouped.items():
        behind_lost, before = len(found.lost) > before, len(found.lost)
        _add(found, name, parts, behind_lost)
    if not found.layers:
        raise Refused("holds no weights of layers, as features.0.weight")
    return found


def _add(found: Found, name: str, parts: dict[str, np.ndarray], behind_lost: bool) -> None:
    kernels = [parts[k] for k in sorted(parts, key=_number) if k.startswith("weight")]
    if "running_mean" in parts and behind_lost:
        found.lost.append(f"{name}: normalises what has no counterpart here")
    elif "running_mean" in parts and found.layers:
        ones = np.ones_like(parts["running_mean"])
        gamma, beta = parts.get("weight", ones), parts.get("bias", 0 * ones)
        mean, variance = parts["running_mean"], parts.get("running_var", ones)
        try:
            found.layers[-1] = fold(found.layers[-1], mean, variance, gamma, beta, EPS)
        except Refused as e:
            found.lost.append(f"{name}: {e}")
            return
        found.notes.append(
            f"{name}: normalises; taken to stand right behind {found.layers[-1].name}, and now in "
            f"it, with eps {EPS:g}"
        )
    elif kernels and all(k.ndim in (2, 4) for k in kernels):
        kind = "Linear" if kernels[0].ndim == 2 else "Conv2d"
        found.layers.append(Layer(name, kernels, parts.get("bias"), kind))
    else:
        told = "normalises what no layer made" if "running_mean" in parts else _sides(parts)
        found.lost.append(f"{name}: {told}, which has no counterpart here")


def _sides(parts: dict[str, np.ndarray]) -> str:
    return "has " + ", ".join(f"{k} of {'x'.join(map(str, a.shape))}" for k, a in parts.items())


def _number(word: str) -> int:
    return int(word.rpartition(".")[2]) if "." in word else 0


def in_order(names: list[str]) -> list[str]:
    """Names of a file that keeps no order as a net has its layers: 10 behind 2, classifier last."""

    def place(name: str) -> tuple:
        last = name.split(".")[0] in ("classifier", "fc", "head")
        return last, [(len(w), w) if w.isdecimal() else (-1, w) for w in name.split(".")]

    return sorted(names, key=place)
