"""type=eltmax: the greatest of inputs of equal shape, number by number; at least two inputs.

    [max]
    type=eltmax
    inputs=conv2a,conv2b

Ties: every input that has the greatest number receives the whole gradient, as in cuda-convnet. A
NaN in any input is the greatest of all.
"""

from convnet.kernel import kernel, prange
from convnet.layer import Layer


class Eltmax(Layer):
    examples = """
        3x4x2 3x4x2
        2x1x5 2x1x5 2x1x5
    """

    def shape(self, *ins):
        if len(ins) < 2:
            raise ValueError("needs two inputs or more")
        if len(set(ins)) > 1:
            sizes = ", ".join("{}x{}x{}".format(*x) for x in ins)
            raise ValueError(f"needs inputs of equal shape, has {sizes}")
        return ins[0]

    def onnx(self, g, w, *xs):
        xs = g.alike(*xs)
        return xs[0]._replace(name=g.op("Max", *[x.name for x in xs]))

    def fprop(self, run, w, *xs):
        y, flat = run.empty(xs[0].shape, xs[0].dtype), [x.reshape(-1) for x in xs]
        out = y.reshape(-1)
        eltmax[y.size](flat[0], flat[1], out)
        for x in flat[2:]:
            eltmax[y.size](out, x, out)

        def bprop(dy, wants):
            dxs = [None] * len(flat)
            for i in wants:
                dxs[i] = run.empty(dy.shape, dy.dtype)
                eltmax_back[dy.size](flat[i], out, dy.reshape(-1), dxs[i].reshape(-1))
            return dxs, {}

        return y, bprop


@kernel(
    cuda=r"""
__global__ void eltmax(int n, const T* x1, const T* x2, T* y) {
    FOR(i, n) y[i] = x1[i] > x2[i] || x1[i] != x1[i] ? x1[i] : x2[i];
}"""
)
def eltmax(x1, x2, y):
    for i in prange(y.size):
        y[i] = x1[i] if x1[i] > x2[i] or x1[i] != x1[i] else x2[i]


@kernel(
    cuda=r"""
__global__ void eltmax_back(int n, const T* x, const T* y, const T* dy, T* dx) {
    FOR(i, n) dx[i] = x[i] == y[i] ? dy[i] : 0;
}"""
)
def eltmax_back(x, y, dy, dx):
    zero = dy.dtype.type(0)
    for i in prange(x.size):
        dx[i] = dy[i] if x[i] == y[i] else zero
