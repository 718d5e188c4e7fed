"""nvlists as Python dictionaries: the lists of name and value in which ZFS passes everything.

    >>> packed = pack({b"tank/db@monday": None, b"guid": 17, b"held": {b"by": b"snaprep"}})
    >>> unpack(packed)
    {b'tank/db@monday': None, b'guid': 17, b'held': {b'by': b'snaprep'}}

Pure Python: no ZFS and no C library is needed. What values look like stands in `lzc.values`; in short, values are what
pyzfs shows, with classes beside for what pyzfs forgets, so that a list comes back in the C types that it had. When a
list has a name twice, the last one wins.
"""

from __future__ import annotations

import sys
from struct import Struct

from snaprep.volumes.lzc import native as lzc_native
from snaprep.volumes.lzc import xdr as lzc_xdr
from snaprep.volumes.lzc.values import (
    Array,
    Byte,
    HrTime,
    Int8,
    Int16,
    Int32,
    Int64,
    Kind,
    NvlistError,
    Pairs,
    TypedInt,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    boolean_t,
)

__all__ = [
    "NATIVE",
    "UNIQUE_NAME",
    "XDR",
    "Array",
    "Byte",
    "HrTime",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Kind",
    "NvlistError",
    "TypedInt",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "boolean_t",
    "pack",
    "unpack",
]

NATIVE, XDR = 0, 1
UNIQUE_NAME = 1
_ENCODE = {NATIVE: lzc_native.encode, XDR: lzc_xdr.encode}
_DECODE = {NATIVE: lzc_native.decode, XDR: lzc_xdr.decode}
_ENDIAN = int(sys.byteorder == "little")
_HEADER_BYTES = 12


def pack(pairs: Pairs, encoding: int = NATIVE, flags: int = UNIQUE_NAME) -> bytes:
    """The bytes that `nvlist_pack` of the C library writes for the same list.

    `flags` are the list's: UNIQUE_NAME as everywhere in ZFS, or 0. A `str` is taken as UTF-8.
    Raises TypeError for a value that no nvlist holds, OverflowError for a number outside its type, ValueError for a
    NUL in a name or string and for an empty list without a type, NvlistError for what is too deep, too long or too
    large.

    >>> pack({b"a": 1}, XDR)[12:].hex(" ", 4)
    '00000020 00000020 00000001 61000000 00000008 00000001 00000000 00000001 00000000 00000000'
    """
    encode = _ENCODE.get(encoding)
    if encode is None:
        raise NvlistError(f"unknown encoding {encoding}: NATIVE or XDR")
    order = "=" if encoding == NATIVE else ">"
    return bytes((encoding, _ENDIAN, 0, 0)) + Struct(f"{order}iI").pack(0, flags) + encode(pairs, flags)


def unpack(packed: bytes) -> dict[bytes, object]:
    """What `nvlist_unpack` of the C library reads, in either encoding. Bytes behind the list's end are left alone.

    Raises NvlistError, which says where, for bytes that are damaged, cut off, or of a machine with another byte order
    in native form. It never reads behind the end, and never makes more of a damaged count than there are bytes.

    >>> unpack(pack({b"a": [1, 2]}, XDR))
    {b'a': [1, 2]}
    >>> unpack(b"")
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.values.NvlistError: packed nvlist, byte 0: 0 bytes are no nvlist
    """
    packed = bytes(packed)
    if len(packed) < _HEADER_BYTES:
        lzc_native.damaged(0, f"{len(packed)} bytes are no nvlist")
    decode = _DECODE.get(packed[0])
    if decode is None:
        lzc_native.damaged(0, f"unknown encoding {packed[0]}")
    if packed[0] == NATIVE and packed[1] != _ENDIAN:
        lzc_native.damaged(1, "packed on a machine with another byte order")
    return decode(packed, _HEADER_BYTES)[0]
