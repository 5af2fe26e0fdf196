"""Images as files in files: some thousands of them in one HDF5 file, each read by one pread.

    bytes     uint8           the files, one behind the other, in one piece
    offset    int64 (n + 1)   where each begins in bytes, and where the last ends
    label     int32 (n)       its class, from 0; -1: nobody knows
    crc32     uint32 (n)      of its bytes: decoders do not notice most damage
    position  int64 (n)       its place in the split, which is mixed before it is cut
    key       UTF-8 (n)       its name; of a file whose name is no UTF-8, the bytes of that
    left_out  UTF-8           what could not be read when the shard was made, and why; it has no
                              place in the other tables, or one without bytes

The attribute `tables` is a CRC-32 of all but bytes, the other attributes included. Any program with
HDF5 1.8 or newer can read it. A shard is there whole or not at all, and of the same images it has
the same bytes.
"""

import io
import json
import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from convnet import files, hdf5, rows
from convnet.loader import BadImage, DataError

FORMAT = "convnet shard 1"
TABLES = {"offset": np.int64, "label": np.int32, "crc32": np.uint32, "position": np.int64}
TEXTS = ("key", "left_out")
AGAIN = "the tools/make_data.py command that made the set makes it again"
OPEN = 200  # files that a process keeps open; systems allow 1024 or 256


class Record(NamedTuple):
    """One image of a shard that is written."""

    data: bytes
    label: int
    position: int
    key: str


def write(path: Path, records: Iterable[Record], left_out: list[str], about: dict[str, Any]) -> int:
    """Write a shard; how many bytes of images it has. Raises OSError where the disk does.

    One record at a time is in memory. left_out is looked at when there are no more records; about:
    attributes, plain numbers and texts.
    """
    tables = {name: [] for name in ("label", "crc32", "position", "key")}
    offset = [0]
    with files.replacing(path) as file:
        begin = hdf5.Plan(0).place(np.zeros(1, np.uint8), "bytes")  # however many there are
        file.seek(begin)
        for record in records:
            file.write(record.data)
            offset.append(offset[-1] + len(record.data))
            values = record.label, zlib.crc32(record.data), record.position, record.key
            for table, value in zip(tables.values(), values):
                table.append(value)
        file.flush()
        made = {"offset": offset, **tables}
        made = {name: np.array(made[name], kind) for name, kind in TABLES.items()}
        made |= {"key": rows.texts(tables["key"], names=True), "left_out": rows.texts(left_out)}
        _finish(file, begin, offset[-1], made, about)
    return offset[-1]


def _finish(file, begin: int, length: int, tables: dict[str, np.ndarray], about: dict) -> None:
    """Write all but the bytes, which are in the file from `begin` on."""
    images = np.memmap(file, np.uint8, "r", begin, (length,)) if length else np.empty(0, np.uint8)
    plan = hdf5.Plan(0)
    plan.place(images, "bytes")
    for name, table in tables.items():
        plan.place(table, name)
    about = {**about, "format": FORMAT}
    for name, value in {**about, "tables": _checksum(tables, about)}.items():
        plan.file.attrs[name] = value
    own, arrays = plan.close()
    at = 0
    for i, piece in enumerate(own):
        file.seek(at)
        file.write(piece)
        at += len(piece)
        if i < len(arrays):
            if at != begin:
                file.write(arrays[i])
            at += len(arrays[i])


def _checksum(tables: dict[str, np.ndarray], about: dict[str, Any]) -> int:
    total = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name in (*TABLES, *TEXTS):
        total = zlib.crc32(np.ascontiguousarray(tables[name]).view(np.uint8), total)
    return total


@dataclass(frozen=True)
class Shard:
    """What there is to know of a shard; its images and keys stay on the disk."""

    path: str
    begin: int  # of the images' bytes in the file
    offset: np.ndarray  # as in the file
    label: np.ndarray
    crc32: np.ndarray
    position: np.ndarray
    keys: tuple[int, int]  # where the keys begin in the file, and bytes for each
    left_out: list[str]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.label)


def read(path: str | Path, classes: int | None = None) -> Shard:
    """A shard, all but its images, checked. Raises DataError.

    classes: how many there are, where that is known.
    """
    try:
        if Path(path).is_file():
            with h5py.File(path, "r") as file:
                return _read(file, str(path), classes)
        why = "is not a file" if Path(path).exists() else "no such shard"
    except DataError as e:
        why = f"{e}; delete it"
    except (OSError, RuntimeError, ValueError, TypeError, LookupError) as e:
        if told := files.unread(e):  # it may be as good as ever
            raise DataError(f"{path}: {told}") from None
        why = " ".join(str(e).split())[:150]
        why = f"damaged, or no shard of images ({why}); delete it"
    raise DataError(f"{path}: {why}, {AGAIN}")


