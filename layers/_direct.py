"""Convolution by tiles that read the image itself: no patches are copied out (im2col), on a CPU.

A row of filter taps over a row of output pixels is a matrix whose rows overlap in memory: pixel j
begins stride * C floats behind pixel j - 1. The tile of _tile.py reads it where it stands, one
filter row (F * C floats side by side) after the other. Blocks of rows of one image, with the zeros
around it, are copied to a buffer that stays in the cache; weights are packed in panels.

    y[i, j]      = max(low, bias + sum over a, (b, c) of  x[s i + a, s j + b, c] W[a, (b, c)])
    dW[a, (b, c)] = sum over images, i, j of              x[s i + a, s j + b, c] dy[i, j]
    dx[s i + q]  = the first, of dy with zeros around it and every s-th tap of the turned filter

for each of the s x s phases q of the pixels. dy counts where y > low. It suits few channels (a
first layer) and whatever Winograd's tiles do not.
"""

from typing import NamedTuple

import numpy as np
from numba import get_num_threads

from convnet.kernel import cpu_kernel, helper, prange
from layers._tile import PANEL, column

CACHE = 160 << 10  # bytes of the block of output rows that a task works on
ZERO = np.float32(0)


class Shape(NamedTuple):
    """The numbers of one pass over images, for the kernels."""

    H: int  # image: rows, columns, channels; the C channels from c0 take part
    W: int
    channels: int
    c0: int
    C: int
    OH: int  # output: rows and columns that are made, the K channels from k0, in KP panels
    OW: int
    filters: int
    k0: int
    K: int
    KP: int
    F: int  # side of the filter, stride; padding of the image above and to the left
    s: int
    py: int
    px: int
    YH: int  # the array that holds the output: made are rows oy + i * step, columns ox + j * step
    YW: int
    step: int
    oy: int
    ox: int
    R: int  # output rows of a block
    blocks: int  # of an image


