"""Protocol Buffers as they lie in a file, without a schema: Caffe's models, and ONNX's.

A message is fields, (number, value) each: a varint is an int, what has a length is bytes (text, an
array or a message in it), fixed numbers are their 4 or 8 bytes. Readers take the fields that they
know and pass over the rest, so that a file of any version or fork can be read.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from convnet.refused import Refused

VARINT, EIGHT, LENGTH, BEGIN, END, FOUR = range(6)
DEEP = 64  # groups in groups


def fields(data: memoryview, depth: int = 0) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message. Refused where it is none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not number or kind > FOUR or kind == END:
            raise Refused("is no message, or a damaged one")
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind == BEGIN:
            value = None
            at = _past_group(data, at, number, depth)
        else:
            size, at = (8 if kind == EIGHT else 4, at) if kind != LENGTH else _varint(data, at)
            if size > len(data) - at:
                raise Refused("ends too early")
            value, at = data[at : at + size], at + size
        if value is not None:
            yield number, value


def inside(value: int | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a field that is a message. Refused where it is a number."""
    if isinstance(value, int):
        raise Refused("is no message, or a damaged one")
    return fields(value)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = 0
    for i in range(10):
        if at + i >= len(data):
            raise Refused("ends too early")
        byte = data[at + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise Refused("is no message, or a damaged one")


def _past_group(data: memoryview, at: int, number: int, depth: int) -> int:
    """Where a group ends: fields up to one that says so. Nobody writes them any more."""
    if depth > DEEP:
        raise Refused("is no message, or a damaged one")
    while True:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == END and tag >> 3 == number:
            return at
        if kind == VARINT:
            at = _varint(data, at)[1]
        elif kind == BEGIN:
            at = _past_group(data, at, tag >> 3, depth + 1)
        elif kind in (EIGHT, FOUR):
            at += 8 if kind == EIGHT else 4
        elif kind == LENGTH:
            size, at = _varint(data, at)
            at += size
        else:
            raise Refused("is no message, or a damaged one")


def varints(value: int | memoryview) -> list[int]:
    """The numbers of a repeated field, whether each has a field or all are packed in one."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def text(value: Any) -> str:
    """A field that is text. Refused where it is a number."""
    if not isinstance(value, memoryview):
        raise Refused("has a number where a text should be")
    return bytes(value).decode("utf-8", "replace")


class Message:
    """A message to be written. It holds pieces of bytes, so that a large array is not copied.

    m = Message(); m.add(1, 7); m.add(2, "text"); m.add(3, other); m.add(4, 0.5); m.add(5, [1, 2])
    """

    def __init__(self, *pairs: tuple[int, Any]):
        self.pieces: list[Any] = []
        for number, value in pairs:
            self.add(number, value)

    def add(self, number: int, value: Any) -> None:
        """A field: int -> varint, float -> 4 bytes, text, bytes or a Message -> with its length.

        A list of ints is packed.
        """
        if isinstance(value, int):
            self.pieces.append(_tag(number, VARINT) + _as_varint(value))
        elif isinstance(value, float):
            self.pieces.append(_tag(number, FOUR) + struct.pack("<f", value))
        else:
            inside = _pieces(value)
            length = sum(map(len, inside))
            self.pieces += [_tag(number, LENGTH) + _as_varint(length), *inside]

    def __len__(self) -> int:
        return sum(map(len, self.pieces))


def _pieces(value: Any) -> Iterable[Any]:
    if isinstance(value, Message):
        return value.pieces
    if isinstance(value, list):
        return [b"".join(map(_as_varint, value))]
    return [value.encode() if isinstance(value, str) else value]


def _tag(number: int, kind: int) -> bytes:
    return _as_varint(number << 3 | kind)


def _as_varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative number is its two's complement
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
