"""type=conv: every output pixel is a weighted sum of a window of the inputs, and a bias.

    [conv1]
    type=conv
    inputs=data
    filters=96
    filterSize=7
    stride=2
    padding=1
    neuron=relu

Cross-correlation, as everywhere in this field (no flip). Windows begin at -padding + i * stride;
pixels outside the image count as 0. Rounding: the output side is 1 + ceil((side + 2 padding -
filterSize) / stride), as in cuda-convnet: the last window may overhang; rounding=floor is Caffe's
rule. `filters` counts per group: groups=g cuts the channels of input and output in g blocks that
see only each other. With several inputs the results are added; each has weights of its own
(filterSize, filterSize, channels / groups, filters * groups), all share the biases.

Variants for float32 on a CPU, with a relu behind the layer in the same pass: `winograd` multiplies
less (layers/_winograd.py), `direct` makes no patches (layers/_direct.py); `plain` is im2col.
"""

import math
from functools import lru_cache

import numpy as np

from convnet.kernel import kernel, prange
from convnet.layer import Variant, WeightLayer, flag, key, one_of
from layers import _direct, _winograd
from layers._bias import add_bias

WIDE = 4  # channels that a thread of a GPU copies at once
WAYS = 1024  # shapes whose ways are remembered
TOLD = 3  # ways that the reason for a choice names
FEW = 8  # filters of a group that would leave most of a panel empty


@lru_cache(WAYS)
def ways_of(numbers: tuple) -> tuple:
    """All ways to compute a group of a convolution, of these numbers for their constructors."""
    return (_direct.Direct(*numbers), *_winograd.Winograd.kinds(*numbers))


@lru_cache(WAYS)
def choice(numbers: tuple) -> tuple:
    """The cheapest of the ways of these numbers, and why it is taken."""
    ways = sorted(ways_of(numbers), key=lambda way: way.cost)
    costs = ", ".join(f"{way.name} {way.cost / 1e6:.3g}" for way in ways[:TOLD])
    rest = f", and {len(ways) - TOLD} more" if len(ways) > TOLD else ""
    return ways[0], f"the least of {costs} million multiply-adds an image{rest}"


