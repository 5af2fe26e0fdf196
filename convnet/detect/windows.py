"""Which scale of a photo serves a box, and which cells of that scale's map the box becomes.

SPP-net, section 4.1 and appendix A, and the authors' release, where they differ (`SEMANTICS`):

            paper                                   release
scales      480 576 688 864 1200                    480 576 688 874 1200
a box has   the scale at which it has nearest to    the scale nearest to round(T m / sqrt(area)),
            224 x 224 pixels                        T = side of the map at 224 * stride (208)
pixels      x s / m                                 x (s - 1) / (m - 1), counted from 0
cells       floor(l / S) + 1 ... ceil(r / S) - 1    floor(l / S + 1/2) ... ceil(r / S - 1/2), each
                                                    end first moved 6.5 pixels inwards

m is the photo's shorter side, s the scale, S the stride of the map, and pixels are counted from
the centre of the receptive field of cell 0, all of which follow from the cfg (convnet/geometry.py).
Of equally near scales the smallest is taken.
"""

from typing import NamedTuple

import numpy as np

from convnet.geometry import Field, inside

SEMANTICS = ("release", "paper")
SCALES = {"release": (480, 576, 688, 874, 1200), "paper": (480, 576, 688, 864, 1200)}
ONE = (688,)  # where one scale is to do


class Aim(NamedTuple):
    """How large a net wants what it looks at: its input, and its map's side times the stride."""

    input: int
    map: int


def resized(height: int, width: int, scale: int) -> tuple[int, int]:
    """(height, width) of a photo at a scale: the shorter side is `scale`, the other rounded up."""
    short, long = sorted((height, width))
    longer = -(-scale * long // short)
    return (scale, longer) if height <= width else (longer, scale)


def best_scales(
    boxes: np.ndarray, height: int, width: int, scales: tuple[int, ...], aim: Aim, semantics: str
) -> np.ndarray:
    """(N,) which of the scales serves each box of a photo of this size."""
    short = min(height, width)
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 1e-3)
    area, scales = (sides[:, 0] * sides[:, 1])[:, None], np.array(scales, np.float64)
    if semantics == "paper":
        return np.argmin(abs(area * (scales / short) ** 2 - aim.input**2), axis=1)
    wanted = np.floor(aim.map * short / np.sqrt(area) + 0.5)
    return np.argmin(abs(scales - wanted), axis=1)


def cells(
    boxes: np.ndarray,
    scales: np.ndarray,
    photo: tuple[int, int],
    maps: np.ndarray,
    of: Field,
    semantics: str,
) -> np.ndarray:
    """(N, 4) int32 top, left, bottom, right of the cells of each box, the last two excluded.

    scales: (N,) of each box; photo: its (height, width); maps: (N, 2) rows and columns of the map
    at the box's scale. A box that holds no centre of a cell becomes the one cell between; cells
    outside the map become the nearest inside.
    """
    short = min(photo)
    scales = np.asarray(scales, np.float64)
    if semantics == "paper":
        factor = scales / short
    else:  # a photo one pixel high or wide has no such factor
        factor = (scales - 1) / (short - 1) if short > 1 else scales
    first, last = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64) - 1
    first, last = np.minimum(first, last), np.maximum(first, last)
    first, last = inside(of, semantics, first * factor[:, None], last * factor[:, None])
    most = maps[:, ::-1] - 1  # columns, rows, as boxes have x first
    first, last = np.clip(first, 0, most), np.clip(last, 0, most)
    return np.stack([first[:, 1], first[:, 0], last[:, 1] + 1, last[:, 0] + 1], 1).astype(np.int32)


class Windows(NamedTuple):
    """The different windows of some boxes: box i is window `of[i]`.

    scale: (K,) which map each is of; cells: (K, 4) int32 top, left, bottom, right. Those of a scale
    stand together, in the order of the scales.
    """

    scale: np.ndarray
    cells: np.ndarray
    of: np.ndarray


def distinct(scale: np.ndarray, cells: np.ndarray) -> Windows:
    """Boxes of one scale and the same cells are one window: it is computed once."""
    rows = np.concatenate([np.asarray(scale)[:, None], cells], 1).astype(np.int32)
    if not len(rows):
        return Windows(np.zeros(0, np.int32), np.zeros((0, 4), np.int32), np.zeros(0, np.int64))
    found, of = np.unique(rows, axis=0, return_inverse=True)
    return Windows(found[:, 0], found[:, 1:], of.reshape(-1))


def aim_of(graph, trunk: str, field: Field) -> Aim:
    """How large the boxes of a photo are to be, for windows that are cut from the map `trunk`."""
    return Aim(graph.size, graph.shapes[trunk][0] * field.stride)
