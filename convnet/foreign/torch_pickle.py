"""PyTorch's .pth and .pt files of a state dict, both kinds, read without PyTorch.

zip     since PyTorch 1.6: <name>/data.pkl, a pickle; <name>/data/<key>, the numbers of a storage
legacy  five pickles one behind the other: a magic number, a version, the byte order, the dict, the
        keys of the storages; then for each key how many numbers, and the numbers

The pickles may name tensors, their storages and OrderedDict (convnet/unpickle.py). A whole model,
as torch.save(net) writes it, names classes and is refused.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from convnet.foreign import state_dict
from convnet.foreign.found import Found
from convnet.unpickle import Unpickler, text, why

MAGIC = 0x1950A86A20F9469CFC6C
TYPES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "bf", "Long": "<i8",
         "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "u1"}  # fmt: skip


class _Kind(NamedTuple):
    """What stands for torch.FloatStorage and the like."""

    dtype: str


class _Storage(NamedTuple):
    """Numbers in the file that tensors look at."""

    dtype: str
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage: its first number, its sides, the steps between numbers."""

    storage: _Storage
    first: int
    shape: tuple
    steps: tuple


def _tensor(storage: Any, first: Any, shape: Any, steps: Any, *_) -> _Tensor:
    return _Tensor(storage, first, shape, steps)


def _parameter(tensor: Any, *_) -> Any:
    return tensor


KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", f"{word}Storage"): _Kind(dtype) for word, dtype in TYPES.items()},
}


def is_legacy(data: memoryview) -> bool:
    """Whether a file begins as a legacy one."""
    return MAGIC.to_bytes(10, "little") in bytes(data[:20])


def read_zip(path: str, archive: zipfile.ZipFile) -> Found:
    """The layers of a file of the newer kind. ValueError("why")."""
    name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
    folder = name.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("has its numbers in big-endian order; save it on a common machine")
    content = _unpickle(io.BytesIO(archive.read(name)))

    def raw(storage: _Storage):
        try:
            return archive.read(f"{folder}data/{storage.key}")  # checks its CRC32
        except KeyError:
            raise ValueError(f"lacks the numbers of storage {storage.key}") from None

    return _found(path, content, raw)


def read_legacy(path: str, data: memoryview) -> Found:
    """The layers of a file of the older kind. ValueError("why")."""
    file = io.BytesIO(data)
    magic, version, about = (_unpickle(file, {}) for _ in range(3))
    little = isinstance(about, dict) and {text(k): v for k, v in about.items()}.get("little_endian")
    if magic != MAGIC or version != 1001 or little is not True:
        raise ValueError("is no file of PyTorch, or of a version unknown here")
    storages: dict[str, _Storage] = {}
    content = _unpickle(file, KNOWN, storages)
    keys, places = _unpickle(file, {}), {}
    at = file.tell()
    for key in map(text, keys if isinstance(keys, list) else []):
        size = np.dtype(_plain(storages[key].dtype)).itemsize if key in storages else 0
        if not size or len(data) - at < 8:
            raise ValueError("ends too early, or is damaged")
        end = at + 8 + struct.unpack_from("<q", data, at)[0] * size
        if not at + 8 <= end <= len(data):
            raise ValueError("ends too early, or is damaged")
        places[key], at = data[at + 8 : end], end
    return _found(path, content, lambda storage: places[storage.key])


def _unpickle(file: io.BytesIO, known=KNOWN, storages: dict | None = None) -> Any:
    def outside(pid: Any) -> _Storage:
        word, kind, key, _, count, *_ = pid
        if text(word) != "storage" or not isinstance(kind, _Kind):
            raise pickle.UnpicklingError("a reference to what is no storage")
        storage = _Storage(kind.dtype, text(key), count)
        return storage if storages is None else storages.setdefault(storage.key, storage)

    try:
        return Unpickler(file, known, outside).load()
    except Exception as e:  # a damaged pickle may raise about anything
        raise ValueError(f"is no state dict: {why(e)}; nothing in it was run") from None


def _found(path: str, content: Any, raw) -> Found:
    """The layers of the dict, or of the dict called state_dict or model in it."""
    for word in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(inner := _named(content).get(word), dict):
            content = inner
            break
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, not a state dict")
    found = Found(path, "PyTorch", [], state_dict.INPUT)
    arrays = {}
    for name, tensor in _named(content).items():
        if isinstance(tensor, _Tensor):
            try:
                arrays[name.removeprefix("module.")] = _array(tensor, raw)
            except (TypeError, AttributeError, OverflowError):
                raise ValueError(f"{name} is no tensor; the file is damaged") from None
    return state_dict.layers_of(found, arrays)


def _named(content: dict) -> dict[str, Any]:
    return {text(key): value for key, value in content.items()}


def _plain(dtype: str) -> str:
    return "<u2" if dtype == "bf" else dtype


def _array(tensor: _Tensor, raw) -> np.ndarray:
    """The numbers of a tensor. ValueError where it looks beyond its storage."""
    kind = np.dtype(_plain(tensor.storage.dtype))
    data = raw(tensor.storage)
    values = np.frombuffer(data, kind, len(data) // kind.itemsize)
    if tensor.storage.dtype == "bf":
        values = (values.astype("<u4") << 16).view("<f4")
    shape, steps = tuple(tensor.shape), tuple(tensor.steps)
    last = tensor.first + sum((n - 1) * step for n, step in zip(shape, steps))
    whole = len(shape) == len(steps) and min((tensor.first, *steps, *shape), default=0) >= 0
    if not whole or math.prod(shape) > len(values) or (math.prod(shape) and last >= len(values)):
        raise ValueError("has a tensor that looks beyond its numbers; it is damaged")
    strides = [step * values.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(values[tensor.first :], shape, strides, writeable=False)
