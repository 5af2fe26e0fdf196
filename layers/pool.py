"""type=pool: the largest, or the mean, of every sizeX x sizeX window of every map.

    [pool1]
    type=pool
    inputs=conv1
    pool=max
    sizeX=3
    stride=2

Window i begins at start + i*stride in both directions. As in cuda-convnet:

rounding  the output side is ceil((side - start - sizeX) / stride) + 1, so the last may overhang;
          `end`, not in cuda-convnet, adds to the side: with start=-1 end=1, Caffe's pad of 1, 3x3
          windows with stride 1 keep a map of any size as large as it is
border    windows are cut to the map; avg divides by the pixels really inside, not by sizeX^2
ties      every pixel equal to the maximum gets the full gradient (cuDNN chooses one). maxabs keeps
          the number of largest magnitude with its sign; of +a and -a it keeps +a, so that the
          order of the pixels does not matter, and every pixel equal to +a gets the gradient

A NaN in a window makes the output NaN. A window with no pixel of the map in it is refused.

Pools as levels of a pyramid (SPP-net): the paper trains level n on an a x a map as a pool with
sizeX=ceil(a/n), stride=floor(a/n). `pyramid` recognises such a pool. Where the net sets `level`
then, maps of any other size than `trained_on` are cut into level x level bins instead
(layers/_bins.py), so that the output keeps its shape. With a second input,
inputs=conv5,windows, such a pool cuts windows of the map into these bins, as type=spp does.
"""

from convnet.kernel import kernel, prange
from convnet.layer import Layer, flag, key, one_of
from layers import _bins


