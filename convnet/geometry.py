"""Where the cells of a map lie in the image, and which of them a rectangle of the image covers.

A cell of a layer sees a square of the image, its receptive field: `size` pixels, `stride` pixels
from one cell to the next, that of cell 0 around pixel `centre` (counted from 0; half a pixel where
the size is even). It follows from the windows of the layers on the way, so nothing is typed in.
"""

import math
from typing import NamedTuple

import numpy as np

from convnet.graph import Graph

SEMANTICS = ("crop", "paper", "release")
SHRINK = 6.5  # of the authors' release, at its steps of 16 (ZF-5) and 12 pixels (Overfeat)


class Field(NamedTuple):
    """The receptive fields of the cells of a map, in pixels of the net's input."""

    size: int
    stride: int
    centre: float


def field(graph: Graph, layer: str) -> Field:
    """Of the layer of that name. ValueError where its output is no map of the image."""
    found = {graph.feeds[0]: (0, 0, 1)}  # first and last pixel of cell 0, and the stride
    for l in graph.layers:
        ins = [found.get(name) for name in l.reads]
        if not ins or None in ins:
            continue
        seen = [_through(l.window(i), *before) for i, before in enumerate(ins)]
        if None in seen or len({stride for *_, stride in seen}) > 1:
            continue
        firsts, lasts, strides = zip(*seen)
        found[l.name] = min(firsts), max(lasts), strides[0]
        if l.name == layer:
            break
    if layer not in found:
        raise ValueError(f"[{layer}] is no map of the image")
    first, last, stride = found[layer]
    return Field(last - first + 1, stride, (first + last) / 2)


def _through(window, first: int, last: int, stride: int) -> tuple | None:
    """What a cell behind a window sees, given what the cells in front of it do."""
    if window is None:
        return None
    size, step, start = window
    first, last = first + start * stride, last + (start + size - 1) * stride
    return first, last, stride * step


def cells(of: Field, semantics: str, begin: int, end: int, side: int, own: int) -> tuple[int, int]:
    """The cells begin..end - 1 (the second excluded) of a map for the pixels begin..end - 1.

    side: cells of the map in this direction; own: how many the map of these pixels alone has.

    crop     as many as the map of the crop would have, at the nearest place
    paper    cells whose centre lies strictly inside, floor(x/S) + 1 to ceil(x/S) - 1 (SPP-net,
             appendix A), where cell 0 is at `centre` and not at 0
    release  the authors' code: floor((l - o0 + o)/S + 1/2) to ceil((r - o0 - o)/S - 1/2), with o
             of 6.5 pixels, which is less where the stride is below 12; where these are in the
             wrong order both are their mean. Outside the map the nearest cell is taken.
    """
    if semantics == "crop":
        own = min(own, side)
        first = min(max(math.floor(begin / of.stride + 0.5), 0), side - own)
        return first, first + own
    first, last = (np.clip(n, 0, side - 1) for n in inside(of, semantics, begin, end - 1))
    return int(first), int(last) + 1


def inside(of: Field, semantics: str, first, last) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last cell of pixels from `first` to `last`, whole numbers as float64.

    Pixels may be numbers or arrays of them, with fractions; cells may be outside of the map.
    semantics: paper or release, as `cells` has them.
    """
    first, last = (np.asarray(n, np.float64) - of.centre for n in (first, last))
    if semantics == "paper":
        first, last = np.floor(first / of.stride) + 1, np.ceil(last / of.stride) - 1
    else:
        shrink = SHRINK if of.stride >= 12 else SHRINK / 16 * of.stride
        first = np.floor((first + shrink) / of.stride + 0.5)
        last = np.ceil((last - shrink) / of.stride - 0.5)
    middle = np.trunc((first + last + 2) / 2) - 1  # on numbers counted from 1
    empty = last < first
    return np.where(empty, middle, first), np.where(empty, middle, last)
