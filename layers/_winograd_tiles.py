"""The steps of layers/_winograd.py for some tiles and one panel: what its kernels are made of.

V (points^2, DP, tiles, PANEL), U (points^2, KP, DP * PANEL, PANEL) and M (points^2, KP, tiles,
PANEL) are cut in panels as the tiles of _tile.py read them. DP panels hold the channels of all
phases, phase by phase (`lanes` of them), KP panels the filters; lanes with nothing hold zeros.
layers/_winograd_grid.py says which tiles there are, and in which order.
"""

import numpy as np

from convnet.kernel import helper
from layers._tile import PANEL, add, column, copy, copy_half, panelwise, prefetch
from layers._transforms import AT_ONE, a, at, b, bt, half_bt
from layers._vector import LANES
from layers._winograd_grid import extent, spot

ZERO = np.float32(0)
settle = panelwise(lambda e, y, v, bias, low: e.at_least(low, e.ir.fadd(v, bias)), 3)
passed = panelwise(lambda e, d, dy, y, low: e.where_more(y, low, dy), 3)


@helper()
def place(vectors, i, step):
    """The address of vector i * step of an array (..., PANEL)."""
    return vectors.ctypes.data + 4 * PANEL * i * step


@helper()
def mixed(z, n):
    """The points in an order that spreads those at infinity, which have less to do."""
    return z * 19 % (n * n)  # 19 has no factor in common with 6, 7 or 8


# ---------------------------------------------------------------- between maps and points


@helper()
def to_v(x, V, f, B, line, dp):
    """x (N, H, W, channels) -> panel dp of V, a line of tiles."""
    n, s, H, W = f.n, f.s, f.H, f.W
    to_point, image = V.size // (n * n), line // f.down
    half, room = np.empty((n, n, PANEL), np.float32), np.zeros((n * n + 1) * PANEL, np.float32)
    patch = room[: n * n * PANEL].reshape(n, n, PANEL)  # what may be written over behind it
    phase, c = dp * PANEL // f.C, dp * PANEL % f.C
    alone = c + PANEL <= f.C  # in its panel
    oy, tall = extent(f, line % f.down, f.tall)
    for j in range(B.column, B.column + B.columns):
        t, (ox, wide) = spot(f, B, line, j), extent(f, j, f.wide)
        y0, x0 = s * oy + phase // s - f.p, s * ox + phase % s - f.p
        below, behind = y0 + s * (tall.n - 1) - H, x0 + s * (wide.n - 1) - W
        if alone and min(y0, x0) >= 0 and max(below, behind) < 0:
            src = x.ctypes.data + 4 * (((image * H + y0) * W + x0) * f.channels + f.c0 + c)
            down, right = s * W * f.channels, s * f.channels
            for u in range(wide.n, wide.n + wide.m):  # what the next tile has and this has not
                for v in range(tall.n):
                    prefetch(src + 4 * (u * right + v * down))
        else:
            gather(x, patch, f, image, oy, ox, tall.n, wide.n, dp)
            src, down, right = place(patch, 0, 1), n * PANEL, PANEL
        to = V.ctypes.data + 4 * (dp * V.shape[2] + t) * PANEL
        mid, row = place(half, 0, 1), n * PANEL
        if f.lanes <= LANES:
            half_bt(tall.kind, wide.n, src, right, down, mid, PANEL, row)
            half_bt(wide.kind, tall.n, mid, row, PANEL, to, n * to_point, to_point)
        else:
            bt(tall.kind, wide.n, src, right, down, mid, PANEL, row)
            bt(wide.kind, tall.n, mid, row, PANEL, to, n * to_point, to_point)


@helper()
def run_of(f, dp, lane):
    """(phase, channel, how many more lanes are of this phase) from a lane of panel dp."""
    d = dp * PANEL + lane
    return d // f.C, d % f.C, min(PANEL - lane, f.C - d % f.C)


@helper()
def gather(x, patch, f, image, oy, ox, rows, columns, dp):
    """The pixels of each phase that a tile takes, from output oy, ox on; zero where there is none.

    Lanes that hold no channel may hold anything.
    """
    if gather_runs(x, patch, f, image, oy, ox, rows, columns):
        return
    n, s, lane, flat, out = f.n, f.s, 0, x.reshape(-1), patch.reshape(-1)
    while lane < min(PANEL, f.lanes - dp * PANEL):
        phase, c, count = run_of(f, dp, lane)
        y0, x0 = s * oy + phase // s - f.p, s * ox + phase % s - f.p
        L = np.uintp(count)
        for v in range(rows):
            row = (image * f.H + y0 + s * v) * f.W
            there = 0 <= y0 + s * v < f.H
            for u in range(columns):
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
def gather_runs(x, patch, f, image, oy, ox, rows, columns):
    """The same, where all is in the image and in one panel: whether that is so.

    The phases of a row, s pixels side by side with all their channels, are a run of lanes. It is
    copied in whole vectors; the next run covers what is too much.
    """
    s, run, y0, x0 = f.s, f.s * f.C, f.s * oy - f.p, f.s * ox - f.p
    below, behind = y0 + s * rows, x0 + s * columns
    end = ((image * f.H + below - 1) * f.W + behind) * f.C + LANES
    if min(y0, x0) < 0 or below > f.H or behind > f.W or end > x.size:
        return False
    if f.lanes > PANEL or f.channels > f.C:
        return False
    for v in range(rows):
        for u in range(columns):
            src = x.ctypes.data + 4 * (((image * f.H + y0 + s * v) * f.W + x0 + s * u) * f.C)
            to = place(patch, v * f.n + u, 1)
            for y in range(s):
                for k in range(0, run, LANES):
                    copy_half(to + 4 * (y * run + k), src + 4 * (y * f.W * f.C + k))
    return True


