"""A box of a picture at S x S: what Pillow's resize(box=) makes, in a quarter of the time.

Pillow's bilinear filter widens where it shrinks, weighs in whole numbers of 22 binary places, and
rounds to 8 bits along the rows and again along the columns. So does this, bit for bit, in vectors:
the taps of a column are rows, and those of a row are after ROWS of them have been transposed. Only
where the height loses more than twice as many pixels as the width does Pillow 13 begin with the
columns; some values differ by 1 there. Grey pictures, shrinking to less than half and the like are
left to Pillow.
"""

import ctypes

import numpy as np
from PIL import Image

from convnet.kernel import jit

PLACES = 22  # of the weights, after the binary point
ROWS = 16  # that are resized at once
TAPS = 4  # pixels that one is made of, at most; enough to halve
int32 = np.int32


def crop(picture: Image.Image, box: tuple, S: int, mirror: bool) -> np.ndarray:
    """The box (left, top, right, bottom) of a picture, L or RGB, as uint8 (S, S, C)."""
    ours = max(box[2] - box[0], box[3] - box[1]) <= S * TAPS / 2 and picture.height >= ROWS
    pixels = memory(picture) if ours and picture.mode == "RGB" else None
    if pixels is not None:
        out = np.empty((S, 3 * S), np.uint8)
        _crop(pixels, *np.array(box, np.float32), mirror, out)  # Pillow's box is float, too
        return out.reshape(S, S, 3)
    small = picture.resize((S, S), Image.Resampling.BILINEAR, box=box)
    small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else small
    return np.asarray(small).reshape(S, S, -1)


class _Arrow(ctypes.Structure):
    """struct ArrowArray of the Arrow C data interface, as far as it is read here."""


_Arrow._fields_ = [
    *((n, ctypes.c_int64) for n in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Arrow))),
]
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def memory(picture: Image.Image) -> np.ndarray | None:
    """Where Pillow keeps an RGB picture, not copied: (H, W) uint32, bytes red, green, blue, any.

    None where a picture is not in one piece, or Pillow is older than 11.2.
    """
    try:
        _, capsule = picture.__arrow_c_array__()
    except (AttributeError, ValueError):
        return None
    values = _Arrow.from_address(_pointer(capsule, b"arrow_array")).children[0].contents
    w, h = picture.size
    pixels = (ctypes.c_uint32 * (w * h)).from_address(values.buffers[1])
    pixels.capsule = capsule  # keeps the picture's memory for as long as the array is there
    return np.frombuffer(pixels, np.uint32).reshape(h, w)


@jit(fastmath=False)
def _weights(n, low, high, S):
    """Of the S pixels made of the interval of n: the first tap of each, and its TAPS weights."""
    first, weights = np.empty(S, np.int64), np.zeros((S, TAPS), np.int32)
    scale = np.float64(high - low) / S
    reach = max(scale, 1.0)
    for i in range(S):
        at = low + (i + 0.5) * scale
        begin = max(int(at - reach + 0.5), 0)
        end = min(int(at + reach + 0.5), n, begin + TAPS)
        total = 0.0
        for k in range(begin, end):
            total += max(0.0, 1 - abs((k - at + 0.5) * (1 / reach)))
        for k in range(begin, end):
            share = max(0.0, 1 - abs((k - at + 0.5) * (1 / reach))) / total
            weights[i, k - begin] = int(0.5 + share * (1 << PLACES))
        first[i] = begin
    return first, weights


@jit()
def _weigh(src, first, weights, out):
    """Each row of out is a weighted sum of TAPS rows of src; 8 bits."""
    half = int32(1 << PLACES - 1)
    for i in range(len(out)):
        k, w0, w1, w2, w3 = first[i], weights[i, 0], weights[i, 1], weights[i, 2], weights[i, 3]
        for j in range(out.shape[1]):
            total = int32(half + w0 * src[k, j] + w1 * src[k + 1, j] + w2 * src[k + 2, j])
            if w3:  # rare below a scale of 1.5; LLVM asks before the loop
                total = int32(total + w3 * src[k + 3, j])
            out[i, j] = total >> PLACES


@jit()
def _crop(src, left, top, right, bottom, mirror, out):
    """The box of src, uint32 (H, W), as bytes (S, 3 S). Taps past the edge weigh nothing."""
    S, (H, W) = len(out), src.shape
    xs, x_weights = _weights(W, left, right, S)
    ys, y_weights = _weights(H, top, bottom, S)
    x, y = xs[0], min(ys[0], H - ROWS)
    columns, rows = min(W, xs[-1] + TAPS) - x, max(ROWS, min(H, ys[-1] + TAPS) - y)
    xs, ys = xs - x, ys - y
    if mirror:
        xs, x_weights = xs[::-1].copy(), x_weights[::-1].copy()
    turned, narrow = np.empty((columns + TAPS, ROWS), np.uint32), np.empty((S, ROWS), np.uint32)
    lines, small = np.empty((rows + TAPS, S), np.uint32), np.empty((S, 4 * S), np.uint8)
    for r in range(0, rows, ROWS):
        r = min(r, rows - ROWS)
        for j in range(columns):
            for i in range(ROWS):
                turned[j, i] = src[y + r + i, x + j]
        _weigh(turned.view(np.uint8), xs, x_weights, narrow.view(np.uint8))
        for i in range(ROWS):
            for j in range(S):
                lines[r + i, j] = narrow[j, i]
    _weigh(lines.view(np.uint8), ys, y_weights, small)
    for i in range(S):
        for j in range(S):  # the steps of 3 and 4 are constants, or no vectors come of it
            out[i, 3 * j] = small[i, 4 * j]
            out[i, 3 * j + 1] = small[i, 4 * j + 1]
            out[i, 3 * j + 2] = small[i, 4 * j + 2]
