"""Reads pickles that hold data, and runs nothing that stands in them.

A pickle is a program. Here it may name a few things only, and even those are stand-ins that do no
more than note what they were given: NumPy's array, its dtype, the function that makes an empty
array, and the one that turns text back into bytes. Everything else, and object arrays, is refused.
Readers of other formats add stand-ins of their own (convnet/foreign/).
"""

import math
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from convnet.loader import DataError


class _Dtype:
    """numpy.dtype('u1', ..): plain numbers only."""

    def __init__(self, kind: str | bytes, *_):
        kind = kind.decode("latin-1") if isinstance(kind, bytes) else kind
        if not re.fullmatch(r"[<>|=]?[iuf][1248]", kind):
            raise pickle.UnpicklingError(f"an array of type {kind!r}, not of plain numbers")
        self.kind, self.order = kind.lstrip("<>|="), "|"

    def __setstate__(self, state: tuple):
        order = state[1]
        self.order = order.decode("latin-1") if isinstance(order, bytes) else order

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
            raise pickle.UnpicklingError("an array of objects")
        values = np.frombuffer(raw, dtype.real())
        if math.prod(shape) != values.size:
            raise pickle.UnpicklingError(f"an array of shape {shape} with {values.size} numbers")
        self.array = values.reshape(shape, order="F" if fortran else "C")


def _reconstruct(cls: type, *_) -> Array:
    if cls is not Array:
        raise pickle.UnpicklingError("an array of a class of its own")
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


class Unpickler(pickle.Unpickler):
    """Reads a pickle in which only `known` things may be named.

    known: {(module, name): stand-in}. outside: what stands for a reference to things outside of the
    pickle. Text of Python 2 comes as bytes. Whatever is wrong with a pickle is an exception of
    about any kind; `why` tells it.
    """

    def __init__(self, file: IO[bytes], known: Mapping = ARRAYS, outside: Callable | None = None):
        super().__init__(file, encoding="bytes")
        self.known, self.outside = known, outside

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data never need")
        return self.known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """The stand-in for a thing outside."""
        if self.outside is None:
            raise pickle.UnpicklingError("it refers to things outside of the file")
        return self.outside(pid)


def why(error: Exception) -> str:
    """What is wrong with a pickle, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def load(path: Path) -> dict[str, Any]:
    """The dict in a pickle of Python 2 or 3: text, numbers, lists, plain arrays.

    Keys are text, other texts bytes where Python 2 wrote them. Raises DataError.
    """
    try:
        with path.open("rb") as file:
            found = _plain(Unpickler(file).load())
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
    """A word of the file as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
