"""Response normalisation in a map and the max pool behind it, in one pass each way, on a CPU.

    D = k + a * sum of x^2 over size x size pixels,   z = x / D^beta,   y = max of z over a window

Row by row: neither D nor z ever exists as a whole, and nothing is kept for backward but x and y.
Backward computes z once more and gives the gradient of each window to all pixels equal to its y,
as layers/pool.py does; so z must have the same bits both times, which is why `responses` computes
it in both passes and LLVM may join no a*b and +c that is not written as one. With e = dz z / D the
rest is

    dx = dz / D^beta - 2 beta a x * sum of e over the pixels whose window holds the pixel
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import get_num_threads
from numba.core import types
from numba.extending import intrinsic

from convnet.kernel import cpu_kernel, helper, prange
from layers._tile import PANEL, copy, panelwise
from layers._vector import I32, LANES, VECTOR, Vectors

ZERO, ONE, LARGEST = np.float32(0), np.float32(1), float(np.finfo(np.float32).max)
BITS = ir.VectorType(I32, LANES)
# D^-1/4 begins as a guess from the bits of D, which are nearly its logarithm: MAGIC less a quarter
# of them is 3 % off. With h = 1 - D guess^4 the rest is (1 - h)^-1/4; these powers of h leave 5e-5.
MAGIC, POWERS = 0x4F560000, (0.99995304, 0.25055513, 0.17341368)
largest = panelwise(lambda e, best, a, b, c: e.larger(e.larger(a, b), c), 3)
larger = panelwise(lambda e, best, v: e.larger(best, v))
route = panelwise(lambda e, dz, z, y, dy: e.ir.fadd(dz, e.where_equal(z, y, dy)), 3)


class Shape(NamedTuple):
    """The numbers of both layers, for the kernels."""

    H: int
    W: int
    C: int
    size: int  # of the normalisation; its window begins size // 2 before the pixel
    OH: int
    OW: int
    sizeX: int  # of the pool
    stride: int
    start: int


def quarters(keep: bool):
    """The responses of PANEL numbers for D^-0.75, as a function that Numba can call.

    It takes addresses of z, share, inverse, where D's numbers begin, of x, and C, k and a.
    """

    @intrinsic
    def apply(context, z, share, inverse, squares, x, C, k, a):
        def generate(context, builder, signature, arguments):
            z, share, inverse, squares, x, C, k, a = arguments
            e = Vectors(builder)
            for half in (0, LANES):
                at = e.plus(squares, half)
                total = e.load(at)
                for _ in range(2):
                    at = e.plus(at, C)
                    total = builder.fadd(total, e.load(at))
                root = inverse_quarter(e, e.fma(e.spread(a), total, e.spread(k)))
                square = builder.fmul(root, root)
                factor = builder.fmul(square, root)
                e.store(builder.fmul(e.load(e.plus(x, half)), factor), e.plus(z, half))
                if keep:
                    e.store(factor, e.plus(share, half))
                    e.store(builder.fmul(square, square), e.plus(inverse, half))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6, types.float32, types.float32), generate

    return apply


def inverse_quarter(e: Vectors, D):
    """D^-1/4: a guess, POWERS, and a step of Newton's method, which leaves 1e-7.

    An infinite D counts as the largest number: x D^-3/4 is nearly 0 for both, and no NaN.
    """
    D = e.ir.select(e.ir.fcmp_ordered(">", D, e.all(LARGEST)), e.all(LARGEST), D)
    log = e.ir.lshr(e.ir.bitcast(D, BITS), ir.Constant(BITS, [2] * LANES))
    guess = e.ir.bitcast(e.ir.sub(ir.Constant(BITS, [MAGIC] * LANES), log), VECTOR)
    square = e.ir.fmul(guess, guess)
    minus = e.ir.fmul(D, e.all(-1.0))
    h = e.fma(e.ir.fmul(minus, square), square, e.all(1.0))
    powers = e.fma(e.fma(e.all(POWERS[2]), h, e.all(POWERS[1])), h, e.all(POWERS[0]))
    root = e.ir.fmul(guess, powers)
    square = e.ir.fmul(root, root)
    slope = e.fma(e.ir.fmul(e.ir.fmul(D, e.all(-0.25)), square), square, e.all(1.25))
    return e.ir.fmul(root, slope)


z_alone, z_and_shares = quarters(False), quarters(True)


@helper(fastmath=False)
def responses(x, image, r, f, k, a, beta, squares, z, share, inverse, keep):
    """Row r of an image: z = x * share and, to be kept, share = D^-beta, inverse = 1 / D.

    All flat, W * C numbers; squares: (W + size - 1) * C numbers, zeros at both ends.
    """
    C, n = np.uintp(f.C), np.uintp(f.W * f.C)
    middle = np.uintp(f.size // 2 * f.C)
    first, last = max(r - f.size // 2, 0), min(r - f.size // 2 + f.size, f.H)
    at = np.uintp((image * f.H + first) * f.W * f.C)
    if last - first == 3:
        low, high = at + n, at + n + n
        for i in range(n):
            rest = x[low + i] * x[low + i] + x[high + i] * x[high + i]
            squares[middle + i] = x[at + i] * x[at + i] + rest
    else:
        for i in range(n):
            squares[middle + i] = x[at + i] * x[at + i]
        for row in range(first + 1, last):
            at = np.uintp((image * f.H + row) * f.W * f.C)
            for i in range(n):
                squares[middle + i] += x[at + i] * x[at + i]
    at, begin = np.uintp((image * f.H + r) * f.W * f.C), np.uintp(0)
    if f.size == 3 and beta == np.float32(0.75):
        begin = n // np.uintp(PANEL) * np.uintp(PANEL)
        for i in range(0, begin, PANEL):
            off, src = 4 * i, x.ctypes.data + 4 * (at + i)
            to, near = z.ctypes.data + off, squares.ctypes.data + off
            if keep:
                rest = share.ctypes.data + off, inverse.ctypes.data + off
                z_and_shares(to, rest[0], rest[1], near, src, f.C, k, a)
            else:
                z_alone(to, 0, 0, near, src, f.C, k, a)
    for i in range(begin, n):
        share[i] = squares[i]
    for s in range(np.uintp(1), np.uintp(f.size)):
        for i in range(begin, n):
            share[i] += squares[i + s * C]
    for i in range(begin, n):
        D = k + a * share[i]
        inverse[i], share[i] = ONE / D, power(D, beta)
        z[i] = x[at + i] * share[i]


@helper(fastmath=False)
def power(D, beta):
    """D^-beta."""
    return ONE / (np.sqrt(D) * np.sqrt(np.sqrt(D))) if beta == np.float32(0.75) else D**-beta


@helper()
def windows(r, f):
    """The pool's rows first..last - 1 whose windows hold row r."""
    first = max(r - f.start - f.sizeX + f.stride, 0) // f.stride
    return first, min((r - f.start) // f.stride, f.OH - 1) + 1 if r >= f.start else 0


@helper()
def best_of(z, left, right, C, best, q):
    """Pixel q of best = the largest of the pixels left..right - 1 of a row."""
    whole, to, src = C // PANEL * PANEL, best.ctypes.data + 4 * q * C, z.ctypes.data
    for c in range(0, whole, PANEL):
        at = src + 4 * (left * C + c)
        if right - left == 3:
            largest(to + 4 * c, at, at + 4 * C, at + 8 * C)
        else:
            copy(to + 4 * c, at)
            for col in range(left + 1, right):
                larger(to + 4 * c, src + 4 * (col * C + c))
    for c in range(whole, C):
        most = z[left * C + c]
        for col in range(left + 1, right):
            v = z[col * C + c]
            most = v if (v > most) | (v != v) else most
        best[q * C + c] = most


@helper()
def to_winners(z, left, right, C, y, dy, window, dz):
    """dz += dy of a window where z, of its pixels left..right - 1 in a row, is its y."""
    whole = C // PANEL * PANEL
    for col in range(left, right):
        at, to = 4 * window * C, 4 * col * C
        for c in range(0, whole, PANEL):
            route(dz.ctypes.data + to + 4 * c, z.ctypes.data + to + 4 * c,
                  y.ctypes.data + at + 4 * c, dy.ctypes.data + at + 4 * c)  # fmt: skip
        for c in range(whole, C):
            if z[col * C + c] == y[window * C + c]:
                dz[col * C + c] += dy[window * C + c]


@cpu_kernel
def lrn_pool(x, y, k, a, beta, f, rows):
    """y (N, OH, OW, C) of x (N, H, W, C), so many rows of y a task."""
    blocks = (f.OH + rows - 1) // rows
    xs, ys = x.reshape(-1), y.reshape(-1)
    for task in prange(x.shape[0] * blocks):
        image, o0 = task // blocks, task % blocks * rows
        o1 = min(o0 + rows, f.OH)
        squares = np.zeros((f.W + f.size - 1) * f.C, np.float32)
        z, best = np.empty(f.W * f.C, np.float32), np.empty(f.OW * f.C, np.float32)
        share, inverse = np.empty(f.W * f.C, np.float32), np.empty(f.W * f.C, np.float32)
        end = min((o1 - 1) * f.stride + f.start + f.sizeX, f.H)
        for r in range(max(o0 * f.stride + f.start, 0), end):
            responses(xs, image, r, f, k, a, beta, squares, z, share, inverse, False)
            for q in range(f.OW):
                left = max(q * f.stride + f.start, 0)
                right = min(q * f.stride + f.start + f.sizeX, f.W)
                best_of(z, left, right, f.C, best, q)
            first, last = windows(r, f)
            for o in range(max(first, o0), min(last, o1)):
                to, n = np.uintp((image * f.OH + o) * f.OW * f.C), np.uintp(f.OW * f.C)
                if r == max(o * f.stride + f.start, 0):
                    for i in range(n):
                        ys[to + i] = best[i]
                else:
                    for i in range(n):
                        v, most = best[i], ys[to + i]
                        ys[to + i] = v if (v > most) | (v != v) else most


@cpu_kernel
def lrn_pool_back(x, y, dy, dx, k, a, beta, f, rows):
    """dx from x, y and dy, so many rows of dx a task; the last `size` rows of e wait in a ring."""
    blocks, size = (f.H + rows - 1) // rows, f.size
    xs, ys, dys, dxs = x.reshape(-1), y.reshape(-1), dy.reshape(-1), dx.reshape(-1)
    before, after = size - 1 - size // 2, size // 2  # rows whose windows hold a row
    C, n, slope = np.uintp(f.C), np.uintp(f.W * f.C), np.float32(2) * beta * a
    for task in prange(x.shape[0] * blocks):
        image, r0 = task // blocks, task % blocks * rows
        r1 = min(r0 + rows, f.H)
        squares = np.zeros((f.W + size - 1) * f.C, np.float32)
        z, share = np.empty(f.W * f.C, np.float32), np.empty(f.W * f.C, np.float32)
        inverse, dz = np.empty(f.W * f.C, np.float32), np.empty(f.W * f.C, np.float32)
        e = np.zeros((f.W + size - 1) * f.C, np.float32)
        sums = np.empty((size, f.W * f.C), np.float32)
        direct = np.empty((size, f.W * f.C), np.float32)
        for r in range(max(r0 - before, 0), min(r1 + after, f.H + after)):
            ring = r % size
            if r < f.H:
                responses(xs, image, r, f, k, a, beta, squares, z, share, inverse, True)
                for i in range(n):
                    dz[i] = ZERO
                first, last = windows(r, f)
                for o in range(first, last):
                    for q in range(f.OW):
                        window = (image * f.OH + o) * f.OW + q
                        left = max(q * f.stride + f.start, 0)
                        right = min(q * f.stride + f.start + f.sizeX, f.W)
                        to_winners(z, left, right, f.C, ys, dys, window, dz)
                middle = np.uintp(before * f.C)
                for i in range(n):
                    direct[ring, i] = dz[i] * share[i]
                    e[middle + i] = dz[i] * z[i] * inverse[i]
                if size == 3:
                    for i in range(n):
                        sums[ring, i] = e[i] + e[i + C] + e[i + C + C]
                else:
                    for i in range(n):
                        sums[ring, i] = e[i]
                    for s in range(np.uintp(1), np.uintp(size)):
                        for i in range(n):
                            sums[ring, i] += e[i + s * C]
            done = r - after
            if r0 <= done < r1:
                to = np.uintp((image * f.H + done) * f.W * f.C)
                first, last = max(done - before, 0), min(done + after + 1, f.H)
                one, two, three = first % size, (first + 1) % size, (first + 2) % size
                mine = done % size
                if last - first == 3:
                    for i in range(n):
                        total = sums[one, i] + sums[two, i] + sums[three, i]
                        dxs[to + i] = direct[mine, i] - slope * xs[to + i] * total
                    continue
                for i in range(n):
                    z[i] = sums[one, i]
                for row in range(first + 1, last):
                    two = row % size
                    for i in range(n):
                        z[i] += sums[two, i]
                for i in range(n):
                    dxs[to + i] = direct[mine, i] - slope * xs[to + i] * z[i]


def forward(run, x, y, k: float, a: float, beta: float, f: Shape):
    """y = max pool of the responses of x; bprop(dy) -> dx."""
    numbers = [np.float32(v) for v in (k, a, beta)]
    lrn_pool(x, y, *numbers, f, _share(len(x), f.OH))
    if not run.train:
        return None

    def bprop(dy):
        dx = run.empty(x.shape)
        lrn_pool_back(x, y, dy, dx, *numbers, f, _share(len(x), f.H))
        return dx

    return bprop


def _share(images: int, rows: int) -> int:
    """Rows of a task: an image where there are enough, as rows at its ends are computed twice."""
    return max(1, min(rows, images * rows // (2 * get_num_threads())))
