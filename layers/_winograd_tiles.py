"""The steps of layers/_winograd.py for some tiles and one panel: what its kernels are made of.

V (points^2, DP, tiles, PANEL), U (points^2, KP, DP * PANEL, PANEL) and M (points^2, KP, tiles,
PANEL) are cut in panels as the tiles of _tile.py read them. DP panels hold the channels of all
phases, phase by phase (`lanes` of them), KP panels the filters; lanes with nothing hold zeros.
Tiles are counted through all rows and images; `first` is the number of tile 0 of V and M.
"""

from typing import NamedTuple

import numpy as np

from convnet.kernel import helper
from layers._tile import PANEL, add, column, copy, panelwise, prefetch
from layers._transforms import KINDS, a, at, b, bt, half_bt
from layers._vector import LANES

ZERO = np.float32(0)
settle = panelwise(lambda e, y, v, bias, low: e.at_least(low, e.ir.fadd(v, bias)), 3)
passed = panelwise(lambda e, d, dy, y, low: e.where_more(y, low, dy), 3)


class Shape(NamedTuple):
    """The numbers of one convolution, for the kernels."""

    H: int  # image: rows, columns, channels
    W: int
    channels: int
    c0: int  # the C channels from here take part
    C: int
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
    kind: int  # the number of (m, r) in KINDS
    lanes: int  # channels of all phases, in DP panels
    DP: int
    phases: int  # phases in a direction if each has panels of its own, else 1
    full: int  # of these, how many have r taps in a direction; the others have less
    down: int  # rows of tiles of an image
    across: int  # tiles in a row


