"""One HDF5 file that holds a run: weights, momenta, both cfg texts, position, random state.

A checkpoint is replaced as a whole or not at all: written beside its target, synced, renamed, the
folder synced. Any program that knows HDF5 can read one: the arrays are /weights/conv1/W0 and so
on, and /table is JSON text that holds `meta` and where each array lies. `load` does without HDF5.
The 512 bytes in front of the HDF5 part (its user block, plain text) say where the table is, and
each byte of the file is covered by a CRC32: the block's, the table's, one for each array, one for
the rest. So a damaged or forged file never reaches the HDF5 library, and no link, filter, pickle
or outside file is there to follow. What edits a checkpoint in place breaks it: load, change, save.
"""

import itertools
import json
import math
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from convnet import files, hdf5

VERSION = 1
MAGIC = b"convnet checkpoint\n"
BLOCK = 512  # bytes in front of the HDF5 part; the last 8 are the CRC32 of the others, in hex
TABLE = 1 << 24  # most bytes of JSON; what grows for ever belongs into an array
REST = 1 << 25  # most bytes of HDF5's own
DTYPES = ("<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
WEIGHTS = ".caffemodel", ".pth", ".pt", ".safetensors"  # what files of other programs end in
KINDS = {
    b"\x89HDF": "an HDF5 file, but no checkpoint of convnet",
    b"PK": "a zip file (.npz, .pth?), no checkpoint of convnet",
    b"\x80": "a pickle, no checkpoint of convnet; nothing in it was run",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "a .npy file, no checkpoint of convnet",
    b"\x1f\x8b": "a gzip file",
    bytes(32): "zeros, as a crash may leave them",
}


class CheckpointError(Exception):
    """A checkpoint or its folder cannot be used; the text is one line: file, why, what to do."""


class DamagedError(CheckpointError):
    """The file is no checkpoint, or not as it was written; an older one may do."""


@dataclass
class Checkpoint:
    """What a run needs to go on.

    arrays: {"weights": {"fc6/W0": array, ...}, "momenta": {...}, ...}; what is before the last "/"
    of a name may be any text. meta: what JSON can hold; its keys are texts, its numbers finite, and
    a tuple comes back as a list.
    """

    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that at any instant `path` is the old one or the new one, complete.

    Raises CheckpointError; then the old one is as it was and nothing is left beside it.
    """
    path = Path(path)
    try:
        pieces = _lay_out(checkpoint)
    except (TypeError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path}: not saved, a checkpoint cannot hold this: {e}") from None
    try:
        files.replace(path, pieces)
    except OSError as e:
        size = sum(map(len, pieces)) / 1e6
        raise CheckpointError(f"{path}: not saved ({size:.1f} MB), {files.advice(e)}") from None


def _lay_out(checkpoint: Checkpoint) -> list[Any]:
    """The bytes of the file in order; TypeError or ValueError for what it cannot hold."""
    plan, table = hdf5.Plan(BLOCK), {}
    for group, arrays in checkpoint.arrays.items():
        plan.group(group)
        table[group] = {}
        for name, array in arrays.items():
            array = np.asarray(array, order="C")
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            if array.dtype.str not in DTYPES:
                raise TypeError(f"array '{group}/{name}' of type {array.dtype}")
            begin = plan.place(array, group, *name.rsplit("/", 1))
            table[group][name] = [array.dtype.str, array.shape, begin, zlib.crc32(_bytes(array))]
    text = json.dumps({"arrays": table, "meta": checkpoint.meta}, allow_nan=False).encode()
    if len(text) > TABLE:
        raise ValueError(f"{len(text)} bytes of meta, more than {TABLE}; use arrays")
    begin = plan.place(np.frombuffer(text, np.uint8), "table")
    own, data = plan.close()
    rest = 0
    for piece in own:
        rest = zlib.crc32(piece, rest)
    if sum(map(len, own)) > REST:
        raise ValueError(f"{len(data)} arrays, too many")
    size = BLOCK + sum(map(len, own + data))
    head = {"version": VERSION, "size": size, "rest": rest}
    head["table"] = [begin, len(text), zlib.crc32(text)]
    block = (MAGIC + json.dumps(head).encode()).ljust(BLOCK - 9) + b"\n"
    pieces = itertools.chain.from_iterable(itertools.zip_longest(own, data, fillvalue=b""))
    return [block + b"%08x" % zlib.crc32(block), *pieces]


def is_one(path: str | Path) -> bool:
    """Whether a file begins as a checkpoint, whole or damaged; False where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint. Every byte is checked, and the table before anything large is made.

    Raises DamagedError if it is none or not as it was written, CheckpointError if it cannot be
    read or needs a newer convnet.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError("is not a file")
        with path.open("rb") as file:
            return _read(file)
    except CheckpointError as e:
        raise CheckpointError(f"{path}: {e}") from None
    except (ValueError, OverflowError, RecursionError) as e:
        raise DamagedError(f"{path}: {e}; {_advice(path)}") from None
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read, {e.strerror}") from None
    except MemoryError as e:
        raise CheckpointError(f"{path}: does not fit into memory, {e}") from None


def _advice(path: Path) -> str:
    """What may help with a file that is no good checkpoint; by its name, as it may be damaged."""
    if path.suffix in WEIGHTS:
        return "tools/import.py makes a checkpoint of weights of other programs"
    return "use an older checkpoint"


def _read(file: BinaryIO) -> Checkpoint:
    """The checkpoint in a file; ValueError("why") if it has none, CheckpointError if too new."""
    size = os.fstat(file.fileno()).st_size
    table, table_crc, rest_crc = _head(file.read(BLOCK), size)
    text = _piece(file, *table)
    _same("its table", zlib.crc32(text), table_crc)
    try:
        content = json.loads(text)
        arrays, meta = content["arrays"], content["meta"]
        entries = [_Entry(g, n, *e) for g, named in arrays.items() for n, e in named.items()]
        for e in entries:
            e.check()
        if not isinstance(meta, dict):
            raise TypeError
    except (KeyError, TypeError, AttributeError):
        raise ValueError("its table makes no sense") from None
    pieces = [table, *((e.begin, e.length) for e in entries if e.length)]
    own = list(hdf5.gaps(pieces, BLOCK, size))
    if sum(length for _, length in own) > REST:
        raise ValueError(f"it has more than {REST} bytes besides its arrays")
    rest = 0
    for gap in own:
        rest = zlib.crc32(_piece(file, *gap), rest)
    _same("what is around its arrays", rest, rest_crc)
    found = Checkpoint({group: {} for group in arrays}, meta)
    for e in entries:
        found.arrays[e.group][e.name] = array = np.empty(e.shape, e.kind)
        file.seek(e.begin)
        file.readinto(_bytes(array))
        _same(f"array '{e.group}/{e.name}'", zlib.crc32(_bytes(array)), e.crc)
    return found


class _Entry(NamedTuple):
    """One array as the table tells of it."""

    group: str
    name: str
    kind: str
    shape: list[int]
    begin: int
    crc: int

    def check(self) -> None:
        """ValueError or TypeError unless it can be an array; hdf5.gaps checks where it lies."""
        if self.kind not in DTYPES:
            raise ValueError(f"array '{self.group}/{self.name}' is of type {self.kind!r:.40}")
        numbers = math.prod(max(n, 1) for n in self.shape[:33])  # without a 0 in it
        if len(self.shape) > 32 or min(self.shape, default=0) < 0 or numbers > 1 << 48:
            raise ValueError(f"array '{self.group}/{self.name}' is of no possible shape")
        if not all(type(n) is int for n in [*self.shape, self.begin, self.crc]):
            raise TypeError

    @property
    def length(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * int(self.kind[2:])


def _head(block: bytes, size: int) -> tuple[tuple[int, int], int, int]:
    """Where the table is (begin, length), its CRC32 and that of the rest; ValueError("why")."""
    if not block.startswith(MAGIC):
        raise ValueError(f"is {_looks_like(block)}")
    if block[-8:] != b"%08x" % zlib.crc32(block[:-8]):
        raise ValueError(f"its first {BLOCK} bytes are damaged")
    match json.loads(block[len(MAGIC) : -8]):
        case {"version": int(version)} if version > VERSION:
            raise CheckpointError(f"has format {version}, too new; update convnet")
        case {"size": int(whole), "rest": int(rest), "table": [int(at), int(length), int(crc)]}:
            if size != whole:
                raise ValueError(f"is {size} bytes long but was written with {whole}")
            if 0 < length <= TABLE and BLOCK <= at <= size - length:
                return (at, length), crc, rest
    raise ValueError("its first lines make no sense")


def _piece(file: BinaryIO, begin: int, length: int) -> bytes:
    file.seek(begin)
    return file.read(length)


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def _same(what: str, crc: int, written: int) -> None:
    """ValueError unless the checksum is the one that was written."""
    if crc != written:
        raise ValueError(f"{what} is damaged (checksum {crc:08x} != {written:08x})")


def _looks_like(block: bytes) -> str:
    """What a file that begins so may be."""
    if not block:
        return "empty"
    for start, kind in KINDS.items():
        if block.startswith(start):
            return kind
    return "no checkpoint" if min(block) < 9 else "text, no checkpoint"
