"""type=cmrnorm: local response normalisation across maps ("cross-map"), AlexNet's.

    [rnorm1]
    type=cmrnorm
    inputs=conv1
    size=5

    [rnorm1]          ; in the params file
    scale=0.0001
    pow=0.75
    minDiv=2

out = u / (minDiv + scale/size * sum of u^2)^pow, the sum over the maps of the same pixel from
c - size//2 to c - size//2 + size - 1; an even window holds one map more below than above. As in
cuda-convnet, at the first and last maps the window is cut but the divisor `size` stays; with
blocked=1 the window is the block of `size` maps that c belongs to, counted from map 0, the last
one perhaps shorter. size is from 2 to the number of maps. scale and pow default to what the
ImageNet files of cuda-convnet say. Nothing is rounded and nothing ties.
"""

import numpy as np

from convnet.kernel import helper, kernel, prange
from convnet.layer import flag, key
from layers._lrn import Response, powers


class Cmrnorm(Response):
    size = key(int, "how many neighbouring maps are summed", min=2)
    blocked = key(flag, "sum over aligned blocks of maps instead of neighbours", default=False)

    examples = """
        3x2x7  size=5 scale=2 minDiv=0.7
        2x3x6  size=4 scale=1.5 pow=1.3
        4x1x2  size=2 scale=3 pow=0.5
        2x3x7  size=3 scale=2 blocked=1 minDiv=2
        3x2x4  size=4 scale=1 blocked=1 pow=1.1
    """

    def shape(self, x):
        if self.size > x[2]:
            raise ValueError(f"size={self.size} is more than the {x[2]} maps")
        return x

    def onnx(self, g, w, x):
        maps, C = g.maps(x), x.shape[2]
        if self.size % 2 and not self.blocked:
            y = g.op("LRN", maps, size=self.size, alpha=float(self.scale), beta=float(self.pow),
                     bias=float(self.minDiv))  # fmt: skip
            return g.value(y, x.shape)
        at = np.arange(C)  # ONNX knows no such window: a convolution sums it
        first = at // self.size * self.size if self.blocked else at - self.size // 2
        inside = (at >= first[:, None]) & (at < first[:, None] + self.size)
        sums = (inside / self.size)[:, :, None, None]
        return self.onnx_of(g, x, g.op("Conv", g.op("Mul", maps, maps), g.const(sums)))

    def fprop(self, run, w, x):
        window = self.size, int(self.blocked)
        return self.respond(run, x, cmrnorm, cmrnorm_back, self.size, *window)


@helper()
def window_sums(padded, size, blocked, before, total):
    """total[c] = sum over the window of map c. padded[c + before] is map c, 0 beyond them.

    Unsigned numbers: an index that might be negative is tested by Numba and does not vectorise.
    """
    if blocked:
        for first in range(0, total.size, size):
            last = min(first + size, total.size)
            s = padded[first + before]
            for c in range(first + 1, last):
                s += padded[c + before]
            for c in range(first, last):
                total[c] = s
    else:
        for c in range(total.size):
            total[c] = padded[c]
        for k in range(np.uintp(1), np.uintp(size)):
            for c in range(np.uintp(total.size)):
                total[c] += padded[c + k]


@kernel(
    cuda=r"""
__global__ void cmrnorm(int n, const T* x, T* inverse, T* y, int H, int W, Div C, Div size,
                        int blocked, T k, T a, T beta, int keep) {
    FOR(i, n) {
        int c = i % C, first = blocked ? c / size * size : c - size / 2;
        T sum = 0;
        for (int f = max(first, 0); f < min(first + size, C); ++f) {
            T u = x[i - c + f];
            sum += u * u;
        }
        T v = 1 / (k + a * sum);
        if (keep) inverse[i] = v;
        y[i] = x[i] * (beta == T(0.75) ? sqrt(v) * sqrt(sqrt(v)) : pow(v, beta));
    }
}"""
)
def cmrnorm(x, inverse, y, H, W, C, size, blocked, k, a, beta, keep):
    """The output, and 1 / D if that is to be kept."""
    before, one = size // 2, x.dtype.type(1)
    for i in prange(x.shape[0] * H):
        n, p = i // H, i % H
        squares, v = np.zeros(C + size, x.dtype), np.empty(C, x.dtype)
        inside = squares[before : before + C]
        for q in range(W):
            for c in range(C):
                inside[c] = x[n, p, q, c] * x[n, p, q, c]
            window_sums(squares, size, blocked, before, v)
            for c in range(C):
                v[c] = one / (k + a * v[c])
            if keep:
                for c in range(C):
                    inverse[n, p, q, c] = v[c]
            powers(v, beta)
            for c in range(C):
                y[n, p, q, c] = x[n, p, q, c] * v[c]


@kernel(
    cuda=r"""
__global__ void cmrnorm_back(int n, const T* x, const T* y, const T* inverse, const T* dy, T* dx,
                             int H, int W, Div C, Div size, int blocked, T a2beta, T beta) {
    FOR(i, n) {
        int c = i % C, first = blocked ? c / size * size : c + size / 2 - size + 1;
        T sum = 0, v = inverse[i];
        for (int f = max(first, 0); f < min(first + size, C); ++f) {
            int o = i - c + f;
            sum += dy[o] * y[o] * inverse[o];
        }
        dx[i] = dy[i] * (beta == T(0.75) ? sqrt(v) * sqrt(sqrt(v)) : pow(v, beta))
              - a2beta * x[i] * sum;
    }
}"""
)
def cmrnorm_back(x, y, inverse, dy, dx, H, W, C, size, blocked, a2beta, beta):
    """Each map collects from the windows that hold it: the mirrored window around it."""
    before = size - 1 - size // 2
    for i in prange(x.shape[0] * H):
        n, p = i // H, i % H
        parts, v, t = np.zeros(C + size, x.dtype), np.empty(C, x.dtype), np.empty(C, x.dtype)
        inside = parts[before : before + C]
        for q in range(W):
            for c in range(C):
                v[c] = inverse[n, p, q, c]
                inside[c] = dy[n, p, q, c] * y[n, p, q, c] * v[c]
            window_sums(parts, size, blocked, before, t)
            powers(v, beta)
            for c in range(C):
                dx[n, p, q, c] = dy[n, p, q, c] * v[c] - a2beta * x[n, p, q, c] * t[c]
