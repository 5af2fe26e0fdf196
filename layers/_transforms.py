"""Winograd's transforms: the matrices of F(m, r) in fractions, and code for the CPU made of them.

    A^T (m, n), B^T (n, n), G (n, r),  n = m + r - 1

A function has the name of its matrix, bt for B^T and b for its adjoint B. It takes the number of
a kind in KINDS and works on PANEL floats at a time (layers/_winograd.py says what for).

Points are infinity, 0, 1, -1, 2, -2 (6 of them), 1/2 (7), -1/2 (8). G only evaluates; what divides
the values stands in B^T. So a filter at the points of a smaller tile is the beginning of what it is
at those of a larger one, and tiles of two sizes share it. The more points, the larger the numbers
in the matrices and the more bits are lost: 7 and 8 points lose up to ten times as much as 6, and
with 9 an error could pass 1e-4.
"""

import math
from fractions import Fraction

from numba.core import types
from numba.extending import intrinsic

from convnet.kernel import helper
from layers._vector import I64, LANES, Vectors

KINDS = (4, 3), (5, 3), (6, 3), (4, 4), (4, 5)
FINITE = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]
AT_INFINITY, AT_ONE = 0, 2  # the numbers of these points


def matrices(m: int, r: int) -> tuple[list, list, list]:
    """A^T (m, n), B^T (n, n) and G (n, r) of F(m, r), n = m + r - 1, in fractions (Cook, Toom).

    A polynomial's value at infinity is its highest coefficient. Row j of B^T holds the
    coefficients of the product of all (x - p) / (p_j - p) with p != p_j.
    """
    points = FINITE[: m + r - 2]
    at = [[Fraction(int(i == m - 1))] + [p**i for p in points] for i in range(m)]
    bt = [product(points)]
    for p in points:
        others = [q for q in points if q != p]
        scale = math.prod(p - q for q in others)
        bt.append([v / scale for v in product(others)] + [Fraction(0)])
    g = [[Fraction(int(k == r - 1)) for k in range(r)]]
    g += [[p**k for k in range(r)] for p in points]
    return at, bt, g


