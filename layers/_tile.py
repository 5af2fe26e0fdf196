"""The matrix product in registers that every fast kernel is built on: a tile of ROWS x PANEL.

    C[m, 0:PANEL] = max(low, bias + sum over o < ko, k < ki of A[m, o, k] * B[o * ki + k, 0:PANEL])

or C += the sum, where `add` is not 0; without a bias (its address is 0) C = the sum.
A is read one number at a time, through three strides, so that it may be a matrix, its transpose,
or windows of an image. B and C hold PANEL floats side by side. The sums stay in registers: 12 x 2
vectors of the 32 that AVX-512 and NEON have, 6 x 2 of AVX2's 16 (Goto and van de Geijn, Anatomy of
High-Performance Matrix Multiplication, 2008, is why).

Panels: a matrix (K, N) that is to be B is stored as (ceil(N / PANEL), K, PANEL), zeros at the end
of the last panel, so that the tile reads it from one end to the other.
"""

from numba.core import types
from numba.extending import intrinsic

from convnet.kernel import helper
from layers._vector import FEATURES, FLOAT, I64, LANES, ZEROS, Vectors

SIXTEEN_REGISTERS = LANES == 8 or ("sse2" in FEATURES and LANES == 4)
ROWS = 6 if SIXTEEN_REGISTERS else 12
PANEL = 2 * LANES
LINE = 16  # floats of a cache line, or of a part of one


def emit(rows: int):
    """The tile of so many rows, as a function that Numba can call; see the module's docstring."""

    @intrinsic
    def tile(context, ko, ki, a, sam, sao, sak, b, sbk, c, ldc, add, bias, low):
        def generate(context, builder, signature, arguments):
            ko, ki, a, sam, sao, sak, b, sbk, c, ldc, add, bias, low = arguments
            e = Vectors(builder)
            ms, halves = range(rows), (0, LANES)

            # Every third row of A has an address of its own, the other two are found from it:
            # more addresses than the machine has registers would be spilled.
            sam2 = builder.shl(sam, I64(1))
            starts = [e.plus(a, builder.mul(sam, I64(m))) for m in ms[::3]]
            offsets = (0, sam, sam2)

            def inner(values):
                b, at, sums = values[0], values[1 : 1 + len(starts)], values[1 + len(starts) :]
                right = [e.load(e.plus(b, h)) for h in halves]
                new = []
                for m in ms:
                    left = e.spread(e.load(e.plus(at[m // 3], offsets[m % 3]), FLOAT))
                    new += [e.fma(left, r, s) for r, s in zip(right, sums[2 * m : 2 * m + 2])]
                return [e.plus(b, sbk), *(e.plus(p, sak) for p in at), *new]

            def outer(values):
                at = values[1 : 1 + len(starts)]
                for m in ms:  # of the next tile of A
                    ahead = builder.mul(sam, I64(rows + m % 3))
                    e.prefetch(e.plus(at[m // 3], ahead))
                got = e.loop(ki, values, inner)
                return [got[0], *(e.plus(p, sao) for p in at), *got[1 + len(starts) :]]

            sums = e.loop(ko, [b, *starts, *[ZEROS] * (2 * rows)], outer)[1 + len(starts) :]
            places = [e.plus(e.plus(c, builder.mul(ldc, I64(m))), h) for m in ms for h in halves]

            def added():
                for s, place in zip(sums, places):
                    e.store(builder.fadd(s, e.load(place)), place)

            def biased():
                least = e.spread(low)
                biases = [e.load(e.plus(bias, h)) for h in halves]
                for i, (s, place) in enumerate(zip(sums, places)):
                    s = builder.fadd(s, biases[i % 2])
                    less = builder.fcmp_ordered("<", s, least)  # a NaN stays a NaN
                    e.store(builder.select(less, least, s), place)

            def bare():
                for s, place in zip(sums, places):
                    e.store(s, place)

            e.choose(add, added, lambda: e.choose(bias, biased, bare))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 12, types.float32), generate

    return tile


many, four, one = emit(ROWS), emit(4), emit(1)


# The one function that holds the tiles: LLVM gives each kernel one copy for each kind of call.
@helper()
def column(M, ko, ki, a, sam, sao, sak, b, sbk, c, ldc, add, bias, low):
    """C (M, PANEL) of one panel of B: whole tiles, the last of which may lie over the one before.

    Where C is added to no sum may be added twice; smaller tiles fill up what is left.
    """
    m = 0
    while m < M:
        if M - m < ROWS <= M and not add:
            m = M - ROWS
        left, right = a + 4 * m * sam, c + 4 * m * ldc
        if M - m >= ROWS:
            many(ko, ki, left, sam, sao, sak, b, sbk, right, ldc, add, bias, low)
            m += ROWS
        elif M - m >= 4:
            four(ko, ki, left, sam, sao, sak, b, sbk, right, ldc, add, bias, low)
            m += 4
        else:
            one(ko, ki, left, sam, sao, sak, b, sbk, right, ldc, add, bias, low)
            m += 1


def panelwise(combine, sources: int = 1, halves=(0, LANES)):
    """A function (dst, *sources) of addresses that sets the PANEL floats at dst.

    combine(vectors, dst's, *sources') gives the vector that is stored. halves: where those begin
    that are set.
    """

    @intrinsic
    def apply(context, dst, *src):
        def generate(context, builder, signature, arguments):
            e, (dst, rest) = Vectors(builder), arguments
            places = [dst, *(builder.extract_value(rest, i) for i in range(sources))]
            for half in halves:
                vectors = [e.load(e.plus(place, half)) for place in places]
                e.store(combine(e, *vectors), e.plus(dst, half))
            return context.get_dummy_value()

        return types.void(types.intp, types.UniTuple(types.intp, sources)), generate

    return apply


@intrinsic
def prefetch(context, address):
    """Ask for PANEL floats that will be needed soon; the address need not be valid."""

    def generate(context, builder, signature, arguments):
        e = Vectors(builder)
        for line in range(0, PANEL, LINE):
            e.prefetch(e.plus(arguments[0], line))
        return context.get_dummy_value()

    return types.void(types.intp), generate


copy = panelwise(lambda e, dst, src: src)
copy_half = panelwise(lambda e, dst, src: src, halves=(0,))
add = panelwise(lambda e, dst, src: e.ir.fadd(dst, src))
