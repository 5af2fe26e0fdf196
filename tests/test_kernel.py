"""What kernels are compiled with: prange, and the cache on disk."""

import ast
import errno
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from convnet.kernel import cpu_kernel, divisor, prange, stamps

ROOT = Path(__file__).parent.parent


@cpu_kernel
def count(times, n):
    for i in prange(n):
        times[i] += 1


@cpu_kernel
def allocate(bytes_of, n):
    for i in prange(n):
        bytes_of[i] = np.empty(bytes_of[i], np.uint8).size


@cpu_kernel
def twice(times):
    for i in prange(times.size):
        times[i] += 1
    for i in prange(times.size):
        times[i] += 1


@pytest.mark.parametrize("threads", [1, numba.get_num_threads()])
@pytest.mark.parametrize("n", [0, -1, 1, 2, 7, 1000, np.uint64(9), np.int32(5), np.int32(-3)])
def test_each_index_once(n, threads):
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        times = np.zeros(1001, np.int64)
        count(times, n)
    finally:
        numba.set_num_threads(before)
    end = max(int(n), 0)
    assert (times[:end] == 1).all() and not times[end:].any()


def test_in_python_it_is_a_range():
    assert list(prange(3)) == [0, 1, 2]


def test_what_a_thread_raises():
    sizes = np.array([1, 2**62], np.int64)
    with pytest.raises(MemoryError, match="allocate"):
        allocate(sizes, 2)
    sizes = np.array([1, 2], np.int64)
    allocate(sizes, 2)  # and goes on after it
    assert sizes.tolist() == [1, 2]


def test_threads_take_memory_while_python_counts_it():
    """tracemalloc wants Python's lock, so who waits for the threads must not hold it."""
    code = (
        "import tracemalloc; import numpy as np; from tests.test_kernel import allocate;"
        "tracemalloc.start(); allocate(np.full(1000, 100_000), 1000)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=100, check=True)


def test_a_kernel_has_one_prange():
    with pytest.raises(TypeError, match="a kernel has one prange"):
        twice(np.zeros(3))


def test_a_kernel_ends_with_its_prange():
    """What stands behind the loop would run in every thread, before the others are done."""
    seen = 0
    for path in [*(ROOT / "layers").rglob("*.py"), *(ROOT / "convnet").rglob("*.py")]:
        for body in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            marks = {word for mark in getattr(body, "decorator_list", ())
                     for word in [getattr(getattr(mark, "func", mark), "id", "")]}  # fmt: skip
            if not marks & {"kernel", "cpu_kernel"}:
                continue
            seen += 1
            last = body.body[-1]
            assert isinstance(last, ast.For) and "prange(" in ast.unparse(last.iter), body.name
            before = ast.Module(body.body[:-1], [])
            assert "prange(" not in ast.unparse(before), body.name
            stored = [n for n in ast.walk(before)
                      if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)]  # fmt: skip
            assert not stored, f"{body.name} writes before its prange"
    assert seen > 30


def test_stamps():
    names = {name for name, _ in stamps(ROOT / "layers" / "_winograd.py")}
    helpers = {
        "_winograd_grid.py",
        "_winograd_tiles.py",
        "_transforms.py",
        "_tile.py",
        "_vector.py",
    }
    assert names == helpers | {"_winograd.py", "kernel.py", "prange.py"}


def test_the_cache_sees_an_edit_of_a_helper(tmp_path):
    shutil.copytree(ROOT / "convnet", tmp_path / "convnet")
    layers = tmp_path / "layers"
    layers.mkdir()
    (layers / "__init__.py").touch()
    (layers / "user.py").write_text(
        "from convnet.kernel import cpu_kernel, prange\nfrom layers._value import value\n\n\n"
        "@cpu_kernel\ndef fill(x):\n    for i in prange(x.size):\n        x[i] = value()\n"
    )
    code = "import numpy as np; from layers.user import fill; x = np.zeros(2); fill(x); print(x[1])"
    run = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # Python's own cache goes by times and sizes
    for value in (1.0, 1.0, 2.0):
        (layers / "_value.py").write_text(
            f"from convnet.kernel import helper\n\n\n@helper()\ndef value():\n    return {value}\n"
        )
        os.utime(layers / "_value.py", (10**9, 10**9))  # nor does its size tell
        done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) == value
    index = list((tmp_path / "cache").rglob("user.fill-*.nbi"))
    assert index
    # as an older version leaves it that had a class somewhere else
    index[-1].write_bytes(pickle.dumps(numba.__version__) + b"clayers.user\nGone\n.")
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and float(done.stdout) == value, done.stderr


def test_a_kernel_runs_that_a_full_disk_does_not_take(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "_save_data", full)

    @cpu_kernel
    def five(x):
        for i in prange(x.size):
            x[i] = 5

    x = np.zeros(3)
    five(x)
    assert (x == 5).all() and five.on_cpu.stats.cache_misses


def test_division_by_a_product():
    """What a Div of the CUDA bodies computes, for numbers of 31 bits and divisors of any size."""
    rng = np.random.default_rng(0)
    divisors = {*range(1, 300), *(2**k + i for k in range(1, 31) for i in (-1, 0, 1)), 2**31 - 1}
    for d in divisors - {0}:
        both = int(divisor(d))
        kept, m, s = both % 2**32, both >> 32, 31 + (d - 1).bit_length()
        near = {d * k + i for k in (0, 1, 2, 2**31 // d - 1) for i in (-1, 0, 1)}
        some = {*map(int, rng.integers(0, 2**31, 50)), *near, 2**31 - 1}
        assert kept == d and all(n * m >> s == n // d for n in some if 0 <= n < 2**31)