def shape(image, out, c0: int, C: int, k0: int, K: int, F: int, s: int, p: int, m: int) -> Shape:
    """The Shape of a convolution of maps (H, W, channels) with tiles of m x m outputs."""
    (H, W, channels), (OH, OW, filters) = image, out
    r, lanes = -(-F // s), s * s * C
    phases, full = (s, (F - 1) % s + 1) if C % PANEL == 0 else (1, 1)
    return Shape(H, W, channels, c0, C, OH, OW, filters, k0, K, -(-K // PANEL), F, s, p,
                 m + r - 1, m, r, KINDS.index((m, r)), lanes, -(-lanes // PANEL), phases, full,
                 -(-OH // m), -(-OW // m))  # fmt: skip


@helper()
def place(vectors, i, step):
    """The address of vector i * step of an array (..., PANEL)."""
    return vectors.ctypes.data + 4 * PANEL * i * step


@helper()
def tile_at(f, t):
    """(image, row, column) of a tile."""
    return t // (f.down * f.across), t // f.across % f.down, t % f.across


@helper()
def mixed(z, n):
    """The points in an order that spreads those at infinity, which have less to do."""
    return z * 11 % (n * n)  # 11 has no factor in common with 6, 7 or 8


# ---------------------------------------------------------------- between maps and points


@helper()
def to_v(x, V, f, first, start, end, dp):
    """x (N, H, W, channels) -> panel dp of V, tiles start..end - 1."""
    n, s, H, W = f.n, f.s, f.H, f.W
    to_point = V.size // (n * n)
    patch, half = np.zeros((n, n, PANEL), np.float32), np.empty((n, n, PANEL), np.float32)
    phase, c = dp * PANEL // f.C, dp * PANEL % f.C
    alone = c + PANEL <= f.C  # in its panel
    for t in range(start, end):
        image, i, j = tile_at(f, first + t)
        y0, x0 = s * f.m * i + phase // s - f.p, s * f.m * j + phase % s - f.p
        if alone and min(y0, x0) >= 0 and max(y0 - H, x0 - W) + s * (n - 1) < 0:
            src = x.ctypes.data + 4 * (((image * H + y0) * W + x0) * f.channels + f.c0 + c)
            down, right = s * W * f.channels, s * f.channels
            for q in range(n, n + f.m):  # the columns that the next tile has and this has not
                for v in range(n):
                    prefetch(src + 4 * (q * right + v * down))
        else:
            gather(x, patch, f, image, i, j, dp)
            src, down, right = place(patch, 0, 1), n * PANEL, PANEL
        to = V.ctypes.data + 4 * (dp * V.shape[2] + t) * PANEL
        if f.lanes <= LANES:
            for q in range(n):
                half_bt(f.kind, src + 4 * q * right, down, place(half, q, 1), n * PANEL)
            for q in range(n):
                half_bt(f.kind, place(half, q, n), PANEL, to + 4 * q * n * to_point, to_point)
            continue
        for q in range(n):
            bt(f.kind, src + 4 * q * right, down, place(half, q, 1), n * PANEL)
        for q in range(n):
            bt(f.kind, place(half, q, n), PANEL, to + 4 * q * n * to_point, to_point)


@helper()
def run_of(f, dp, lane):
    """(phase, channel, how many more lanes are of this phase) from a lane of panel dp."""
    d = dp * PANEL + lane
    return d // f.C, d % f.C, min(PANEL - lane, f.C - d % f.C)


@helper()
def gather(x, patch, f, image, i, j, dp):
    """The n x n pixels of each phase of a tile; zero where there is none.

    Lanes that hold no channel are left as they are.
    """
    n, s, lane, flat, out = f.n, f.s, 0, x.reshape(-1), patch.reshape(-1)
    while lane < min(PANEL, f.lanes - dp * PANEL):
        phase, c, count = run_of(f, dp, lane)
        y0, x0 = s * f.m * i + phase // s - f.p, s * f.m * j + phase % s - f.p
        L = np.uintp(count)
        for v in range(n):
            row = (image * f.H + y0 + s * v) * f.W
            there = 0 <= y0 + s * v < f.H
            for u in range(n):
                to = np.uintp((v * n + u) * PANEL + lane)
                if there and 0 <= x0 + s * u < f.W:
                    src = np.uintp((row + x0 + s * u) * f.channels + f.c0 + c)
                    for k in range(L):
                        out[to + k] = flat[src + k]
                else:
                    for k in range(L):
                        out[to + k] = ZERO
        lane += count


@helper()
def to_dx(dV, dx, f, first, start, end, dp):
    """The adjoint of to_v: dx += B dV B^T."""
    n, lanes = f.n, min(PANEL, f.lanes - dp * PANEL)
    to_point = dV.size // (n * n)
    patch, half = np.empty((n, n, PANEL), np.float32), np.empty((n, n, PANEL), np.float32)
    for t in range(start, end):
        image, i, j = tile_at(f, first + t)
        for q in range(n):
            src = dV.ctypes.data + 4 * (q * n * to_point + (dp * dV.shape[2] + t) * PANEL)
            b(f.kind, src, to_point, place(half, q, n), PANEL)
        for q in range(n):
            b(f.kind, place(half, q, 1), n * PANEL, place(patch, q, 1), n * PANEL)
        lane = 0
        while lane < lanes:
            phase, c, count = run_of(f, dp, lane)
            scatter(dx, patch, f, image, i, j, phase, c, lane, count)
            lane += count


@helper()
def scatter(dx, patch, f, image, i, j, phase, c, lane, count):
    """dx += patch, for the channels from c of one phase."""
    n, s = f.n, f.s
    y0, x0 = s * f.m * i + phase // s - f.p, s * f.m * j + phase % s - f.p
    for v in range(max(0, -(y0 // s)), min(n, (f.H - 1 - y0) // s + 1)):
        for u in range(max(0, -(x0 // s)), min(n, (f.W - 1 - x0) // s + 1)):
            y, xx = y0 + s * v, x0 + s * u
            if count == PANEL:
                to = dx.ctypes.data + 4 * (((image * f.H + y) * f.W + xx) * f.channels + f.c0 + c)
                prefetch(to + 4 * s * f.m * f.channels)  # of the next tile
                add(to, place(patch, v * n + u, 1))
            else:
                l0, c0 = np.uintp(lane), np.uintp(f.c0 + c)
                for k in range(np.uintp(count)):
                    dx[image, y, xx, c0 + k] += patch[v, u, l0 + k]


@helper()
def zero_lanes(dx, image, f, dp):
    """The pixels of an image that panel dp adds to."""
    s, lane = f.s, 0
    while lane < min(PANEL, f.lanes - dp * PANEL):
        phase, c, count = run_of(f, dp, lane)
        c0, L = np.uintp(f.c0 + c), np.uintp(count)
        for y in range((phase // s - f.p) % s, f.H, s):
            for x in range((phase % s - f.p) % s, f.W, s):
                for k in range(L):
                    dx[image, y, x, c0 + k] = ZERO
        lane += count


@helper()
def to_y(M, bias, low, y, f, first, start, end, kp0, kp1):
    """y (N, OH, OW, filters) = max(low, A^T M A + bias), panels kp0..kp1 - 1."""
    m, n = f.m, f.n
    half, out = np.empty((m, n, PANEL), np.float32), np.empty((m, PANEL), np.float32)
    lows = np.full(PANEL, low)
    for z in range((end - start) * (kp1 - kp0)):
        t, kp = start + z // (kp1 - kp0), kp0 + z % (kp1 - kp0)
        image, i, j = tile_at(f, first + t)
        k0, L = f.k0 + kp * PANEL, np.uintp(min(PANEL, f.K - kp * PANEL))
        for q in range(n):
            src = M.ctypes.data + 4 * PANEL * ((q * f.KP + kp) * M.shape[2] + t)
            at(f.kind, src, n * (M.size // (n * n)), place(half, q, 1), n * PANEL)
        for u in range(min(m, f.OH - m * i)):
            at(f.kind, place(half, u, n), PANEL, out.ctypes.data, PANEL)
            for v in range(min(m, f.OW - m * j)):
                pixel = (image * f.OH + m * i + u) * f.OW + m * j + v
                if L == PANEL:
                    to = y.ctypes.data + 4 * (pixel * f.filters + k0)
                    prefetch(to + 4 * m * f.filters)  # of the next tile
                    settle(to, place(out, v, 1),
                           bias.ctypes.data + 4 * k0, lows.ctypes.data)  # fmt: skip
                    continue
                for k in range(L):
                    number = out[v, k] + bias[np.uintp(k0) + k]
                    number = low if number < low else number
                    y[image, m * i + u, m * j + v, np.uintp(k0) + k] = number


@helper()
def to_m(dy, y, low, M, sums, f, first, start, end, kp0, kp1):
    """Panels of dM = A dy A^T; dy counts where y > low, and is added to sums (KP, PANEL).

    The sum of a tile is its value at the point 1, 1: all powers of 1 are 1.
    """
    m, n = f.m, f.n
    d, half = np.empty((m, m, PANEL), np.float32), np.empty((n, m, PANEL), np.float32)
    lows, masked = np.full(PANEL, low), low > -np.inf  # without a relu a NaN must pass
    for z in range((end - start) * (kp1 - kp0)):
        t, kp = start + z // (kp1 - kp0), kp0 + z % (kp1 - kp0)
        image, i, j = tile_at(f, first + t)
        k0, L = f.k0 + kp * PANEL, np.uintp(min(PANEL, f.K - kp * PANEL))
        if L < PANEL or m * i + m > f.OH or m * j + m > f.OW:
            d[:] = ZERO
        for u in range(min(m, f.OH - m * i)):
            for v in range(min(m, f.OW - m * j)):
                pixel = (image * f.OH + m * i + u) * f.OW + m * j + v
                if L == PANEL:
                    here, off = place(d, u * m + v, 1), 4 * (pixel * f.filters + k0)
                    prefetch(dy.ctypes.data + off + 4 * m * f.filters)  # of the next tile
                    if masked:
                        prefetch(y.ctypes.data + off + 4 * m * f.filters)
                        passed(here, dy.ctypes.data + off, y.ctypes.data + off, lows.ctypes.data)
                    else:
                        copy(here, dy.ctypes.data + off)
                    continue
                for k in range(L):
                    number = dy[image, m * i + u, m * j + v, np.uintp(k0) + k]
                    if masked and not y[image, m * i + u, m * j + v, np.uintp(k0) + k] > low:
                        number = ZERO
                    d[u, v, k] = number
        for q in range(m):
            a(f.kind, place(d, q, 1), m * PANEL, place(half, q, 1), m * PANEL)
        for q in range(n):
            to = M.ctypes.data + 4 * PANEL * ((q * n * f.KP + kp) * M.shape[2] + t)
            a(f.kind, place(half, q, m), PANEL, to, M.size // (n * n))
        ones = ((n + 1) * f.KP + kp) * M.shape[2] + t
        add(place(sums, kp, 1), M.ctypes.data + 4 * PANEL * ones)


# ---------------------------------------------------------------- products at a point


@helper()
def product(V, U, M, f, q, kp, tiles):
    """Panel kp of M = V U at point q."""
    s, n, T, each = f.phases, f.n, V.shape[2], f.DP // (f.phases * f.phases)
    if f.DP == 1:
        column(tiles, 1, f.lanes, V[q, 0].ctypes.data, PANEL, 0, 1, U[q, kp].ctypes.data, PANEL,
               M[q, kp].ctypes.data, PANEL, 0, 0, ZERO)  # fmt: skip
        return
    tall = f.full if q // n == n - 1 else s
    wide = f.full if q % n == n - 1 else s
    whole = wide == s
    for py in range(1 if whole else tall):
        dp = py * s * each
        column(tiles, (tall * s if whole else wide) * each, PANEL, V[q, dp].ctypes.data, PANEL,
               T * PANEL, 1, U[q, kp].ctypes.data + 4 * dp * PANEL * PANEL, PANEL,
               M[q, kp].ctypes.data, PANEL, py, 0, ZERO)  # fmt: skip


@helper()
def add_for_u(V, M, dU, f, q, kp, tiles, more):
    """Panel kp of dU (+)= V^T dM at point q."""
    each = f.DP // (f.phases * f.phases)
    for dp in range(f.DP):
        if there(q, dp // each, f.n, f.phases, f.full):
            to = dU[q, kp].ctypes.data + 4 * dp * PANEL * PANEL
            column(min(PANEL, f.lanes - dp * PANEL), 1, tiles, V[q, dp].ctypes.data, 1, 0, PANEL,
                   M[q, kp].ctypes.data, PANEL, to, PANEL, more, 0, ZERO)  # fmt: skip


@helper()
def for_v(M, UT, dV, f, q, dp, tiles):
    """Panel dp of dV = dM U^T at point q; zero where a phase has no product."""
    each = f.DP // (f.phases * f.phases)
    if there(q, dp // each, f.n, f.phases, f.full):
        column(tiles, f.KP, PANEL, M[q].ctypes.data, PANEL, M.shape[2] * PANEL, 1,
               UT[q, dp].ctypes.data, PANEL, dV[q, dp].ctypes.data, PANEL, 0, 0, ZERO)  # fmt: skip
    else:
        dV[q, dp] = ZERO


@helper()
def there(q, phase, n, s, full):
    """Whether a phase has a product at point q."""
    return (q // n < n - 1 or phase // s < full) and (q % n < n - 1 or phase % s < full)
