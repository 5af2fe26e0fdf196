"""Where HDF5 puts arrays, without handing it the arrays.

`Plan` makes a HDF5 file in memory that has all but the arrays' bytes, and says where those go. The
caller writes the file: HDF5 then never meets a full disk, of which it recovers badly, nothing large
is copied, and every byte can be summed on its way.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import h5py
import numpy as np

from convnet.loader import DataError


class Plan:
    """A HDF5 file to be, with `block` bytes in front for its owner (512, 1024, ...).

    Every HDF5 since 1.8 can read it. Between two plans of the same arrays no byte differs.
    """

    def __init__(self, block: int):
        self.pages, self.block = Pages(), block
        self.file = h5py.File(self.pages, "w", userblock_size=block, libver=("earliest", "v110"))
        self.places: list[tuple[int, memoryview]] = []

    def group(self, *names: str) -> None:
        """Make a group that may stay empty."""
        self.file.create_group("/".join(map(spell, names)))

    def place(self, array: np.ndarray, *names: str) -> int:
        """Give a C-contiguous array its room at /names[0]/names[1]...: the offset in the file."""
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        how.set_obj_track_times(False)  # the time of day is no part of a run
        parents = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        parents.set_create_intermediate_group(True)
        name = "/".join(map(spell, names)).encode()
        kind, space = h5py.h5t.py_create(array.dtype), h5py.h5s.create_simple(array.shape)
        begin = h5py.h5d.create(self.file.id, name, kind, space, how, parents).get_offset()
        if array.size:
            self.places.append((begin, memoryview(array.reshape(-1).view(np.uint8))))
        return begin if array.size else 0

    def close(self) -> tuple[list[memoryview], list[memoryview]]:
        """The bytes after the block: HDF5's own, the first array's, HDF5's own, the second's, ...

        As two lists, the first longer by one.
        """
        self.file.close()
        self.places.sort()
        pieces = [(begin, len(data)) for begin, data in self.places]
        own = []
        for begin, length in gaps(pieces, self.block, self.pages.size):
            self.pages.seek(begin)
            own.append(memoryview(self.pages.read(length)))
        return own, [data for _, data in self.places]


def gaps(pieces: list[tuple[int, int]], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """(begin, length) of what (begin, length) pieces leave over: before each, and after the last.

    ValueError if two pieces overlap or one is not between begin and end.
    """
    for at, length in [*sorted(pieces), (end, 0)]:
        if not begin <= at <= at + length <= end:
            raise ValueError("its arrays overlap or lie outside the file")
        yield begin, at - begin
        begin = at + length


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset whose numbers are in this very file. Raises DataError."""
    here = file
    for word in name.split("/"):
        if word not in here or type(here.get(word, getlink=True)) is not h5py.HardLink:
            raise DataError(f"it has no {name}")
        here = here[word]
    if not isinstance(here, h5py.Dataset) or here.external or here.is_virtual:
        raise DataError(f"its {name} are not in it")
    return here


def spell(name: str) -> str:
    """A name as HDF5 can hold it: %2F for a slash, and so on."""
    special = {"": "%", ".": "%2E"}
    return special.get(name) or quote(name, safe=" +,:;=@[](){}!&", errors="surrogatepass")


class Pages:
    """A file in memory that has room only for the pages written to: HDF5 leaves wide holes."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = defaultdict(lambda: bytearray(4096))
        self.at = self.size = 0

    def seek(self, at: int, whence: int = os.SEEK_SET) -> None:
        """Go to a place from the start, or from the end."""
        self.at = at + (self.size if whence == os.SEEK_END else 0)

    def tell(self) -> int:
        """The place it is at."""
        return self.at

    def flush(self) -> None:
        """Nothing to do."""

    def truncate(self, size: int) -> None:
        """Make it end there."""
        self.size = size

    def write(self, data: Any) -> int:
        """Write bytes and go on behind them."""
        data, done = memoryview(data).cast("B"), 0
        for part in self._parts(self.at, len(data)):
            part[:] = data[done : done + len(part)]
            done += len(part)
        self.at += done
        self.size = max(self.size, self.at)
        return done

    def read(self, length: int) -> bytes:
        """Bytes, zero where none was written; goes on behind them."""
        self.at += length
        return b"".join(self._parts(self.at - length, length))

    def readinto(self, out: Any) -> int:
        """Read bytes into a buffer."""
        out = memoryview(out).cast("B")
        out[:] = self.read(len(out))
        return len(out)

    def _parts(self, begin: int, length: int) -> Iterator[memoryview]:
        end = begin + length
        while begin < end:
            page, i = divmod(begin, 4096)
            part = memoryview(self.pages[page])[i : min(4096, i + end - begin)]
            yield part
            begin += len(part)
