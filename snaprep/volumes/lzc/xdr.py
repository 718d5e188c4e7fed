"""nvlists in XDR: the form that crosses machines, in resume tokens and pool labels. Big-endian, in units of 4 bytes.

A list is its version, its flags, its pairs and eight zero bytes. A pair is its size here, its size in native form, its
name, its type, the number of values, the value; lists within a list stand in the place of the value.
"""

from __future__ import annotations

from struct import Struct, unpack_from

from snaprep.volumes.lzc.native import damaged, numbers
from snaprep.volumes.lzc.values import (
    CODES,
    DEPTH_LIMIT,
    ELEMENTS,
    NARROW,
    SIZE_LIMIT_BYTES,
    Array,
    Kind,
    NvlistError,
    Pairs,
    UInt64,
    kind_of,
    name_of,
    scalar,
    text,
)

_TWO = Struct(">ii")
_LISTED = Struct(">iI")
# C writes a char by way of int: sign and all. What it reads back is the low byte.
_BYTES = {Kind.BYTE, Kind.INT8, Kind.UINT8}
_CODES = {
    kind: code.translate({ord("b"): "i", ord("B"): "i", ord("h"): "i", ord("H"): "I"}) for kind, code in CODES.items()
}


class _Reader:
    """A place in packed bytes that never moves behind their end."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> int:
        """The place of the next `size` bytes."""
        at = self.at
        if size < 0 or at + size > len(self.data):
            damaged(at, f"{size} bytes are wanted where {len(self.data) - at} are left")
        self.at = at + size
        return at

    def two(self) -> tuple[int, int]:
        first, second = _TWO.unpack_from(self.data, self.take(8))
        return first, second

    def string(self) -> bytes:
        at = self.take(4)
        (size,) = unpack_from(">I", self.data, at)
        at = self.take(size + 3 & -4)
        value = self.data[at : at + size]
        if b"\0" in value:
            damaged(at, "a string with a NUL in it")
        return value


def decode(packed: bytes, start: int) -> tuple[dict[bytes, object], int]:
    """The list whose pairs begin at `start`, and the place behind it. NvlistError when the bytes are damaged."""
    reader = _Reader(packed, start)
    return _pairs(reader, 0), reader.at


def _pairs(reader: _Reader, depth: int) -> dict[bytes, object]:
    if depth > DEPTH_LIMIT:
        damaged(reader.at, f"lists within lists deeper than {DEPTH_LIMIT}")
    pairs: dict[bytes, object] = {}
    while True:
        start = reader.at
        _, native_size = reader.two()
        if native_size == 0:
            return pairs
        name = reader.string()
        kind, count = reader.two()
        pairs[name] = value = _value(reader, name, kind, count, depth)
        if native_size != _native_size(name, kind, count, value):
            damaged(start, f"a pair that would have {native_size} bytes in native form does not")


def _inner(reader: _Reader, depth: int) -> dict[bytes, object]:
    if reader.two()[0] != 0:
        damaged(reader.at - 8, "a list within the list has an unknown version")
    return _pairs(reader, depth + 1)


def _value(reader: _Reader, name: bytes, kind: int, count: int, depth: int) -> object:
    element = ELEMENTS.get(kind)
    if element is not None:
        return Array(Kind(kind), _array(reader, kind, element, count, depth))
    if count != (kind != Kind.BOOLEAN):
        damaged(reader.at, f"{count} values of type {kind}")
    if kind == Kind.BOOLEAN:
        return None
    if kind == Kind.NVLIST:
        return _inner(reader, depth)
    if kind == Kind.STRING:
        return reader.string()
    if kind not in CODES:
        damaged(reader.at, f"unknown type {kind}")
    (number,) = _numbers(reader, Kind(kind), 1)
    return UInt64(number) if kind == Kind.UINT64 and name in NARROW else scalar(kind, number)


def _numbers(reader: _Reader, kind: Kind, count: int) -> list[int]:
    layout = Struct(f">{count}{_CODES[kind]}")
    at = reader.take(layout.size)
    values = list(layout.unpack_from(reader.data, at))
    if kind in _BYTES:
        if any(not -128 <= value <= 255 for value in values):
            damaged(at, "a byte that does not fit one")
        values = [value & 255 if kind != Kind.INT8 else (value + 128 & 255) - 128 for value in values]
    elif kind in {Kind.INT16, Kind.UINT16}:
        low, high = (-(2**15), 2**15 - 1) if kind == Kind.INT16 else (0, 2**16 - 1)
        if any(not low <= value <= high for value in values):
            damaged(at, "a number that does not fit 16 bits")
    return values


def _array(reader: _Reader, kind: int, element: Kind, count: int, depth: int) -> list[object]:
    if not 0 <= count <= len(reader.data):
        damaged(reader.at, f"an array of {count} elements")
    if count == 0:
        return []
    if kind == Kind.BYTE_ARRAY:
        at = reader.take(count + 3 & -4)
        return list(reader.data[at : at + count])
    if element == Kind.STRING:
        return [reader.string() for _ in range(count)]
    if element == Kind.NVLIST:
        return [_inner(reader, depth) for _ in range(count)]
    at = reader.take(4)
    if unpack_from(">I", reader.data, at) != (count,):
        damaged(at, "an array whose two counts differ")
    values = _numbers(reader, element, count)
    return [scalar(element, value) for value in values] if element == Kind.BOOLEAN_VALUE else list(values)


def _native_size(name: bytes, kind: int, count: int, value: object) -> int:
    """The size that a pair has in native form, without the lists that follow it."""
    element = ELEMENTS.get(kind)
    pointers = 0
    if element in {Kind.STRING, Kind.NVLIST}:
        pointers = 8 * count
    values = value if isinstance(value, list) else [value]
    if Kind.STRING in {kind, element}:
        body = sum(len(text(item)) + 1 for item in values)
    elif Kind.NVLIST in {kind, element}:
        body = 24 * count
    elif kind == Kind.BOOLEAN:
        body = 0
    else:
        body = Struct(f"={count}{CODES[element or kind]}").size
    return (len(name) + 24 & -8) + (pointers + body + 7 & -8)


def encode(pairs: Pairs, flags: int) -> bytes:
    """The pairs of a list and its end. `flags` go to every list within it."""
    return _put_pairs(pairs, flags, 0)[0]


def _put_pairs(pairs: Pairs, flags: int, depth: int) -> tuple[bytes, int]:
    """The pairs, and how many bytes the C library would count for them beyond what it writes."""
    if depth > DEPTH_LIMIT:
        raise NvlistError(f"lists within lists deeper than {DEPTH_LIMIT}")
    out, unwritten = bytearray(), 0
    for key, value in pairs.items():
        name = name_of(key)
        kind = kind_of(name, value)
        element = ELEMENTS.get(kind)
        values = list(value) if element is not None and isinstance(value, list) else [value]
        count = 0 if kind == Kind.BOOLEAN else len(values)
        body, missing = _body(name, kind, element or kind, values, flags, depth) if count else (b"", 0)
        named = _string(name)
        # The C library counts the second count of an array even when it does not write it.
        if count == 0 and element is not None and kind not in _BARE:
            missing = 4
        unwritten += missing
        size = 16 + len(named) + len(body) + missing
        if size > SIZE_LIMIT_BYTES:
            raise NvlistError(f"{name!r}: a value of {size} bytes")
        out += _TWO.pack(size, _native_size(name, kind, count, value)) + named + _TWO.pack(kind, count) + body
    return bytes(out) + bytes(8), unwritten


# Arrays that are written without a count of their own.
_BARE = {Kind.BYTE_ARRAY, Kind.STRING_ARRAY, Kind.NVLIST_ARRAY}


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value + bytes(-len(value) % 4)


def _body(name: bytes, kind: Kind, element: Kind, values: list[object], flags: int, depth: int) -> tuple[bytes, int]:
    if element == Kind.STRING:
        return b"".join(_string(text(value)) for value in values), 0
    if element == Kind.NVLIST:
        return _lists(name, values, flags, depth)
    # In their own width first, so that a number too large is refused here as it is in native form.
    native = numbers(name, element, f"={len(values)}{CODES[element]}", values)
    if kind == Kind.BYTE_ARRAY:
        return native + bytes(-len(native) % 4), 0
    signed = unpack_from(f"={len(values)}{'b' if element in _BYTES else CODES[element]}", native)
    body = Struct(f">{len(values)}{_CODES[element]}").pack(*signed)
    return body if kind == element else len(values).to_bytes(4, "big") + body, 0


def _lists(name: bytes, values: list[object], flags: int, depth: int) -> tuple[bytes, int]:
    out, unwritten = bytearray(), 0
    for value in values:
        if not isinstance(value, dict):
            raise TypeError(f"{name!r}: a list is a dict, not {type(value).__name__}")
        inner, missing = _put_pairs(value, flags, depth + 1)
        out += _LISTED.pack(0, flags) + inner
        unwritten += missing
    return bytes(out), unwritten
