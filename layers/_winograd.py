"""Convolution with fewer multiplications, after Winograd and Lavin (arXiv 1509.09308), on a CPU.

A row of m outputs of a filter with r taps depends on m + r - 1 pixels. As polynomials are
multiplied through their values at as many points, so is this: F(m, r) takes m + r - 1 products
where the sum takes m r. In two dimensions, for a tile of m x m outputs,

    Y = A^T [ (B^T X B) * (G W G^T) ] A            * number by number

For all channels and tiles at once each of the (m + r - 1)^2 numbers is a product of matrices,
(tiles, channels) (channels, filters), which is where the time goes. F(4, 3) multiplies 36 times
where the sum does 144 times. With V = B^T X B, U = G W G^T, M = V U the gradients are

    dM = A dY A^T     dU = V^T dM     dV = dM U^T     dX = B dV B^T     dW = G^T dU G

by the same products: nothing is transformed a second time (dX adds where tiles overlap).

A filter with stride s is s x s filters of stride 1, each over every s-th pixel of every s-th row:
its phases. Their channels are added up as more channels would be, so that a convolution of stride s
is one of stride 1 over s x s x C channels. A phase with fewer than r taps in a direction has no
product at the point at infinity.

Two schedules. Wide: many tiles at a time, the threads share the products of each point; what lies
between two steps is larger than the caches but is used often. Narrow, where U is so small that
every core has it in its cache: each thread takes some tiles through all steps on its own.

layers/_winograd_tiles.py has the steps, for a few tiles and a panel of channels each.
"""

import math

import numpy as np
from numba import get_num_threads

from convnet.kernel import cpu_kernel, prange
from layers._tile import PANEL, ROWS, add, copy
from layers._transforms import KINDS, g, gt
from layers._winograd_tiles import (
    add_for_u,
    for_v,
    mixed,
    place,
    product,
    shape,
    to_dx,
    to_m,
    to_v,
    to_y,
    zero_lanes,
)

TILES = 512  # of a block of the wide schedule
SMALL_U = 2 << 20  # bytes up to which the schedule is narrow
CACHE = 640 << 10  # bytes of V and M of a block of the narrow schedule
# multiply-adds that take as long as a number's way into V, or out of M
WIDE_TRANSFORM, NARROW_TRANSFORM = 50, 20
RUN = 64  # channels whose dU a task transforms back: they lie side by side
CHUNK = 1 << 14  # weights of a fingerprint's number
ODD = np.uint64(0x9E3779B97F4A7C16)  # times a place and plus 1: another odd number for each
ZERO = np.float32(0)


# ---------------------------------------------------------------- weights


@cpu_kernel
def weights_to_u(w, U, f):
    """w (F, F, C, filters) -> U; taps that a phase does not have are zero."""
    r, n, s, F, C = f.r, f.n, f.s, f.F, f.C
    to_point = U.size // (n * n)
    for d in prange(U.shape[2]):
        phase, c = d // C, d % C
        taps = np.zeros((r, r, PANEL), np.float32)
        half = np.empty((n, r, PANEL), np.float32)
        for kp in range(f.KP):
            k0, L = np.uintp(f.k0 + kp * PANEL), np.uintp(min(PANEL, f.K - kp * PANEL))
            for y in range(r):
                for x in range(r):
                    row, col = s * y + phase // s, s * x + phase % s
                    if row < F and col < F and d < f.lanes:
                        for k in range(L):
                            taps[y, x, k] = w[row, col, c, k0 + k]
            for k in range(L, np.uintp(PANEL)):
                taps[:, :, k] = ZERO
            for x in range(r):
                g(f.kind, place(taps, x, 1), r * PANEL, place(half, x, 1), r * PANEL)
            for i in range(n):
                to = U.ctypes.data + 4 * (i * n * to_point + (kp * U.shape[2] + d) * PANEL)
                g(f.kind, place(half, i, r), PANEL, to, to_point)


