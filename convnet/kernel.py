"""@kernel: one name, two bodies. The Python body runs under Numba, the CUDA body under CuPy.

    @kernel(cuda=r'''
    __global__ void twice(int n, const T* x, T* y) { FOR(i, n) y[i] = 2 * x[i]; }''')
    def twice(x, y):
        for i in prange(x.size):
            y.flat[i] = 2 * x.flat[i]

    twice[y.size](x, y)

In brackets stands the number of threads a GPU starts (CUDA's first argument n); the CPU body
needs no such number. Both bodies name the same arguments in the same order, which is compared at
import; an array stands first. T is the dtype of the first array of floats, float or double. Floats
are handed over as T, ints as int, so that a kernel in float32 computes in float32. What an index
is divided by is a Div there, an int that divides quickly.
"""

import contextlib
import functools
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numba
import numpy as np

from convnet.prange import prange  # noqa: F401  (for the bodies of kernels)

# Of Numba's pools OpenMP's wakes fastest: its threads wait awake for a moment after a job, and our
# jobs follow each other. workqueue is there where no OpenMP is.
if numba.config.THREADING_LAYER == "default":
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]

PRELUDE = r"""
#define FOR(i, n) \
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += blockDim.x * gridDim.x)
#ifndef DIV
#define DIV
struct Div { unsigned d, m; __device__ operator int() const { return d; } };
inline __device__ int operator/(int n, Div by) {
    int bits = by.d > 1 ? 32 - __clz(by.d - 1) : 0;
    return (unsigned long long)(unsigned)n * by.m >> (31 + bits);
}
inline __device__ int operator%(int n, Div by) { return n - n / by * int(by); }
inline __device__ int min(int a, Div b) { return a < int(b) ? a : int(b); }
#endif
"""
FLOATS = {"float32": "float", "float64": "double"}
HOME = Path(__file__).resolve().parents[1]  # of convnet/ and layers/
BLOCK = 256
LIMIT = 2**31 - BLOCK * 2**16  # an index, and one step of FOR beyond it, fits an int

_noting = threading.local()
_one_at_a_time = threading.Lock()  # workqueue runs one parallel kernel at a time


