"""type=fc: every output is a weighted sum of every number of every input, and a bias.

    [fc6]
    type=fc
    inputs=pool3x3,pool2x2,pool1x1
    outputs=4096
    neuron=relu

An input of shape (H, W, C) is read in that order: row, column, channel. Several inputs stand one
behind the other, in the order of `inputs`; each has weights of its own, (numbers, outputs).
"""

import math

from convnet.layer import WeightLayer, key


class Fc(WeightLayer):
    positional = True
    outputs = key(int, "numbers that come out; `classes` is the number of classes", min=1)

    examples = """
        3x2x2  outputs=5
        4x1x3 2x3x1  outputs=2
        1x1x7 3x2x2 1x1x1  outputs=3 initB=1
    """

    def shape(self, *ins):
        return 1, 1, self.outputs

    def weights(self, *ins):
        sizes = [math.prod(x) for x in ins]
        Ws = {f"W{i}": self.weight(i, (n, self.outputs), sum(sizes)) for i, n in enumerate(sizes)}
        return Ws | {"b": self.bias((self.outputs,))}

    def macs(self, *ins):
        return self.outputs * sum(math.prod(x) for x in ins)

    def fprop(self, run, w, *xs):
        flat = [x.reshape(len(x), -1) for x in xs]
        y = run.empty((len(xs[0]), self.outputs), xs[0].dtype)
        run.xp.matmul(flat[0], w["W0"], out=y)
        for i, x in enumerate(flat[1:], 1):
            part = run.empty(y.shape, y.dtype)
            y += run.xp.matmul(x, w[f"W{i}"], out=part)
        y += w["b"]

        def bprop(dy, wants):
            dy = dy.reshape(len(dy), -1)
            dxs, dw = [None] * len(xs), {}
            for i, x in enumerate(flat):
                name = f"W{i}"
                if name in wants:
                    dw[name] = run.xp.matmul(x.T, dy, out=run.empty(w[name].shape, dy.dtype))
                if i in wants:
                    dx = run.xp.matmul(dy, w[name].T, out=run.empty(x.shape, dy.dtype))
                    dxs[i] = dx.reshape(xs[i].shape)
            if "b" in wants:
                dw["b"] = dy.sum(0)
            return dxs, dw

        return y.reshape(len(y), 1, 1, -1), bprop