def _read(file: h5py.File, path: str, classes: int | None) -> Shard:
    about = {name: _plain(value) for name, value in file.attrs.items()}
    if about.get("format") != FORMAT:
        raise DataError("no shard of images, or of a newer convnet")
    size = os.path.getsize(path)  # noqa: PTH202 (it is a str)
    found = {name: _dataset(file, name, kind, size) for name, kind in TABLES.items()}
    found |= {name: _dataset(file, name, None, size) for name in TEXTS}
    images = _dataset(file, "bytes", np.uint8, size)
    texts = {name: found[name].id.get_type().dtype for name in TEXTS}
    tables = {name: dset[:] for name, dset in found.items() if name in TABLES}
    tables |= {name: found[name].astype(texts[name])[:] for name in TEXTS}
    told = {name: value for name, value in about.items() if name != "tables"}
    if about.get("tables") != _checksum(tables, told):
        raise DataError("damaged, its tables have another checksum")
    offset, label, n = tables["offset"], tables["label"], len(tables["label"])
    if {len(offset) - 1, *(len(tables[t]) for t in ("crc32", "position", "key"))} != {n}:
        raise DataError("its tables do not belong together")
    if offset[0] != 0 or offset[-1] != len(images) or (np.diff(offset) < 0).any():
        raise DataError("its images lie outside of it")
    if n and (label.min() < -1 or label.max() >= (classes or 1 << 31)):
        wrong = label.min() if label.min() < -1 else label.max()
        raise DataError(f"it has a label {wrong} but {classes} classes")
    left_out = [line.rstrip(b"\0").decode() for line in tables["left_out"].tolist()]
    keys = found["key"].id.get_offset() or 0, texts["key"].itemsize
    begin = images.id.get_offset() or 0
    columns = (tables[name] for name in TABLES)
    return Shard(path, begin, *columns, keys, left_out, about)


def keys(shard: Shard) -> list[str]:
    """The names of its images, in the order of the file."""
    begin, size = shard.keys
    with open(shard.path, "rb") as file:  # noqa: PTH123 (it is a str)
        file.seek(begin)
        data = file.read(size * len(shard))
    each = (data[i : i + size] for i in range(0, len(data), size))
    return [name.rstrip(b"\0").decode("utf-8", "surrogateescape") for name in each]


def _dataset(file: h5py.File, name: str, kind: type | None, size: int) -> h5py.Dataset:
    """A table of one column, in one piece inside the file; kind None: of texts of one length."""
    found = hdf5.dataset(file, name)
    dtype = found.id.get_type().dtype
    right = dtype.kind == "S" if kind is None else dtype == kind
    if not right or found.ndim != 1 or found.chunks is not None:
        raise DataError(f"its {name} are of another kind")
    if len(found) and not 0 < (found.id.get_offset() or 0) <= size - len(found) * dtype.itemsize:
        raise DataError("it is cut short")
    return found


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


class Place(NamedTuple):
    """Where an image is: in which of some files, from where on, how long; its CRC-32 if known."""

    file: int
    begin: int
    length: int
    crc32: int | None = None


class Places:
    """Reads what is somewhere in some files; they are opened when needed, in each process."""

    def __init__(self, paths: Sequence[str]):
        self.paths = list(paths)
        self._open: dict[int, int] = {}  # file -> descriptor
        self.close = weakref.finalize(self, _close, self._open)

    def __reduce__(self) -> tuple:
        return Places, (self.paths,)

    def read(self, file: int, begin: int, length: int) -> bytes:
        """Bytes of a file; OSError, or fewer where the file ends."""
        if file not in self._open:
            if len(self._open) >= OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[file] = os.open(self.paths[file], os.O_RDONLY)
        return os.pread(self._open[file], length, begin)

    def __call__(self, place: Place) -> bytes:
        """The image as a file. Raises BadImage."""
        try:
            data = self.read(*place[:3])
        except OSError as e:
            raise BadImage(f"{self._name(place)}: {e.strerror.lower()}") from None
        if len(data) < place.length:
            raise BadImage(f"{self._name(place)} is cut short")
        if place.crc32 is not None and zlib.crc32(data) != place.crc32:
            raise BadImage(f"damaged in {self._name(place)}: its bytes have another checksum")
        return data

    def _name(self, place: Place) -> str:
        return Path(self.paths[place.file]).name


def _close(files: dict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])


@dataclass(frozen=True)
class From:
    """view(place, draw) of a view of files: the file is the image at this place."""

    places: Callable[[Place], bytes]
    view: Callable

    def __call__(self, place: Place, draw: np.ndarray | None) -> Any:
        """What view(file, draw) gives. Raises BadImage."""
        data = self.places(place)
        if not data and place.crc32 is not None:
            raise BadImage("could not be read when it was packed")
        return self.view(io.BytesIO(data), draw)