@functools.lru_cache(1024)
def divisor(d: int) -> np.uint64:
    """A Div of the CUDA bodies: d, and the number m that a division by it multiplies with.

    n / d is n * m >> s for every n of 31 bits, with s = 31 + ceil(log2 d) and m = 2^s / d + 1
    (Granlund, Montgomery 1994, "Division by invariant integers using multiplication"); a GPU has
    no instruction that divides integers.
    """
    return np.uint64(d | ((1 << 31 + (d - 1).bit_length()) // d + 1) << 32)


SCALARS = {
    "int": np.int32,
    "unsigned": np.uint32,
    "unsigned long long": np.uint64,
    "Div": divisor,
}


class Kernel:
    """Both bodies of one kernel; see the module's docstring. `all` is every kernel by name."""

    all: dict[str, "Kernel"] = {}

    def __init__(self, body: Callable, cuda: str):
        self.name, self.body, self.cuda = body.__name__, body, inspect.cleandoc(cuda)
        self.__doc__ = body.__doc__
        found = re.search(r"__global__\s+void\s+(\w+)\s*\(([^)]*)\)", cuda)
        if not found:
            raise TypeError(f"kernel {self.name}: no __global__ void {self.name}(...) in its CUDA")
        rows = [re.fullmatch(r"\s*(.*?)\s*(\w+)\s*", row).groups() for row in found[2].split(",")]
        self.types = [t.replace("const ", "").replace("__restrict__", "").strip() for t, _ in rows]
        theirs = (found[1], [name for _, name in rows])
        ours = (self.name, ["n", *inspect.signature(body).parameters])
        if ours != theirs or self.name in Kernel.all:
            raise TypeError(f"kernel {self.name}: Python takes {ours}, CUDA takes {theirs}")
        # No fast-math beyond a*b+c: a NaN must stay a NaN, and a value computed twice must be
        # equal to itself (max pooling compares).
        self.on_cpu = shared(body)
        self._on_gpu: dict[str, Callable] = {}
        Kernel.all[self.name] = self

    @property
    def symbol(self) -> str:
        """The name of the CUDA body for the compiler, which has an rnorm of its own."""
        return f"convnet_{self.name}"

    def __getitem__(self, n: int) -> Callable:
        return lambda *args: self.launch(n, args)

    def launch(self, n: int, args: tuple) -> None:
        """Run on the device where the arrays are; n threads on a GPU."""
        T = dtype_of(args)
        if isinstance(args[0], np.ndarray):
            scalars = float, np.floating
            run(self.on_cpu, *(T.type(a) if isinstance(a, scalars) else a for a in args))
        elif n:
            if T.name not in self._on_gpu:
                from convnet.device import compile_cuda

                self._on_gpu[T.name] = compile_cuda(self.source(T), self.symbol)
            blocks = min((n + BLOCK - 1) // BLOCK, 2**16)
            self._on_gpu[T.name]((blocks,), (BLOCK,), self.marshal(T, n, args))

    def marshal(self, T: np.dtype, n: int, args: tuple) -> tuple:
        """The arguments of the CUDA body, scalars in the types that it declares.

        The CPU bodies count in 64 bits, the CUDA bodies in int, which is checked here.
        """
        largest = max([n, *(a.size for a in args if hasattr(a, "dtype"))])
        if largest > LIMIT:
            raise ValueError(f"kernel {self.name}: {largest} elements, at most {LIMIT} on a GPU; "
                             "use smaller batches")  # fmt: skip
        kinds = {**SCALARS, "T": T.type}
        return tuple(
            a if kind.endswith("*") else kinds[kind](a) for kind, a in zip(self.types, (n, *args))
        )

    def source(self, T: np.dtype) -> str:
        """The CUDA text for arrays of dtype T."""
        text = self.cuda.replace(f"void {self.name}(", f"void {self.symbol}(")
        return f'#define T {FLOATS[np.dtype(T).name]}\n{PRELUDE}extern "C" {text}\n'


def jit(**options) -> Callable:
    """numba.njit with what all our code has in common; cached on disk where that is possible."""

    def wrap(body: Callable):
        settings = {"error_model": "numpy", "fastmath": {"contract"}, **options}
        try:
            compiled = numba.njit(cache=True, **settings)(body)
        except RuntimeError:  # no folder that the cache may be written to
            return numba.njit(**settings)(body)
        path = Path(body.__code__.co_filename)
        if path.is_file():  # in a notebook it is none, and Numba finds a stamp of its own
            # Numba's own stamp is that of the file alone in which the body stands.
            compiled._cache._cache_file._source_stamp = stamps(path)
        forgive(compiled._cache._cache_file)
        return compiled

    return wrap


def forgive(cache_file) -> None:
    """Let Numba compile anew what its cache does not give back, and go on where it takes no more.

    An index of a file may name a class that has moved since; the disk may be full.
    """
    load, save = cache_file._load_index, cache_file.save

    def careful_load():
        try:
            return load()
        except (AttributeError, ImportError):
            return {}

    def careful_save(key, data):
        with contextlib.suppress(OSError):
            save(key, data)

    cache_file._load_index, cache_file.save = careful_load, careful_save


@functools.cache
def stamps(path: Path) -> frozenset:
    """Name and SHA-256 of each file that the kernels in this one are compiled from.

    Not their times: of two versions some installers give all files the same.
    """
    text = path.read_bytes()
    helpers = rb"^from (layers\._\w+|convnet\.kernel|convnet\.prange) import"
    names = map(bytes.decode, re.findall(helpers, text, re.MULTILINE))
    files = [HOME.joinpath(*name.split(".")).with_suffix(".py") for name in names]
    return frozenset({(path.name, sha256(text).digest())}).union(*map(stamps, files))


def shared(body: Callable) -> Callable:
    """The body of a kernel, for Python to call; threads share its prange.

    Nobody holds Python's lock meanwhile: a thread of the pool that takes memory may want it, under
    tracemalloc for one.
    """
    return jit(nogil=True)(body)


def helper(**options) -> Callable:
    """jit for what only compiled code calls: without a wrapper for Python it compiles sooner."""
    return jit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)


def on_disk(compiled: Callable, types: tuple) -> bool | None:
    """Whether an earlier process has left a body, compiled for these types; None: it cannot."""
    index = getattr(compiled._cache, "_cache_file", None)
    return index and any(key[0] == types for key in index._load_index())


@contextlib.contextmanager
def noted() -> Iterator[dict[tuple, None]]:
    """Kernels that this thread calls do nothing; the keys are (body, types of its arguments)."""
    _noting.calls = {}
    try:
        yield _noting.calls
    finally:
        _noting.calls = None


@functools.cache
def start_pool() -> None:
    """Numba's pool, whose symbols prange needs, is there once somebody has asked for its size."""
    numba.get_num_threads()


def run(compiled: Callable, *args) -> None:
    """Run a compiled body on all threads."""
    if (calls := getattr(_noting, "calls", None)) is not None:
        calls[compiled, tuple(map(compiled.typeof_pyval, args))] = None
        return
    start_pool()
    with _one_at_a_time:
        compiled(*args)


def cpu_kernel(body: Callable) -> Callable:
    """A kernel of a fast variant: it runs on a CPU alone, with scalars as they are given."""
    compiled = shared(body)
    found = functools.update_wrapper(functools.partial(run, compiled), body)
    found.on_cpu = compiled
    return found


def kernel(cuda: str) -> Callable[[Callable], Kernel]:
    """Declare a kernel: its CUDA text here, its CPU body below."""
    return lambda body: Kernel(body, cuda)


def dtype_of(args: tuple) -> np.dtype:
    """The dtype of the first array of floats among the arguments."""
    return next(a.dtype for a in args if getattr(a, "ndim", 0) and a.dtype.kind == "f")
