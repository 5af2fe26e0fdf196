"""PyTorch's .pth and .pt files of a state dict, both kinds, read without PyTorch.

zip     since PyTorch 1.6: <name>/data.pkl, a pickle; <name>/data/<key>, the numbers of a storage
legacy  five pickles one behind the other: a magic number, a version, the byte order, the dict, the
        keys of the storages; then for each key how many numbers, and the numbers

The pickles may name tensors, their storages and OrderedDict (convnet/unpickle.py). Whatever else
they name, as the options of a program beside the tensors, becomes a thing of ours that does
nothing: the name is looked up nowhere, only told. What is to be read must not be of it: a whole
model, as torch.save(net) writes it, is refused.
"""

import io
import math
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from convnet.foreign import state_dict
from convnet.foreign.found import Found
from convnet.refused import SIDES, Refused
from convnet.unpickle import Nothing, Unpickler, text, why

NAMES = 1000  # that a pickle may ask for in vain; each becomes a class
SAVE = "save by itself what torch.save(net.state_dict(), FILE) would; nothing in it was run"
SHARED = 100  # times at most that the tensors of a file have its numbers
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


class _Known(dict):
    """KNOWN, and any other name: a class that stands for it and does nothing."""

    def __init__(self):
        super().__init__(KNOWN)

    def __contains__(self, name: Any) -> bool:
        return True

    def __missing__(self, name: tuple[str, str]) -> type:
        if len(self) >= len(KNOWN) + NAMES:
            raise Refused(f"it asks for more than {NAMES} things that are no tensors")
        self[name] = type("Nothing", (Nothing,), {"__slots__": (), "of": ".".join(name)})
        return self[name]

    def unread(self) -> list[str]:
        """The names that were asked for in vain."""
        return [".".join(name) for name in self if name not in KNOWN]


def _of(value: Any) -> str:
    """The name of what stands for a thing that is not read, or for its class; "" of others."""
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.of:.80}" if issubclass(kind, Nothing) else ""


def is_legacy(data: memoryview) -> bool:
    """Whether a file begins as a legacy one."""
    return MAGIC.to_bytes(10, "little") in bytes(data[:20])


def read_zip(path: str, archive: zipfile.ZipFile) -> Found:
    """The layers of a file of the newer kind. Refused."""
    name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
    folder = name.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise Refused("has its numbers in big-endian order; save it on a common machine")
    known = _Known()
    content = _unpickle(io.BytesIO(archive.read(name)), known)

    there = {*archive.namelist()}
    places = {n.removeprefix(f"{folder}data/"): n for n in there if n.startswith(f"{folder}data/")}
    return _found(path, content, known, places, archive.read)  # which checks its CRC32


def read_legacy(path: str, data: memoryview) -> Found:
    """The layers of a file of the older kind. Refused."""
    file = io.BytesIO(data)
    magic, version, about = (_unpickle(file, {}) for _ in range(3))
    little = isinstance(about, dict) and {text(k): v for k, v in about.items()}.get("little_endian")
    if magic != MAGIC or version != 1001 or little is not True:
        raise Refused("is no file of PyTorch, or of a version unknown here")
    storages: dict[str, _Storage] = {}
    known = _Known()
    content = _unpickle(file, known, storages)
    keys, places = _unpickle(file, {}), {}
    at = file.tell()
    for key in map(text, keys if isinstance(keys, list) else []):
        size = np.dtype(_plain(storages[key].dtype)).itemsize if key in storages else 0
        if not size or len(data) - at < 8:
            raise Refused("ends too early, or is damaged")
        end = at + 8 + struct.unpack_from("<q", data, at)[0] * size
        if not at + 8 <= end <= len(data):
            raise Refused("ends too early, or is damaged")
        places[key], at = data[at + 8 : end], end
    return _found(path, content, known, places, lambda data: data)


def _unpickle(file: io.BytesIO, known: dict, storages: dict | None = None) -> Any:
    def outside(pid: Any) -> Any:
        if len(pid) == 4 and text(pid[0]) == "module":  # a class of a whole net, and its source
            return pid[1]
        word, kind, key, _, count, *_ = pid
        if text(word) != "storage" or not isinstance(kind, _Kind):
            told = f", but {_of(kind)}" if _of(kind) else ""
            raise Refused(f"a reference to what is no storage{told}")
        storage = _Storage(kind.dtype, text(key), count)
        return storage if storages is None else storages.setdefault(storage.key, storage)

    try:
        return Unpickler(file, known, outside).load()
    except MemoryError:
        raise
    except Exception as e:  # a damaged pickle may raise about anything
        raise Refused(f"is no state dict: {why(e)}; nothing in it was run") from None


def _found(
    path: str, content: Any, known: _Known, places: Mapping[str, Any], read: Callable
) -> Found:
    """The layers of the state dict in what was pickled.

    read(places[key]): the bytes of a storage.
    """
    unread = known.unread()
    where, state = _state_dict(content, unread)
    found = Found(path, "PyTorch", [], state_dict.INPUT)
    if unread:
        own = f"; the weights are those of its {where}" if where else ""
        found.notes.append(f"what in it is of {_listed(unread)} is not read{own}")
    storages: dict[tuple, np.ndarray] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, _Tensor):
            _refuse_unread(name, tensor)
            continue
        try:
            at = _storage_of(tensor, places)
            if at not in storages:
                storages[at] = _numbers(read(places[at[0]]), at[1])
            arrays[name.removeprefix("module.")] = _array(tensor, storages[at])
        except Refused as e:
            raise Refused(f"{name} {e}; it is damaged") from None
    held, seen = (sum(a.size for a in some.values()) for some in (storages, arrays))
    if seen > SHARED * held:
        raise Refused(f"has tensors of {seen:,} numbers that look at {held:,}; it is damaged")
    return state_dict.layers_of(found, arrays)