@cpu_kernel
def u_to_weights(dU, dw, f):
    """dU -> dw, the adjoint of weights_to_u; dU (parts, ...) is added up first."""
    r, n, s, F, C, D = f.r, f.n, f.s, f.F, f.C, dU.shape[3]
    to_point, each = dU[0].size // (n * n), (f.lanes + RUN - 1) // RUN
    for z in prange(f.KP * each):
        kp, d0 = z // each, z % each * RUN
        k0, L = np.uintp(f.k0 + kp * PANEL), np.uintp(min(PANEL, f.K - kp * PANEL))
        total = np.empty((n, PANEL), np.float32)
        half = np.empty((n, r, PANEL), np.float32)
        taps = np.empty((r, r, PANEL), np.float32)
        for d in range(d0, min(d0 + RUN, f.lanes)):
            for i in range(n):
                src = dU.ctypes.data + 4 * (i * n * to_point + (kp * D + d) * PANEL)
                if dU.shape[0] == 1:
                    gt(f.kind, src, to_point, place(half, i, r), PANEL)
                    continue
                for j in range(n):
                    copy(place(total, j, 1), src + 4 * j * to_point)
                    for part in range(1, dU.shape[0]):
                        add(place(total, j, 1), src + 4 * (part * n * n + j) * to_point)
                gt(f.kind, total.ctypes.data, PANEL, place(half, i, r), PANEL)
            for x in range(r):
                gt(f.kind, place(half, x, 1), r * PANEL, place(taps, x, 1), r * PANEL)
            phase, c = d // C, d % C
            for y in range(r):
                for x in range(r):
                    row, col = s * y + phase // s, s * x + phase % s
                    if row < F and col < F:
                        for k in range(L):
                            dw[row, col, c, k0 + k] = taps[y, x, k]


@cpu_kernel
def fingerprint(bits, sums):
    """A number for each chunk that changes when one of its numbers, or their order, does."""
    for chunk in prange(sums.size):
        total = np.uint64(0)
        for i in range(np.uintp(chunk * CHUNK), np.uintp(min(bits.size, (chunk + 1) * CHUNK))):
            total += np.uint64(bits[i]) * (np.uint64(i) * ODD + np.uint64(1))
        sums[chunk] = total


@cpu_kernel
def transpose_u(U, UT):
    """U (n^2, KP, D, PANEL) -> UT (n^2, DP, KP * PANEL, PANEL), channels side by side."""
    KP, DP = U.shape[1], UT.shape[1]
    for z in prange(U.shape[0] * DP):
        q, dp = z // DP, z % DP
        for kp in range(KP):
            for i in range(PANEL):
                for k in range(PANEL):
                    UT[q, dp, kp * PANEL + k, i] = U[q, kp, dp * PANEL + i, k]


# ---------------------------------------------------------------- wide: a step is a kernel


