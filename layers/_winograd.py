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

layers/_winograd_tiles.py has the steps, for a line of tiles and a panel of channels each,
layers/_winograd_grid.py the tiles.
"""

import math
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
from numba import get_num_threads

from convnet.kernel import cpu_kernel, prange
from layers._tile import PANEL, ROWS, add, copy
from layers._transforms import KINDS, g, gt
from layers._winograd_grid import block, point, shape
from layers._winograd_tiles import (
    add_for_u,
    for_v,
    mixed,
    place,
    product,
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
SPREAD = np.uint64(0x9E3779B97F4A7C16)  # times a place and plus 1: another odd number for each
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
            mid, row = place(half, 0, 1), r * PANEL
            to = U.ctypes.data + 4 * (kp * U.shape[2] + d) * PANEL
            g(f.kind, r, place(taps, 0, 1), PANEL, row, mid, PANEL, row)
            g(f.kind, n, mid, row, PANEL, to, n * to_point, to_point)


@cpu_kernel
def u_to_weights(dU, dw, f):
    """dU -> dw, the adjoint of weights_to_u; dU (parts, ...) is added up first."""
    r, n, s, F, C, D = f.r, f.n, f.s, f.F, f.C, dU.shape[3]
    to_point, each = dU[0].size // (n * n), (f.lanes + RUN - 1) // RUN
    for z in prange(f.KP * each):
        kp, d0 = z // each, z % each * RUN
        k0, L = np.uintp(f.k0 + kp * PANEL), np.uintp(min(PANEL, f.K - kp * PANEL))
        total = np.empty((n * n, PANEL), np.float32)
        half = np.empty((n, r, PANEL), np.float32)
        taps = np.empty((r, r, PANEL), np.float32)
        for d in range(d0, min(d0 + RUN, f.lanes)):
            src, mid, row = dU.ctypes.data + 4 * (kp * D + d) * PANEL, place(half, 0, 1), r * PANEL
            if dU.shape[0] == 1:
                gt(f.kind, n, src, n * to_point, to_point, mid, row, PANEL)
            else:
                for q in range(n * n):
                    copy(place(total, q, 1), src + 4 * q * to_point)
                    for part in range(1, dU.shape[0]):
                        add(place(total, q, 1), src + 4 * (part * n * n + q) * to_point)
                gt(f.kind, n, place(total, 0, 1), n * PANEL, PANEL, mid, row, PANEL)
            gt(f.kind, r, mid, PANEL, row, place(taps, 0, 1), PANEL, row)
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
            total += np.uint64(bits[i]) * (np.uint64(i) * SPREAD + np.uint64(1))
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
def images_to_v(x, V, f, first, lines):
    """x (N, H, W, channels) -> V of so many lines of tiles."""
    B = block(f, first, lines, 0, f.across)
    for z in prange(lines * f.DP):
        to_v(x, V, f, B, first + z // f.DP, z % f.DP)


@cpu_kernel
def multiply(V, U, M, f, first, lines):
    """M = V U at every point."""
    B = block(f, first, lines, 0, f.across)
    for z in prange(f.n * f.n * f.KP):
        product(V, U, M, f, point(f, B, mixed(z // f.KP, f.n)), z % f.KP)


@cpu_kernel
def m_to_output(M, bias, low, y, f, first, lines):
    """y (N, OH, OW, filters) = max(low, A^T M A + bias) of these lines."""
    B = block(f, first, lines, 0, f.across)
    for z in prange(lines * f.KP):
        kp = z % f.KP
        to_y(M, bias, low, y, f, B, first + z // f.KP, kp, kp + 1)


@cpu_kernel
def output_to_m(dy, y, low, M, sums, f, first, lines):
    """dM = A dy A^T of these lines; dy counts where y > low, sums are those of dy."""
    B = block(f, first, lines, 0, f.across)
    for z in prange(lines * f.KP):
        kp, mine = z % f.KP, sums[z // f.KP]
        mine[kp] = ZERO
        to_m(dy, y, low, M, mine, f, B, first + z // f.KP, kp, kp + 1)


@cpu_kernel
def multiply_for_u(V, M, dU, f, first, lines, more):
    """dU (+)= V^T dM."""
    B = block(f, first, lines, 0, f.across)
    for z in prange(f.n * f.n * f.KP):
        add_for_u(V, M, dU, f, point(f, B, mixed(z // f.KP, f.n)), z % f.KP, more)


@cpu_kernel
def multiply_for_v(M, UT, dV, f, first, lines):
    """dV = dM U^T; zero where a phase has no product."""
    B = block(f, first, lines, 0, f.across)
    for z in prange(f.n * f.n * f.DP):
        for_v(M, UT, dV, f, point(f, B, mixed(z // f.DP, f.n)), z % f.DP)


@cpu_kernel
def v_to_images(dV, dx, f, first, lines):
    """dx += what these lines say; the first line of an image begins with zeros."""
    B, first_image = block(f, first, lines, 0, f.across), first // f.down
    end_image = (first + lines - 1) // f.down + 1
    for z in prange((end_image - first_image) * f.DP):
        image, dp = first_image + z // f.DP, z % f.DP
        if image * f.down >= first:
            zero_lanes(dx, image, f, dp)
        for line in range(max(image * f.down, first), min((image + 1) * f.down, first + lines)):
            to_dx(dV, dx, f, B, line, dp)


# ---------------------------------------------------------------- narrow: a thread, all steps


@cpu_kernel
def forward_narrow(x, U, bias, low, y, f, lines, columns, workers):
    """y = max(low, conv(x) + bias), a block of so many lines and columns at a time."""
    all_lines, beside = x.shape[0] * f.down, (f.across + columns - 1) // columns
    blocks = (all_lines + lines - 1) // lines * beside
    for worker in prange(workers):
        V = np.empty((f.n * f.n, f.DP, lines * columns, PANEL), np.float32)
        M = np.empty((f.n * f.n, f.KP, lines * columns, PANEL), np.float32)
        for number in range(worker * blocks // workers, (worker + 1) * blocks // workers):
            first, column = number // beside * lines, number % beside * columns
            end = min(first + lines, all_lines)
            B = block(f, first, end - first, column, min(columns, f.across - column))
            for line in range(first, end):
                for dp in range(f.DP):
                    to_v(x, V, f, B, line, dp)
            for q in range(f.n * f.n):
                P = point(f, B, q)
                for kp in range(f.KP):
                    product(V, U, M, f, P, kp)
            for line in range(first, end):
                to_y(M, bias, low, y, f, B, line, 0, f.KP)


@cpu_kernel
def backward_narrow(x, dy, y, low, UT, dx, dU, sums, f, lines, columns):
    """dx, if it has elements; parts of dU, if they have elements, and of the sums of dy."""
    workers, images, beside = sums.shape[0], x.shape[0], (f.across + columns - 1) // columns
    each = (f.down + lines - 1) // lines * beside  # blocks of an image
    for worker in prange(workers):
        V = np.empty((f.n * f.n, f.DP, lines * columns, PANEL), np.float32)
        M = np.empty((f.n * f.n, f.KP, lines * columns, PANEL), np.float32)
        sums[worker] = ZERO
        more = 0
        for image in range(worker * images // workers, (worker + 1) * images // workers):
            if dx.size:
                for dp in range(f.DP):
                    zero_lanes(dx, image, f, dp)
            for number in range(each):
                first, column = image * f.down + number // beside * lines, number % beside * columns
                end = min(first + lines, (image + 1) * f.down)
                B = block(f, first, end - first, column, min(columns, f.across - column))
                for line in range(first, end):
                    to_m(dy, y, low, M, sums[worker], f, B, line, 0, f.KP)
                if dU.size:
                    for line in range(first, end):
                        for dp in range(f.DP):
                            to_v(x, V, f, B, line, dp)
                    for q in range(f.n * f.n):
                        P = point(f, B, q)
                        for kp in range(f.KP):
                            add_for_u(V, M, dU[worker], f, P, kp, more)
                    more = 1
                if dx.size:
                    for q in range(f.n * f.n):
                        P = point(f, B, q)
                        for dp in range(f.DP):
                            for_v(M, UT, V, f, P, dp)
                    for line in range(first, end):
                        for dp in range(f.DP):
                            to_dx(V, dx, f, B, line, dp)


# ---------------------------------------------------------------- what the layer calls


class Winograd:
    """One group of a convolution; maps are (H, W, channels), C of them from c0, K from k0."""

    def __init__(self, m: int, m2: int, image, out, c0, C, k0, K, F: int, s: int, p: int):
        f = self.f = shape(image, out, c0, C, k0, K, F, s, p, m, m2)
        self.name = f"winograd F({m if m == m2 else f'{m}+{m2}'},{f.r})"
        self.u_shape = f.n**2, f.KP, f.DP * PANEL, PANEL

    @classmethod
    def kinds(cls, image, out, c0: int, C: int, k0: int, K: int, F: int, s: int, p: int) -> list:
        """All that apply to such filters; of tiles of two sizes those that take both.

        None where windows lie in the padding alone: there a tile that also sees pixels leaves
        rounding noise instead of 0, of which a relu lets the positive half through.
        """
        if p >= F:
            return []
        ms = sorted((m for m, r in KINDS if r == -(-F // s) and s <= F), reverse=True)
        pairs = combinations_with_replacement(ms, 2)
        found = [cls(*pair, image, out, c0, C, k0, K, F, s, p) for pair in pairs]
        return [way for way in found if way.f.large == way.f.small or way._both]

    @property
    def _both(self) -> bool:
        """Whether tiles of both sizes occur."""
        f = self.f
        return 0 < f.tall + f.wide < f.down + f.across

    @property
    def narrow(self) -> bool:
        """Whether every core has U in its cache."""
        return 4 * math.prod(self.u_shape) <= SMALL_U

    @cached_property
    def multiplies(self) -> int:
        """Multiply-adds of the products for an image, those with zeros as well."""
        f = self.f
        depth = f.lanes if f.DP == 1 else f.each * PANEL
        rows, columns = (
            large * self._lines(f.large) + (both - large) * self._lines(f.small)
            for large, both in ((f.tall, f.down), (f.wide, f.across))
        )
        return rows * columns * depth * f.KP * PANEL

    def _lines(self, size) -> int:
        """Points of all phases in a direction; of those at infinity not all have a product."""
        return self.f.phases * (size.n - 1) + self.f.full

    @cached_property
    def cost(self) -> float:
        """Multiply-adds of an image, and what the transforms cost of their time."""
        f, price = self.f, NARROW_TRANSFORM if self.narrow else WIDE_TRANSFORM
        rows = f.tall * f.large.n + (f.down - f.tall) * f.small.n
        columns = f.wide * f.large.n + (f.across - f.wide) * f.small.n
        return self.multiplies + rows * columns * price * (f.DP + f.KP) * PANEL

    @cached_property
    def _block(self) -> tuple[int, int]:
        """Lines and columns of a block of the narrow schedule, whose V and M fit the cache.

        Of all such blocks those with the fewest tiles, counted in whole register tiles and one
        more for the calls that each block takes; of these the widest, which read long runs.
        """
        f = self.f
        most = max(1, CACHE // (4 * f.n**2 * (f.DP + f.KP) * PANEL))

        def work(size):
            lines, columns = size
            blocks = -(-f.down // lines) * -(-f.across // columns)
            return blocks * (-(-lines * columns // ROWS) + 1), blocks, lines

        columns = {-(-f.across // parts) for parts in range(1, f.across + 1)}
        sizes = [(max(1, min(f.down, most // c)), c) for c in columns]
        return min((size for size in sizes if math.prod(size) <= most), key=work)

    def _blocks(self, images: int) -> list[tuple[int, int]]:
        """(first line, lines) of the blocks of the wide schedule."""
        lines = images * self.f.down
        count = max(1, round(lines * self.f.across / TILES))
        size = -(-lines // count)
        return [(first, min(size, lines - first)) for first in range(0, lines, size)]

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
            forward_narrow(x, U, bias, low, y, f, *self._block, get_num_threads())
            return U, []
        vs = []
        for first, lines in self._blocks(len(x)):
            V = run.empty((f.n**2, f.DP, lines * f.across, PANEL))
            M = run.empty((f.n**2, f.KP, lines * f.across, PANEL))
            images_to_v(x, V, f, first, lines)
            multiply(V, U, M, f, first, lines)
            m_to_output(M, bias, low, y, f, first, lines)
            if run.train:
                vs.append(V)
        return U, vs

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
            backward_narrow(x, dy, y, np.float32(low), UT, into, dU, sums, f, *self._block)
            db = sums.sum(0).reshape(-1)
        else:
            db = self._backward_wide(run, y, np.float32(low), dy, dx, vs, UT, dU)
        if dw is not None:
            u_to_weights(dU, dw, f)
        return db[: f.K]

    def _backward_wide(self, run, y, low, dy, dx, vs, UT, dU):
        f, db = self.f, np.zeros(self.f.KP * PANEL, np.float32)
        for (first, lines), V in zip(self._blocks(len(dy)), vs):
            M = run.empty((f.n**2, f.KP, lines * f.across, PANEL))
            sums = run.empty((lines, f.KP, PANEL))
            output_to_m(dy, y, low, M, sums, f, first, lines)
            db += sums.sum(0).reshape(-1)
            if dU.size:
                multiply_for_u(V, M, dU[0], f, first, lines, int(first > 0))
            if dx is not None:
                multiply_for_v(M, UT, V, f, first, lines)  # V is not needed any more
                v_to_images(V, dx, f, first, lines)
        return db
