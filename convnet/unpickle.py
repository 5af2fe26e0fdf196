"""Reads pickles that hold data, and runs nothing that stands in them.

A pickle is a program. Here it may name a few things only, and even those are stand-ins that do no
more than note what they were given: NumPy's array, its dtype, the function that makes an empty
array, and the one that turns text back into bytes. Everything else, and object arrays, is refused.
Readers of other formats add stand-ins of their own (convnet/foreign/); Nothing is one for what they
do not need.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from convnet.loader import DataError
from convnet.refused import Refused, shaped


class _Dtype:
    """numpy.dtype('u1', ..): plain numbers only."""

    def __init__(self, kind: str | bytes, *_):
        kind = kind.decode("latin-1") if isinstance(kind, bytes) else kind
        if not isinstance(kind, str) or not re.fullmatch(r"[<>|=]?([iu][1248]|f[248])", kind):
            raise Refused(f"an array of type {text(kind):.20}, not of plain numbers")
        self.kind, self.order = kind.lstrip("<>|="), "|"

    def __setstate__(self, state: tuple):
        order = state[1]
        self.order = order.decode("latin-1") if isinstance(order, bytes) else order
        if self.order not in ("<", ">", "|", "="):
            raise Refused("an array of no known order of bytes")

    def real(self) -> np.dtype:
        return np.dtype(self.order.replace("|", "") + self.kind)


class Array:
    """numpy.ndarray as _reconstruct makes it: empty, then filled by its state."""

    array: np.ndarray | None = None

    def __init__(self, *_):
        pass

    def __setstate__(self, state: tuple):
        _, shape, dtype, fortran, raw = state
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise Refused("an array of objects")
        kind = dtype.real()
        if len(raw) % kind.itemsize or not isinstance(shape, tuple):
            raise Refused("an array that ends in the middle of a number")
        values = np.frombuffer(raw, kind) if raw else np.empty(0, kind)
        try:
            self.array = shaped(values, shape, "F" if fortran else "C")
        except Refused as e:
            raise Refused(f"an array {e}") from None


def _reconstruct(cls: type, *_) -> Array:
    if cls is not Array:
        raise Refused("an array of a class of its own")
    return Array()


def _encode(text: str, code: str = "latin1") -> bytes:
    return text.encode("latin-1")


ARRAYS = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class Nothing:
    """What stands for an object that is not read: it takes anything and keeps nothing.

    of: the name in the pickle that it stands for, where a reader tells of it.
    """

    __slots__ = ()
    of = ""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, state: Any):
        pass

    def __setitem__(self, key: Any, value: Any):
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class Unpickler(pickle.Unpickler):
    """Reads a pickle in which only `known` things may be named.

    known: {(module, name): stand-in}. outside: what stands for a reference to things outside of the
    pickle, which is a file in memory. Text of Python 2 comes as bytes. Whatever is wrong with a
    pickle is an exception of about any kind; `why` tells it.
    """

    def __init__(self, file: IO[bytes], known: Mapping = ARRAYS, outside: Callable | None = None):
        super().__init__(file, encoding="bytes")
        self.file, self.known, self.outside = file, known, outside

    def load(self) -> Any:
        """The content, once it is known that nothing in the pickle is longer than the file.

        pickle itself makes room for as much as a pickle says, and a list for as many names.
        """
        begin = self.file.tell()
        for number, (op, told, _) in enumerate(pickletools.genops(self.file)):
            if op.name in ("PUT", "BINPUT", "LONG_BINPUT") and not told <= number:
                raise Refused("it is damaged")
        self.file.seek(begin)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        if (module, name) not in self.known:
            raise Refused(f"it asks for {module}.{name}, which data never need")
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """The stand-in for a thing outside."""
        if self.outside is None:
            raise Refused("it refers to things outside of the file")
        return self.outside(pid)


def why(error: Exception) -> str:
    """What is wrong with a pickle, in one line: in our words, Python's mean nothing to a user."""
    return str(error)[:200] if isinstance(error, Refused) else "it is damaged or cut short"


def load(path: Path) -> dict[str, Any]:
    """The dict in a pickle of Python 2 or 3: text, numbers, lists, plain arrays.

    Keys are text, other texts bytes where Python 2 wrote them. Raises DataError.
    """
    try:
        found = _plain(Unpickler(io.BytesIO(path.read_bytes())).load())
    except MemoryError:
        raise
    except OSError as e:
        raise DataError(f"{path}: {(e.strerror or str(e)).lower()}") from None
    except Exception as e:  # a damaged pickle may raise about anything
        raise DataError(f"{path}: not a pickle of plain data: {why(e)}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__}, not a dict")
    return found


def _plain(found: Any) -> Any:
    """Stand-ins replaced by the arrays they stand for, in a dict and in nothing deeper."""
    if isinstance(found, Array):
        return found.array
    if isinstance(found, dict):
        return {text(k): v.array if isinstance(v, Array) else v for k, v in found.items()}
    return found


def text(value: Any) -> str:
    """A word of the file as text; what is none by its type: a list in lists may be endless."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str | int | float | None) else type(value).__name__
