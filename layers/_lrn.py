"""What the response normalisations rnorm and cmrnorm share.

out = u / D^pow,  D = minDiv + scale / count * (sum of u^2 over a window of `count` places)

With t = dy * out / D, what a place gets back is dy / D^pow - 2 pow scale/count * u * (sum of t over
the places whose window holds it). 1 / D is stored in training, so that nothing is summed twice.
"""

import numpy as np

from convnet.kernel import helper
from convnet.layer import Layer, key, rate


class Response(Layer):
    size = key(int, "side of the window whose squares are summed", min=1)
    scale = rate(float, "what the mean square of the window is multiplied with; as Caffe's alpha",
                 default=0.0001, min=0)  # fmt: skip
    pow = rate(float, "the power of the divisor", default=0.75)
    minDiv = rate(float, "divisor where the window is all zero; always 1 in cuda-convnet 1",
                  default=1.0, min=1e-6)  # fmt: skip

    def onnx_of(self, g, x, mean: str):
        """x / (minDiv + scale * mean)^pow, where the mean of squares is a tensor of x's form."""
        scaled = g.op("Mul", mean, g.const(self.scale))
        factor = g.op("Pow", g.op("Add", scaled, g.const(self.minDiv)), g.const(-self.pow))
        return g.value(g.op("Mul", g.maps(x), factor), x.shape)

    def respond(self, run, x, there, back, count: int, *window):
        """fprop with the kernels `there` and `back`, which take the numbers of `window`."""
        a = self.scale / count
        sizes = (*x.shape[1:], *window)
        y = run.empty(x.shape, x.dtype)
        inverse = run.empty(x.shape if run.train else (1, 1, 1, 1), x.dtype)
        there[y.size](x, inverse, y, *sizes, self.minDiv, a, self.pow, int(run.train))
        if not run.train:
            return y, None

        def bprop(dy, wants):
            dx = run.empty(x.shape, x.dtype)
            back[dx.size](x, y, inverse, dy, dx, *sizes, 2 * self.pow * a, self.pow)
            return [dx], {}

        return y, bprop


@helper()
def powers(v, beta):
    """Replace each of the row v by v^beta. 3/4 takes two roots, which vectorise; pow does not."""
    if beta == 0.75:
        for i in range(v.size):
            root = np.sqrt(v[i])
            v[i] = root * np.sqrt(root)
    else:
        for i in range(v.size):
            v[i] = v[i] ** beta
