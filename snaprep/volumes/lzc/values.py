"""The values that an nvlist holds, and how Python shows them. Standard library only; needs no ZFS.

A name is `bytes`. A plain `int` is a uint64, `bytes` a string, `bool` a boolean value, `float` a double, `None` a
boolean that is true by being there, a `dict` an nvlist. Every other C type has a class here that equals the plain
value, so a list that was decoded can be encoded again and is the same list for the C library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import ClassVar, Self, TypeAlias


class NvlistError(ValueError):
    """Packed bytes that are no whole nvlist, or a list that no nvlist can hold."""


# What can be packed. What comes back is always a dict with names of bytes.
Pairs: TypeAlias = Mapping[bytes, object] | Mapping[str, object]


class Kind(IntEnum):
    """`data_type_t` of libnvpair: the numbers stand in packed lists."""

    BOOLEAN = 1
    BYTE = 2
    INT16 = 3
    UINT16 = 4
    INT32 = 5
    UINT32 = 6
    INT64 = 7
    UINT64 = 8
    STRING = 9
    BYTE_ARRAY = 10
    INT16_ARRAY = 11
    UINT16_ARRAY = 12
    INT32_ARRAY = 13
    UINT32_ARRAY = 14
    INT64_ARRAY = 15
    UINT64_ARRAY = 16
    STRING_ARRAY = 17
    HRTIME = 18
    NVLIST = 19
    NVLIST_ARRAY = 20
    BOOLEAN_VALUE = 21
    INT8 = 22
    UINT8 = 23
    BOOLEAN_ARRAY = 24
    INT8_ARRAY = 25
    UINT8_ARRAY = 26
    DOUBLE = 27


class TypedInt(int):
    """An integer that remembers its C type. It raises OverflowError for what that type cannot hold."""

    kind: ClassVar[Kind]
    low: ClassVar[int]
    high: ClassVar[int]

    def __new__(cls, value: int) -> Self:
        if not isinstance(value, int):
            raise TypeError(f"{cls.__name__} holds integers, not {type(value).__name__}")
        if not cls.low <= value <= cls.high:
            raise OverflowError(f"{int(value)} is outside {cls.__name__}: {cls.low} to {cls.high}")
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"

    def __str__(self) -> str:
        return str(int(self))


class UInt8(TypedInt):
    kind, low, high = Kind.UINT8, 0, 2**8 - 1


class Int8(TypedInt):
    kind, low, high = Kind.INT8, -(2**7), 2**7 - 1


class UInt16(TypedInt):
    kind, low, high = Kind.UINT16, 0, 2**16 - 1


class Int16(TypedInt):
    kind, low, high = Kind.INT16, -(2**15), 2**15 - 1


class UInt32(TypedInt):
    kind, low, high = Kind.UINT32, 0, 2**32 - 1


class Int32(TypedInt):
    kind, low, high = Kind.INT32, -(2**31), 2**31 - 1


class UInt64(TypedInt):
    kind, low, high = Kind.UINT64, 0, 2**64 - 1


class Int64(TypedInt):
    kind, low, high = Kind.INT64, -(2**63), 2**63 - 1


class Byte(TypedInt):
    kind, low, high = Kind.BYTE, 0, 2**8 - 1


class HrTime(TypedInt):
    """Nanoseconds."""

    kind, low, high = Kind.HRTIME, -(2**63), 2**63 - 1


def boolean_t(value: int) -> bool:
    """`bool`, for numbers that come from C. OverflowError for anything but 0 and 1."""
    if value not in {0, 1}:
        raise OverflowError(f"{value} is no boolean_t: 0 or 1")
    return bool(value)


class Array(list[object]):
    """A list that remembers the C type of its elements, so that an empty one can be encoded, too.

    >>> Array(Kind.UINT16_ARRAY, [1, 2]) == [1, 2]
    True
    """

    __slots__ = ("kind",)

    def __init__(self, kind: Kind, values: Iterable[object] = ()) -> None:
        if kind not in ELEMENTS:
            raise ValueError(f"{kind!r} is no kind of array")
        super().__init__(values)
        self.kind = kind

    def __reduce__(self) -> tuple[object, ...]:
        return Array, (self.kind, list(self))


# How one element is written by `struct`, without byte order.
CODES: dict[int, str] = {
    Kind.BOOLEAN_VALUE: "i",
    Kind.BYTE: "B",
    Kind.INT8: "b",
    Kind.UINT8: "B",
    Kind.INT16: "h",
    Kind.UINT16: "H",
    Kind.INT32: "i",
    Kind.UINT32: "I",
    Kind.INT64: "q",
    Kind.UINT64: "Q",
    Kind.HRTIME: "q",
    Kind.DOUBLE: "d",
}
# The kind of an array -> the kind of its elements.
ELEMENTS: dict[int, Kind] = {
    Kind.BYTE_ARRAY: Kind.BYTE,
    Kind.INT8_ARRAY: Kind.INT8,
    Kind.UINT8_ARRAY: Kind.UINT8,
    Kind.INT16_ARRAY: Kind.INT16,
    Kind.UINT16_ARRAY: Kind.UINT16,
    Kind.INT32_ARRAY: Kind.INT32,
    Kind.UINT32_ARRAY: Kind.UINT32,
    Kind.INT64_ARRAY: Kind.INT64,
    Kind.UINT64_ARRAY: Kind.UINT64,
    Kind.BOOLEAN_ARRAY: Kind.BOOLEAN_VALUE,
    Kind.STRING_ARRAY: Kind.STRING,
    Kind.NVLIST_ARRAY: Kind.NVLIST,
}
ARRAYS = {element: Kind(array) for array, element in ELEMENTS.items()}
TYPED: dict[int, type[TypedInt]] = {
    cls.kind: cls for cls in (UInt8, Int8, UInt16, Int16, UInt32, Int32, Int64, Byte, HrTime)
}
# Names whose plain integers ZFS wants narrower than uint64, as pyzfs has them.
NARROW: dict[bytes, Kind] = {
    b"rewind-request": Kind.UINT32,
    b"type": Kind.UINT32,
    b"N_MORE_ERRORS": Kind.INT32,
    b"pool_context": Kind.INT32,
}
# A pair's header counts its name in a signed 16-bit field, the closing NUL included.
NAME_LIMIT_BYTES = 2**15 - 2
SIZE_LIMIT_BYTES = 2**31 - 1
# The C library packs and unpacks lists within lists this deep, the outermost not counted.
DEPTH_LIMIT = 100


def scalar(kind: int, value: int) -> object:
    """An integer as it is shown to Python."""
    if kind == Kind.BOOLEAN_VALUE:
        if value not in {0, 1}:
            raise NvlistError(f"{value} is no boolean")
        return bool(value)
    typed = TYPED.get(kind)
    return value if typed is None else typed(value)


def text(value: object) -> bytes:
    """A name or a string as C wants it; `str` is taken as UTF-8. ValueError for a NUL, which would cut it short."""
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        raise TypeError(f"names and strings are bytes, not {type(value).__name__}")
    if b"\0" in value:
        raise ValueError(f"a string of an nvlist holds no NUL: {value[:64]!r}")
    return value


def name_of(key: object) -> bytes:
    """A pair's name, checked."""
    name = text(key)
    if len(name) > NAME_LIMIT_BYTES:
        raise NvlistError(f"a pair's name has {len(name)} bytes, {NAME_LIMIT_BYTES} at most: {name[:32]!r}...")
    return name