class Conv(WeightLayer):
    filters = key(int, "output channels of each group", min=1, per_input=True)
    filterSize = key(int, "side of the window, in pixels", min=1, per_input=True)
    padding = key(int, "zeros around the image, on every side", default=0, min=0, per_input=True)
    stride = key(int, "pixels from one window to the next", default=1, min=1, per_input=True)
    groups = key(int, "blocks of channels that see only each other", default=1, min=1,
                 per_input=True)  # fmt: skip
    sharedBiases = key(flag, "one bias for each channel, or for each position too", default=True)
    modulesX = key(int, "side of the output by hand; 0 is automatic", default=0, min=0)
    rounding = key(one_of("ceil", "floor"), "of the side of the output", default="ceil")

    examples = """
        7x6x3  filters=4 filterSize=3
        6x9x2  filters=3 filterSize=4 stride=3 padding=1 initB=1
        7x8x2  filters=3 filterSize=3 stride=2 rounding=floor
        5x4x4  filters=2 filterSize=3 groups=2 padding=1
        5x6x3  filters=5 filterSize=1
        5x6x3 9x11x2  filters=4 filterSize=3,5 stride=1,2 padding=1,2
        5x4x2  filters=3 filterSize=3 sharedBiases=0
        6x6x2  filters=2 filterSize=3 padding=1 modulesX=7
    """

    def side(self, i, S):
        """Windows along a side of S pixels of input i."""
        F, P, stride = self.filterSize[i], self.padding[i], self.stride[i]
        if F > S + 2 * P:
            raise ValueError(f"filterSize={F} is larger than its input, {S} pixels and 2x{P} zeros")
        if self.modulesX:
            if stride * (self.modulesX - 1) + F - P < S:
                raise ValueError(f"modulesX={self.modulesX} windows do not cover {S} pixels")
            return self.modulesX
        over = S + 2 * P - F
        return 1 + (-(-over // stride) if self.rounding == "ceil" else over // stride)

    def window(self, i):
        return self.filterSize[i], self.stride[i], -self.padding[i]

    def shape(self, *ins):
        outs = []
        for i, (H, W, C) in enumerate(ins):
            if C % self.groups[i]:
                raise ValueError(f"groups={self.groups[i]} does not divide {C} channels")
            K = self.filters[i] * self.groups[i]
            outs.append((self.side(i, H), self.side(i, W), K))
        if len(set(outs)) > 1:
            given = ", ".join("{}x{}x{}".format(*out) for out in outs)
            raise ValueError(f"the inputs give maps of unequal shapes: {given}")
        return outs[0]

    def weights(self, *ins):
        shapes = [
            (F, F, x[2] // g, f * g)
            for x, F, f, g in zip(ins, self.filterSize, self.filters, self.groups)
        ]
        fan_in = sum(math.prod(s[:3]) for s in shapes)
        H, W, K = self.shape(*ins)
        Ws = {f"W{i}": self.weight(i, s, fan_in) for i, s in enumerate(shapes)}
        return Ws | {"b": self.bias((K,) if self.sharedBiases else (H, W, K))}

    def onnx(self, g, w, *xs):
        H, W, K = self.shape(*[x.shape for x in xs])
        y = None
        for i, x in enumerate(xs):
            F, P, stride = self.filterSize[i], self.padding[i], self.stride[i]
            sides = zip((H, W), x.shape)
            ends = (max(0, (n - 1) * stride + F - P - side) for n, side in sides)
            how = {"kernel_shape": [F, F], "strides": [stride] * 2, "pads": [P, P, *ends]}
            bias = [g.const(w["b"])] if y is None and self.sharedBiases else []
            kernel = g.const(w[f"W{i}"].transpose(3, 2, 0, 1))
            made = g.op("Conv", g.maps(x), kernel, *bias, **how, group=self.groups[i])
            y = made if y is None else g.op("Add", y, made)
        if not self.sharedBiases:
            y = g.op("Add", y, g.const(w["b"].transpose(2, 0, 1)[None]))
        return g.value(y, (H, W, K))

    def macs(self, *ins):
        H, W, _ = self.shape(*ins)
        return H * W * sum(math.prod(w.shape) for n, w in self.weights(*ins).items() if n != "b")

    def variant(self, *ins, then=None):
        why = ""
        if len(ins) > 1:
            why = f"{len(ins)} inputs"
        elif not self.sharedBiases:
            why = "a bias for each position"
        elif self.filters[0] < FEW:
            why = f"less than {FEW} filters in a group"
        if why:
            return Variant("plain", why)
        way, why = choice(self._numbers(ins[0][1:]))
        return Variant(way.name, why, ins[0][0] * self.groups[0] * way.multiplies)

    def ways(self, image, g=0):
        """The ways that group g of the only input can be computed; all but the plain one."""
        return ways_of(self._numbers(image, g))

    def _numbers(self, image, g=0) -> tuple:
        C, K = image[2] // self.groups[0], self.filters[0]
        return (image, self.shape(image), g * C, C, g * K, K, self.filterSize[0], self.stride[0],
                self.padding[0])  # fmt: skip

    def takes(self, after, *ins):
        relu = after.type == "neuron" and after.neuron[0] == "relu"
        return relu and self.variant(*ins).name != "plain"

    def fprop(self, run, w, *xs):
        name = self.variant(*[x.shape for x in xs]).name if run.fast else "plain"
        if name == "plain":
            return self._fprop_plain(run, w, *xs)
        x, low, image = xs[0], 0.0 if run.then else -math.inf, xs[0].shape[1:]
        y = run.empty((len(x), *self.shape(image)))
        parts = [way for g in range(self.groups[0]) for way in self.ways(image, g)
                 if way.name == name]  # fmt: skip
        kept = [part.forward(run, x, w["W0"], w["b"], low, y) for part in parts]

        def bprop(dy, wants):
            dx = run.empty(x.shape) if 0 in wants else None
            dw = {"W0": run.empty(w["W0"].shape) if "W0" in wants else None}
            into = w["W0"], y, low, dy, dx, dw["W0"]
            dw["b"] = np.concatenate(
                [part.backward(run, x, *into, old) for part, old in zip(parts, kept)]
            )
            return [dx], {of: g for of, g in dw.items() if of in wants}

        return y, bprop

    def _fprop_plain(self, run, w, *xs):
        H, W, K = self.shape(*[x.shape[1:] for x in xs])
        y = run.empty((len(xs[0]) * H * W, K), xs[0].dtype)
        for i, x in enumerate(xs):
            for g, part in self.parts(i):
                for patches, rows in self.patches(run, i, g, x, H, W):
                    out = y[rows, part]
                    if i == 0:
                        run.xp.matmul(patches, self.matrix(w, i, part), out=out)
                    else:
                        out += run.xp.matmul(patches, self.matrix(w, i, part))
        add_bias(y, w["b"])

        def bprop(dy, wants):
            dy = dy.reshape(-1, K)
            dxs, dw = [None] * len(xs), {}
            for i, x in enumerate(xs):
                if i in wants:
                    dxs[i] = self.input_gradient(run, w, i, x, dy, H, W)
                if f"W{i}" in wants:
                    dw[f"W{i}"] = self.weight_gradient(run, w, i, x, dy, H, W)
            if "b" in wants:
                period = w["b"].size // K
                ones = run.xp.ones(len(dy) // period, dy.dtype)
                dw["b"] = run.xp.matmul(ones, dy.reshape(-1, w["b"].size)).reshape(w["b"].shape)
            return dxs, dw

        return y.reshape(len(xs[0]), H, W, K), bprop

    def parts(self, i):
        """Each group of input i with the slice of the output channels that it makes."""
        return [(g, slice(g * self.filters[i], (g + 1) * self.filters[i]))
                for g in range(self.groups[i])]  # fmt: skip

    def matrix(self, w, i, part):
        """The weights of one group as (filterSize * filterSize * channels, filters)."""
        W = w[f"W{i}"]
        return W.reshape(-1, W.shape[3])[:, part]

    def patches(self, run, i, g, x, OH, OW):
        """Blocks of (patches, rows of the output that they make).

        patches is (pixels, filterSize * filterSize * channels of the group): im2col.
        """
        N, H, W, C = x.shape
        F, P, stride, Cg = self.filterSize[i], self.padding[i], self.stride[i], C // self.groups[i]
        size = F * F * Cg
        block = max(1, run.device.block // (OW * size * x.itemsize))
        for first in range(0, N * OH, block):
            count = min(block, N * OH - first)
            rows = slice(first * OW, (first + count) * OW)
            if F == stride == Cg // C == 1 and P == 0:
                yield x.reshape(-1, C)[rows], rows
                continue
            cols = run.empty((count * OW, size), x.dtype)
            wide = 1 if Cg % WIDE else WIDE
            sizes = (first, H, W, C, OH, OW, F, P, stride, g * Cg, Cg, Cg // wide)
            im2col[cols.size // wide](x, cols, *sizes)
            yield cols, rows

    def weight_gradient(self, run, w, i, x, dy, OH, OW):
        dW = run.empty(w[f"W{i}"].shape, dy.dtype)
        for g, part in self.parts(i):
            out = dW.reshape(-1, dW.shape[3])[:, part]
            for n, (patches, rows) in enumerate(self.patches(run, i, g, x, OH, OW)):
                if n == 0:
                    run.xp.matmul(patches.T, dy[rows, part], out=out)
                else:
                    out += run.xp.matmul(patches.T, dy[rows, part])
        return dW

    def input_gradient(self, run, w, i, x, dy, OH, OW):
        N, H, W, C = x.shape
        F, P, stride, Cg = self.filterSize[i], self.padding[i], self.stride[i], C // self.groups[i]
        dx = run.empty(x.shape, dy.dtype)
        block = max(1, run.device.block // (OH * OW * F * F * Cg * dy.itemsize))
        for g, part in self.parts(i):
            W2 = self.matrix(w, i, part).T
            for n in range(0, N, block):
                out = dx[n : n + block]
                rows = slice(n * OH * OW, (n + len(out)) * OH * OW)
                cols = run.empty((len(out) * OH * OW, F * F * Cg), dy.dtype)
                run.xp.matmul(dy[rows, part], W2, out=cols)
                col2im[len(out) * H * W * Cg](cols, out, H, W, C, OH, OW, F, P, stride, g * Cg, Cg)
        return dx


@kernel(
    cuda=r"""
__global__ void im2col(int n, const T* x, T* cols, int first, int H, int W, int C, Div OH, Div OW,
                       Div F, int P, int stride, int c0, int Cg, Div parts) {
    struct alignas(16) Four { T v[4]; };
    int wide = Cg / int(parts);
    FOR(i, n) {
        int c = i % parts * wide, tap = i / parts, pixel = tap / F / F, row = first + pixel / OW;
        int r = row % OH * stride - P + tap / F % F, q = pixel % OW * stride - P + tap % F;
        bool inside = r >= 0 && r < H && q >= 0 && q < W;
        const T* from = x + ((row / OH * (long long)H + r) * W + q) * C + c0 + c;
        if (wide == 1) cols[i] = inside ? *from : T(0);
        else ((Four*)cols)[i] = inside ? *(const Four*)from : Four{};
    }
}"""
)
def im2col(x, cols, first, H, W, C, OH, OW, F, P, stride, c0, Cg, parts):
    """Thread i owns the channels of one of `parts` of a pixel in one window, one or WIDE of them:
    the patches of the output rows from `first` on.

    Flat arrays and unsigned numbers: an index that might be negative is tested, not vectorised.
    """
    flat, out = x.reshape(-1), cols.reshape(-1)
    taps, channels = np.uintp(F * Cg), np.uintp(Cg)
    for t in prange(cols.shape[0] // OW):
        n, r0 = (first + t) // OH, (first + t) % OH * stride - P
        for a in range(F):
            r = r0 + a
            for o in range(OW):
                q0 = o * stride - P
                to = np.uintp(((t * OW + o) * F + a) * F * Cg)
                if r < 0 or r >= H:
                    for k in range(taps):
                        out[to + k] = 0
                elif q0 >= 0 and q0 + F <= W and Cg == C:
                    at = np.uintp(((n * H + r) * W + q0) * C)
                    for k in range(taps):  # the taps of a row lie side by side
                        out[to + k] = flat[at + k]
                else:
                    for q in range(q0, q0 + F):
                        if q < 0 or q >= W:
                            for k in range(channels):
                                out[to + k] = 0
                        else:
                            at = np.uintp(((n * H + r) * W + q) * C + c0)
                            for k in range(channels):
                                out[to + k] = flat[at + k]
                        to += channels


@kernel(
    cuda=r"""
__global__ void col2im(int n, const T* cols, T* dx, Div H, Div W, int C, int OH, int OW,
                       int F, int P, Div stride, int c0, Div Cg) {
    FOR(i, n) {
        int c = i % Cg, q = i / Cg % W, r = i / Cg / W % H, image = i / Cg / W / H;
        T sum = 0;
        for (int a = (r + P) % stride; a < F && a <= r + P; a += stride) {
            int o = (r + P - a) / stride;
            if (o >= OH) continue;
            for (int b = (q + P) % stride; b < F && b <= q + P; b += stride) {
                int p = (q + P - b) / stride;
                if (p >= OW) continue;
                sum += cols[(((image * (long long)OH + o) * OW + p) * F * F + a * F + b) * Cg + c];
            }
        }
        dx[((image * (long long)H + r) * W + q) * C + c0 + c] = sum;
    }
}"""
)
def col2im(cols, dx, H, W, C, OH, OW, F, P, stride, c0, Cg):
    """A row of pixels collects from the windows that saw it, their taps of one row at a time."""
    flat, out, channels = cols.reshape(-1), dx.reshape(-1), np.uintp(Cg)
    for t in prange(dx.shape[0] * H):
        n, r = t // H, t % H
        for q in range(W):
            to = np.uintp((t * W + q) * C + c0)
            for k in range(channels):
                out[to + k] = 0
        for a in range((r + P) % stride, min(F, r + P + 1), stride):
            o = (r + P - a) // stride
            for p in range(OW if o < OH else 0):
                q0 = p * stride - P
                first, last = max(0, -q0), max(0, min(F, W - q0))
                at = np.uintp((((n * OH + o) * OW + p) * F * F + a * F + first) * Cg)
                if Cg == C:
                    to = np.uintp((t * W + q0 + first) * C)
                    for k in range(np.uintp(max(0, last - first) * C)):
                        out[to + k] += flat[at + k]
                else:
                    for q in range(q0 + first, q0 + last):
                        to = np.uintp((t * W + q) * C + c0)
                        for k in range(channels):
                            out[to + k] += flat[at + k]
                        at += channels
