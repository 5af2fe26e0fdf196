"""Memory for the arrays of a CPU: taken from the system once, lent again and again.

    arena = Arena()
    x = arena.empty((32, 110, 110, 96), np.dtype(np.float32))   # goes back when nobody looks at it

Fresh pages from the system cost more than many kernels, so that a training step should take none
after the first. The arena holds a few chunks, each as large as all before it; what is not lent is
a list of holes, those of older chunks first. An array takes the front of the first hole that is
large enough, and neighbouring holes become one again: arrays of different sizes follow each other
in the same memory, and the pages at the far end of a chunk are never touched.
"""

import math
import threading
from bisect import insort
from collections import deque
from typing import NamedTuple

import numpy as np

LINE = 64  # bytes of a cache line: where arrays begin, and what their sizes are rounded up to
SMALL = 4096  # bytes, below which the system lends
CHUNK = 64 << 20  # bytes of the first chunk


class Hole(NamedTuple):
    """A part of a chunk; they sort by the age of the chunk."""

    chunk: int
    start: int  # an address
    size: int


class _Lease:
    """The memory behind one array; goes back to the arena when the last view of it is gone."""

    def __init__(self, arena: "Arena", hole: Hole, shape: tuple, dtype: np.dtype):
        self.arena, self.hole = arena, hole
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (hole.start, False),
        }

    def __del__(self):
        # any thread, and the middle of `empty`, may be where this happens: hence no lock
        self.arena.returned.append(self.hole)


class Arena:
    """Chunks of memory and the holes in them."""

    def __init__(self):
        self.chunks: dict[int, tuple[np.ndarray, Hole]] = {}  # number: memory, all of it as a hole
        self.holes: list[Hole] = []  # in order
        self.returned: deque[Hole] = deque()
        self.lock = threading.Lock()

    @property
    def taken(self) -> int:
        """Bytes of all chunks; the system gives a page of them when it is first written to."""
        return sum(whole.size for _, whole in self.chunks.values())

    def empty(self, shape: tuple, dtype: np.dtype) -> np.ndarray:
        """An array of undefined contents."""
        need = math.prod(shape) * dtype.itemsize
        if need < SMALL:
            return np.empty(shape, dtype)
        with self.lock:
            hole = self._take(-(-need // LINE) * LINE)
        return np.asarray(_Lease(self, hole, tuple(map(int, shape)), dtype))

    def trim(self) -> None:
        """Give the chunks of which nothing is lent back to the system."""
        with self.lock:
            self._merge()
            for number, (_, whole) in list(self.chunks.items()):
                if whole in self.holes:
                    self.holes.remove(whole)
                    del self.chunks[number]

    def _take(self, size: int) -> Hole:
        self._merge()
        at = next((i for i, hole in enumerate(self.holes) if hole.size >= size), None)
        if at is None:
            at = len(self.holes)
            self.holes.append(self._grow(size))
        number, start, length = self.holes[at]
        rest = Hole(number, start + size, length - size)
        self.holes[at : at + 1] = [rest] if rest.size else []
        return Hole(number, start, size)

    def _grow(self, size: int) -> Hole:
        """A new chunk."""
        for asked in (max(size, self.taken, CHUNK), size):
            try:
                memory = np.empty(asked + LINE, np.uint8)
                break
            except MemoryError:  # where addresses are short, as little as will do
                if asked == size:
                    raise
        number = max(self.chunks, default=0) + 1
        whole = Hole(number, -(-memory.ctypes.data // LINE) * LINE, asked)
        self.chunks[number] = memory, whole
        return whole

    def _merge(self) -> None:
        """Put what has come back among the holes, and make one of those that touch."""
        if not self.returned:
            return
        while self.returned:
            insort(self.holes, self.returned.popleft())
        merged = self.holes[:1]
        for hole in self.holes[1:]:
            chunk, start, size = merged[-1]
            if (chunk, start + size) == (hole.chunk, hole.start):
                merged[-1] = Hole(chunk, start, size + hole.size)
            else:
                merged.append(hole)
        self.holes = merged
