"""The bins of a spatial pyramid, for type=spp and for pools that stand for one of its levels.

A window is a rectangle of cells of one of the maps: image, top, left, bottom, right, the last two
excluded. Level n cuts it into n x n bins; of a window of H x W cells bin (p, q) is rows
[floor(p*H/n), ceil((p+1)*H/n)) and the like in columns (SPP-net, He et al. 2014, appendix A). Bins
overlap by at most one row or column where n does not divide the side; in a window smaller than n
several bins are the same cell; none is ever empty. Row r lies in the bins p from floor(r*n/H) to
ceil((r+1)*n/H) - 1, which is how the backward passes gather.

x is (N, H, W, C), windows (K, 5) int32 on the device, those of an image together and the images in
order; y is (K, bins, C), the levels one behind the other, each row by row. Where several cells of
a bin equal what it kept, each gets the full gradient; a NaN in a bin makes its output NaN.

Where one level divides the finest, n = m * k, its bins are unions of m x m of the finest ones: the
CPU takes their maxima from these, which is the same number for a fraction of the reads.
"""

import math

import numpy as np

from convnet.kernel import kernel, prange


def link(layer, producers: list) -> list[str]:
    """Layer.link of a layer over a map, or over a map and windows. ValueError for anything else."""
    if len(producers) == 2 and getattr(producers[1], "dataIdx", None) != 2:
        raise ValueError(
            f"type={layer.type} reads 1 layer, or 1 and windows, which are type=data dataIdx=2; "
            f"{producers[1].name!r} is none"
        )
    return []


