"""The bins of a spatial pyramid, for type=spp and for pools that stand for one of its levels.

Level n cuts an H x W map into n x n bins; bin (p, q) is rows [floor(p*H/n), ceil((p+1)*H/n)) and
the like in columns (SPP-net, He et al. 2014, appendix A). Bins overlap by at most one row or
column where n does not divide the side; on a map smaller than n several bins are the same pixel;
none is ever empty. Row r lies in the bins p from floor(r*n/H) to ceil((r+1)*n/H) - 1, which is how
the backward passes gather.

x is (N, H, W, C); y is (N, bins, C), the levels one behind the other, each row by row. `levels`
is an int32 array on the device. Where several pixels of a bin equal what it kept, each gets the
full gradient; a NaN in a bin makes its output NaN.
"""

import math

import numpy as np

from convnet.kernel import kernel, prange


def pyramid(run, x, levels: list[int], keep: str, shape: tuple):
    """The bins of all levels; keep is max, maxabs or avg, shape that of one image's output."""
    levels = run.device.array(np.array(levels, np.int32))
    y = run.empty((len(x), math.prod(shape) // x.shape[3], x.shape[3]), x.dtype)
    image, bins = x.shape[1:], y.shape[1]
    kept = () if keep == "avg" else (x, y)
    if keep == "avg":
        bins_avg[y.size](x, levels, y, *image, bins)
    else:
        bins_max[y.size](x, levels, y, *image, bins, int(keep == "maxabs"))

    def bprop(dy, wants):
        dy, dx = dy.reshape(len(dy), bins, -1), run.empty((len(dy), *image), dy.dtype)
        if keep == "avg":
            bins_avg_back[dx.size](dy, levels, dx, *image, len(levels), bins)
        else:
            bins_max_back[dx.size](*kept, dy, levels, dx, *image, len(levels), bins)
        return [dx], {}

    return y.reshape(len(y), *shape), bprop


@kernel(
    cuda=r"""
__global__ void bins_max(int n, const T* x, const int* levels, T* y, int H, int W, Div C, Div bins,
                         int magnitude) {
    FOR(i, n) {
        int c = i % C, b = i / C % bins, image = i / C / bins, l = 0;
        while (b >= levels[l] * levels[l]) { b -= levels[l] * levels[l]; ++l; }
        int m = levels[l], p = b / m, q = b % m;
        int top = p * H / m, bottom = ((p + 1) * H + m - 1) / m;
        int left = q * W / m, right = ((q + 1) * W + m - 1) / m;
        T best = x[((image * H + top) * W + left) * C + c];
        for (int r = top; r < bottom; ++r)
            for (int s = left; s < right; ++s) {
                T v = x[((image * H + r) * W + s) * C + c];
                T u = magnitude ? fabs(v) : v, w = magnitude ? fabs(best) : best;
                if (u > w || (u == w && v > best) || v != v) best = v;
            }
        y[i] = best;
    }
}"""
)
def bins_max(x, levels, y, H, W, C, bins, magnitude):
    """Of every bin the largest number, or the one of largest magnitude (+ before - in a tie)."""
    for i in prange(x.shape[0] * bins):
        n, b, l = i // bins, i % bins, 0
        k = b
        while k >= levels[l] * levels[l]:
            k -= levels[l] * levels[l]
            l += 1
        m = levels[l]
        p, q = k // m, k % m
        top, left = p * H // m, q * W // m
        for c in range(C):
            y[n, b, c] = x[n, top, left, c]
        for r in range(top, ((p + 1) * H + m - 1) // m):
            for s in range(left, ((q + 1) * W + m - 1) // m):
                if magnitude:
                    for c in range(C):
                        v, best = x[n, r, s, c], y[n, b, c]
                        u, w = abs(v), abs(best)
                        y[n, b, c] = v if (u > w) | ((u == w) & (v > best)) | (v != v) else best
                else:
                    for c in range(C):
                        v, best = x[n, r, s, c], y[n, b, c]
                        y[n, b, c] = v if (v > best) | (v != v) else best


@kernel(
    cuda=r"""
__global__ void bins_avg(int n, const T* x, const int* levels, T* y, int H, int W, Div C,
                         Div bins) {
    FOR(i, n) {
        int c = i % C, b = i / C % bins, image = i / C / bins, l = 0;
        while (b >= levels[l] * levels[l]) { b -= levels[l] * levels[l]; ++l; }
        int m = levels[l], p = b / m, q = b % m;
        int top = p * H / m, bottom = ((p + 1) * H + m - 1) / m;
        int left = q * W / m, right = ((q + 1) * W + m - 1) / m;
        T sum = 0;
        for (int r = top; r < bottom; ++r)
            for (int s = left; s < right; ++s) sum += x[((image * H + r) * W + s) * C + c];
        y[i] = sum / T((bottom - top) * (right - left));
    }
}"""
)
def bins_avg(x, levels, y, H, W, C, bins):
    """The mean of every bin."""
    for i in prange(x.shape[0] * bins):
        n, b, l = i // bins, i % bins, 0
        k = b
        while k >= levels[l] * levels[l]:
            k -= levels[l] * levels[l]
            l += 1
        m = levels[l]
        p, q = k // m, k % m
        top, bottom = p * H // m, ((p + 1) * H + m - 1) // m
        left, right = q * W // m, ((q + 1) * W + m - 1) // m
        for c in range(C):
            y[n, b, c] = 0
        for r in range(top, bottom):
            for s in range(left, right):
                for c in range(C):
                    y[n, b, c] += x[n, r, s, c]
        area = x.dtype.type((bottom - top) * (right - left))
        for c in range(C):
            y[n, b, c] /= area


@kernel(
    cuda=r"""
__global__ void bins_max_back(int n, const T* x, const T* y, const T* dy, const int* levels, T* dx,
                              Div H, Div W, Div C, int count, int bins) {
    FOR(i, n) {
        int c = i % C, s = i / C % W, r = i / C / W % H, b = i / C / W / H * bins;
        T sum = 0;
        for (int l = 0; l < count; ++l) {
            int m = levels[l];
            for (int p = r * m / H; p <= ((r + 1) * m - 1) / H; ++p)
                for (int q = s * m / W; q <= ((s + 1) * m - 1) / W; ++q) {
                    int o = (b + p * m + q) * C + c;
                    if (x[i] == y[o]) sum += dy[o];
                }
            b += m * m;
        }
        dx[i] = sum;
    }
}"""
)
def bins_max_back(x, y, dy, levels, dx, H, W, C, count, bins):
    """Each pixel collects the gradients of the bins that kept a number equal to it."""
    zero = x.dtype.type(0)
    for i in prange(x.shape[0] * H):
        n, r, b = i // H, i % H, 0
        for s in range(W):
            for c in range(C):
                dx[n, r, s, c] = zero
        for l in range(count):
            m = levels[l]
            for p in range(r * m // H, ((r + 1) * m - 1) // H + 1):
                for q in range(m):
                    o = b + p * m + q
                    for s in range(q * W // m, ((q + 1) * W + m - 1) // m):
                        for c in range(C):
                            dx[n, r, s, c] += dy[n, o, c] if x[n, r, s, c] == y[n, o, c] else zero
            b += m * m


@kernel(
    cuda=r"""
__global__ void bins_avg_back(int n, const T* dy, const int* levels, T* dx, Div H, Div W, Div C,
                              int count, int bins) {
    FOR(i, n) {
        int c = i % C, s = i / C % W, r = i / C / W % H, b = i / C / W / H * bins;
        T sum = 0;
        for (int l = 0; l < count; ++l) {
            int m = levels[l];
            for (int p = r * m / H; p <= ((r + 1) * m - 1) / H; ++p)
                for (int q = s * m / W; q <= ((s + 1) * m - 1) / W; ++q) {
                    int rows = ((p + 1) * H + m - 1) / m - p * H / m;
                    int columns = ((q + 1) * W + m - 1) / m - q * W / m;
                    sum += dy[(b + p * m + q) * C + c] / T(rows * columns);
                }
            b += m * m;
        }
        dx[i] = sum;
    }
}"""
)
def bins_avg_back(dy, levels, dx, H, W, C, count, bins):
    """Each pixel collects its share of every bin that it lies in."""
    for i in prange(dx.shape[0] * H):
        n, r, b = i // H, i % H, 0
        for s in range(W):
            for c in range(C):
                dx[n, r, s, c] = 0
        for l in range(count):
            m = levels[l]
            for p in range(r * m // H, ((r + 1) * m - 1) // H + 1):
                rows = ((p + 1) * H + m - 1) // m - p * H // m
                for q in range(m):
                    left, right = q * W // m, ((q + 1) * W + m - 1) // m
                    area = dy.dtype.type(rows * (right - left))
                    for s in range(left, right):
                        for c in range(C):
                            dx[n, r, s, c] += dy[n, b + p * m + q, c] / area
            b += m * m