def kind_of(name: bytes, value: object) -> Kind:
    """The C type in which a value is stored. TypeError when there is none."""
    if value is None:
        return Kind.BOOLEAN
    if isinstance(value, bool):
        return Kind.BOOLEAN_VALUE
    if isinstance(value, TypedInt):
        return value.kind
    if isinstance(value, int):
        return NARROW.get(name, Kind.UINT64)
    if isinstance(value, (bytes, str)):
        return Kind.STRING
    if isinstance(value, dict):
        return Kind.NVLIST
    if isinstance(value, float):
        return Kind.DOUBLE
    if isinstance(value, Array):
        return value.kind
    if isinstance(value, list):
        return _array_kind(name, value)
    raise TypeError(f"{name!r}: an nvlist holds no {type(value).__name__}")


def _array_kind(name: bytes, values: list[object]) -> Kind:
    if not values:
        raise ValueError(f"{name!r}: an empty list does not say its type; use Array(Kind...)")
    kinds = {kind_of(name, value) for value in values}
    if len(kinds) != 1:
        raise TypeError(f"{name!r}: elements of different types: {', '.join(sorted(kind.name for kind in kinds))}")
    kind = kinds.pop()
    if kind not in ARRAYS:
        raise TypeError(f"{name!r}: an nvlist holds no array of {kind.name}")
    return ARRAYS[kind]
