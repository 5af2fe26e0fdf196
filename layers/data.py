"""type=data: what the data provider gives: dataIdx=0 the images, 1 the labels, 2 and 3 windows.

    [data]
    type=data
    dataIdx=0
    imgSize=224
    scale=0.0156

Images come as pixels from 0 to 255 minus their mean and are multiplied with `scale`: 1, as in
cuda-convnet, unless the cfg says otherwise. With 1/64 the numbers have a variance near one, which
the default initW expects. Labels are whole numbers from 0, of shape (1, 1, 1).

A detector has more cases than images, one for each window: dataIdx=2 gives image, top, left,
bottom, right of each in cells of a map, (1, 1, 5) whole numbers; dataIdx=3 what a regression of
its box is to find, (1, 1, 4). tools/detect.py gives these.
"""

from convnet.layer import Layer, key


class Data(Layer):
    inputs = ()
    neuron = ""

    dataIdx = key(
        int, "what it gives: 0 images, 1 labels; of a detector 2 windows, 3 boxes", min=0, max=3
    )
    imgSize = key(int, "side of the (square) images; else the provider says", default=None, min=1)
    channels = key(int, "3 for colour, 1 for grey; else the provider says", default=None, min=1)
    scale = key(float, "what the pixels, mean subtracted, are multiplied with", default=1.0)

    def feed(self, given: tuple | None) -> tuple:
        """The shape (H, W, C) of this layer, given the provider's, None where that is open."""
        if self.dataIdx:
            return 1, 1, {1: 1, 2: 5, 3: 4}[self.dataIdx]
        H, W, C = given or (None, None, None)
        if not (H or self.imgSize):
            raise ValueError("needs imgSize= (the data has no size of its own)")
        if self.imgSize and H and self.imgSize not in (H, W):
            raise ValueError(f"imgSize={self.imgSize}, but the data is {H}x{W}")
        if self.channels and C and self.channels != C:
            raise ValueError(f"channels={self.channels}, but the data has {C}")
        return H or self.imgSize, W or self.imgSize, C or self.channels or 3

    def shape(self, x):
        return x

    examples = "5x4x3 dataIdx=0 scale=0.5"

    def onnx(self, g, w, x):
        scaled = self.scale != 1 and not self.dataIdx
        return x._replace(name=g.op("Mul", x.name, g.const(self.scale))) if scaled else x

    def fprop(self, run, w, x):
        if self.scale == 1 or self.dataIdx:
            return x, lambda dy, wants: ([dy], {})
        y = run.xp.multiply(x, x.dtype.type(self.scale), out=run.empty(x.shape, x.dtype))

        def bprop(dy, wants):
            return [dy * self.scale], {}

        return y, bprop
