"""type=dropout2: dropout as first published: nothing is scaled in training, all of it in a test.

    [drop6]
    type=dropout2
    inputs=fc6
    keep=0.5

    train           x * mask
    test            x * keep
    enable=false    x * keep, in training too

The mask is 1 with probability keep and another one at every step; see _dropout.py. Nets trained
with cuda-convnet2 use this one mostly: their weights expect the factor keep.
"""

from layers._dropout import Dropping, masked


class Dropout2(Dropping):
    examples = """
        3x4x5
        5x3x2  keep=0.75
        1x1x9  keep=0.25 enable=false
        2x2x3  keep=1
    """

    def onnx(self, g, w, x):
        return x._replace(name=g.op("Mul", x.name, g.const(self.keep)))

    def fprop(self, run, w, x):
        if run.train and self.enable:
            return masked(run, x, self.keep, 1)
        return masked(run, x, 1, self.keep)
