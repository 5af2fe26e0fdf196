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
its phases. A phase with fewer than r taps in a direction has no product at the point at infinity.

Points are 0, 1, -1, 2, -2 and infinity (6), and 1/2, -1/2 (8). The more points, the larger the
numbers in the matrices and the more bits are lost: 8 points lose about ten times as much as 6.

V (points^2, channel panels, tiles, PANEL), U (points^2, filter panels, channels, PANEL) and M
(points^2, filter panels, tiles, PANEL) are cut in panels as the tiles of _tile.py read them; lanes
without a channel hold zeros. V, M and dV exist for a block of rows of tiles at a time.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numba import prange
from numba.core import types
from numba.extending import intrinsic

from convnet.kernel import cpu_kernel, jit
from layers._tile import PANEL, add, column
from layers._vector import LANES, Vectors

FINITE = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]
TILES = 512  # of a block
TRANSFORM = 50  # multiply-adds that take as long as a number's way into V, or out of M
CHUNK = 1 << 14  # weights of a fingerprint's number
ODD = np.uint64(0x9E3779B97F4A7C16)  # times a place and plus 1: another odd number for each
ZERO = np.float32(0)


# ---------------------------------------------------------------- the matrices


def matrices(m: int, r: int) -> tuple[list, list, list]:
    """A^T (m, n), B^T (n, n) and G (n, r) of F(m, r), n = m + r - 1, in fractions (Cook, Toom).

    A polynomial's value at infinity is its highest coefficient. Row j of B^T holds the
    coefficients of the product of all (x - p) with p != p_j.
    """
    points = FINITE[: m + r - 2]
    at = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    bt = [product([q for q in points if q != p]) + [Fraction(0)] for p in points]
    bt.append(product(points))
    g = [[p**k / math.prod(p - q for q in points if q != p) for k in range(r)] for p in points]
    g.append([Fraction(int(k == r - 1)) for k in range(r)])
    return at, bt, g