@helper()
def to_dx(dV, dx, f, B, line, dp):
    """The adjoint of to_v: dx += B dV B^T."""
    n, lanes = f.n, min(PANEL, f.lanes - dp * PANEL)
    to_point, image = dV.size // (n * n), line // f.down
    patch, half = np.empty((n, n, PANEL), np.float32), np.empty((n, n, PANEL), np.float32)
    oy, tall = extent(f, line % f.down, f.tall)
    for j in range(B.column, B.column + B.columns):
        t, (ox, wide) = spot(f, B, line, j), extent(f, j, f.wide)
        src, mid, row = (
            dV.ctypes.data + 4 * (dp * dV.shape[2] + t) * PANEL,
            place(half, 0, 1),
            n * PANEL,
        )
        b(wide.kind, tall.n, src, n * to_point, to_point, mid, row, PANEL)
        b(tall.kind, wide.n, mid, PANEL, row, place(patch, 0, 1), PANEL, row)
        lane = 0
        while lane < lanes:
            phase, c, count = run_of(f, dp, lane)
            y0, x0 = f.s * oy + phase // f.s - f.p, f.s * ox + phase % f.s - f.p
            scatter(dx, patch, f, image, y0, x0, tall.n, wide, c, lane, count)
            lane += count


@helper()
def scatter(dx, patch, f, image, y0, x0, rows, wide, c, lane, count):
    """dx += patch from pixel y0, x0 on, for the channels from c of one phase."""
    s = f.s
    for v in range(max(0, -(y0 // s)), min(rows, (f.H - 1 - y0) // s + 1)):
        for u in range(max(0, -(x0 // s)), min(wide.n, (f.W - 1 - x0) // s + 1)):
            y, xx = y0 + s * v, x0 + s * u
            if count == PANEL:
                to = dx.ctypes.data + 4 * (((image * f.H + y) * f.W + xx) * f.channels + f.c0 + c)
                prefetch(to + 4 * s * wide.m * f.channels)  # of the next tile
                add(to, place(patch, v * f.n + u, 1))
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
def to_y(M, bias, low, y, f, B, line, kp0, kp1):
    """y (N, OH, OW, filters) = max(low, A^T M A + bias), panels kp0..kp1 - 1 of a line of tiles."""
    m, n, image, to_point = f.large.m, f.n, line // f.down, M.size // (f.n * f.n)
    half, out = np.empty((m, n, PANEL), np.float32), np.empty((m, m, PANEL), np.float32)
    lows = np.full(PANEL, low)
    oy, tall = extent(f, line % f.down, f.tall)
    for z in range(B.columns * (kp1 - kp0)):
        j, kp = B.column + z // (kp1 - kp0), kp0 + z % (kp1 - kp0)
        t, (ox, wide) = spot(f, B, line, j), extent(f, j, f.wide)
        k0, L = f.k0 + kp * PANEL, np.uintp(min(PANEL, f.K - kp * PANEL))
        rows, columns = min(tall.m, f.OH - oy), min(wide.m, f.OW - ox)
        src, mid, row = (
            M.ctypes.data + 4 * (kp * M.shape[2] + t) * PANEL,
            place(half, 0, 1),
            n * PANEL,
        )
        at(tall.kind, wide.n, src, to_point, n * to_point, mid, PANEL, row)
        at(wide.kind, rows, mid, row, PANEL, place(out, 0, 1), m * PANEL, PANEL)
        for u in range(rows):
            for v in range(columns):
                pixel = (image * f.OH + oy + u) * f.OW + ox + v
                if L == PANEL:
                    to = y.ctypes.data + 4 * (pixel * f.filters + k0)
                    prefetch(to + 4 * wide.m * f.filters)  # of the next tile
                    settle(to, place(out, u * m + v, 1),
                           bias.ctypes.data + 4 * k0, lows.ctypes.data)  # fmt: skip
                    continue
                for k in range(L):
                    number = out[u, v, k] + bias[np.uintp(k0) + k]
                    number = low if number < low else number
                    y[image, oy + u, ox + v, np.uintp(k0) + k] = number


@helper()
def to_m(dy, y, low, M, sums, f, B, line, kp0, kp1):
    """Panels of dM = A dy A^T; dy counts where y > low, and is added to sums (KP, PANEL).

    The sum of a tile is its value at the point 1, 1: all powers of 1 are 1.
    """
    m, n, image, to_point = f.large.m, f.n, line // f.down, M.size // (f.n * f.n)
    d, half = np.empty((m, m, PANEL), np.float32), np.empty((n, m, PANEL), np.float32)
    lows, masked = np.full(PANEL, low), low > -np.inf  # without a relu a NaN must pass
    oy, tall = extent(f, line % f.down, f.tall)
    for z in range(B.columns * (kp1 - kp0)):
        j, kp = B.column + z // (kp1 - kp0), kp0 + z % (kp1 - kp0)
        t, (ox, wide) = spot(f, B, line, j), extent(f, j, f.wide)
        k0, L = f.k0 + kp * PANEL, np.uintp(min(PANEL, f.K - kp * PANEL))
        if L < PANEL or oy + tall.m > f.OH or ox + wide.m > f.OW:
            d[:] = ZERO
        for u in range(min(tall.m, f.OH - oy)):
            for v in range(min(wide.m, f.OW - ox)):
                pixel = (image * f.OH + oy + u) * f.OW + ox + v
                if L == PANEL:
                    here, off = place(d, u * m + v, 1), 4 * (pixel * f.filters + k0)
                    prefetch(dy.ctypes.data + off + 4 * wide.m * f.filters)  # of the next tile
                    if masked:
                        prefetch(y.ctypes.data + off + 4 * wide.m * f.filters)
                        passed(here, dy.ctypes.data + off, y.ctypes.data + off, lows.ctypes.data)
                    else:
                        copy(here, dy.ctypes.data + off)
                    continue
                for k in range(L):
                    number = dy[image, oy + u, ox + v, np.uintp(k0) + k]
                    if masked and not y[image, oy + u, ox + v, np.uintp(k0) + k] > low:
                        number = ZERO
                    d[u, v, k] = number
        to, mid, row = (
            M.ctypes.data + 4 * (kp * M.shape[2] + t) * PANEL,
            place(half, 0, 1),
            m * PANEL,
        )
        a(tall.kind, wide.m, place(d, 0, 1), PANEL, row, mid, PANEL, row)
        a(wide.kind, tall.n, mid, row, PANEL, to, n * to_point, to_point)
        add(place(sums, kp, 1), to + 4 * AT_ONE * (n + 1) * to_point)


# ---------------------------------------------------------------- products at a point


@helper()
def panel(points, q, p, row):
    """The address of a row of panel p at point q; a slice would count references."""
    return points.ctypes.data + 4 * PANEL * ((q * points.shape[1] + p) * points.shape[2] + row)


@helper()
def product(V, U, M, f, P, kp):
    """Panel kp of M = V U at a point."""
    if P.first == P.end:
        return
    tiles, T, to = P.end - P.first, V.shape[2], panel(M, P.q, kp, P.first)
    if f.DP == 1:
        column(tiles, 1, f.lanes, panel(V, P.q, 0, P.first), PANEL, 0, 1, panel(U, P.q, kp, 0),
               PANEL, to, PANEL, 0, 0, ZERO)  # fmt: skip
        return
    whole = P.wide == f.phases
    for py in range(1 if whole else P.tall):
        dp = py * f.phases * f.each
        panels = (P.tall * f.phases if whole else P.wide) * f.each
        column(tiles, panels, PANEL, panel(V, P.q, dp, P.first), PANEL, T * PANEL, 1,
               panel(U, P.q, kp, dp * PANEL), PANEL, to, PANEL, py, 0, ZERO)  # fmt: skip


@helper()
def add_for_u(V, M, dU, f, P, kp, more):
    """Panel kp of dU (+)= V^T dM at a point."""
    if P.first == P.end:
        if not more:
            dU[P.q, kp] = ZERO
        return
    for py in range(P.tall):
        for px in range(P.wide):
            begin = (py * f.phases + px) * f.each
            for dp in range(begin, begin + f.each):
                column(min(PANEL, f.lanes - dp * PANEL), 1, P.end - P.first,
                       panel(V, P.q, dp, P.first), 1, 0, PANEL, panel(M, P.q, kp, P.first), PANEL,
                       panel(dU, P.q, kp, dp * PANEL), PANEL, more, 0, ZERO)  # fmt: skip


@helper()
def for_v(M, UT, dV, f, P, dp):
    """Panel dp of dV = dM U^T at a point; zero where a phase has no product."""
    if P.first == P.end:
        return
    py, px = dp // f.each // f.phases, dp // f.each % f.phases
    if py < P.tall and px < P.wide:
        column(P.end - P.first, f.KP, PANEL, panel(M, P.q, 0, P.first), PANEL, M.shape[2] * PANEL,
               1, panel(UT, P.q, dp, 0), PANEL, panel(dV, P.q, dp, P.first), PANEL, 0, 0,
               ZERO)  # fmt: skip
    else:
        dV[P.q, dp] = ZERO