@cpu_kernel
def images_to_v(x, V, f, first, tiles):
    """x (N, H, W, channels) -> V of so many tiles."""
    for z in prange((tiles + f.across - 1) // f.across * f.DP):
        start = z // f.DP * f.across
        to_v(x, V, f, first, start, min(start + f.across, tiles), z % f.DP)


@cpu_kernel
def multiply(V, U, M, f, tiles):
    """M = V U at every point."""
    for z in prange(f.n * f.n * f.KP):
        product(V, U, M, f, mixed(z // f.KP, f.n), z % f.KP, tiles)


@cpu_kernel
def m_to_output(M, bias, low, y, f, first, tiles):
    """y (N, OH, OW, filters) = max(low, A^T M A + bias) of these tiles."""
    for z in prange((tiles + f.across - 1) // f.across * f.KP):
        start, kp = z // f.KP * f.across, z % f.KP
        to_y(M, bias, low, y, f, first, start, min(start + f.across, tiles), kp, kp + 1)


@cpu_kernel
def output_to_m(dy, y, low, M, sums, f, first, tiles):
    """dM = A dy A^T of these tiles; dy counts where y > low, sums are those of dy."""
    for z in prange((tiles + f.across - 1) // f.across * f.KP):
        start, kp = z // f.KP * f.across, z % f.KP
        end = min(start + f.across, tiles)
        sums[z // f.KP, kp] = ZERO
        to_m(dy, y, low, M, sums[z // f.KP], f, first, start, end, kp, kp + 1)


@cpu_kernel
def multiply_for_u(V, M, dU, f, tiles, more):
    """dU (+)= V^T dM."""
    for z in prange(f.n * f.n * f.KP):
        add_for_u(V, M, dU, f, mixed(z // f.KP, f.n), z % f.KP, tiles, more)


@cpu_kernel
def multiply_for_v(M, UT, dV, f, tiles):
    """dV = dM U^T; zero where a phase has no product."""
    for z in prange(f.n * f.n * f.DP):
        for_v(M, UT, dV, f, mixed(z // f.DP, f.n), z % f.DP, tiles)


@cpu_kernel
def v_to_images(dV, dx, f, first, tiles):
    """dx += what these tiles say; the first tile of an image begins with zeros."""
    each = f.down * f.across
    first_image, end_image = first // each, (first + tiles - 1) // each + 1
    for z in prange((end_image - first_image) * f.DP):
        image, dp = first_image + z // f.DP, z % f.DP
        if image * each >= first:
            zero_lanes(dx, image, f, dp)
        start, end = max(image * each, first), min((image + 1) * each, first + tiles)
        to_dx(dV, dx, f, first, start - first, end - first, dp)


# ---------------------------------------------------------------- narrow: a thread, all steps


@cpu_kernel
def forward_narrow(x, U, bias, low, y, f, size, workers):
    """y = max(low, conv(x) + bias), so many tiles at a time."""
    tiles = x.shape[0] * f.down * f.across
    blocks = (tiles + size - 1) // size
    for worker in prange(workers):
        V = np.empty((f.n * f.n, f.DP, size, PANEL), np.float32)
        M = np.empty((f.n * f.n, f.KP, size, PANEL), np.float32)
        for block in range(worker * blocks // workers, (worker + 1) * blocks // workers):
            first = block * size
            count = min(size, tiles - first)
            for dp in range(f.DP):
                to_v(x, V, f, first, 0, count, dp)
            for q in range(f.n * f.n):
                for kp in range(f.KP):
                    product(V, U, M, f, q, kp, count)
            to_y(M, bias, low, y, f, first, 0, count, 0, f.KP)


@cpu_kernel
def backward_narrow(x, dy, y, low, UT, dx, dU, sums, f, size):
    """dx, if it has elements; parts of dU, if they have elements, and of the sums of dy."""
    each = f.down * f.across
    workers, images = sums.shape[0], x.shape[0]
    for worker in prange(workers):
        V = np.empty((f.n * f.n, f.DP, size, PANEL), np.float32)
        M = np.empty((f.n * f.n, f.KP, size, PANEL), np.float32)
        sums[worker] = ZERO
        more = 0
        for image in range(worker * images // workers, (worker + 1) * images // workers):
            if dx.size:
                for dp in range(f.DP):
                    zero_lanes(dx, image, f, dp)
            for first in range(image * each, (image + 1) * each, size):
                count = min(size, (image + 1) * each - first)
                to_m(dy, y, low, M, sums[worker], f, first, 0, count, 0, f.KP)
                if dU.size:
                    for dp in range(f.DP):
                        to_v(x, V, f, first, 0, count, dp)
                    for q in range(f.n * f.n):
                        for kp in range(f.KP):
                            add_for_u(V, M, dU[worker], f, q, kp, count, more)
                    more = 1
                if dx.size:
                    for q in range(f.n * f.n):
                        for dp in range(f.DP):
                            for_v(M, UT, V, f, q, dp, count)
                    for dp in range(f.DP):
                        to_dx(V, dx, f, first, 0, count, dp)


# ---------------------------------------------------------------- what the layer calls


class Winograd:
    """One group of a convolution; maps are (H, W, channels), C of them from c0, K from k0."""

    def __init__(self, m: int, image, out, c0, C, k0, K, F: int, s: int, p: int):
        f = self.f = shape(image, out, c0, C, k0, K, F, s, p, m)
        self.name = f"winograd F({m},{f.r})"
        self.u_shape = f.n**2, f.KP, f.DP * PANEL, PANEL

    @classmethod
    def kinds(cls, image, out, c0: int, C: int, k0: int, K: int, F: int, s: int, p: int) -> list:
        """All that apply to such filters."""
        ms = [m for m, r in KINDS if r == -(-F // s) and s <= F]
        return [cls(m, image, out, c0, C, k0, K, F, s, p) for m in ms]

    @property
    def narrow(self) -> bool:
        """Whether every core has U in its cache."""
        return 4 * math.prod(self.u_shape) <= SMALL_U

    @property
    def multiplies(self) -> int:
        """Multiply-adds of the products for an image, those with zeros as well."""
        f = self.f
        lines = f.phases * (f.n - 1) + f.full  # those at infinity are not all there
        depth = f.lanes if f.DP == 1 else f.DP // f.phases**2 * PANEL
        return f.down * f.across * lines**2 * depth * f.KP * PANEL

    @property
    def cost(self) -> float:
        """Multiply-adds of an image, and what the transforms cost of their time."""
        f, price = self.f, NARROW_TRANSFORM if self.narrow else WIDE_TRANSFORM
        return self.multiplies + f.down * f.across * price * f.n**2 * (f.DP + f.KP) * PANEL

    @property
    def _size(self) -> int:
        """Tiles of a block of the narrow schedule: whole register tiles that fit the cache."""
        f = self.f
        one = 4 * f.n**2 * (f.DP + f.KP) * PANEL
        return max(1, min(CACHE // one // ROWS, -(-f.down * f.across // ROWS))) * ROWS

    def _blocks(self, images: int) -> list[tuple[int, int]]:
        """(first tile, tiles) of the blocks of the wide schedule, whole rows of tiles."""
        rows = images * self.f.down
        count = max(1, round(rows * self.f.across / TILES))
        size = -(-rows // count)
        return [(first * self.f.across, min(size, rows - first) * self.f.across)
                for first in range(0, rows, size)]  # fmt: skip

    def _u(self, run, w):
        """U of the weights; while they do not change it is made once."""

        def make():
            U = run.empty(self.u_shape)
            weights_to_u(w, U, self.f)
            return U

        prepared = run.device.prepared
        f = self.f
        key = id(w), f.kind, f.F, f.s, f.C, f.k0, f.K  # all that U depends on
        if run.train:  # they change with every step
            prepared.pop(key, None)
            return make()
        sums = np.empty(-(-w.size // CHUNK), np.uint64)
        fingerprint(w.reshape(-1).view(np.uint32), sums)
        return run.device.once(key, sums.tobytes(), make)

    def forward(self, run, x, w, bias, low: float, y):
        """y = max(low, x * w + bias) in the channels from k0; w (F, F, C, filters).

        What backward takes again: U and, of the wide schedule, the V of all blocks.
        """
        f, low, U = self.f, np.float32(low), self._u(run, w)
        if self.narrow:
            forward_narrow(x, U, bias, low, y, f, self._size, get_num_threads())
            return U, None
        vs = []
        for first, tiles in self._blocks(len(x)):
            V = run.empty((f.n**2, f.DP, tiles, PANEL))
            M = run.empty((f.n**2, f.KP, tiles, PANEL))
            images_to_v(x, V, f, first, tiles)
            multiply(V, U, M, f, tiles)
            m_to_output(M, bias, low, y, f, first, tiles)
            if run.train:
                vs.append(V)
        return (U, vs) if run.train else None

    def backward(self, run, x, w, y, low: float, dy, dx, dw, kept):
        """The gradients into dx and dw, either of them None if not wanted; those of the biases."""
        f, (U, vs) = self.f, kept
        UT = run.empty((f.n**2, f.DP, f.KP * PANEL, PANEL) if dx is not None else (0, 0, 0, 0))
        if dx is not None:
            transpose_u(U, UT)
        parts = min(len(x), get_num_threads()) if self.narrow else 1
        dU = run.empty((parts, *self.u_shape) if dw is not None else (0, 0, 0, 0, 0))
        if self.narrow:
            sums = run.empty((parts, f.KP, PANEL))
            into = dx if dx is not None else run.empty((0, 0, 0, 0))
            backward_narrow(x, dy, y, np.float32(low), UT, into, dU, sums, f, self._size)
            db = sums.sum(0).reshape(-1)
        else:
            db = self._backward_wide(run, y, np.float32(low), dy, dx, vs, UT, dU)
        if dw is not None:
            u_to_weights(dU, dw, f)
        return db[: f.K]

    def _backward_wide(self, run, y, low, dy, dx, vs, UT, dU):
        f, db = self.f, np.zeros(self.f.KP * PANEL, np.float32)
        for (first, tiles), V in zip(self._blocks(len(dy)), vs):
            M = run.empty((f.n**2, f.KP, tiles, PANEL))
            sums = run.empty((tiles // f.across, f.KP, PANEL))
            output_to_m(dy, y, low, M, sums, f, first, tiles)
            db += sums.sum(0).reshape(-1)
            if dU.size:
                multiply_for_u(V, M, dU[0], f, tiles, int(first > 0))
            if dx is not None:
                multiply_for_v(M, UT, V, f, tiles)  # V is not needed any more
                v_to_images(V, dx, f, first, tiles)
        return db