def product(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of the product of all (x - root), that of x^0 first."""
    row = [Fraction(1)]
    for root in roots:
        row = [low - root * high for low, high in zip([Fraction(0), *row], [*row, Fraction(0)])]
    return row


def transposed(matrix: list) -> list:
    """Rows as columns."""
    return [list(column) for column in zip(*matrix)]


def transforms(of, halves=(0, LANES)):
    """out[i] = sum over j of matrix[i][j] in[j], many times, as a function that Numba can call.

    of(m, r) is the matrix; the number of a kind says which. It takes addresses: in[j] are the PANEL
    floats at src + j * from_step, out[i] at dst + i * to_step, each time src_next and dst_next
    further; times >= 1. halves: where those of the PANEL begin that are worked on.
    """

    @intrinsic
    def apply(context, kind, times, src, src_next, from_step, dst, dst_next, to_step):
        def generate(context, builder, signature, arguments):
            e, end, kind = Vectors(builder), builder.append_basic_block("end"), arguments[0]
            choice, written = builder.switch(kind, end), []
            for number, (m, r) in enumerate(KINDS):
                matrix = of(m, r)
                block = next((there for same, there in written if same == matrix), None)
                if not block:
                    block = builder.append_basic_block(f"F{m}{r}")
                    written.append((matrix, block))
                    builder.position_at_end(block)
                    write(e, halves, matrix, *arguments[1:])
                    builder.branch(end)
                choice.add_case(I64(number), block)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), generate

    return apply


def write(e: Vectors, halves, matrix: list, times, src, src_next, from_step, dst, dst_next,
          to_step) -> None:  # fmt: skip
    """The code of one matrix."""

    def body(places):
        src, dst = places
        for half in halves:
            at, xs = e.plus(src, half), []
            for _ in matrix[0]:
                xs.append(e.load(at))
                at = e.plus(at, from_step)
            at = e.plus(dst, half)
            for y in multiplied(e, matrix, xs):
                e.store(y, at)
                at = e.plus(at, to_step)
        return [e.plus(src, src_next), e.plus(dst, dst_next)]

    e.loop(times, [src, dst], body)


def multiplied(e: Vectors, matrix: list, xs: list) -> list:
    """The vectors matrix @ xs.

    Rows, or columns, of the points p and -p differ in signs alone, so that sums and differences
    serve both.
    """
    columns = transposed(matrix)
    for i, j in opposite(columns):
        xs = [*xs]
        xs[i], xs[j] = e.ir.fadd(xs[i], xs[j]), e.ir.fsub(xs[i], xs[j])
        both = [(a if a == b else 0, a if a != b else 0) for a, b in zip(columns[i], columns[j])]
        columns[i], columns[j] = transposed(both)
    rows = transposed(columns)
    ys: list = [None] * len(rows)
    for i, j in opposite(rows):
        even = e.weighted([a if a == b else 0 for a, b in zip(rows[i], rows[j])], xs)
        odd = e.weighted([a if a != b else 0 for a, b in zip(rows[i], rows[j])], xs)
        ys[i], ys[j] = e.ir.fadd(even, odd), e.ir.fsub(even, odd)
    return [e.weighted(row, xs) if y is None else y for row, y in zip(rows, ys)]


def opposite(rows: list) -> list[tuple[int, int]]:
    """Pairs of rows that hold the same numbers but for signs, some equal and some not."""
    found: list[tuple[int, int]] = []
    for i, a in enumerate(rows):
        for j, b in enumerate(rows[:i]):
            same = [x == y for x, y in zip(a, b) if x or y]
            if [abs(x) for x in a] == [abs(y) for y in b] and any(same) and not all(same):
                found.append((j, i))
    return found


_at = transforms(lambda m, r: matrices(m, r)[0])
_a = transforms(lambda m, r: transposed(matrices(m, r)[0]))
_bt = transforms(lambda m, r: matrices(m, r)[1])
_half_bt = transforms(lambda m, r: matrices(m, r)[1], halves=(0,))
_b = transforms(lambda m, r: transposed(matrices(m, r)[1]))
_g = transforms(lambda m, r: matrices(m, r)[2])
_gt = transforms(lambda m, r: transposed(matrices(m, r)[2]))


# Functions of their own, so that a kernel holds one copy of each.
@helper()
def at(kind, times, src, src_next, from_step, dst, dst_next, to_step):
    """A^T: products at n points -> m outputs."""
    _at(kind, times, src, src_next, from_step, dst, dst_next, to_step)


@helper()
def a(kind, times, src, src_next, from_step, dst, dst_next, to_step):
    """A, the adjoint of at."""
    _a(kind, times, src, src_next, from_step, dst, dst_next, to_step)


@helper()
def bt(kind, times, src, src_next, from_step, dst, dst_next, to_step):
    """B^T: n pixels -> their values at n points."""
    _bt(kind, times, src, src_next, from_step, dst, dst_next, to_step)


@helper()
def half_bt(kind, times, src, src_next, from_step, dst, dst_next, to_step):
    """bt of the first half of a panel, where the other holds nothing."""
    _half_bt(kind, times, src, src_next, from_step, dst, dst_next, to_step)


@helper()
def b(kind, times, src, src_next, from_step, dst, dst_next, to_step):
    """B, the adjoint of bt."""
    _b(kind, times, src, src_next, from_step, dst, dst_next, to_step)


@helper()
def g(kind, times, src, src_next, from_step, dst, dst_next, to_step):
    """G: r taps -> their values at n points."""
    _g(kind, times, src, src_next, from_step, dst, dst_next, to_step)


@helper()
def gt(kind, times, src, src_next, from_step, dst, dst_next, to_step):
    """G^T, the adjoint of g."""
    _gt(kind, times, src, src_next, from_step, dst, dst_next, to_step)
