"""type=spp: spatial pyramid pooling (He et al. 2014): as many numbers out of maps of any size.

    [spp]
    type=spp
    inputs=conv5
    levels=6,3,2,1
    pool=max

Level n cuts the H x W map into n x n bins, rows [floor(i*H/n), ceil((i+1)*H/n)) and the like in
columns, so that bins are never empty and cover the map, also one smaller than n (then they
overlap); of every bin it keeps the maximum (or mean) of each channel. The output is (1, 1, C *
bins): levels in the order given, within a level row, column, channel, so that an fc over it sees
what an fc over the pools of a pyramid in the same order would.

border    bins never leave the map; avg divides by the pixels of the bin
ties      every pixel equal to the maximum of its bin gets the full gradient, as in type=pool

With a second input, inputs=conv5,windows, it does so with windows of the maps: a data layer with
dataIdx=2 gives rows of image, top, left, bottom, right in cells, the last two excluded, sorted by
image. There are as many cases behind it as windows (detection, SPP-net section 4).

At 13 x 13 and 18 x 18 levels 6, 3, 2, 1 are the pools of the paper, sizeX=ceil(a/n) and
stride=floor(a/n); on other maps those pools miss part of the map or give another number of
windows, these bins do not.
"""

from convnet.layer import Layer, key, numbers, one_of
from layers import _bins


def levels(text: str) -> list[int]:
    """Reads a comma list of whole numbers from 1."""
    got = numbers(text)
    if min(got) < 1:
        raise ValueError("must be whole numbers from 1: a level is bins in each direction")
    return got


class Spp(Layer):
    levels = key(levels, "bins in each direction, one number for each level", default=[3, 2, 1])
    pool = key(one_of("max", "avg"), "what to keep of each bin", default="max")

    examples = """
        7x6x3  levels=3,2,1
        4x9x2  levels=1,4 pool=max
        2x5x3  levels=6,3,2,1
        1x1x2  levels=2
        13x5x1
        7x5x2  levels=3,2,1 pool=avg
        2x3x3  levels=4,1 pool=avg
        7x6x3  windows7x6 levels=6,3,2,1
        5x9x2  windows5x9 levels=4,1 pool=avg
    """

    def window(self, i):
        return None

    def bins(self):
        return self.levels

    def link(self, producers):
        return _bins.link(self, producers)

    def shape(self, x, windows=None):
        return 1, 1, x[2] * sum(n * n for n in self.levels)

    def onnx(self, g, w, x, windows=None):
        levels = [g.flat(_bins.onnx(g, x, n, self.pool)) for n in self.levels]
        return g.value(g.op("Concat", *levels, axis=1), self.shape(x.shape), flat=True)

    def fprop(self, run, w, x, windows=None):
        return _bins.pyramid(run, x, windows, self.levels, self.pool, self.shape(x.shape[1:]))
