"""type=dropout: in training a number stays with probability keep, else becomes 0.

    [drop6]
    type=dropout
    inputs=fc6
    keep=0.5

    train           x * mask / keep
    test            x
    enable=false    x

What stays is scaled up in training, so that a test needs no factor; type=dropout2 does it the
other way round. The mask is another one at every step; see _dropout.py.
"""

from layers._dropout import Dropping, masked


class Dropout(Dropping):
    examples = """
        3x4x5
        5x3x2  keep=0.75
        1x1x9  keep=0.25 enable=false
        2x2x3  keep=1
    """

    def onnx(self, g, w, x):
        return x

    def fprop(self, run, w, x):
        if run.train and self.enable:
            return masked(run, x, self.keep, 1 / self.keep)
        return x, lambda dy, wants: ([dy if 0 in wants else None], {})
