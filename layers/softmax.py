"""type=softmax: the H * W * C numbers of a case become probabilities, e^x / sum e^x.

    [probs]
    type=softmax
    inputs=fc8

The greatest x of the case is subtracted first, so that no e^x overflows. Shapes stay. Under
cost.logreg the gradient does not come through here; it goes straight to fc8.
"""

from convnet.layer import Layer


class Softmax(Layer):
    examples = """
        1x1x7
        3x2x4
    """

    def shape(self, x):
        return x

    def onnx(self, g, w, x):
        return g.value(g.op("Softmax", g.flat(x), axis=1), x.shape, flat=True)

    def fprop(self, run, w, x):
        xp, shape, flat = run.xp, x.shape, x.reshape(len(x), -1)
        y = run.empty(flat.shape, x.dtype)
        xp.subtract(flat, flat.max(1, keepdims=True), out=y)
        xp.exp(y, out=y)
        y /= y.sum(1, keepdims=True)

        def bprop(dy, wants):
            if 0 not in wants:
                return [None], {}
            dy = dy.reshape(y.shape)
            dx = run.empty(y.shape, y.dtype)
            xp.multiply(dy, y, out=dx)
            dx -= y * dx.sum(1, keepdims=True)
            return [dx.reshape(shape)], {}

        return y.reshape(shape), bprop
