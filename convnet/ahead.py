"""The first start: the kernels of a net, compiled by several processes at once.

In one process Numba compiles one kernel at a time. So one training step is taken in which kernels
do nothing but note what they are called with; what of that is not on disk yet is shared among
processes, each of which leaves there what it compiles. Then this process loads it like any later
start. What a process that dies has not done, the first real step compiles.
"""

import contextlib
import copy
import gc
import importlib
import math
import mmap
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numba
import numpy as np

from convnet import kernel, machine
from convnet.device import Cpu
from convnet.engine import Ours
from convnet.net import Net

MOST = 4  # processes, of some 300 MB each


class Job(NamedTuple):
    """A kernel to compile, and the types of its arguments."""

    module: str
    name: str
    types: tuple


class Zeros(Cpu):
    """A CPU whose memory begins with zeros, so that a step does the same each time.

    The system hands out such pages; np.zeros would fill those that it has had before.
    """

    def empty(self, shape: tuple, dtype=np.float32) -> np.ndarray:
        """An array of this shape."""
        size, dtype = math.prod(shape), np.dtype(dtype)
        memory = mmap.mmap(-1, max(size * dtype.itemsize, 1), access=mmap.ACCESS_COPY)
        return np.frombuffer(memory, dtype, size).reshape(shape)

    host_empty = empty


def compile_kernels(net: Net, cases: int, say: Callable[[str], None] = print) -> None:
    """Compile what a training step of so many cases needs and is not on disk; say so before.

    The net is left as it is. On a GPU, and where all is there, nothing happens.
    """
    if not isinstance(net.device, Cpu):
        return
    compiled = _step_kernels(net, cases)
    jobs = [
        Job(body.py_func.__module__, body.py_func.__name__, types)
        for body, types in compiled
        if kernel.on_disk(body, types) is False
    ]
    if not jobs:
        if any(kernel.on_disk(body, types) is None for body, types in compiled):
            say("compiling the kernels of the net, at each start: there is no folder to keep them "
                "in; NUMBA_CACHE_DIR=DIR names one")  # fmt: skip
        return
    processes = min(MOST, machine.cores(), len(jobs))
    how = f" in {processes} processes" if processes > 1 else ""
    kernels = f"{len(jobs)} kernels" if len(jobs) > 1 else "a kernel"
    say(f"compiling {kernels} of the net{how}; this takes a while, at the first start only")
    if processes > 1:
        _share(jobs, processes)


def _step_kernels(net: Net, cases: int) -> list[tuple]:
    """(compiled body, types of its arguments) of what one training step calls."""
    ghost = copy.copy(net)
    ghost.device, ghost.watch = Zeros(net.device.fast), None
    # The rest of a step is NumPy, and runs: on weights that are nobody's.
    ghost.weights = {
        layer: {name: ghost.device.empty(w.shape, w.dtype) for name, w in arrays.items()}
        for layer, arrays in net.weights.items()
    }
    images = ghost.device.empty((cases, *net.graph.shapes[net.graph.feeds[0]]))
    with kernel.noted() as calls, np.errstate(all="ignore"):
        Ours(ghost, numba.get_num_threads()).train(images, np.zeros(cases))
    return list(calls)


def _share(jobs: list[Job], processes: int) -> None:
    """Let so many processes compile the jobs, and wait for them."""
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    with contextlib.ExitStack() as stack:
        threads = []
        for _ in range(processes):
            child = stack.enter_context(_compiler())
            threads.append(threading.Thread(target=_hand_out, args=(waiting, child), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def _compiler() -> Iterator[subprocess.Popen]:
    """A process that runs `main`. It ends when its input does, so also when we are killed."""
    # A session of its own: Ctrl-C is for us, who end it then.
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "convnet.ahead"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what fails there fails again here
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        with contextlib.suppress(OSError):  # what it has not read
            child.stdin.close()


def _hand_out(waiting: queue.SimpleQueue, child: subprocess.Popen) -> None:
    """Give a process one job after the other, until none is left or it is dead."""
    with contextlib.suppress(OSError, ValueError, queue.Empty):
        while True:
            pickle.dump(waiting.get_nowait(), child.stdin)
            child.stdin.flush()
            if not child.stdout.read(1):
                return


def main() -> None:
    """Compile the jobs that come in, one byte out for each."""
    gc.disable()  # it would go through all that LLVM is told, many times
    kernel.start_pool()
    done = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whoever prints does not answer
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = pickle.load(sys.stdin.buffer)
            with contextlib.suppress(Exception):  # left for the one who asks, who will see why
                found = getattr(importlib.import_module(job.module), job.name)
                found.on_cpu.compile(job.types)
            done.write(b".")


if __name__ == "__main__":
    main()