def shape(image, out, c0, C, k0, K, F, s, pad, made=None, step=1, at=(0, 0)) -> Shape:
    """The Shape of a pass from maps (H, W, channels) to maps `out`, `made` of them computed."""
    (YH, YW, filters), (OH, OW) = out, made or out[:2]
    KP = -(-K // PANEL)
    R = max(1, min(OH, CACHE // (4 * OW * KP * PANEL)))
    return Shape(*image, c0, C, OH, OW, filters, k0, K, KP, F, s, *pad, YH, YW, step, *at, R,
                 -(-OH // R))  # fmt: skip


# ---------------------------------------------------------------- kernels


@cpu_kernel
def pack(w, packed, k0, K):
    """w (F, F, C, filters) -> (KP, F * F * C, PANEL) of the K filters from k0."""
    F, C = w.shape[0], w.shape[2]
    for z in prange(packed.shape[0] * F * F):
        kp, tap = z // (F * F), z % (F * F)
        L = np.uintp(min(PANEL, K - kp * PANEL))
        for c in range(C):
            for k in range(PANEL):
                packed[kp, tap * C + c, k] = ZERO
            for k in range(L):
                packed[kp, tap * C + c, k] = w[tap // F, tap % F, c, k0 + kp * PANEL + k]


@cpu_kernel
def pack_turned(w, packed, k0, K, r, s, qy, qx):
    """w (F, F, C, filters) -> (CP, r * r * K, PANEL), channels side by side.

    Of the taps q, q + s, q + 2 s, ... in both directions, the last one first.
    """
    F, C = w.shape[0], w.shape[2]
    for z in prange(packed.shape[0] * r * r):
        cp, tap = z // (r * r), z % (r * r)
        y, x = qy + s * (r - 1 - tap // r), qx + s * (r - 1 - tap % r)
        for k in range(K):
            for c in range(PANEL):
                packed[cp, tap * K + k, c] = ZERO
        if y < F and x < F:
            for c in range(min(PANEL, C - cp * PANEL)):
                for k in range(K):
                    packed[cp, tap * K + k, c] = w[y, x, cp * PANEL + c, k0 + k]


@helper()
def window(x, y, low, masked, image, y0, f, rows, columns, buffer):
    """Rows from y0, columns from -px of the channels from c0; zeros around, and where y <= low."""
    before, skipped = min(max(f.px, 0), columns), max(-f.px, 0)
    inside = max(0, min(columns - before, f.W - skipped))
    after = columns - before - inside
    runs, length = (1, inside * f.C) if f.channels == f.C else (inside, f.C)  # side by side
    for i in range(rows):
        to = i * columns * f.C
        if not 0 <= y0 + i < f.H:
            clear(buffer, to, columns * f.C)
            continue
        clear(buffer, to, before * f.C)
        to += before * f.C
        at = ((image * f.H + y0 + i) * f.W + skipped) * f.channels + f.c0
        for _ in range(runs):
            bring(x, y, low, masked, at, length, buffer, to)
            at += f.channels
            to += length
        clear(buffer, to, after * f.C)


@helper()
def clear(buffer, to, length):
    """Zeros from `to`."""
    begin = np.uintp(to)
    for k in range(np.uintp(length)):
        buffer[begin + k] = ZERO


@helper()
def bring(x, y, low, masked, at, length, out, to):
    """Numbers side by side of x where y > low, and zeros elsewhere."""
    xs, ys, begin, there = x.reshape(-1), y.reshape(-1), np.uintp(at), np.uintp(to)
    if masked:
        for k in range(np.uintp(length)):
            out[there + k] = xs[begin + k] if ys[begin + k] > low else ZERO
    else:
        for k in range(np.uintp(length)):
            out[there + k] = xs[begin + k]


@cpu_kernel
def correlate(x, mask, mask_low, masked, packed, bias, low, y, f):
    """y = max(low, x * w + bias); x counts where mask > mask_low, if it is masked."""
    width = (f.OW - 1) * f.s + f.F
    for z in prange(x.shape[0] * f.blocks):
        image, i0 = z // f.blocks, z % f.blocks * f.R
        rows = min(f.R, f.OH - i0)
        count = (rows - 1) * f.s + f.F
        buffer = np.empty(count * width * f.C, np.float32)
        window(x, mask, mask_low, masked, image, i0 * f.s - f.py, f, count, width, buffer)
        scratch = np.empty((f.OW, PANEL), np.float32)
        for kp in range(f.KP):
            L, k0 = min(PANEL, f.K - kp * PANEL), f.k0 + kp * PANEL
            b = bias.ctypes.data + 4 * kp * PANEL
            for i in range(rows):
                a = buffer.ctypes.data + 4 * i * f.s * width * f.C
                row = (i0 + i) * f.step + f.oy
                if L == PANEL:
                    at = ((image * f.YH + row) * f.YW + f.ox) * f.filters + k0
                    column(f.OW, f.F, f.F * f.C, a, f.s * f.C, width * f.C, 1,
                           packed[kp].ctypes.data, PANEL, y.ctypes.data + 4 * at,
                           f.step * f.filters, 0, b, low)  # fmt: skip
                    continue
                column(f.OW, f.F, f.F * f.C, a, f.s * f.C, width * f.C, 1, packed[kp].ctypes.data,
                       PANEL, scratch.ctypes.data, PANEL, 0, b, low)  # fmt: skip
                for j in range(f.OW):
                    for k in range(L):
                        y[image, row, f.ox + j * f.step, k0 + k] = scratch[j, k]


@cpu_kernel
def correlate_back(x, dy, y, low, masked, sums, db, f):
    """Sums (chunks, KP, F, F * C and up to 3 more, PANEL) of dW over chunks of the blocks; db.

    Without any sums only db.
    """
    chunks, units = db.shape[0], x.shape[0] * f.blocks
    width, filters = (f.OW - 1) * f.s + f.F, f.KP * PANEL
    for chunk in prange(chunks):
        buffer = np.zeros(((f.R - 1) * f.s + f.F) * width * f.C + 4, np.float32)
        d = np.zeros(f.R * f.OW * filters, np.float32)
        if sums.size:
            sums[chunk] = ZERO
        total = np.zeros(filters, np.float32)
        for z in range(chunk * units // chunks, (chunk + 1) * units // chunks):
            image, i0 = z // f.blocks, z % f.blocks * f.R
            rows = min(f.R, f.OH - i0)
            count = (rows - 1) * f.s + f.F
            if sums.size:
                window(x, x, low, False, image, i0 * f.s - f.py, f, count, width, buffer)
            at = (image * f.OH + i0) * f.OW * f.filters + f.k0
            if f.K == filters == f.filters:
                bring(dy, y, low, masked, at, rows * f.OW * filters, d, 0)
            else:
                for q in range(rows * f.OW):
                    bring(dy, y, low, masked, at + q * f.filters, f.K, d, q * filters)
            for q in range(rows * f.OW):
                there = np.uintp(q * filters)
                for k in range(np.uintp(filters)):
                    total[k] += d[there + k]
            for kp in range(f.KP if sums.size else 0):
                for a in range(f.F):
                    column(sums.shape[3], rows, f.OW, buffer.ctypes.data + 4 * a * width * f.C, 1,
                           f.s * width * f.C, f.s * f.C, d.ctypes.data + 4 * kp * PANEL, filters,
                           sums[chunk, kp, a].ctypes.data, PANEL, 1, 0, ZERO)  # fmt: skip
        db[chunk] = total


# ---------------------------------------------------------------- forward and backward


class Direct:
    """One group of a convolution; maps are (H, W, channels), C of them from c0, K from k0."""

    name = "direct"

    def __init__(self, image, out, c0: int, C: int, k0: int, K: int, F: int, s: int, p: int):
        self.image, self.out, self.F, self.s, self.p = image, out, F, s, p
        self.f = shape(image, out, c0, C, k0, K, F, s, (p, p))

    @property
    def multiplies(self) -> int:
        """Multiply-adds of an image, those with zeros as well."""
        f = self.f
        return f.OH * f.OW * f.F**2 * f.C * f.KP * PANEL

    cost = multiplies

    def forward(self, run, x, w, bias, low: float, y) -> None:
        """y = max(low, x * w + bias) in the channels from k0; w (F, F, C, filters)."""
        f = self.f
        packed = run.empty((f.KP, f.F * f.F * f.C, PANEL))
        pack(w, packed, f.k0, f.K)
        biases = np.zeros(f.KP * PANEL, np.float32)
        biases[: f.K] = bias[f.k0 : f.k0 + f.K]
        correlate(x, x, ZERO, False, packed, biases, np.float32(low), y, f)

    def backward(self, run, x, w, y, low: float, dy, dx, dw, kept):
        """The gradients into dx and dw, either of them None if not wanted; those of the biases."""
        f, masked, low = self.f, low > -np.inf, np.float32(low)
        chunks = min(len(x) * f.blocks, 2 * get_num_threads())
        sums = run.empty((chunks * (dw is not None), f.KP, f.F, -(-f.F * f.C // 4) * 4, PANEL))
        db = run.empty((chunks, f.KP * PANEL))
        correlate_back(x, dy, y, low, masked, sums, db, f)
        if dw is not None:
            total = sums.sum(0)[:, :, : f.F * f.C].transpose(1, 2, 0, 3).reshape(f.F, f.F, f.C, -1)
            dw[..., f.k0 : f.k0 + f.K] = total[..., : f.K]
        for phase in range(self.s**2 if dx is not None else 0):
            self._dx(run, w, y, low, masked, dy, dx, *divmod(phase, self.s))
        return db.sum(0)[: f.K]

    def _dx(self, run, w, y, low, masked: bool, dy, dx, qy: int, qx: int) -> None:
        """The gradient of the pixels that the taps qy, qy + s, ... and qx, qx + s, ... see."""
        f, s, r = self.f, self.s, -(-self.F // self.s)
        at = (qy - self.p) % s, (qx - self.p) % s
        made = tuple(-(-(side - first) // s) for side, first in zip((f.H, f.W), at))
        if min(made) < 1:
            return
        pad = [r - 1 - (first + self.p - q) // s for first, q in zip(at, (qy, qx))]
        back = shape(self.out, self.image, f.k0, f.K, f.c0, f.C, r, 1, pad, made, s, at)
        packed = run.empty((back.KP, r * r * f.K, PANEL))
        pack_turned(w, packed, f.k0, f.K, r, s, qy, qx)
        none = np.zeros(back.KP * PANEL, np.float32)
        correlate(dy, y, low, masked, packed, none, np.float32(-np.inf), dx, back)
