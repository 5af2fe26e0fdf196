"""Arrays that grow by rows, in a HDF5 file that is there whole or not at all.

    with Rows(path) as rows:
        rows.add("features", np.zeros((32, 4096), np.float32))
        rows.attrs["layer"] = "fc7"

Rows go to the disk as they come, so that a file may be larger than the memory. It is written beside
`path` and takes its place at the end; where the caller or the disk fails, nothing is left. Any
program with HDF5 1.10 or newer can read it, and each chunk has a checksum that HDF5 looks at.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from convnet import files

CHUNK = 1 << 20  # bytes
CACHE = 4 * CHUNK


class Rows:
    """The file while it is written; OSError, from whatever is called, where the disk fails."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> "Rows":
        with contextlib.ExitStack() as stack:
            self.disk = Disk(stack.enter_context(files.replacing(self.path)))
            with self._told():
                self.file = h5py.File(self.disk, "w", libver=("v110", "v110"), rdcc_nbytes=CACHE)
            stack.push(self._close)
            self.attrs = self.file.attrs
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> bool | None:
        return self.stack.__exit__(*error)

    def _close(self, kind, *_) -> None:
        """Let HDF5 write the rest; after an error it only thinks that it does."""
        if kind is None:
            with self._told():
                self.file.close()
            return
        self.disk.let_go = True
        with contextlib.suppress(Exception):
            self.file.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Raise the error of the disk, not what HDF5 makes of it."""
        try:
            yield
        finally:
            self.disk.check()

    def add(self, name: str, rows: np.ndarray | list[str]) -> h5py.Dataset:
        """Write rows behind those of the same name; the first ones say of what type and shape."""
        if isinstance(rows, list):
            rows = texts(rows)
        with self._told():
            made = self.file.get(name)
            if made is None:
                made = self._begin(name, rows)
            begin = len(made)
            if len(rows):
                made.resize(begin + len(rows), axis=0)
                made[begin:] = rows
        return made

    def _begin(self, name: str, rows: np.ndarray) -> h5py.Dataset:
        """A dataset without rows yet."""
        row = rows.shape[1:]
        bytes_of_row = max(1, rows.dtype.itemsize * math.prod(row))
        return self.file.create_dataset(
            name, (0, *row), rows.dtype, maxshape=(None, *row), fletcher32=True,
            chunks=(max(1, CHUNK // bytes_of_row), *(max(1, n) for n in row)),
        )  # fmt: skip


class Disk:
    """A file that HDF5 writes to. After an error it is told of none, and nothing is written.

    HDF5 recovers badly from a full disk: it would try again whenever something is closed.
    """

    def __init__(self, file: IO):
        self.file, self.let_go = file, False
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the first error."""
        if self.error:
            raise self.error

    def _try(self, call, *args) -> Any:
        if self.error or self.let_go:
            return None
        try:
            return call(*args)
        except OSError as e:
            self.error = e
            return None

    def seek(self, at: int, whence: int = os.SEEK_SET) -> Any:
        """Go to a place."""
        return self._try(self.file.seek, at, whence) or 0

    def tell(self) -> int:
        """The place it is at."""
        return self._try(self.file.tell) or 0

    def write(self, data) -> int:
        """Write bytes, or pretend to."""
        self._try(self.file.write, data)
        return len(data)

    def read(self, length: int) -> bytes:
        """Bytes that were written."""
        return self._try(self.file.read, length) or b""

    def readinto(self, out) -> int:
        """Read bytes that were written."""
        return self._try(self.file.readinto, out) or 0

    def truncate(self, size: int) -> None:
        """Make it end there."""
        self._try(self.file.truncate, size)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._try(self.file.flush)


def text(line: str) -> str:
    """A text that UTF-8 can hold; a byte of a file name that is none becomes its hex number."""
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def texts(lines: list[str], names: bool = False) -> np.ndarray:
    """Texts as HDF5's UTF-8 of one length; names of files keep what of their bytes is none."""
    coded = [(line if names else text(line)).encode("utf-8", "surrogateescape") for line in lines]
    length = max(1, max(map(len, coded), default=1))
    return np.array(coded, h5py.string_dtype("utf-8", length))
