"""What is found in a file of weights, in one form whatever its format."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from convnet.checkpoint import CheckpointError
from convnet.refused import Refused


class WeightsError(CheckpointError):
    """A file of weights cannot be used; the text is one line: file, why, what to do."""


class Layer(NamedTuple):
    """A layer with weights.

    kernels: one array for each input, (out, in of a group, rows, columns) of a convolution, else
    (out, in), where what comes from maps is counted as channel, row, column. bias: (out,), or
    (out, rows, columns) where each place has its own; None if there is none. kind: its type as the
    file calls it, "" where it does not.
    """

    name: str
    kernels: list[np.ndarray]
    bias: np.ndarray | None = None
    kind: str = ""


class Input(NamedTuple):
    """What the net expects of a picture: (pixels of 0..255 - mean) / std.

    mean and std: one number for each channel or one for all, in the order of its channels, which is
    blue, green, red if bgr. mean may be an image (H, W, C) too.
    """

    bgr: bool = False
    mean: Any = 0.0
    std: Any = 1.0


@dataclass
class Found:
    """A file of weights: its name, what it is, its layers in order.

    input: as nets of this format usually have it; exact where known is true. notes: what there is
    to know, in words. lost: what was trained and has no counterpart here, so that the layers alone
    are another net; "name: why" each.
    """

    path: str
    format: str
    layers: list[Layer]
    input: Input = field(default_factory=Input)
    known: bool = False
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def floats(array: np.ndarray) -> np.ndarray:
    """As float32; Refused for what is no array of finite floats."""
    if array.dtype.kind != "f":
        raise Refused(f"is of {array.dtype}, not of floats")
    if not array.size:
        raise Refused("is empty")
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise Refused("is not finite")
    return array


def fold(layer: Layer, mean, variance, gamma, beta, eps: float) -> Layer:
    """A layer that does the work of a batch normalisation behind it as well.

    y = (x - mean) / sqrt(variance + eps) * gamma + beta, each (out,). Refused where they do not
    fit.
    """
    sizes = {part.shape for part in (mean, variance, gamma, beta)}
    if sizes != {layer.kernels[0].shape[:1]}:
        raise Refused(f"a batch normalisation behind {layer.name} is of another size")
    with np.errstate(all="ignore"):  # what is not finite then is refused below
        factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + eps)
        bias = (0 - mean if layer.bias is None else layer.bias - mean) * factor + beta
        kernels = [k * factor.reshape(-1, *[1] * (k.ndim - 1)) for k in layer.kernels]
    try:
        return layer._replace(kernels=[*map(floats, kernels)], bias=floats(bias))
    except Refused as e:
        raise Refused(f"{layer.name}, with the batch normalisation behind it, {e}") from None