def product(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of the product of all (x - root), that of x^0 first."""
    row = [Fraction(1)]
    for root in roots:
        row = [low - root * high for low, high in zip([Fraction(0), *row], [*row, Fraction(0)])]
    return row


def transposed(matrix: list) -> list:
    """Rows as columns."""
    return [list(column) for column in zip(*matrix)]


# ---------------------------------------------------------------- a matrix as vector code


def transform(matrix: list):
    """out[i] = sum over j of matrix[i][j] in[j], as a function that Numba can call.

    It takes addresses: in[j] are the PANEL floats at src + j * from_step, out[i] at dst + i *
    to_step. Rows, or columns, of the points p and -p differ in signs alone, so that sums and
    differences serve both.
    """

    @intrinsic
    def apply(context, src, from_step, dst, to_step):
        def generate(context, builder, signature, arguments):
            src, from_step, dst, to_step = arguments
            e = Vectors(builder)
            for half in (0, LANES):
                at, xs = e.plus(src, half), []
                for _ in matrix[0]:
                    xs.append(e.load(at))
                    at = e.plus(at, from_step)
                at = e.plus(dst, half)
                for y in multiplied(e, matrix, xs):
                    e.store(y, at)
                    at = e.plus(at, to_step)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), generate

    return apply


def multiplied(e: Vectors, matrix: list, xs: list) -> list:
    """The vectors matrix @ xs."""
    columns = transposed(matrix)
    for i, j in opposite(columns):
        xs = [*xs]
        xs[i], xs[j] = e.ir.fadd(xs[i], xs[j]), e.ir.fsub(xs[i], xs[j])
        both = [(a if a == b else 0, a if a != b else 0) for a, b in zip(columns[i], columns[j])]
        columns[i], columns[j] = transposed(both)
    rows = transposed(columns)
    ys: list = [None] * len(rows)
    for i, j in opposite(rows):
        even = e.weighted([a if a == b else 0 for a, b in zip(rows[i], rows[j])], xs)
        odd = e.weighted([a if a != b else 0 for a, b in zip(rows[i], rows[j])], xs)
        ys[i], ys[j] = e.ir.fadd(even, odd), e.ir.fsub(even, odd)
    return [e.weighted(row, xs) if y is None else y for row, y in zip(rows, ys)]


def opposite(rows: list) -> list[tuple[int, int]]:
    """Pairs of rows that hold the same numbers but for signs, some equal and some not."""
    found: list[tuple[int, int]] = []
    for i, a in enumerate(rows):
        for j, b in enumerate(rows[:i]):
            same = [x == y for x, y in zip(a, b) if x or y]
            if [abs(x) for x in a] == [abs(y) for y in b] and any(same) and not all(same):
                found.append((j, i))
    return found


(_at43, _bt6, _g43), (_at63, _bt8, _g63), (_at45, _, _g45) = (
    [(transform(matrix), transform(transposed(matrix))) for matrix in matrices(m, r)]
    for m, r in ((4, 3), (6, 3), (4, 5))
)
(_at43, _a43), (_at63, _a63), (_at45, _a45) = _at43, _at63, _at45
(_g43, _gt43), (_g63, _gt63), (_g45, _gt45) = _g43, _g63, _g45
(_bt6, _b6), (_bt8, _b8) = _bt6, _bt8


@jit()
def bt(m, r, src, from_step, dst, to_step):
    """B^T: n pixels -> their values at n points."""
    if m + r == 7:
        _bt6(src, from_step, dst, to_step)
    else:
        _bt8(src, from_step, dst, to_step)


@jit()
def b(m, r, src, from_step, dst, to_step):
    """B, the adjoint of bt."""
    if m + r == 7:
        _b6(src, from_step, dst, to_step)
    else:
        _b8(src, from_step, dst, to_step)


@jit()
def at(m, r, src, from_step, dst, to_step):
    """A^T: products at n points -> m outputs."""
    if m == 6:
        _at63(src, from_step, dst, to_step)
    elif r == 3:
        _at43(src, from_step, dst, to_step)
    else:
        _at45(src, from_step, dst, to_step)


@jit()
def a(m, r, src, from_step, dst, to_step):
    """A, the adjoint of at."""
    if m == 6:
        _a63(src, from_step, dst, to_step)
    elif r == 3:
        _a43(src, from_step, dst, to_step)
    else:
        _a45(src, from_step, dst, to_step)


@jit()
def g(m, r, src, from_step, dst, to_step):
    """G: r taps -> their values at n points."""
    if m == 6:
        _g63(src, from_step, dst, to_step)
    elif r == 3:
        _g43(src, from_step, dst, to_step)
    else:
        _g45(src, from_step, dst, to_step)


@jit()
def gt(m, r, src, from_step, dst, to_step):
    """G^T, the adjoint of g."""
    if m == 6:
        _gt63(src, from_step, dst, to_step)
    elif r == 3:
        _gt43(src, from_step, dst, to_step)
    else:
        _gt45(src, from_step, dst, to_step)


# ---------------------------------------------------------------- what is convolved with what


class Shape(NamedTuple):
    """The numbers of one convolution, for the kernels."""

    H: int  # image: rows, columns, channels
    W: int
    channels: int
    c0: int  # the C channels from here take part, in CP panels
    C: int
    CP: int
    OH: int  # output: rows, columns, channels
    OW: int
    filters: int
    k0: int  # the K channels from here are made, in KP panels
    K: int
    KP: int
    F: int  # side of the filter
    s: int  # stride; there are s x s phases
    p: int  # padding
    n: int  # points of F(m, r): m + r - 1
    m: int
    r: int
    full: int  # phases that have r taps in a direction; the others have less
    down: int  # rows of tiles of an image
    across: int  # tiles in a row

    def blocks(self, images: int) -> list[tuple[int, int]]:
        """(first row of tiles, rows) of blocks that stay in the caches."""
        rows = images * self.down
        count = max(1, round(rows * self.across / TILES))
        size = -(-rows // count)
        return [(first, min(size, rows - first)) for first in range(0, rows, size)]


def shape(image, out, c0: int, C: int, k0: int, K: int, F: int, s: int, p: int, m: int) -> Shape:
    """The Shape of a convolution of maps (H, W, channels) with tiles of m x m outputs."""
    (H, W, channels), (OH, OW, filters) = image, out
    CP, KP = (-(-count // PANEL) for count in (C, K))
    r, full = -(-F // s), (F - 1) % s + 1
    return Shape(H, W, channels, c0, C, CP, OH, OW, filters, k0, K, KP, F, s, p,
                 m + r - 1, m, r, full, -(-OH // m), -(-OW // m))  # fmt: skip


# ---------------------------------------------------------------- kernels


@cpu_kernel
def weights_to_u(w, U, f):
    """w (F, F, C, filters) -> U; taps that a phase does not have are zero."""
    m, r, n, s, F, C = f.m, f.r, f.n, f.s, f.F, f.C
    to_point = U.size // (n * n)
    for d in prange(U.shape[2]):
        phase, c = d // (f.CP * PANEL), d % (f.CP * PANEL)
        taps = np.zeros((r, r, PANEL), np.float32)
        half = np.empty((n, r, PANEL), np.float32)
        for kp in range(f.KP):
            k0, L = np.uintp(f.k0 + kp * PANEL), np.uintp(min(PANEL, f.K - kp * PANEL))
            for y in range(r):
                for x in range(r):
                    row, col = s * y + phase // s, s * x + phase % s
                    if row < F and col < F and c < C:
                        for k in range(L):
                            taps[y, x, k] = w[row, col, c, k0 + k]
            for k in range(L, np.uintp(PANEL)):
                taps[:, :, k] = ZERO
            for x in range(r):
                g(m, r, place(taps, x, 1), r * PANEL, place(half, x, 1), r * PANEL)
            for i in range(n):
                to = U.ctypes.data + 4 * (i * n * to_point + (kp * U.shape[2] + d) * PANEL)
                g(m, r, place(half, i, r), PANEL, to, to_point)


@cpu_kernel
def u_to_weights(dU, dw, f):
    """dU -> dw, the adjoint of weights_to_u."""
    m, r, n, s, F = f.m, f.r, f.n, f.s, f.F
    to_point = dU.size // (n * n)
    for z in prange(s * s * f.C):
        phase, c = z // f.C, z % f.C
        half = np.empty((n, r, PANEL), np.float32)
        taps = np.empty((r, r, PANEL), np.float32)
        for kp in range(f.KP):
            k0, L = np.uintp(f.k0 + kp * PANEL), np.uintp(min(PANEL, f.K - kp * PANEL))
            d = phase * f.CP * PANEL + c
            for i in range(n):
                at = dU.ctypes.data + 4 * (i * n * to_point + (kp * dU.shape[2] + d) * PANEL)
                gt(m, r, at, to_point, place(half, i, r), PANEL)
            for x in range(r):
                gt(m, r, place(half, x, 1), r * PANEL, place(taps, x, 1), r * PANEL)
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
            total += np.uint64(bits[i]) * (
                np.uint64(i) * np.uint64(0x9E3779B97F4A7C16) + np.uint64(1)
            )
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


@cpu_kernel
def images_to_v(x, V, f, first, rows):
    """x (N, H, W, channels) -> V of these rows of tiles."""
    m, r, n, s, H, W = f.m, f.r, f.n, f.s, f.H, f.W
    to_point = V.size // (n * n)
    for z in prange(rows * f.CP):
        row, cp = z // f.CP, z % f.CP
        image, i = (first + row) // f.down, (first + row) % f.down
        patch = np.empty((n, n, PANEL), np.float32)
        half = np.empty((n, n, PANEL), np.float32)
        L, c = np.uintp(min(PANEL, f.C - cp * PANEL)), f.c0 + cp * PANEL
        for j in range(f.across):
            for phase in range(s * s):
                y0, x0 = s * m * i + phase // s - f.p, s * m * j + phase % s - f.p
                inside = min(y0, x0) >= 0 and max(y0 - H, x0 - W) + s * (n - 1) < 0
                if inside and L == PANEL:
                    src = x.ctypes.data + 4 * (((image * H + y0) * W + x0) * f.channels + c)
                    down, right = s * W * f.channels, s * f.channels
                else:
                    gather(x, image, y0, x0, s, c, L, patch)
                    src, down, right = patch.ctypes.data, n * PANEL, PANEL
                for q in range(n):
                    bt(m, r, src + 4 * q * right, down, place(half, q, 1), n * PANEL)
                t = ((phase * f.CP + cp) * rows + row) * f.across + j
                for q in range(n):
                    to = V.ctypes.data + 4 * (q * n * to_point + t * PANEL)
                    bt(m, r, place(half, q, n), PANEL, to, to_point)


@jit()
def gather(x, image, y0, x0, s, c, L, patch):
    """Every s-th pixel from (y0, x0), L channels from c; zero where there is none."""
    H, W = x.shape[1], x.shape[2]
    for i in range(patch.shape[0]):
        for j in range(patch.shape[1]):
            y, xx = y0 + s * i, x0 + s * j
            if 0 <= y < H and 0 <= xx < W:
                for k in range(L):
                    patch[i, j, k] = x[image, y, xx, np.uintp(c) + k]
                for k in range(L, np.uintp(PANEL)):
                    patch[i, j, k] = ZERO
            else:
                for k in range(np.uintp(PANEL)):
                    patch[i, j, k] = ZERO


@cpu_kernel
def v_to_images(dV, dx, f, first, rows):
    """dx += what these rows of tiles say; the first row of an image begins with zeros."""
    m, r, n, s, H, W = f.m, f.r, f.n, f.s, f.H, f.W
    to_point, first_image = dV.size // (n * n), first // f.down
    images = (first + rows - 1) // f.down - first_image + 1
    for z in prange(images * f.CP):
        image, cp = first_image + z // f.CP, z % f.CP
        half = np.empty((n, n, PANEL), np.float32)
        patch = np.empty((n, n, PANEL), np.float32)
        L, c = np.uintp(min(PANEL, f.C - cp * PANEL)), f.c0 + cp * PANEL
        if image * f.down >= first:
            for y in range(H):
                for x in range(W):
                    for k in range(L):
                        dx[image, y, x, np.uintp(c) + k] = ZERO
        begin, end = max(image * f.down, first), min((image + 1) * f.down, first + rows)
        for row in range(begin, end):
            i = row - image * f.down
            for j in range(f.across):
                for phase in range(s * s):
                    t = ((phase * f.CP + cp) * rows + row - first) * f.across + j
                    for q in range(n):
                        src = dV.ctypes.data + 4 * (q * n * to_point + t * PANEL)
                        b(m, r, src, to_point, place(half, q, n), PANEL)
                    for q in range(n):
                        b(m, r, place(half, q, 1), n * PANEL, place(patch, q, 1), n * PANEL)
                    y0, x0 = s * m * i + phase // s - f.p, s * m * j + phase % s - f.p
                    scatter(dx, image, y0, x0, s, c, L, patch)


@jit()
def scatter(dx, image, y0, x0, s, c, L, patch):
    """The adjoint of gather: dx += patch."""
    H, W, C = dx.shape[1], dx.shape[2], dx.shape[3]
    for i in range(patch.shape[0]):
        for j in range(patch.shape[1]):
            y, x = y0 + s * i, x0 + s * j
            if 0 <= y < H and 0 <= x < W:
                if L == PANEL:
                    to = dx.ctypes.data + 4 * (((image * H + y) * W + x) * C + c)
                    add(to, place(patch, i * patch.shape[1] + j, 1))
                else:
                    for k in range(L):
                        dx[image, y, x, np.uintp(c) + k] += patch[i, j, k]


@cpu_kernel
def m_to_output(M, bias, low, y, f, first, rows):
    """y (N, OH, OW, filters) = max(low, A^T M A + bias) of these rows of tiles."""
    m, r, n = f.m, f.r, f.n
    to_point = M.size // (n * n)
    for z in prange(rows * f.KP):
        row, kp = z // f.KP, z % f.KP
        image, i = (first + row) // f.down, (first + row) % f.down
        half = np.empty((m, n, PANEL), np.float32)
        out = np.empty((m, PANEL), np.float32)
        L, k0 = np.uintp(min(PANEL, f.K - kp * PANEL)), np.uintp(f.k0 + kp * PANEL)
        for j in range(f.across):
            t = (kp * rows + row) * f.across + j
            for q in range(n):
                src = M.ctypes.data + 4 * (q * to_point + t * PANEL)
                at(m, r, src, n * to_point, place(half, q, 1), n * PANEL)
            for u in range(min(m, f.OH - m * i)):
                at(m, r, place(half, u, n), PANEL, out.ctypes.data, PANEL)
                for v in range(min(m, f.OW - m * j)):
                    for k in range(L):
                        number = out[v, k] + bias[k0 + k]
                        y[image, m * i + u, m * j + v, k0 + k] = low if number < low else number


@cpu_kernel
def output_to_m(dy, y, low, M, db, f, first, rows):
    """dM = A dy A^T of these rows of tiles; dy counts where y > low, db are its sums."""
    m, r, n = f.m, f.r, f.n
    to_point = M.size // (n * n)
    for z in prange(rows * f.KP):
        row, kp = z // f.KP, z % f.KP
        image, i = (first + row) // f.down, (first + row) % f.down
        d = np.empty((m, m, PANEL), np.float32)
        half = np.empty((n, m, PANEL), np.float32)
        total = np.zeros(PANEL, np.float32)
        L, k0 = np.uintp(min(PANEL, f.K - kp * PANEL)), np.uintp(f.k0 + kp * PANEL)
        for j in range(f.across):
            if L < PANEL or m * i + m > f.OH or m * j + m > f.OW:
                d[:] = ZERO
            for u in range(min(m, f.OH - m * i)):
                for v in range(min(m, f.OW - m * j)):
                    for k in range(L):
                        number = dy[image, m * i + u, m * j + v, k0 + k]
                        passed = y[image, m * i + u, m * j + v, k0 + k] > low
                        number = number if passed else ZERO
                        d[u, v, k] = number
                        total[k] += number
            for q in range(m):
                a(m, r, place(d, q, 1), m * PANEL, place(half, q, 1), m * PANEL)
            t = (kp * rows + row) * f.across + j
            for q in range(n):
                to = M.ctypes.data + 4 * (q * n * to_point + t * PANEL)
                a(m, r, place(half, q, m), PANEL, to, to_point)
        for k in range(PANEL):
            db[row, kp, k] = total[k]


@jit()
def place(vectors, i, step):
    """The address of vector i * step of an array (..., PANEL)."""
    return vectors.ctypes.data + 4 * PANEL * i * step


@cpu_kernel
def multiply(V, U, M, f):
    """M = V U at every point."""
    s, n, full, CP = f.s, f.n, f.full, f.CP
    T, KP = V.shape[2], f.KP
    for z in prange(n * n * KP):
        q, kp = mixed(z // KP, n), z % KP
        tall = full if q // n == n - 1 else s
        wide = full if q % n == n - 1 else s
        whole = wide == s
        for py in range(1 if whole else tall):
            dp = py * s * CP
            column(T, (tall * s if whole else wide) * CP, PANEL, V[q, dp].ctypes.data, PANEL,
                   T * PANEL, 1, U[q, kp].ctypes.data + 4 * dp * PANEL * PANEL, PANEL,
                   M[q, kp].ctypes.data, PANEL, py, 0, ZERO)  # fmt: skip


@cpu_kernel
def multiply_for_u(V, M, dU, f, add):
    """dU (+)= V^T dM."""
    s, n, full, CP = f.s, f.n, f.full, f.CP
    T, KP = V.shape[2], f.KP
    for z in prange(n * n * KP):
        q, kp = mixed(z // KP, n), z % KP
        for dp in range(s * s * CP):
            if there(q, dp // CP, n, s, full):
                to = dU[q, kp].ctypes.data + 4 * dp * PANEL * PANEL
                column(PANEL, 1, T, V[q, dp].ctypes.data, 1, 0, PANEL, M[q, kp].ctypes.data, PANEL,
                       to, PANEL, add, 0, ZERO)  # fmt: skip


@cpu_kernel
def multiply_for_v(M, UT, dV, f):
    """dV = dM U^T; zero where a phase has no product."""
    s, n, full, CP = f.s, f.n, f.full, f.CP
    T, KP, DP = M.shape[2], f.KP, dV.shape[1]
    for z in prange(n * n * DP):
        q, dp = mixed(z // DP, n), z % DP
        if there(q, dp // CP, n, s, full):
            column(T, KP, PANEL, M[q].ctypes.data, PANEL, T * PANEL, 1, UT[q, dp].ctypes.data,
                   PANEL, dV[q, dp].ctypes.data, PANEL, 0, 0, ZERO)  # fmt: skip
        else:
            dV[q, dp] = ZERO


@jit()
def mixed(z, n):
    """The points in an order that spreads those at infinity, which have less to do."""
    return z * 7 % (n * n)


@jit()
def there(q, phase, n, s, full):
    """Whether a phase has a product at point q."""
    return (q // n < n - 1 or phase // s < full) and (q % n < n - 1 or phase % s < full)


# ---------------------------------------------------------------- forward and backward


class Winograd:
    """One group of a convolution; maps are (H, W, channels), C of them from c0, K from k0."""

    KINDS = (4, 3), (6, 3), (4, 5)

    def __init__(self, m: int, image, out, c0, C, k0, K, F: int, s: int, p: int):
        self.f = shape(image, out, c0, C, k0, K, F, s, p, m)
        self.name = f"winograd F({m},{self.f.r})"

    @classmethod
    def kinds(cls, image, out, c0: int, C: int, k0: int, K: int, F: int, s: int, p: int) -> list:
        """All that apply to such filters."""
        ms = [m for m, r in cls.KINDS if r == -(-F // s) and s < 3]
        return [cls(m, image, out, c0, C, k0, K, F, s, p) for m in ms]

    @property
    def multiplies(self) -> int:
        """Multiply-adds of the products of an image, those with zeros as well."""
        f = self.f
        lines = f.s * (f.n - 1) + f.full  # of points of all phases; not all have one at infinity
        return f.down * f.across * lines**2 * f.CP * PANEL * f.KP * PANEL

    @property
    def cost(self) -> float:
        """Multiply-adds of an image, and what the transforms cost of their time."""
        f = self.f
        tiles, depth, width = f.down * f.across, f.s**2 * f.CP * PANEL, f.KP * PANEL
        return self.multiplies + tiles * TRANSFORM * f.n**2 * (depth + width)

    def forward(self, run, x, w, bias, low: float, y):
        """y = max(low, x * w + bias) in the channels from k0; w (F, F, C, filters).

        What backward takes again: U and the V of all blocks.
        """
        f, vs, U = self.f, [], self._u(run, w)
        for first, rows in f.blocks(len(x)):
            V = run.empty((f.n**2, f.s**2 * f.CP, rows * f.across, PANEL))
            M = run.empty((f.n**2, f.KP, rows * f.across, PANEL))
            images_to_v(x, V, f, first, rows)
            multiply(V, U, M, f)
            m_to_output(M, bias, np.float32(low), y, f, first, rows)
            if run.train:
                vs.append(V)
        return (U, vs) if run.train else None

    def _u(self, run, w):
        """U of the weights; while they do not change it is made once."""

        def make():
            U = run.empty((f.n**2, f.KP, f.s**2 * f.CP * PANEL, PANEL))
            weights_to_u(w, U, f)
            return U

        f, prepared = self.f, run.device.prepared
        key = id(w), self.name, f.k0
        if run.train:  # they change with every step
            prepared.pop(key, None)
            return make()
        sums = np.empty(-(-w.size // CHUNK), np.uint64)
        fingerprint(w.reshape(-1).view(np.uint32), sums)
        return run.device.once(key, sums.tobytes(), make)

    def backward(self, run, x, w, y, low: float, dy, dx, dw, kept):
        """The gradients into dx and dw, either of them None if not wanted; those of the biases."""
        f, (U, vs) = self.f, kept
        db = np.zeros(f.KP * PANEL, np.float32)
        dU = run.empty(U.shape) if dw is not None else None
        UT = None
        if dx is not None:
            UT = run.empty((f.n**2, f.s**2 * f.CP, f.KP * PANEL, PANEL))
            transpose_u(U, UT)
        for (first, rows), V in zip(f.blocks(len(dy)), vs):
            M = run.empty((f.n**2, f.KP, rows * f.across, PANEL))
            sums = run.empty((rows, f.KP, PANEL))
            output_to_m(dy, y, np.float32(low), M, sums, f, first, rows)
            db += sums.sum(0).reshape(-1)
            if dw is not None:
                multiply_for_u(V, M, dU, f, int(first > 0))
            if dx is not None:
                multiply_for_v(M, UT, V, f)  # V is not needed any more
                v_to_images(V, dx, f, first, rows)
        if dw is not None:
            u_to_weights(dU, dw, f)
        return db[: f.K]
