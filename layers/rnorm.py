"""type=rnorm: local response normalisation over a window of the same map.

    [rnorm1]
    type=rnorm
    inputs=pool1
    size=3

    [rnorm1]          ; in the params file
    scale=0.0001
    pow=0.75

out = u / (minDiv + scale/size^2 * sum of u^2)^pow, the sum over size x size pixels from
x - size//2 to x - size//2 + size - 1, the like in rows; an even window lies more to the left and
top. As in cuda-convnet, at the border the window is cut but the divisor size^2 stays. size is at
most the side of the map. scale and pow default to what the ImageNet files of cuda-convnet say.
Nothing is rounded and nothing ties.

The variant `with pool` does the work of a max pool behind it in the same pass, for float32 on a CPU
(layers/_lrn_pool.py).
"""

import numpy as np

from convnet.kernel import kernel, prange
from convnet.layer import Variant
from layers import _lrn_pool
from layers._lrn import Response, powers


class Rnorm(Response):
    examples = """
        5x4x3  size=3 scale=2 minDiv=0.7
        4x6x2  size=2 scale=1.5 pow=1.3
        6x5x2  size=4 scale=3 pow=0.5 minDiv=2
        3x7x2  size=1 scale=1
        5x6x1  size=5 scale=9
    """

    def shape(self, x):
        if self.size > min(x[:2]):
            raise ValueError(f"size={self.size} is more than the {x[0]}x{x[1]} map")
        return x

    def onnx(self, g, w, x):
        maps, before = g.maps(x), self.size // 2
        sides = [before, before, self.size - 1 - before, self.size - 1 - before]
        mean = g.op("AveragePool", g.op("Mul", maps, maps), kernel_shape=[self.size] * 2,
                    pads=sides, count_include_pad=1)  # fmt: skip
        return self.onnx_of(g, x, mean)

    def variant(self, *ins, then=None):
        if then:
            return Variant("with pool", "one pass: what is between them never goes to memory")
        return super().variant(*ins)

    def takes(self, after, *ins):
        # a pool that stands for a level of a pyramid may have bins instead of windows
        return after.type == "pool" and after.pool == "max" and not after.level

    def fprop(self, run, w, x):
        if not run.then:
            return self.respond(run, x, rnorm, rnorm_back, self.size**2, self.size)
        pool, image = run.then, x.shape[1:]
        out = pool.shape(image)
        f = _lrn_pool.Shape(*image, self.size, *out[:2], pool.sizeX, pool.stride, pool.start)
        y = run.empty((len(x), *out))
        back = _lrn_pool.forward(run, x, y, self.minDiv, self.scale / self.size**2, self.pow, f)
        return y, lambda dy, wants: ([back(dy)], {})


@kernel(
    cuda=r"""
__global__ void rnorm(int n, const T* x, T* inverse, T* y, Div H, Div W, Div C, int size, T k,
                      T a, T beta, int keep) {
    FOR(i, n) {
        int c = i % C, q = i / C % W, p = i / C / W % H, image = i / C / W / H;
        int top = p - size / 2, left = q - size / 2;
        T sum = 0;
        for (int r = max(top, 0); r < min(top + size, H); ++r)
            for (int s = max(left, 0); s < min(left + size, W); ++s) {
                T u = x[((image * H + r) * W + s) * C + c];
                sum += u * u;
            }
        T v = 1 / (k + a * sum);
        if (keep) inverse[i] = v;
        y[i] = x[i] * (beta == T(0.75) ? sqrt(v) * sqrt(sqrt(v)) : pow(v, beta));
    }
}"""
)
def rnorm(x, inverse, y, H, W, C, size, k, a, beta, keep):
    """The output, and 1 / D if that is to be kept; first columns, then rows.

    Flat arrays and unsigned numbers: an index that might be negative is tested, not vectorised.
    """
    xs, ys, inverses = x.reshape(-1), y.reshape(-1), inverse.reshape(-1)
    channels, row, one = np.uintp(C), np.uintp(W * C), x.dtype.type(1)
    for i in prange(x.shape[0] * H):
        p = i % H
        columns, v = np.zeros(W * C, x.dtype), np.empty(C, x.dtype)
        for r in range(max(p - size // 2, 0), min(p - size // 2 + size, H)):
            at = np.uintp((i - p + r) * W * C)
            for c in range(row):
                columns[c] += xs[at + c] * xs[at + c]
        for q in range(W):
            for c in range(channels):
                v[c] = 0
            for s in range(max(q - size // 2, 0), min(q - size // 2 + size, W)):
                at = np.uintp(s * C)
                for c in range(channels):
                    v[c] += columns[at + c]
            at = np.uintp((i * W + q) * C)
            for c in range(channels):
                v[c] = one / (k + a * v[c])
            if keep:
                for c in range(channels):
                    inverses[at + c] = v[c]
            powers(v, beta)
            for c in range(channels):
                ys[at + c] = xs[at + c] * v[c]


@kernel(
    cuda=r"""
__global__ void rnorm_back(int n, const T* x, const T* y, const T* inverse, const T* dy, T* dx,
                           Div H, Div W, Div C, int size, T a2beta, T beta) {
    FOR(i, n) {
        int c = i % C, q = i / C % W, p = i / C / W % H, image = i / C / W / H;
        int top = p + size / 2 - size + 1, left = q + size / 2 - size + 1;
        T sum = 0, v = inverse[i];
        for (int r = max(top, 0); r < min(top + size, H); ++r)
            for (int s = max(left, 0); s < min(left + size, W); ++s) {
                int o = ((image * H + r) * W + s) * C + c;
                sum += dy[o] * y[o] * inverse[o];
            }
        dx[i] = dy[i] * (beta == T(0.75) ? sqrt(v) * sqrt(sqrt(v)) : pow(v, beta))
              - a2beta * x[i] * sum;
    }
}"""
)
def rnorm_back(x, y, inverse, dy, dx, H, W, C, size, a2beta, beta):
    """Each pixel collects from the windows that hold it: the mirrored window around it."""
    before, after = size - 1 - size // 2, size // 2 + 1
    xs, ys, inverses = x.reshape(-1), y.reshape(-1), inverse.reshape(-1)
    dys, dxs = dy.reshape(-1), dx.reshape(-1)
    channels, row = np.uintp(C), np.uintp(W * C)
    for i in prange(x.shape[0] * H):
        p = i % H
        columns = np.zeros(W * C, x.dtype)
        for r in range(max(p - before, 0), min(p + after, H)):
            at = np.uintp((i - p + r) * W * C)
            for c in range(row):
                columns[c] += dys[at + c] * ys[at + c] * inverses[at + c]
        v, t = np.empty(C, x.dtype), np.empty(C, x.dtype)
        for q in range(W):
            at = np.uintp((i * W + q) * C)
            for c in range(channels):
                v[c], t[c] = inverses[at + c], 0
            for s in range(max(q - before, 0), min(q + after, W)):
                there = np.uintp(s * C)
                for c in range(channels):
                    t[c] += columns[there + c]
            powers(v, beta)
            for c in range(channels):
                dxs[at + c] = dys[at + c] * v[c] - a2beta * xs[at + c] * t[c]
