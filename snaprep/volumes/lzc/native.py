"""nvlists in libnvpair's native form: what the library itself keeps in memory, with 8-byte alignment.

A list is its pairs and four zero bytes. A pair is its size, the size of its name with the NUL, a spare field, the
number of values, their type (16 bytes in all), the name, the value; name and value are padded to 8. Lists within a list
stand behind their pair. Pointers are zero in the packed form, their places stay.
"""

from __future__ import annotations

from struct import Struct, error, pack
from typing import NoReturn

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

_HEADER = Struct("=ihhii")
_UINT64 = Struct("=Q")
_SCALARS = {int(kind): Struct(f"={code}") for kind, code in CODES.items()}
# nvlist_t: version, flags, and three fields that mean nothing outside the process that made it.
_EMBEDDED = Struct("=iIQIi")
_PLAIN_UINT64, _NVLIST = int(Kind.UINT64), int(Kind.NVLIST)
# The last pair of a list is followed by fewer bytes than a header has.
MARGIN = bytes(_HEADER.size)


def damaged(at: int, what: str) -> NoReturn:
    raise NvlistError(f"packed nvlist, byte {at}: {what}")


def decode(packed: bytes, start: int) -> tuple[dict[bytes, object], int]:
    """The list whose pairs begin at `start`, and the place behind it. NvlistError when the bytes are damaged."""
    return _pairs(packed + MARGIN, start, len(packed), 0)


def _pairs(data: bytes, at: int, end: int, depth: int) -> tuple[dict[bytes, object], int]:
    # Called once a list and run once a pair: ten thousand snapshots are a quarter of a million steps of this loop.
    header, uint64 = _HEADER.unpack_from, _UINT64.unpack_from
    pairs: dict[bytes, object] = {}
    while True:
        if at > end:
            damaged(end, "the list is cut off")
        size, name_size, _, count, kind = header(data, at)
        if size == 0:
            if at + 4 > end:
                damaged(at, "the list is cut off")
            return pairs, at + 4
        value = at + (name_size + 23 & -8)
        follow = at + size
        name_end = at + name_size + 15
        if name_size <= 0 or value > follow or follow > end:
            damaged(at, f"a pair of {size} bytes with a name of {name_size} does not fit into {end - at}")
        name = data[at + 16 : name_end]
        if data[name_end] or b"\0" in name:
            damaged(at + 16, "the name does not end where its size says")
        if kind == _PLAIN_UINT64 and count == 1 and follow - value == 8:
            (number,) = uint64(data, value)
            pairs[name] = UInt64(number) if name in NARROW else number
        elif kind == _NVLIST and count == 1 and follow - value == 24:
            pairs[name], follow = _embedded(data, value, follow, end, depth)
        else:
            pairs[name], follow = _value(data, value, follow, end, kind, count, depth)
        at = follow


def _embedded(data: bytes, place: int, start: int, end: int, depth: int) -> tuple[dict[bytes, object], int]:
    """A list within a list: its nvlist_t stands at `place`, its pairs from `start`."""
    if data[place : place + 4] != b"\0\0\0\0":
        damaged(place, "a list within the list has an unknown version")
    if depth >= DEPTH_LIMIT:
        damaged(place, f"lists within lists deeper than {DEPTH_LIMIT}")
    return _pairs(data, start, end, depth + 1)


def _value(data: bytes, at: int, follow: int, end: int, kind: int, count: int, depth: int) -> tuple[object, int]:
    """Everything that is no uint64 and no single list; `follow` moves on over the lists of an array of lists."""
    room = follow - at
    if kind in _SCALARS:
        layout = _SCALARS[kind]
        if count != 1 or room != (layout.size + 7 & -8):
            damaged(at, f"{count} values of type {kind} in {room} bytes")
        (number,) = layout.unpack_from(data, at)
        return scalar(kind, number), follow
    if kind == Kind.STRING:
        stop = data.find(b"\0", at, follow)
        if count != 1 or stop < 0 or room != (stop - at + 8 & -8):
            damaged(at, "a string that does not end in its place")
        return data[at:stop], follow
    if kind == Kind.BOOLEAN:
        if count or room:
            damaged(at, "a boolean with a value")
        return None, follow
    if kind in ELEMENTS:
        return _array(data, at, follow, end, Kind(kind), count, depth)
    damaged(at, f"unknown type {kind}, or {count} values of it in {room} bytes")


