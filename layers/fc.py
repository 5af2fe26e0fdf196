"""type=fc: every output is a weighted sum of every number of every input, and a bias.

    [fc6]
    type=fc
    inputs=pool3x3,pool2x2,pool1x1
    outputs=4096
    neuron=relu

An input of shape (H, W, C) is read in that order: row, column, channel. Several inputs stand one
behind the other, in the order of `inputs`; each has weights of its own, (numbers, outputs).

The variant `panels` (layers/_dense.py, float32 on a CPU) gives the gradient of the weights as a
product that is not multiplied out before the update.
"""

import math

import numpy as np

from convnet.layer import Variant, WeightLayer, key
from layers import _dense


class Fc(WeightLayer):
    positional = True
    outputs = key(int, "numbers that come out; `classes` is the number of classes", min=1)

    examples = """
        3x2x2  outputs=5
        4x1x3 2x3x1  outputs=2
        1x1x7 3x2x2 1x1x1  outputs=3 initB=1
    """

    def window(self, i):
        return None

    def shape(self, *ins):
        return 1, 1, self.outputs

    def weights(self, *ins):
        sizes = [math.prod(x) for x in ins]
        Ws = {f"W{i}": self.weight(i, (n, self.outputs), sum(sizes)) for i, n in enumerate(sizes)}
        return Ws | {"b": self.bias((self.outputs,))}

    def onnx(self, g, w, *xs):
        flat = [g.flat(x) for x in xs]
        x = flat[0] if len(flat) == 1 else g.op("Concat", *flat, axis=1)
        W = np.concatenate([w[f"W{i}"] for i in range(len(xs))])
        y = g.op("Gemm", x, g.const(W), g.const(w["b"]))
        return g.value(y, (1, 1, self.outputs), flat=True)

    def macs(self, *ins):
        return self.outputs * sum(math.prod(x) for x in ins)

    def variant(self, *ins, then=None):
        few = f"less than {_dense.FEW} cases: rows of W, at the speed of the memory"
        return Variant("panels", few if ins[0][0] < _dense.FEW else "tiles in registers")

    def fprop(self, run, w, *xs):
        flat = [x.reshape(len(x), -1) for x in xs]
        y = run.empty((len(xs[0]), self.outputs), xs[0].dtype)
        for i, x in enumerate(flat):
            if run.fast:
                _dense.forward(run, x, w[f"W{i}"], y, add=i > 0)
            elif i == 0:
                run.xp.matmul(x, w["W0"], out=y)
            else:
                y += run.xp.matmul(x, w[f"W{i}"], out=run.empty(y.shape, y.dtype))
        y += w["b"]

        def bprop(dy, wants):
            dy = dy.reshape(len(dy), -1)
            dxs, dw = [None] * len(xs), {}
            for i, x in enumerate(flat):
                name = f"W{i}"
                if name in wants and run.fast:
                    dw[name] = _dense.Outer(run, x, dy)
                elif name in wants:
                    dw[name] = run.xp.matmul(x.T, dy, out=run.empty(w[name].shape, dy.dtype))
                if i in wants:
                    dx = run.empty(x.shape, dy.dtype)
                    if run.fast:
                        _dense.input_gradient(run, w[name], dy, dx)
                    else:
                        run.xp.matmul(dy, w[name].T, out=dx)
                    dxs[i] = dx.reshape(xs[i].shape)
            if "b" in wants:
                dw["b"] = dy.sum(0)
            return dxs, dw

        return y.reshape(len(y), 1, 1, -1), bprop
