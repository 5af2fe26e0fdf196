"""The CUDA text of every kernel, as C++ for g++ and as one file for nvcc.

The grid-stride loop FOR makes it possible: a thread is a call with other values of blockIdx and
threadIdx, so the text runs on a CPU, one thread after the other, in any order.
"""

import ctypes
import importlib
import subprocess
from pathlib import Path

import numpy as np

from convnet.kernel import FLOATS, Kernel
from tests import contract

SHIM = r"""
#include <algorithm>
#include <cmath>
using std::max; using std::min;
using std::sqrt; using std::pow; using std::fabs; using std::exp; using std::log; using std::tanh;
#define __global__
#define __device__
#define __clz __builtin_clz
struct Dim { unsigned x, y, z; };
static Dim blockIdx, threadIdx, blockDim, gridDim;
extern "C" void be(unsigned block, unsigned thread, unsigned blocks, unsigned threads) {
    blockIdx.x = block, threadIdx.x = thread, gridDim.x = blocks, blockDim.x = threads;
}
"""
C_TYPES = {
    "int32": ctypes.c_int32,
    "uint32": ctypes.c_uint32,
    "uint64": ctypes.c_uint64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}


def kernels() -> dict[str, Kernel]:
    """Every kernel of layers/ and convnet/ by name."""
    root = contract.HOME.parent
    for path in sorted([*root.glob("layers/**/*.py"), *root.glob("convnet/**/*.py")]):
        if "@kernel(" in path.read_text():
            importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))
    return Kernel.all


def text(dtype: str) -> str:
    """All kernels for arrays of this dtype; a kernel is called <name>_<dtype> in it."""
    sources = []
    for name, k in kernels().items():
        source = k.source(np.dtype(dtype))
        sources.append(source.replace(f"void {k.symbol}(", f"void {name}_{dtype}("))
    return "\n".join([*sources, "#undef T", "#undef FOR"])


def build(folder: Path, *flags: str) -> Path:
    """All kernels, both dtypes, in one library."""
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(SHIM + "\n".join(map(text, FLOATS)))
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", *flags]
    done = subprocess.run([*command, "-o", library, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


class Shim:
    """Stands in for Kernel.launch: runs the C++ of the kernel, as `blocks` x `threads` threads."""

    def __init__(self, library: Path, blocks: int = 1, threads: int = 1):
        self.lib, self.blocks, self.threads = ctypes.CDLL(str(library)), blocks, threads
        self.launched: set[str] = set()

    def launch(self, kernel: Kernel, n: int, args: tuple) -> None:
        T = next(a.dtype for a in args if hasattr(a, "dtype") and a.dtype.kind == "f")
        body = getattr(self.lib, f"{kernel.name}_{T.name}")
        given = [as_c(a) for a in kernel.marshal(T, n, args)]
        rng = np.random.default_rng(0)
        for t in rng.permutation(self.blocks * self.threads):
            place = divmod(int(t), self.threads)
            self.lib.be(*place, self.blocks, self.threads)
            body(*given)
        self.launched.add(kernel.name)


def as_c(a):
    """An argument as ctypes hands it over; arrays are pointers and must be C-contiguous."""
    if isinstance(a, np.ndarray):
        assert a.flags.c_contiguous
        return ctypes.c_void_p(a.ctypes.data)
    return C_TYPES[a.dtype.name](a)