class Pool(Layer):
    pool = key(one_of("max", "avg", "maxabs"), "what to keep of each window")
    sizeX = key(int, "side of the window, in pixels", min=1)
    stride = key(int, "pixels from one window to the next", min=1)
    start = key(int, "where the first window begins; negative is outside", default=0)
    end = key(int, "pixels behind the map that windows may reach, as a negative start before it",
              default=0, min=0)  # fmt: skip
    outputsX = key(int, "windows in each direction; 0: as many as cover the map", default=0, min=0)
    sum = key(flag, "with pool=avg: the sum of each window instead of its mean", default=False)

    level = 0  # set once by the net: stands for this level of a pyramid
    trained_on: tuple | None = None  # and this is the (H, W, C) where its windows apply

    examples = """
        7x6x3   pool=max sizeX=3 stride=2
        5x8x2   pool=max sizeX=3 stride=1 start=-1
        6x6x1   pool=max sizeX=4 stride=4 start=-2
        4x5x2   pool=max sizeX=3 stride=1 start=-1 end=1
        5x6x2   pool=avg sizeX=3 stride=2 end=1
        7x9x2   pool=max sizeX=2 stride=2 start=1
        9x7x2   pool=max sizeX=3 stride=2 outputsX=2
        4x5x3   pool=max sizeX=1 stride=1
        6x7x3   pool=avg sizeX=3 stride=2
        7x6x2   pool=avg sizeX=3 stride=3 start=-1
        7x6x2   pool=avg sizeX=3 stride=2 sum=1
        4x4x2   pool=avg sizeX=2 stride=2 outputsX=2 sum=0
        7x6x3   pool=maxabs sizeX=3 stride=2
        5x6x2   pool=maxabs sizeX=2 stride=1 start=-1
        7x7x3   windows7x7 pool=max sizeX=3 stride=2
        8x8x2   windows8x8 pool=maxabs sizeX=4 stride=4
    """

    def link(self, producers):
        return _bins.link(self, producers)

    def pyramid(self, x):
        try:
            n, n2, _ = self._windows(*x)
        except ValueError:
            return 0
        a = x[0]
        rule = (0, 0, -(-a // n), a // n)
        fits = x[0] == x[1] and n == n2 and (self.start, self.end, self.sizeX, self.stride) == rule
        return n if fits and not self.sum else 0

    def window(self, i):
        return self.sizeX, self.stride, self.start

    def bins(self):
        return [self.level] if self.level else []

    def shape(self, x, windows=None):
        if windows is not None:
            if not (self.level or self.pyramid(x)):
                raise ValueError(
                    f"is no level of a pyramid on a {x[0]}x{x[1]} map (sizeX=ceil(a/n), "
                    "stride=floor(a/n)), so it cannot pool windows"
                )
            return (*[self.level or self.pyramid(x)] * 2, x[2])
        return (self.level, self.level, x[2]) if self._in_bins(x) else self._windows(*x)

    def _in_bins(self, x: tuple) -> bool:
        """Whether a map of this shape is cut into the bins of a level, not into windows."""
        return self.level > 0 and x[:2] != self.trained_on[:2]

    def _windows(self, H: int, W: int, C: int) -> tuple:
        """The output shape of the ordinary pool; ValueError where a window sees no pixel."""
        if self.sum and self.pool != "avg":
            raise ValueError(f"sum=1 goes with pool=avg, not with pool={self.pool}")
        if self.stride > self.sizeX:
            raise ValueError(
                f"stride={self.stride} is more than sizeX={self.sizeX}: pixels between"
            )
        if self.start <= -self.sizeX:
            raise ValueError(f"start={self.start}: the first window lies outside the map")
        sides = []
        for side in (H, W):
            if self.start + self.sizeX > side + self.end:
                at = f" from start={self.start}" if self.start else ""
                raise ValueError(f"sizeX={self.sizeX}{at} is more than the {H}x{W} map")
            covering = -(-(side + self.end - self.start - self.sizeX) // self.stride) + 1
            sides.append(self.outputsX or covering)
            if self.start + (sides[-1] - 1) * self.stride >= side:
                why = f"outputsX={self.outputsX}" if self.outputsX else f"end={self.end}"
                raise ValueError(f"{why}: the last window lies outside the {H}x{W} map")
        return sides[0], sides[1], C

    def onnx(self, g, w, x, windows=None):
        if self._in_bins(x.shape):
            return _bins.onnx(g, x, self.level, self.pool)
        maps, shape, size = g.maps(x), self._windows(*x.shape), self.sizeX
        H, W, _ = x.shape
        begins = [max(0, self.start)] * 2
        over = [self.start + (n - 1) * self.stride + size - side for n, side in zip(shape, (H, W))]
        ends = [side + min(0, more) for side, more in zip((H, W), over)]
        if begins != [0, 0] or ends != [H, W]:  # pixels that no window sees
            maps = g.op("Slice", maps, g.const(begins), g.const(ends), g.const([2, 3]))
        before, after = max(0, -self.start), [max(0, more) for more in over]
        how = {"kernel_shape": [size] * 2, "strides": [self.stride] * 2,
               "pads": [before, before, *after]}  # fmt: skip
        if self.pool == "avg":
            y = g.op("AveragePool", maps, **how, count_include_pad=int(self.sum))
            y = g.op("Mul", y, g.const(float(size**2))) if self.sum else y
        else:
            y = _bins.onnx_max(g, maps, self.pool, lambda maps: g.op("MaxPool", maps, **how))
        return g.value(y, shape)

    def fprop(self, run, w, x, windows=None):
        image = x.shape[1:]
        if windows is not None or self._in_bins(image):
            level = self.level or self.pyramid(image)
            return _bins.pyramid(run, x, windows, [level], self.pool, (level, level, image[2]))
        y = run.empty((len(x), *self.shape(image)), x.dtype)
        sizes = (*image, *y.shape[1:3], self.sizeX, self.stride, self.start)
        kept = () if self.pool == "avg" else (x, y)
        if self.pool == "avg":
            mean = int(not self.sum)
            pool_avg[y.size](x, y, *sizes, mean)
        else:
            pool_max[y.size](x, y, *sizes, int(self.pool == "maxabs"))

        def bprop(dy, wants):
            dx = run.empty((len(dy), *image), dy.dtype)
            if self.pool == "avg":
                pool_avg_back[dx.size](dy, dx, *sizes, mean)
            else:
                pool_max_back[dx.size](*kept, dy, dx, *sizes)
            return [dx], {}

        return y, bprop


@kernel(
    cuda=r"""
__global__ void pool_max(int n, const T* x, T* y, int H, int W, Div C, Div OH, Div OW, int sizeX,
                         int stride, int start, int magnitude) {
    FOR(i, n) {
        int c = i % C, q = i / C % OW, p = i / C / OW % OH, image = i / C / OW / OH;
        int top = max(start + p * stride, 0), bottom = min(start + p * stride + sizeX, H);
        int left = max(start + q * stride, 0), right = min(start + q * stride + sizeX, W);
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
def pool_max(x, y, H, W, C, OH, OW, sizeX, stride, start, magnitude):
    """Of every window the largest number, or the one of largest magnitude (+ before -)."""
    for i in prange(x.shape[0] * OH):
        n, p = i // OH, i % OH
        top, bottom = max(start + p * stride, 0), min(start + p * stride + sizeX, H)
        for q in range(OW):
            left, right = max(start + q * stride, 0), min(start + q * stride + sizeX, W)
            for c in range(C):
                y[n, p, q, c] = x[n, top, left, c]
            for r in range(top, bottom):
                for s in range(left, right):
                    if magnitude:
                        for c in range(C):
                            v, best = x[n, r, s, c], y[n, p, q, c]
                            u, w = abs(v), abs(best)
                            more = (u > w) | ((u == w) & (v > best)) | (v != v)
                            y[n, p, q, c] = v if more else best
                    else:
                        for c in range(C):
                            v, best = x[n, r, s, c], y[n, p, q, c]
                            y[n, p, q, c] = v if (v > best) | (v != v) else best


@kernel(
    cuda=r"""
__global__ void pool_avg(int n, const T* x, T* y, int H, int W, Div C, Div OH, Div OW, int sizeX,
                         int stride, int start, int mean) {
    FOR(i, n) {
        int c = i % C, q = i / C % OW, p = i / C / OW % OH, image = i / C / OW / OH;
        int top = max(start + p * stride, 0), bottom = min(start + p * stride + sizeX, H);
        int left = max(start + q * stride, 0), right = min(start + q * stride + sizeX, W);
        T sum = 0;
        for (int r = top; r < bottom; ++r)
            for (int s = left; s < right; ++s) sum += x[((image * H + r) * W + s) * C + c];
        y[i] = sum / T(mean ? (bottom - top) * (right - left) : 1);
    }
}"""
)
def pool_avg(x, y, H, W, C, OH, OW, sizeX, stride, start, mean):
    """The mean, or the sum, of every window."""
    for i in prange(x.shape[0] * OH):
        n, p = i // OH, i % OH
        top, bottom = max(start + p * stride, 0), min(start + p * stride + sizeX, H)
        for q in range(OW):
            left, right = max(start + q * stride, 0), min(start + q * stride + sizeX, W)
            for c in range(C):
                y[n, p, q, c] = 0
            for r in range(top, bottom):
                for s in range(left, right):
                    for c in range(C):
                        y[n, p, q, c] += x[n, r, s, c]
            if mean:
                area = x.dtype.type((bottom - top) * (right - left))
                for c in range(C):
                    y[n, p, q, c] /= area


@kernel(
    cuda=r"""
__global__ void pool_max_back(int n, const T* x, const T* y, const T* dy, T* dx, Div H, Div W,
                              Div C, int OH, int OW, int sizeX, Div stride, int start) {
    FOR(i, n) {
        int c = i % C, s = i / C % W - start, r = i / C / W % H - start, image = i / C / W / H;
        T sum = 0;
        for (int p = max(r - sizeX + stride, 0) / stride; p < OH && p * stride <= r; ++p)
            for (int q = max(s - sizeX + stride, 0) / stride; q < OW && q * stride <= s; ++q) {
                int o = ((image * OH + p) * OW + q) * C + c;
                if (x[i] == y[o]) sum += dy[o];
            }
        dx[i] = sum;
    }
}"""
)
def pool_max_back(x, y, dy, dx, H, W, C, OH, OW, sizeX, stride, start):
    """Each pixel collects the gradients of the windows that kept a number equal to it."""
    zero = x.dtype.type(0)
    for i in prange(x.shape[0] * H):
        n, r = i // H, i % H
        for s in range(W):
            for c in range(C):
                dx[n, r, s, c] = zero
        first = max(r - start - sizeX + stride, 0) // stride
        for p in range(first, min((r - start) // stride, OH - 1) + 1):
            for q in range(OW):
                u = start + q * stride
                for s in range(max(u, 0), min(u + sizeX, W)):
                    for c in range(C):
                        kept = x[n, r, s, c] == y[n, p, q, c]
                        dx[n, r, s, c] += dy[n, p, q, c] if kept else zero


@kernel(
    cuda=r"""
__global__ void pool_avg_back(int n, const T* dy, T* dx, Div H, Div W, Div C, int OH, int OW,
                              int sizeX, Div stride, int start, int mean) {
    FOR(i, n) {
        int c = i % C, s = i / C % W - start, r = i / C / W % H - start, image = i / C / W / H;
        T sum = 0;
        for (int p = max(r - sizeX + stride, 0) / stride; p < OH && p * stride <= r; ++p)
            for (int q = max(s - sizeX + stride, 0) / stride; q < OW && q * stride <= s; ++q) {
                int u = start + p * stride, v = start + q * stride;
                int rows = min(u + sizeX, H) - max(u, 0), columns = min(v + sizeX, W) - max(v, 0);
                sum += dy[((image * OH + p) * OW + q) * C + c] / T(mean ? rows * columns : 1);
            }
        dx[i] = sum;
    }
}"""
)
def pool_avg_back(dy, dx, H, W, C, OH, OW, sizeX, stride, start, mean):
    """Each pixel collects its share of every window that it lies in."""
    for i in prange(dx.shape[0] * H):
        n, r = i // H, i % H
        for s in range(W):
            for c in range(C):
                dx[n, r, s, c] = 0
        first = max(r - start - sizeX + stride, 0) // stride
        for p in range(first, min((r - start) // stride, OH - 1) + 1):
            u = start + p * stride
            rows = min(u + sizeX, H) - max(u, 0)
            for q in range(OW):
                v = start + q * stride
                left, right = max(v, 0), min(v + sizeX, W)
                area = dy.dtype.type(rows * (right - left) if mean else 1)
                for s in range(left, right):
                    for c in range(C):
                        dx[n, r, s, c] += dy[n, p, q, c] / area
