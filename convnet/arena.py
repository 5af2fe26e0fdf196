"""Memory for the arrays of a CPU: taken from the system once, lent again and again.

    arena = Arena()
    x = arena.empty((32, 110, 110, 96), np.dtype(np.float32))   # goes back when nobody looks at it

Fresh pages from the system cost more than many kernels, so that a training step should take none
after the first. The arena holds a few chunks, each as large as all before it; what is not lent is
a list of holes in the order of their addresses. An array takes the front of the first hole that
is large enough, and neighbouring holes become one again: arrays of different sizes follow each
other in the same memory, and the pages at the far end of a chunk are never touched.
"""

import math
import threading
from bisect import insort
from collections import deque

import numpy as np

LINE = 64  # bytes of a cache line: where arrays begin, and what their sizes are rounded up to
SMALL = 4096  # bytes, below which the system lends
CHUNK = 64 << 20  # bytes of the first chunk


class _Lease:
    """The memory behind one array; goes back to the arena when the last view of it is gone."""

    def __init__(self, arena: "Arena", hole: tuple, shape: tuple, dtype: np.dtype):
        self.arena, self.hole = arena, hole
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (hole[0], False),
        }

    def __del__(self):
        # any thread, and the middle of `empty`, may be where this happens: hence no lock
        self.arena.returned.append(self.hole)


class Arena:
    """Chunks of memory and the holes in them. `taken` is all that was ever asked of the system."""

    def __init__(self):
        self.chunks: dict[int, np.ndarray] = {}  # by the address of the first line
        self.holes: list[tuple[int, int]] = []  # (address, bytes), in order
        self.returned: deque[tuple[int, int]] = deque()
        self.lock = threading.Lock()

    @property
    def taken(self) -> int:
        """Bytes of all chunks; the system gives a page of them when it is first written to."""
        return sum(chunk.nbytes for chunk in self.chunks.values())

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
            for address, chunk in list(self.chunks.items()):
                whole = address, self._usable(chunk)
                if whole in self.holes:
                    self.holes.remove(whole)
                    del self.chunks[address]

    def _take(self, size: int) -> tuple[int, int]:
        self._merge()
        at = next((i for i, hole in enumerate(self.holes) if hole[1] >= size), None)
        if at is None:
            # LINE more, as it may begin anywhere, and LINE between it and a chunk that follows
            chunk = np.empty(max(size, self.taken, CHUNK) + 2 * LINE, np.uint8)
            first = -(-chunk.ctypes.data // LINE) * LINE
            self.chunks[first] = chunk
            hole = first, self._usable(chunk)
            insort(self.holes, hole)
            at = self.holes.index(hole)
        address, length = self.holes[at]
        self.holes[at : at + 1] = [(address + size, length - size)] if length > size else []
        return address, size

    @staticmethod
    def _usable(chunk: np.ndarray) -> int:
        return chunk.nbytes - 2 * LINE

    def _merge(self) -> None:
        """Put what has come back among the holes, and make one of those that touch."""
        if not self.returned:
            return
        while self.returned:
            insort(self.holes, self.returned.popleft())
        merged = self.holes[:1]
        for address, length in self.holes[1:]:
            start, before = merged[-1]
            if start + before == address:
                merged[-1] = start, before + length
            else:
                merged.append((address, length))
        self.holes = merged
