"""How an output is cut in tiles of two sizes, and in which order layers/_winograd.py keeps them.

13 outputs in a row are 5 + 4 + 4: with F(5, 3) and F(4, 3) that takes 7 + 6 + 6 points, where
three tiles of 5 take 21, for two outputs that do not exist; in both directions 361 and 441. The
points of a small tile are the first of those of a large one, and there both meet the same U.

So a tile has large or small rows, and large or small columns, and a point has products for all
tiles, or for those with large rows, large columns, or both. A block of tiles has them in this
order, in which each of these is a run:

                        rows        large       large       small       small
                        columns     small       large       large       small
    all points          |-------------------------------------------------|
    rows' last                      |-----------------|
    columns' last                               |-----------------|
    both                                        |-----|

The tiles of an image stand in lines (`down` of them, the large ones first) and columns (`across`,
the large ones first). Lines are counted on through all images.
"""

from typing import NamedTuple

from convnet.kernel import helper
from layers._tile import PANEL
from layers._transforms import AT_INFINITY, KINDS


class Size(NamedTuple):
    """A direction of a tile."""

    m: int  # outputs
    n: int  # points of F(m, r): m + r - 1
    kind: int  # the number of (m, r) in KINDS


class Shape(NamedTuple):
    """The numbers of one convolution, for the kernels."""

    H: int  # image: rows, columns, channels
    W: int
    channels: int
    c0: int  # the C channels from here take part
    C: int
    OH: int  # output: rows, columns, channels
    OW: int
    filters: int
    k0: int  # the K channels from here are made, in KP panels
    K: int
    KP: int
    F: int  # side of the filter
    s: int  # stride; there are s x s phases
    p: int  # padding
    r: int  # taps of a phase
    lanes: int  # channels of all phases, in DP panels
    DP: int
    phases: int  # phases in a direction if each has panels of its own, else 1
    each: int  # panels of a phase
    full: int  # of these, how many have r taps in a direction; the others have less
    n: int  # points in a direction, those of a large tile
    kind: int  # of a large tile
    large: Size
    small: Size
    tall: int  # lines of large tiles of an image
    down: int  # lines
    wide: int  # columns of large tiles
    across: int  # columns


class Block(NamedTuple):
    """Some lines, perhaps of several images, and some columns of tiles."""

    line: int
    lines: int
    column: int
    columns: int
    tall: int  # of the lines, those of large tiles
    wide: int  # of the columns


def shape(image, out, c0: int, C: int, k0: int, K: int, F: int, s: int, p: int, m: int, m2: int):
    """The Shape of a convolution of maps (H, W, channels) with tiles of m and m2 outputs."""
    (H, W, channels), (OH, OW, filters) = image, out
    r, lanes, DP = -(-F // s), s * s * C, -(-s * s * C // PANEL)
    phases, full = (s, (F - 1) % s + 1) if C % PANEL == 0 else (1, 1)
    large, small = (Size(m, m + r - 1, KINDS.index((m, r))) for m in (m, m2))
    (tall, low), (wide, narrow) = cut(OH, large, small), cut(OW, large, small)
    return Shape(H, W, channels, c0, C, OH, OW, filters, k0, K, -(-K // PANEL), F, s, p, r, lanes,
                 DP, phases, DP // phases**2, full, large.n, large.kind, large, small, tall,
                 tall + low, wide, wide + narrow)  # fmt: skip


def cut(side: int, large: Size, small: Size) -> tuple[int, int]:
    """How many large and small tiles cover so many outputs with the fewest points."""
    ways = [(i, -(-max(0, side - i * large.m) // small.m)) for i in range(-(-side // large.m) + 1)]
    return min(ways, key=lambda way: (way[0] * large.n + way[1] * small.n, sum(way)))


@helper()
def block(f, line, lines, column, columns):
    """The Block of these lines and columns."""
    tall = talls(f, line + lines) - talls(f, line)
    return Block(line, lines, column, columns, tall, min(max(f.wide - column, 0), columns))


@helper()
def talls(f, line):
    """How many of the lines before this one are of large tiles."""
    return line // f.down * f.tall + min(line % f.down, f.tall)


@helper()
def extent(f, i, larges):
    """Where the i-th tile in a direction begins, in outputs, and its Size."""
    if i < larges:
        return i * f.large.m, f.large
    return larges * f.large.m + (i - larges) * f.small.m, f.small


@helper()
def spot(f, B, line, column):
    """The number of a tile in its block."""
    tall, column, narrow = talls(f, line) - talls(f, B.line), column - B.column, B.columns - B.wide
    if line % f.down < f.tall:
        if column >= B.wide:
            return tall * narrow + column - B.wide
        return B.tall * narrow + tall * B.wide + column
    low, begin = line - B.line - tall, B.tall * B.columns
    if column < B.wide:
        return begin + low * B.wide + column
    return begin + (B.lines - B.tall) * B.wide + low * narrow + column - B.wide


class Point(NamedTuple):
    """What is multiplied at a point for a block."""

    q: int  # its number
    tall: int  # phases that have a product there, by their rows, and by their columns
    wide: int
    first: int  # the tiles first..end - 1 have one
    end: int


@helper()
def point(f, B, q):
    """Point q for a block."""
    i, j = q // f.n, q % f.n
    first, end, large = 0, B.lines * B.columns, B.tall * B.columns
    if i >= f.small.n:
        end = large
    if j >= f.small.n:
        first = B.tall * (B.columns - B.wide)
        end = min(end, large + (B.lines - B.tall) * B.wide)
    tall = f.full if i == AT_INFINITY else f.phases
    return Point(q, tall, f.full if j == AT_INFINITY else f.phases, first, end)
