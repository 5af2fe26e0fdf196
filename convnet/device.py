"""Where arrays live: 'cpu' (NumPy, all cores) or 'gpu:0' (CuPy). The only file that imports cupy.

A device lends memory with `empty`; on a CPU it comes from an arena, on a GPU from CuPy's pool.
"""

import os
import re
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from convnet.arena import Arena


class DeviceError(Exception):
    """The device cannot be used; one line that says what is missing and what to do."""


class Cpu:
    """NumPy arrays; kernels run on all cores through Numba.

    fast: whether layers may choose faster variants of their kernels; without, the plain ones run.
    """

    xp = np
    block = 2 << 20  # bytes of what is made to be read at once: they stay in the cache
    version = f"NumPy {np.__version__}, Numba {numba.__version__}"

    def __init__(self, fast: bool = True):
        self.fast, self.name = fast, "cpu" if fast else "cpu:plain"
        self.arena = Arena()
        self.prepared: dict[tuple, tuple] = {}  # layers keep here what they made of weights

    def empty(self, shape: tuple, dtype=np.float32) -> np.ndarray:
        """An array of this shape, contents undefined."""
        return self.arena.empty(shape, np.dtype(dtype))

    host_empty = empty  # memory for what a device is fed from

    def once(self, key: tuple, mark, make: Callable) -> Any:
        """What make() returned when this key last came with this mark; made anew with another."""
        if self.prepared.get(key, (None,))[0] != mark:
            self.prepared[key] = mark, make()
        return self.prepared[key][1]

    def array(self, values) -> np.ndarray:
        """The values as a C-contiguous array on this device; not copied if they are one."""
        return np.ascontiguousarray(values)

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """The values as a NumPy array."""
        return values

    def synchronize(self) -> None:
        """Wait until everything asked for is computed; on a CPU it always is."""

    def held(self) -> int:
        """Bytes of a memory of its own that it has taken; a CPU has none."""
        return 0

    def trim(self) -> None:
        """Give memory that is not in use back to the system, and what can be made again."""
        self.prepared.clear()
        self.arena.trim()


class Gpu:
    """CuPy arrays on one NVIDIA (or, with a ROCm build of CuPy, AMD) device.

    tf32: whether products of matrices may round what they multiply to 10 bits, for all of this
    process; several times as fast on GPUs that can.
    """

    fast = False  # no kernel of a GPU has variants
    block = 256 << 20  # bytes made at once: enough that a product of them fills the GPU

    def __init__(self, index: int, tf32: bool = False):
        self.name = f"gpu:{index}" + tf32 * ":tf32"
        if tf32:
            os.environ["CUPY_TF32"] = "1"  # CuPy looks when it multiplies for the first time
        self.xp = _cupy(self.name)
        count = self.xp.cuda.runtime.getDeviceCount()
        if index >= count:
            raise DeviceError(f"--device={self.name}: this machine has gpu:0 to gpu:{count - 1}")
        self.xp.cuda.Device(index).use()
        card = self.xp.cuda.runtime.getDeviceProperties(index)["name"].decode()
        self.version = f"CuPy {self.xp.__version__}, {card}"

    def empty(self, shape: tuple, dtype=np.float32):
        """An array of this shape, contents undefined."""
        return self.xp.empty(shape, dtype)

    def host_empty(self, shape: tuple, dtype=np.float32) -> np.ndarray:
        """A NumPy array from which the device is fed, in memory that the GPU reads by itself."""
        import cupyx

        return cupyx.empty_pinned(shape, dtype)

    def array(self, values):
        """The values as a C-contiguous array on this device."""
        if isinstance(values, self.xp.ndarray):
            return self.xp.ascontiguousarray(values)
        values = np.ascontiguousarray(values)
        found = self.xp.empty(values.shape, values.dtype)
        found.set(values)  # xp.asarray would copy twice, the first time on the CPU
        return found

    def numpy(self, values) -> np.ndarray:
        """The values as a NumPy array."""
        return self.xp.asnumpy(values)

    def synchronize(self) -> None:
        """Wait until everything asked for is computed."""
        self.xp.cuda.get_current_stream().synchronize()

    def held(self) -> int:
        """Bytes of its memory that CuPy's pool has taken; what is free in the pool counts."""
        return self.xp.get_default_memory_pool().total_bytes()

    def trim(self) -> None:
        """Give memory that is not in use back to the driver."""
        self.xp.get_default_memory_pool().free_all_blocks()


def _cupy(name: str):
    """The cupy module if it can run something, else a DeviceError that says what to install."""
    try:
        import cupy
    except ImportError:
        raise DeviceError(
            f"--device={name}: CuPy is not installed; pip install 'convnet[gpu13]' "
            "(CUDA 13) or 'convnet[gpu12]' (CUDA 12)"
        ) from None
    if not cupy.cuda.is_available():
        raise DeviceError(
            f"--device={name}: CuPy finds no NVIDIA driver or no device; "
            "see nvidia-smi, or use --device=cpu"
        )
    return cupy


def compile_cuda(source: str, name: str):
    """The kernel `name` of a CUDA text, compiled by NVRTC for the current device."""
    import cupy

    try:
        return cupy.RawModule(code=source, options=("-std=c++17",)).get_function(name)
    except cupy.cuda.compiler.CompileException as e:
        raise DeviceError(f"kernel {name} does not compile for this device: {e}") from None


def device(name: str = "cpu") -> Cpu | Gpu:
    """The device of that name: cpu, cpu:plain, gpu, gpu:1, gpu:tf32, gpu:1:tf32. DeviceError."""
    cpu, index, tf32 = check(name)
    return Cpu(fast=cpu == "cpu") if cpu else Gpu(int(index or 0), bool(tf32))


def check(name: str) -> tuple:
    """The name of a CPU, or number and option of a GPU's; DeviceError where it is none of both."""
    found = re.fullmatch(r"(cpu|cpu:plain)|gpu(?::(\d+))?(:tf32)?", name)
    if found:
        return found.groups()
    raise DeviceError(f"--device={name}: must be cpu, cpu:plain, gpu, gpu:<number> or gpu:tf32")
