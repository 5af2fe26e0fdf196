"""type=concat: the inputs one behind the other, in the order of `inputs`.

    [both]
    type=concat
    inputs=conv2a,conv2b

Inputs with equal sides, (H, W, C1) and (H, W, C2), become (H, W, C1 + C2): their channels stand
side by side. If the sides differ every input is read as row, column, channel and the result is
(1, 1, all numbers), what cuda-convnet2 did with any input. One input is legal and stays as it is.
"""

import math

from convnet.layer import Layer


class Concat(Layer):
    examples = """
        3x5x2 3x5x4
        2x3x1 2x3x4 2x3x2
        3x2x2 2x1x5
        1x1x3 1x1x4
        3x2x5
    """

    def shape(self, *ins):
        if len({x[:2] for x in ins}) == 1:
            return *ins[0][:2], sum(x[2] for x in ins)
        return 1, 1, sum(map(math.prod, ins))

    def onnx(self, g, w, *xs):
        shape = self.shape(*[x.shape for x in xs])
        flat = shape[:2] == (1, 1)
        each = map(g.flat if flat else g.maps, xs)
        return g.value(g.op("Concat", *each, axis=1), shape, flat)

    def fprop(self, run, w, *xs):
        H, W, C = self.shape(*[x.shape[1:] for x in xs])
        N, shapes = len(xs[0]), [x.shape for x in xs]
        y = run.empty((N, H * W, C), xs[0].dtype)
        parts, at = [], 0
        for x in xs:
            part = x.reshape(N, H * W, -1)
            parts.append(slice(at, at + part.shape[2]))
            y[:, :, parts[-1]] = part
            at += part.shape[2]

        def bprop(dy, wants):
            dy, dxs = dy.reshape(N, H * W, C), [None] * len(parts)
            for i in wants:
                dxs[i] = run.empty(shapes[i], dy.dtype)
                dxs[i].reshape(N, H * W, -1)[...] = dy[:, :, parts[i]]
            return dxs, {}

        return y.reshape(N, H, W, C), bprop