def pyramid(run, x, windows, levels: list[int], keep: str, shape: tuple):
    """The bins of all levels of windows (K, 1, 1, 5), or of all of each map where that is None.

    keep is max, maxabs or avg, shape that of the output for a window.
    """
    xp, image = run.xp, x.shape[1:]
    windows = _whole(run, x) if windows is None else _checked(windows, x.shape)
    plan = run.device.array(_plan(levels, keep))
    begins = xp.searchsorted(windows[:, 0], xp.arange(len(x) + 1)).astype(np.int32)
    y = run.empty((len(windows), math.prod(shape) // x.shape[3], x.shape[3]), x.dtype)
    bins = y.shape[1]
    kept = () if keep == "avg" else (x, y)
    if keep == "avg":
        bins_avg[y.size](x, windows, plan, y, *image, bins)
    else:
        bins_max[y.size](x, windows, plan, y, *image, bins, int(keep == "maxabs"))

    def bprop(dy, wants):
        if 0 not in wants:
            return [None], {}
        dy, dx = dy.reshape(len(windows), bins, -1), run.empty((len(begins) - 1, *image), dy.dtype)
        if keep == "avg":
            bins_avg_back[dx.size](dy, windows, begins, plan, dx, *image, len(plan), bins)
        else:
            bins_max_back[dx.size](*kept, dy, windows, begins, plan, dx, *image, len(plan), bins)
        return [dx], {}

    return y.reshape(len(windows), *shape), bprop


def onnx(g, x, n: int, keep: str):
    """Level n of whole maps as nodes of ONNX: a pool whose windows are the bins, else cuts."""
    maps, (H, W, C) = g.maps(x), x.shape
    cuts = [[(i * side // n, -(-(i + 1) * side // n)) for i in range(n)] for side in (H, W)]
    sizes, strides = [one[0][1] for one in cuts], [one[1 % n][0] or 1 for one in cuts]
    even = all(
        one == [(i * step, i * step + size) for i in range(n)]
        for one, size, step in zip(cuts, sizes, strides)
    )

    def pooled(kind: str, maps: str) -> str:
        if even:
            word = {"Max": "MaxPool", "Mean": "AveragePool"}[kind]
            return g.op(word, maps, kernel_shape=sizes, strides=strides)
        for axis, bins in zip((2, 3), cuts):
            parts = []
            for first, last in bins:
                part = g.op("Slice", maps, g.const([first]), g.const([last]), g.const([axis]))
                parts.append(g.op(f"Reduce{kind}", part, axes=[axis], keepdims=1))
            maps = g.op("Concat", *parts, axis=axis)
        return maps

    if keep == "avg":
        return g.value(pooled("Mean", maps), (n, n, C))
    return g.value(onnx_max(g, maps, keep, lambda maps: pooled("Max", maps)), (n, n, C))


def onnx_max(g, maps: str, keep: str, pooled) -> str:
    """What max, or maxabs, keeps as nodes of ONNX; pooled(maps): the largest numbers."""
    most = pooled(maps)
    if keep == "max":
        return most
    least = g.op("Neg", pooled(g.op("Neg", maps)))
    both = g.op("Add", most, least)  # of +a and -a it keeps +a
    return g.op("Where", g.op("GreaterOrEqual", both, g.const(0.0)), most, least)


def _whole(run, x):
    """Each map of x as one window."""
    N, H, W, _ = x.shape
    rows = np.zeros((N, 5), np.int32)
    rows[:, 0], rows[:, 3], rows[:, 4] = np.arange(N), H, W
    return run.device.array(rows)


def _checked(windows, maps: tuple):
    """Windows (K, 1, 1, 5) as (K, 5). ValueError where one does not lie in maps of this shape."""
    rows, (N, H, W, _) = windows.reshape(len(windows), 5), maps
    image, top, left, bottom, right = rows.T
    inside = (image >= 0) & (image < N) & (top >= 0) & (left >= 0) & (bottom <= H) & (right <= W)
    wrong = ~(inside & (top < bottom) & (left < right))
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"window {first} is {rows[first].tolist()} (image, top, left, bottom, right), which is "
            f"not inside {N} maps of {H}x{W} cells"
        )
    if (image[1:] < image[:-1]).any():
        raise ValueError("windows must come in the order of their images")
    return rows


def _plan(levels: list[int], keep: str) -> np.ndarray:
    """Of each level: its n, its first bin, and n and first bin of the level that it is made of.

    The last two are 0 where that is the map itself; the finest level comes first.
    """
    begins = np.cumsum([0, *(n * n for n in levels)])
    finest = int(np.argmax(levels))
    rows = [(levels[finest], begins[finest], 0, 0)]
    for i, n in enumerate(levels):
        if i != finest:
            made = keep == "max" and levels[finest] % n == 0
            rows.append((n, begins[i], *(rows[0][:2] if made else (0, 0))))
    return np.array(rows, np.int32)


# What every CUDA body begins with: c, bin b -> the level, its bin, the rectangle of cells
RECTANGLE = r"""
        int j = 0;
        while (b < plan[4 * j + 1] || b >= plan[4 * j + 1] + plan[4 * j] * plan[4 * j]) ++j;
        int m = plan[4 * j], p = (b - plan[4 * j + 1]) / m, q = (b - plan[4 * j + 1]) % m;
        const int* at = windows + 5 * k;
        int h = at[3] - at[1], w = at[4] - at[2];
        int top = at[1] + p * h / m, bottom = at[1] + ((p + 1) * h + m - 1) / m;
        int left = at[2] + q * w / m, right = at[2] + ((q + 1) * w + m - 1) / m;
        const T* map = x + (size_t)at[0] * H * W * C;
"""


@kernel(
    cuda=r"""
__global__ void bins_max(int n, const T* x, const int* windows, const int* plan, T* y, int H, int W,
                         Div C, Div bins, int magnitude) {
    FOR(i, n) {
        int c = i % C, b = i / C % bins, k = i / C / bins;"""
    + RECTANGLE
    + r"""
        T best = map[(top * W + left) * C + c];
        for (int r = top; r < bottom; ++r)
            for (int s = left; s < right; ++s) {
                T v = map[(r * W + s) * C + c];
                T u = magnitude ? fabs(v) : v, t = magnitude ? fabs(best) : best;
                if (u > t || (u == t && v > best) || v != v) best = v;
            }
        y[i] = best;
    }
}"""
)
def bins_max(x, windows, plan, y, H, W, C, bins, magnitude):
    """Of every bin the largest number, or the one of largest magnitude (+ before - in a tie)."""
    for k in prange(windows.shape[0]):
        n, top, left = windows[k, 0], windows[k, 1], windows[k, 2]
        h, w = windows[k, 3] - top, windows[k, 4] - left
        for j in range(plan.shape[0]):
            m, b, finest, first = plan[j, 0], plan[j, 1], plan[j, 2], plan[j, 3]
            for i in range(m * m):
                p, q = i // m, i % m
                if finest:
                    step = finest // m
                    at = first + p * step * finest + q * step
                    for c in range(C):
                        y[k, b + i, c] = y[k, at, c]
                    for t in range(1, step * step):
                        u = at + t // step * finest + t % step
                        for c in range(C):
                            v, best = y[k, u, c], y[k, b + i, c]
                            y[k, b + i, c] = v if (v > best) | (v != v) else best
                    continue
                r0, r1 = top + p * h // m, top + ((p + 1) * h + m - 1) // m
                s0, s1 = left + q * w // m, left + ((q + 1) * w + m - 1) // m
                for c in range(C):
                    y[k, b + i, c] = x[n, r0, s0, c]
                for r in range(r0, r1):
                    for s in range(s0, s1):
                        if magnitude:
                            for c in range(C):
                                v, best = x[n, r, s, c], y[k, b + i, c]
                                size, most = abs(v), abs(best)
                                more = (size > most) | ((size == most) & (v > best)) | (v != v)
                                y[k, b + i, c] = v if more else best
                        else:
                            for c in range(C):
                                v, best = x[n, r, s, c], y[k, b + i, c]
                                y[k, b + i, c] = v if (v > best) | (v != v) else best


@kernel(
    cuda=r"""
__global__ void bins_avg(int n, const T* x, const int* windows, const int* plan, T* y, int H, int W,
                         Div C, Div bins) {
    FOR(i, n) {
        int c = i % C, b = i / C % bins, k = i / C / bins;"""
    + RECTANGLE
    + r"""
        T sum = 0;
        for (int r = top; r < bottom; ++r)
            for (int s = left; s < right; ++s) sum += map[(r * W + s) * C + c];
        y[i] = sum / T((bottom - top) * (right - left));
    }
}"""
)
def bins_avg(x, windows, plan, y, H, W, C, bins):
    """The mean of every bin."""
    for k in prange(windows.shape[0]):
        n, top, left = windows[k, 0], windows[k, 1], windows[k, 2]
        h, w = windows[k, 3] - top, windows[k, 4] - left
        for j in range(plan.shape[0]):
            m, b = plan[j, 0], plan[j, 1]
            for i in range(m * m):
                p, q = i // m, i % m
                r0, r1 = top + p * h // m, top + ((p + 1) * h + m - 1) // m
                s0, s1 = left + q * w // m, left + ((q + 1) * w + m - 1) // m
                for c in range(C):
                    y[k, b + i, c] = 0
                for r in range(r0, r1):
                    for s in range(s0, s1):
                        for c in range(C):
                            y[k, b + i, c] += x[n, r, s, c]
                area = x.dtype.type((r1 - r0) * (s1 - s0))
                for c in range(C):
                    y[k, b + i, c] /= area


@kernel(
    cuda=r"""
__global__ void bins_max_back(int n, const T* x, const T* y, const T* dy, const int* windows,
                              const int* begins, const int* plan, T* dx, Div H, Div W, Div C,
                              int count, int bins) {
    FOR(i, n) {
        int c = i % C, column = i / C % W, row = i / C / W % H, image = i / C / W / H;
        T sum = 0;
        for (int k = begins[image]; k < begins[image + 1]; ++k) {
            const int* at = windows + 5 * k;
            int h = at[3] - at[1], w = at[4] - at[2], r = row - at[1], s = column - at[2];
            if (r < 0 || r >= h || s < 0 || s >= w) continue;
            for (int j = 0; j < count; ++j) {
                int m = plan[4 * j], b = k * bins + plan[4 * j + 1];
                for (int p = r * m / h; p <= ((r + 1) * m - 1) / h; ++p)
                    for (int q = s * m / w; q <= ((s + 1) * m - 1) / w; ++q) {
                        int o = (b + p * m + q) * C + c;
                        if (x[i] == y[o]) sum += dy[o];
                    }
            }
        }
        dx[i] = sum;
    }
}"""
)
def bins_max_back(x, y, dy, windows, begins, plan, dx, H, W, C, count, bins):
    """Each cell collects the gradients of the bins that kept a number equal to it."""
    zero = x.dtype.type(0)
    for i in prange(x.shape[0] * H):
        n, row = i // H, i % H
        for s in range(W):
            for c in range(C):
                dx[n, row, s, c] = zero
        for k in range(begins[n], begins[n + 1]):
            top, left = windows[k, 1], windows[k, 2]
            h, w, r = windows[k, 3] - top, windows[k, 4] - left, row - top
            if r < 0 or r >= h:
                continue
            for j in range(count):
                m, b = plan[j, 0], plan[j, 1]
                for p in range(r * m // h, ((r + 1) * m - 1) // h + 1):
                    for q in range(m):
                        o = b + p * m + q
                        for s in range(left + q * w // m, left + ((q + 1) * w + m - 1) // m):
                            for c in range(C):
                                kept = x[n, row, s, c] == y[k, o, c]
                                dx[n, row, s, c] += dy[k, o, c] if kept else zero


@kernel(
    cuda=r"""
__global__ void bins_avg_back(int n, const T* dy, const int* windows, const int* begins,
                              const int* plan, T* dx, Div H, Div W, Div C, int count, int bins) {
    FOR(i, n) {
        int c = i % C, column = i / C % W, row = i / C / W % H, image = i / C / W / H;
        T sum = 0;
        for (int k = begins[image]; k < begins[image + 1]; ++k) {
            const int* at = windows + 5 * k;
            int h = at[3] - at[1], w = at[4] - at[2], r = row - at[1], s = column - at[2];
            if (r < 0 || r >= h || s < 0 || s >= w) continue;
            for (int j = 0; j < count; ++j) {
                int m = plan[4 * j], b = k * bins + plan[4 * j + 1];
                for (int p = r * m / h; p <= ((r + 1) * m - 1) / h; ++p)
                    for (int q = s * m / w; q <= ((s + 1) * m - 1) / w; ++q) {
                        int rows = ((p + 1) * h + m - 1) / m - p * h / m;
                        int columns = ((q + 1) * w + m - 1) / m - q * w / m;
                        sum += dy[(b + p * m + q) * C + c] / T(rows * columns);
                    }
            }
        }
        dx[i] = sum;
    }
}"""
)
def bins_avg_back(dy, windows, begins, plan, dx, H, W, C, count, bins):
    """Each cell collects its share of every bin that it lies in."""
    for i in prange(dx.shape[0] * H):
        n, row = i // H, i % H
        for s in range(W):
            for c in range(C):
                dx[n, row, s, c] = 0
        for k in range(begins[n], begins[n + 1]):
            top, left = windows[k, 1], windows[k, 2]
            h, w, r = windows[k, 3] - top, windows[k, 4] - left, row - top
            if r < 0 or r >= h:
                continue
            for j in range(count):
                m, b = plan[j, 0], plan[j, 1]
                for p in range(r * m // h, ((r + 1) * m - 1) // h + 1):
                    rows = ((p + 1) * h + m - 1) // m - p * h // m
                    for q in range(m):
                        s0, s1 = q * w // m, ((q + 1) * w + m - 1) // m
                        area = dy.dtype.type(rows * (s1 - s0))
                        for s in range(left + s0, left + s1):
                            for c in range(C):
                                dx[n, row, s, c] += dy[k, b + p * m + q, c] / area
