"""type=eltsum: the weighted sum of inputs of equal shape, number by number.

    [sum]
    type=eltsum
    inputs=conv4,conv2
    coeffs=0.5,1

One coefficient serves all inputs; 1 if it is left out: a residual connection.
"""

from convnet.kernel import kernel, prange
from convnet.layer import Layer, rate


class Eltsum(Layer):
    coeffs = rate(float, "what each input is multiplied with", default=1.0, per_input=True)

    examples = """
        3x4x2 3x4x2
        2x1x5 2x1x5 2x1x5  coeffs=0.5,-2,1e-1
        1x3x4 1x3x4  coeffs=1.5
        4x3x2  coeffs=-0.5
    """

    def shape(self, *ins):
        if len(set(ins)) > 1:
            sizes = ", ".join("{}x{}x{}".format(*x) for x in ins)
            raise ValueError(f"needs inputs of equal shape, has {sizes}")
        return ins[0]

    def onnx(self, g, w, *xs):
        xs = g.alike(*xs)
        terms = [x.name if c == 1 else g.op("Mul", x.name, g.const(c))
                 for x, c in zip(xs, self.coeffs)]  # fmt: skip
        return xs[0]._replace(name=g.op("Sum", *terms))

    def fprop(self, run, w, *xs):
        y, c = run.empty(xs[0].shape, xs[0].dtype), self.coeffs
        if len(xs) == 1:
            run.xp.multiply(xs[0], c[0], out=y)
        else:
            flat, out = [x.reshape(-1) for x in xs], y.reshape(-1)
            add_scaled[y.size](flat[0], flat[1], out, c[0], c[1])
            for i in range(2, len(xs)):
                add_scaled[y.size](out, flat[i], out, 1.0, c[i])

        def bprop(dy, wants):
            return [scaled(run, dy, c[i]) if i in wants else None for i in range(len(c))], {}

        return y, bprop


def scaled(run, dy, c: float):
    """The gradient of an input with coefficient c; dy itself if that is 1."""
    return dy if c == 1 else run.xp.multiply(dy, c, out=run.empty(dy.shape, dy.dtype))


@kernel(
    cuda=r"""
__global__ void add_scaled(int n, const T* x1, const T* x2, T* y, T c1, T c2) {
    FOR(i, n) y[i] = c1 * x1[i] + c2 * x2[i];
}"""
)
def add_scaled(x1, x2, y, c1, c2):
    for i in prange(y.size):
        y[i] = c1 * x1[i] + c2 * x2[i]