def _refuse_unread(name: str, value: Any) -> None:
    """Refused where a tensor of a state dict, by its name or its maker, was not read."""
    of = _of(value)
    if of and (re.fullmatch(state_dict.PARTS, name) or of.startswith(("torch._", "torch.nn."))):
        raise Refused(f"{name:.80} is of {of}, no plain tensor; nothing in the file was run")


def _state_dict(content: Any, unread: list[str]) -> tuple[str, dict[str, Any]]:
    """What was pickled, or in it the dict called state_dict or model, or the only one; and where.

    unread: what else the pickle asked for.
    """
    if of := _of(content):
        raise Refused(f"holds a thing of {of}, a whole net perhaps; {SAVE}")
    if not isinstance(content, dict):
        raise Refused(f"holds a {type(content).__name__}, not a state dict")
    named = _named(content)
    found = _state_dicts(content, set())
    if len(found) == 1:
        return found[0]
    if found:
        told = _listed([path for path, _ in found])
        raise Refused(f"holds {len(found)} state dicts, {told}; save one by itself")
    for word in ("state_dict", "model"):
        if of := _of(named.get(word)):
            raise Refused(f"has as {word} a thing of {of}, a whole net perhaps; {SAVE}")
    inside = named.get("state_dict")
    there = _listed([*(_named(inside) if isinstance(inside, dict) else named)])
    told = f", and what is of {_listed(unread)}; {SAVE}" if unread else ""
    raise Refused(f"holds no weights of layers, as features.0.weight, but {there}{told}")


def _state_dicts(content: Any, seen: set, deep: int = 3) -> list[tuple[str, dict[str, Any]]]:
    """What may be meant, and the keys that lead there; one only where the names say which.

    seen: (id, deep) of the dicts looked at, as a small pickle may have one in a million places.
    """
    if not isinstance(content, dict) or deep < 0 or (id(content), deep) in seen:
        return []
    seen.add((id(content), deep))
    named = _named(content)
    for word in ("state_dict", "model"):
        if found := _state_dicts(named.get(word), seen, deep - 1):
            return [(_path(word, path), one) for path, one in found]
    if _has_weights(named):
        return [("", named)]
    found = []
    for name, value in named.items():
        found += [(_path(name, p), one) for p, one in _state_dicts(value, seen, deep - 1)]
    return found


def _path(name: str, behind: str) -> str:
    """The keys that lead somewhere, which may be long."""
    return f"{name:.40}.{behind}".rstrip(".")


def _has_weights(named: dict[str, Any]) -> bool:
    return any(
        isinstance(value, _Tensor) and re.fullmatch(state_dict.PARTS, name)
        for name, value in named.items()
    )


def _listed(names: list[str]) -> str:
    """Some names of a file, which may be long."""
    shown = ", ".join(f"{name:.40}" for name in names[:6]) or "nothing"
    return shown + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _named(content: dict) -> dict[str, Any]:
    return {text(key): value for key, value in content.items()}


def _plain(dtype: str) -> str:
    return "<u2" if dtype == "bf" else dtype


def _storage_of(tensor: _Tensor, places: Mapping[str, Any]) -> tuple[str, str]:
    """(key, dtype) of the storage of a tensor. Refused where it is not in the file."""
    storage = tensor.storage
    if not isinstance(storage, _Storage):
        raise Refused("is no tensor")
    if storage.key not in places:
        raise Refused(f"lacks its numbers, storage {storage.key}")
    return storage.key, storage.dtype


def _numbers(data: Any, dtype: str) -> np.ndarray:
    """A storage; floats of any size become float32, once for all tensors that look at them."""
    kind = np.dtype(_plain(dtype))
    count = len(data) // kind.itemsize
    values = np.frombuffer(data, kind, count) if count else np.empty(0, kind)
    if dtype == "bf":
        return (values.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore", invalid="ignore"):  # told as not finite
        return values.astype(np.float32, copy=False) if kind.kind == "f" else values


def _array(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """The numbers of a tensor. Refused where it looks beyond its storage."""
    try:
        first, shape, steps = tensor.first, tuple(tensor.shape), tuple(tensor.steps)
    except TypeError:
        raise Refused("is no tensor") from None
    told = [first, *shape, *steps]
    if len(shape) > SIDES or not all(type(n) is int and n >= 0 for n in told):
        raise Refused("is no tensor")
    last = first + sum((n - 1) * step for n, step in zip(shape, steps))
    if not (numbers := math.prod(shape)):
        return values[:0]
    if len(shape) != len(steps) or numbers > len(values) or last >= len(values):
        raise Refused("looks beyond its numbers")
    strides = [step * values.itemsize if n > 1 else 0 for n, step in zip(shape, steps)]
    return np.lib.stride_tricks.as_strided(values[first:], shape, strides, writeable=False)
