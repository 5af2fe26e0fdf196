"""safetensors files: 8 bytes with the length of a JSON header, the header, the numbers.

The header says of each array its dtype, its shape and where it lies. Here the arrays must fill the
file without a gap and not overlap, as the format demands. It has no checksum: 197 of 300 damaged
files pass. So ours carry a CRC32 in the header's free text, which is checked where it is there.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from convnet.foreign import state_dict
from convnet.foreign.found import Found, Input
from convnet.refused import Refused, shaped

HEADER = 100_000_000  # most bytes of it, as in the reference implementation
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
          "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "u1"}  # fmt: skip


def read(path: str, data: memoryview) -> Found:
    """The layers of a file. Refused where it is none or is damaged."""
    arrays, free = _arrays(data)
    found = Found(path, "safetensors", [], state_dict.INPUT)
    if "convnet.input" in free:
        try:
            mean, std = json.loads(free["convnet.input"])
            mean, std = [*map(float, mean)], float(std)
            if not (np.isfinite([*mean, std]).all() and std > 0):
                raise ValueError
            found.input, found.known = Input(False, mean, std), True
        except (TypeError, ValueError):
            raise Refused("what it says of the images it takes makes no sense") from None
    ordered = {name: arrays[name] for name in state_dict.in_order([*arrays])}
    if not found.known:
        found.notes.append("keeps no order; if no name is ours, layers are in that of their names")
    return state_dict.layers_of(found, arrays if found.known else ordered)


def _arrays(data: memoryview) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every array by name, in the order in which they lie, and the free text."""
    if len(data) < 10:
        raise Refused("ends too early")
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(HEADER, len(data) - 8):
        raise Refused("is no safetensors file, or ends too early")
    try:
        header = json.loads(bytes(data[8 : 8 + size]))
        free = header.pop("__metadata__", {})
        told = [_entry(name, **entry) for name, entry in header.items()]
        told.sort(key=lambda entry: entry[3])
        said = free.pop("convnet.crc32", None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("is no safetensors file: its header makes no sense") from None
    numbers, at, found = data[8 + size :], 0, {}
    for name, dtype, shape, begin, end in told:
        kind = DTYPES.get(dtype) if isinstance(dtype, str) else None
        if kind is None:
            raise Refused(f"{name} is of {dtype!s:.20}, which is not read here")
        whole = isinstance(shape, list) and type(begin) is type(end) is int
        if not whole or not at == begin <= end <= len(numbers):
            raise Refused(f"{name} does not lie where it should; the file is damaged")
        if (end - begin) % np.dtype(kind).itemsize:
            raise Refused(f"{name} ends in the middle of a number; the file is damaged")
        try:
            found[name] = shaped(_values(numbers[begin:end], kind, dtype), shape)
        except Refused as e:
            raise Refused(f"{name} {e}; the file is damaged") from None
        at = end
    if at != len(numbers):
        raise Refused(f"has {len(numbers) - at} bytes too many; it is damaged")
    if said is not None and said != _crc(free, header, numbers):
        raise Refused("is damaged (its checksum is another)")
    return found, free


def _entry(name: str, dtype: str, shape: list, data_offsets: list) -> tuple:
    begin, end = data_offsets
    return name, dtype, shape, begin, end


def _crc(free: Mapping, header: Mapping, *numbers: Any) -> str:
    """The checksum of all but itself, as text."""
    crc = zlib.crc32(json.dumps([free, header]).encode())
    for piece in numbers:
        crc = zlib.crc32(piece, crc)
    return f"{crc:08x}"


def _values(raw: memoryview, kind: str, dtype: str) -> np.ndarray:
    values = np.frombuffer(raw, kind)
    if dtype == "BF16":  # the upper half of a float
        return (values.astype("<u4") << 16).view("<f4")
    return values


def of(found: Found) -> list[Any]:
    """The bytes of a file that has these layers as PyTorch would, and what images they take.

    What several inputs of an fc layer meet is one weight, the inputs one behind the other.
    """
    arrays = {}
    for layer in found.layers:
        kernels = layer.kernels
        if len(kernels) > 1 and kernels[0].ndim == 2:
            kernels = [np.concatenate(kernels, axis=1)]
        for i, kernel in enumerate(kernels):
            arrays[f"{layer.name}.weight" + (f".{i}" if len(kernels) > 1 else "")] = kernel
        arrays[f"{layer.name}.bias"] = layer.bias
    mean = np.mean(found.input.mean, (0, 1), np.float64).tolist()
    return pieces(arrays, {"convnet.input": json.dumps([mean, found.input.std])})


def pieces(arrays: Mapping[str, np.ndarray], free: Mapping[str, str]) -> list[Any]:
    """The bytes of a file of float32 arrays: header first, then each as it stands."""
    header: dict[str, Any] = {}
    at, bodies = 0, []
    for name, array in arrays.items():
        array = np.ascontiguousarray(array, "<f4")
        body = memoryview(array.reshape(-1).view(np.uint8))
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [at, at + len(body)],
        }
        at += len(body)
        bodies.append(body)
    about = {"format": "pt", **free}
    whole = {"__metadata__": about | {"convnet.crc32": _crc(about, header, *bodies)}, **header}
    text = json.dumps(whole).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *bodies]
