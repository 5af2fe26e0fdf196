"""Vector code for Numba: the few operations that tiles and transforms are written in.

Numba's loops leave it to LLVM what becomes a vector; where sums must stay in registers the code is
given to LLVM in vectors of LANES floats instead. LLVM still chooses registers and instructions for
the CPU at hand: AVX-512, AVX2, NEON, SSE. Addresses are integers, as `array.ctypes.data` gives.
"""

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils


def features() -> set[str]:
    """The instruction sets that Numba compiles for: of this CPU, or as NUMBA_CPU_FEATURES says."""
    named = numba.config.CPU_FEATURES
    if named is None:
        return {name for name, there in llvm.get_host_cpu_features().items() if there}
    return {word[1:] for word in named.split(",") if word.startswith("+")}


FEATURES = features()
LANES = 16 if "avx512f" in FEATURES else 8 if "avx" in FEATURES else 4
I32, I64, FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR = ir.VectorType(FLOAT, LANES)
ZEROS = ir.Constant(VECTOR, [0.0] * LANES)


class Vectors:
    """An LLVM builder with the few operations that tiles and transforms need."""

    def __init__(self, builder):
        self.ir = builder
        fma = ir.FunctionType(VECTOR, [VECTOR] * 3)
        self._fma = cgutils.get_or_insert_function(builder.module, fma, f"llvm.fmuladd.v{LANES}f32")

    def plus(self, address, floats):
        """The address so many floats further; `floats` is a value or a number."""
        if isinstance(floats, int):
            floats = I64(floats)
        return self.ir.add(address, self.ir.shl(floats, I64(2)))

    def load(self, address, type=VECTOR):
        got = self.ir.load(self.ir.inttoptr(address, type.as_pointer()))
        got.align = 4
        return got

    def store(self, value, address):
        self.ir.store(value, self.ir.inttoptr(address, VECTOR.as_pointer())).align = 4

    def prefetch(self, address):
        """Ask for the cache line of this address, to be read."""
        place, number = ir.IntType(8).as_pointer(), I32
        kind = ir.FunctionType(ir.VoidType(), [place, number, number, number])
        ask = cgutils.get_or_insert_function(self.ir.module, kind, "llvm.prefetch.p0i8")
        self.ir.call(ask, [self.ir.inttoptr(address, place), I32(0), I32(2), I32(1)])

    def spread(self, number):
        """A vector that holds this number in all lanes."""
        some = ir.Constant(VECTOR, ir.Undefined)
        first = self.ir.insert_element(some, number, I32(0))
        return self.ir.shuffle_vector(first, some, ir.Constant(ir.VectorType(I32, LANES), None))

    def all(self, number: float):
        """A vector that holds this constant in all lanes."""
        return ir.Constant(VECTOR, [number] * LANES)

    def fma(self, a, b, c):
        """a * b + c."""
        return self.ir.call(self._fma, [a, b, c])

    def loop(self, count, carried: list, body):
        """body(values) -> values, count >= 1 times; the values are what goes round."""
        before, block = self.ir.block, self.ir.append_basic_block("loop")
        self.ir.branch(block)
        self.ir.position_at_end(block)
        phis = [self.ir.phi(v.type) for v in (I64(0), *carried)]
        for phi, first in zip(phis, (I64(0), *carried)):
            phi.add_incoming(first, before)
        values = [self.ir.add(phis[0], I64(1)), *body(phis[1:])]
        for phi, value in zip(phis, values):
            phi.add_incoming(value, self.ir.block)
        after = self.ir.append_basic_block("after")
        self.ir.cbranch(self.ir.icmp_signed("<", values[0], count), block, after)
        self.ir.position_at_end(after)
        return values[1:]

    def choose(self, number, other, same):
        """other() where the number is not 0, same() where it is."""
        with self.ir.if_else(self.ir.icmp_signed("!=", number, I64(0))) as (then, otherwise):
            with then:
                other()
            with otherwise:
                same()

    def weighted(self, weights: list, vectors: list):
        """The sum of the vectors, each times its number; not all numbers are 0."""
        total = None
        for weight, vector in sorted(
            ((w, v) for w, v in zip(weights, vectors) if w), key=lambda pair: abs(pair[0]) != 1
        ):
            number = self.all(float(weight))
            if total is None:
                total = vector if weight == 1 else self.ir.fmul(number, vector)
            elif abs(weight) == 1:
                total = (self.ir.fadd if weight == 1 else self.ir.fsub)(total, vector)
            else:
                total = self.fma(number, vector, total)
        return total

    def larger(self, a, b):
        """The larger of a and b, number by number; NaN where one of them is."""
        more = self.ir.or_(self.ir.fcmp_ordered(">", b, a), self.ir.fcmp_unordered("uno", b, b))
        return self.ir.select(more, b, a)

    def where_equal(self, a, b, value):
        """value where a = b, 0 elsewhere."""
        return self.ir.select(self.ir.fcmp_ordered("==", a, b), value, ZEROS)

    def where_more(self, a, b, value):
        """value where a > b, 0 elsewhere."""
        return self.ir.select(self.ir.fcmp_ordered(">", a, b), value, ZEROS)

    def at_least(self, low, a):
        """The larger of both; NaN where a is one."""
        return self.ir.select(self.ir.fcmp_ordered("<", a, low), low, a)
