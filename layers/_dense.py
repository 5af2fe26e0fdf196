"""Products of a batch x (N, inputs) with weights W (inputs, outputs), on a CPU, by _tile.py.

W is the large one: 210 MB between the pyramid of SPP-net and fc6. Each product reads it once, in
runs of memory as long as may be:

    forward   y = x W        W is packed, some columns and rows of it at a time; x is read as it is
    for x     dx^T = W dy^T  W is read as it is; dy is packed once, its cases side by side
    for W     dW = x^T dy    is not stored: the update of W takes each tile of it from the cache

Few cases are not worth a tile: there y = sum over i of x[i] W[i], at the speed of the memory.
"""

import numpy as np
from numba import get_num_threads

from convnet.kernel import cpu_kernel, helper, prange
from layers._tile import PANEL, ROWS, column, copy, prefetch

DEPTH = 128  # rows of W that are packed at a time
AHEAD = 4  # rows of W that are asked for before they are packed: their lines come side by side
GROUP = 16  # panels of columns that are packed at a time
STRIP = 48  # rows of W that a task works on, backward
SPAN = 1024  # columns of W that it works on at a time: memory is fast in long runs
FEW = 4  # cases that are too few for a tile
ZERO = np.float32(0)


@cpu_kernel
def times(x, W, y, add, group):
    """y (+)= x W, a group of panels at a time."""
    N, inputs, outputs, wide = x.shape[0], x.shape[1], W.shape[1], group * PANEL
    for z in prange((outputs + wide - 1) // wide):
        packed = np.zeros((group, DEPTH, PANEL), np.float32)
        scratch = np.empty((N, PANEL), np.float32)
        j0 = z * wide
        for k0 in range(0, inputs, DEPTH):
            depth, more = min(DEPTH, inputs - k0), 1 if add or k0 else 0
            pack(W, k0, depth, j0, packed)
            for p in range((min(wide, outputs - j0) + PANEL - 1) // PANEL):
                j, a = j0 + p * PANEL, x.ctypes.data + 4 * k0
                if j + PANEL <= outputs:
                    column(N, 1, depth, a, inputs, 0, 1, packed[p].ctypes.data, PANEL,
                           y.ctypes.data + 4 * j, outputs, more, 0, ZERO)  # fmt: skip
                    continue
                column(N, 1, depth, a, inputs, 0, 1, packed[p].ctypes.data, PANEL,
                       scratch.ctypes.data, PANEL, 0, 0, ZERO)  # fmt: skip
                for n in range(N):
                    for k in range(outputs - j):
                        y[n, j + k] = scratch[n, k] + (y[n, j + k] if more else ZERO)


@helper()
def pack(W, k0, depth, j0, packed):
    """Rows of W from k0, columns from j0, as far as there are any, into panels."""
    outputs = W.shape[1]
    for k in range(depth):
        at = W.ctypes.data + 4 * ((k0 + k) * outputs + j0)
        for p in range(packed.shape[0]):
            j = j0 + p * PANEL
            if j + PANEL <= outputs:
                prefetch(at + 4 * (AHEAD * outputs + p * PANEL))
                copy(packed[p, k].ctypes.data, at + 4 * p * PANEL)
            else:
                for i in range(outputs - j):
                    packed[p, k, i] = W[k0 + k, j + i]


@cpu_kernel
def times_few(x, W, parts):
    """The same for few cases: every task reads some rows of W from one end to the other."""
    N, inputs, outputs = x.shape[0], np.uintp(x.shape[1]), np.uintp(W.shape[1])
    rows, flat = (inputs + np.uintp(len(parts) - 1)) // np.uintp(len(parts)), W.reshape(-1)
    for z in prange(len(parts)):
        total = parts[z].reshape(-1)
        total[:] = ZERO
        for k in range(np.uintp(z) * rows, min(np.uintp(z + 1) * rows, inputs)):
            at = k * outputs
            for n in range(N):
                v, to = x[n, k], np.uintp(n) * outputs
                for j in range(outputs):
                    total[to + j] += v * flat[at + j]


@cpu_kernel
def add_up(parts, y, add):
    """y (+)= the sum of what the tasks have."""
    out = y.reshape(-1)
    for i in prange(out.size):
        some = out[i] if add else ZERO
        for z in range(len(parts)):
            some += parts[z].reshape(-1)[i]
        out[i] = some


@cpu_kernel
def turn(dy, packed):
    """dy (N, outputs) -> (panels of cases, outputs, PANEL)."""
    N, outputs = dy.shape
    for z in prange((outputs + 127) // 128):
        for p in range(packed.shape[0]):
            for j in range(z * 128, min(outputs, z * 128 + 128)):
                for n in range(PANEL):
                    case = p * PANEL + n
                    packed[p, j, n] = dy[case, j] if case < N else ZERO


@cpu_kernel
def times_turned(W, packed, dx):
    """dx (N, inputs) = (W dy^T)^T, dy as `turn` packs it."""
    N, inputs, outputs, panels = dx.shape[0], W.shape[0], W.shape[1], packed.shape[0]
    for z in prange((inputs + STRIP - 1) // STRIP):
        i0, rows = z * STRIP, min(STRIP, inputs - z * STRIP)
        sums = np.empty((panels, STRIP, PANEL), np.float32)
        for k0 in range(0, outputs, SPAN):
            a = W.ctypes.data + 4 * (i0 * outputs + k0)
            for p in range(panels):
                column(rows, 1, min(SPAN, outputs - k0), a, outputs, 0, 1,
                       packed[p, k0].ctypes.data, PANEL, sums[p].ctypes.data, PANEL,
                       1 if k0 else 0, 0, ZERO)  # fmt: skip
        for n in range(N):
            for i in range(rows):
                dx[n, i0 + i] = sums[n // PANEL, i, n % PANEL]


@cpu_kernel
def panelled(dy, packed):
    """dy (N, outputs) -> (panels of outputs, N, PANEL), zeros behind the last column."""
    N, outputs = dy.shape
    for p in prange(packed.shape[0]):
        L = min(PANEL, outputs - p * PANEL)
        for n in range(N):
            for i in range(PANEL):
                packed[p, n, i] = dy[n, p * PANEL + i] if i < L else ZERO


@cpu_kernel
def outer(x, packed, dW):
    """dW = x^T dy, dy as `panelled` packs it."""
    N, inputs, outputs = x.shape[0], x.shape[1], dW.shape[1]
    for z in prange((inputs + ROWS - 1) // ROWS):
        i0, rows = z * ROWS, min(ROWS, inputs - z * ROWS)
        mine, tile = np.zeros((N, ROWS), np.float32), np.empty((ROWS, PANEL), np.float32)
        rows_of(x, i0, rows, mine)
        for p in range(packed.shape[0]):
            L, j0 = np.uintp(min(PANEL, outputs - p * PANEL)), np.uintp(p * PANEL)
            column(ROWS, 1, N, mine.ctypes.data, 1, 0, ROWS, packed[p].ctypes.data, PANEL,
                   tile.ctypes.data, PANEL, 0, 0, ZERO)  # fmt: skip
            for i in range(rows):
                for k in range(L):
                    dW[i0 + i, j0 + k] = tile[i, k]


@cpu_kernel
def outer_step(x, packed, W, inc, mom, eps, wc, share):
    """The update of convnet/sgd.py with g = x^T dy, of which SPAN columns exist at a time."""
    N, inputs, outputs = x.shape[0], x.shape[1], W.shape[1]
    weights, momenta, most = W.reshape(-1), inc.reshape(-1), SPAN // PANEL
    for z in prange((inputs + ROWS - 1) // ROWS):
        i0, rows = z * ROWS, min(ROWS, inputs - z * ROWS)
        mine, g = np.zeros((N, ROWS), np.float32), np.empty((ROWS, SPAN), np.float32)
        rows_of(x, i0, rows, mine)
        for p0 in range(0, packed.shape[0], most):
            panels = min(most, packed.shape[0] - p0)
            for p in range(panels):
                column(ROWS, 1, N, mine.ctypes.data, 1, 0, ROWS, packed[p0 + p].ctypes.data, PANEL,
                       g.ctypes.data + 4 * p * PANEL, SPAN, 0, 0, ZERO)  # fmt: skip
            for i in range(rows):
                at = np.uintp((i0 + i) * outputs + p0 * PANEL)
                for k in range(np.uintp(min(panels * PANEL, outputs - p0 * PANEL))):
                    w = weights[at + k]
                    step = mom * momenta[at + k] - eps * (g[i, k] * share + wc * w)
                    momenta[at + k] = step
                    weights[at + k] = w + step


@helper()
def rows_of(x, i0, rows, mine):
    """Some columns of x as a block (N, ROWS)."""
    for n in range(x.shape[0]):
        for i in range(rows):
            mine[n, i] = x[n, i0 + i]


# ---------------------------------------------------------------- what a layer calls


def forward(run, x, W, y, add: bool) -> None:
    """y (+)= x W; all C-contiguous."""
    if len(x) < FEW:
        tasks = min(get_num_threads(), -(-len(W) // STRIP))
        parts = run.empty((tasks, *y.shape))
        times_few(x, W, parts)
        add_up(parts, y, int(add))
    else:
        panels = -(-W.shape[1] // PANEL)
        times(x, W, y, int(add), max(1, min(GROUP, panels // get_num_threads())))


def input_gradient(run, W, dy, dx) -> None:
    """dx = dy W^T."""
    packed = run.empty((-(-len(dy) // PANEL), dy.shape[1], PANEL))
    turn(dy, packed)
    times_turned(W, packed, dx)


class Outer:
    """The gradient dW = x^T dy, not multiplied out as long as nobody needs it whole."""

    def __init__(self, run, x, dy):
        self.run, self.x, self.dy = run, x, dy

    def _packed(self):
        packed = self.run.empty((-(-self.dy.shape[1] // PANEL), len(self.dy), PANEL))
        panelled(self.dy, packed)
        return packed

    def array(self):
        """dW (inputs, outputs)."""
        dW = self.run.empty((self.x.shape[1], self.dy.shape[1]))
        outer(self.x, self._packed(), dW)
        return dW

    def finite(self) -> bool:
        """Whether the square of no number of dW is infinite or NaN."""
        most = np.float64(abs(self.x).max()) * abs(self.dy).max() * len(self.x)
        if most**2 < np.finfo(np.float32).max:
            return True  # as no number can be larger
        dW = self.array().reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(np.dot(dW, dW)))

    def update(self, W, inc, mom: float, eps: float, wc: float, share: float) -> None:
        """One step of W and its momentum."""
        rates = [np.float32(v) for v in (mom, eps, wc, share)]
        outer_step(self.x, self._packed(), W, inc, *rates)