def _array(data: bytes, at: int, follow: int, end: int, kind: Kind, count: int, depth: int) -> tuple[object, int]:
    # Checked before anything is made of the count, which may be any number in damaged bytes.
    room, element = follow - at, ELEMENTS[kind]
    if count < 0:
        damaged(at, f"an array of {count} elements")
    values: list[object] = []
    if element == Kind.NVLIST:
        if room != 32 * count:
            damaged(at, f"an array of {count} lists in {room} bytes")
        for place in range(at + 8 * count, follow - 23, 24):
            value, follow = _embedded(data, place, follow, end, depth)
            values.append(value)
        return Array(kind, values), follow
    if element == Kind.STRING:
        return Array(kind, _strings(data, at, follow, count)), follow
    code = CODES[element]
    layout_bytes = _SCALARS[element].size * count
    if room != (layout_bytes + 7 & -8):
        damaged(at, f"an array of {count} elements in {room} bytes")
    numbers = Struct(f"={count}{code}").unpack_from(data, at)
    return Array(
        kind, [scalar(element, number) for number in numbers] if element == Kind.BOOLEAN_VALUE else numbers
    ), follow


def _strings(data: bytes, at: int, follow: int, count: int) -> list[object]:
    values: list[object] = []
    place = at + 8 * count
    # Each string has at least its NUL.
    if place + count > follow:
        damaged(at, f"an array of {count} strings in {follow - at} bytes")
    for _ in range(count):
        stop = data.find(b"\0", place, follow)
        if stop < 0:
            damaged(place, "a string that does not end in its place")
        values.append(data[place:stop])
        place = stop + 1
    if follow - at != (place - at + 7 & -8):
        damaged(at, f"an array of strings with {follow - place} bytes too many")
    return values


def encode(pairs: Pairs, flags: int) -> bytes:
    """The pairs of a list and its end. `flags` go to every list within it."""
    out = bytearray()
    _put_pairs(out, pairs, flags, 0)
    return bytes(out)


def _put_pairs(out: bytearray, pairs: Pairs, flags: int, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise NvlistError(f"lists within lists deeper than {DEPTH_LIMIT}")
    for key, value in pairs.items():
        name = name_of(key)
        kind = kind_of(name, value)
        element = ELEMENTS.get(kind)
        values = list(value) if element is not None and isinstance(value, list) else [value]
        body = _body(name, element or kind, values, is_array=element is not None, flags=flags)
        count = 0 if kind == Kind.BOOLEAN else len(values)
        size = (len(name) + 24 & -8) + len(body)
        out += pack_pair(size, name, count, kind)
        out += body
        if Kind.NVLIST in {kind, element}:
            for inner in values:
                _put_pairs(out, _as_list(name, inner), flags, depth + 1)
        if len(out) > SIZE_LIMIT_BYTES:
            raise NvlistError("an nvlist of 2 GiB or more")
    out += bytes(4)


def pack_pair(size: int, name: bytes, count: int, kind: int) -> bytes:
    if size > SIZE_LIMIT_BYTES:
        raise NvlistError(f"{name!r}: a value of {size} bytes")
    return _HEADER.pack(size, len(name) + 1, 0, count, kind) + name + bytes(8 - len(name) % 8)


def _as_list(name: bytes, value: object) -> dict[bytes, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{name!r}: a list is a dict, not {type(value).__name__}")
    return value


def _body(name: bytes, kind: Kind, values: list[object], *, is_array: bool, flags: int) -> bytes:
    """The value with its padding; lists within the list follow it."""
    if kind == Kind.BOOLEAN:
        return b""
    pointers = bytes(8 * len(values)) if is_array and kind in {Kind.STRING, Kind.NVLIST} else b""
    if kind == Kind.NVLIST:
        return pointers + _EMBEDDED.pack(0, flags, 0, 0, 0) * len(values)
    if kind == Kind.STRING:
        body = pointers + b"".join(text(value) + b"\0" for value in values)
    else:
        body = numbers(name, kind, f"={len(values)}{CODES[kind]}", values)
    return body + bytes(-len(body) % 8)


def numbers(name: bytes, kind: Kind, layout: str, values: list[object]) -> bytes:
    """Numbers side by side. OverflowError for one that its type cannot hold, TypeError for what is no number."""
    allowed = (int, float) if kind == Kind.DOUBLE else int
    for value in values:
        if not isinstance(value, allowed):
            raise TypeError(f"{name!r}: {type(value).__name__} where {kind.name} is wanted")
        if kind == Kind.BOOLEAN_VALUE and value not in {0, 1}:
            raise OverflowError(f"{name!r}: {value} is no boolean")
    try:
        return pack(layout, *values)
    except error as problem:
        raise OverflowError(f"{name!r}: {kind.name} cannot hold it: {problem}") from problem
