"""The beginning of a stream, and resume tokens: read in Python, no ZFS needed."""

from __future__ import annotations

import os
import re
import zlib
from struct import Struct
from typing import Final

from snaprep.volumes import nvlist
from snaprep.volumes.lzc.exceptions import BadStream, StreamTruncated

# A record's type and payload size, then of a begin record: magic, version and features, seconds since 1970, type of the
# dataset, flags, GUIDs, name.
_BEGIN: Final = Struct("=IIQQQIIQQ256s")
BEGIN_BYTES: Final = _BEGIN.size
_FIELDS: Final = (
    "drr_magic",
    "drr_versioninfo",
    "drr_creation_time",
    "drr_type",
    "drr_flags",
    "drr_toguid",
    "drr_fromguid",
    "drr_toname",
)
_MAGIC: Final = 0x2F5BACBAC
_TOKEN: Final = re.compile(rb"1-([0-9a-f]{1,16})-([0-9a-f]{1,16})-((?:[0-9a-f]{2})+)")
# A token holds names and numbers; ZFS's own limit for what a property shows is 8 KiB of text.
_TOKEN_LIMIT_BYTES: Final = 1 << 20


class BeginRecord(bytes):
    """The first record of a stream, for the functions that receive the rest."""

    __slots__ = ()


def receive_header(fd: int) -> tuple[dict[str, int | bytes], BeginRecord]:
    """Read the first record of a stream, 312 bytes, from a descriptor, however few come at a time.

    Returns its fields (`drr_toname`, the sent snapshot's full name; `drr_toguid`; `drr_fromguid`, 0 for a full stream;
    `drr_flags`; `drr_type`, 2 filesystem, 3 volume; ...) and the record for `lzc_receive_with_header` and its kin.

    Raises StreamTruncated, BadStream (no stream, or one from a machine with another byte order), and OSError.

    >>> reader, writer = os.pipe()
    >>> _ = os.write(writer, b"not a stream" * 26)
    >>> receive_header(reader)
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.exceptions.BadStream: [Errno 52] the stream is damaged, or is none that this call receives
    """
    read = bytearray()
    while len(read) < BEGIN_BYTES:
        part = os.read(fd, BEGIN_BYTES - len(read))
        if not part:
            raise StreamTruncated
        read += part
    kind, _, *values = _BEGIN.unpack(read)
    fields: dict[str, int | bytes] = dict(zip(_FIELDS, values, strict=True))
    name, ending, _ = values[-1].partition(b"\0")
    if kind != 0 or fields["drr_magic"] != _MAGIC or not ending:
        raise BadStream
    fields["drr_toname"] = name
    return fields, BeginRecord(read)


def decode_resume_token(token: bytes | str) -> dict[bytes, object]:
    """What the property `receive_resume_token` says: `object` and `offset` for `lzc_send_resume`, `bytes` received,
    `toguid`, `toname`, `fromguid` of an increment, and as flags `embedok`, `largeblockok`, `compressok`, `rawok`.

    Not in the C library and not in pyzfs. Raises nvlist.NvlistError for what is no whole token.

    >>> decode_resume_token("-")
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.values.NvlistError: no resume token: b'-'
    """
    text = token.encode() if isinstance(token, str) else token
    parts = _TOKEN.fullmatch(text)
    if parts is None:
        raise nvlist.NvlistError(f"no resume token: {text[:64]!r}")
    checksum, size, packed = int(parts[1], 16), int(parts[2], 16), bytes.fromhex(parts[3].decode())
    if checksum != _fletcher4(packed):
        raise nvlist.NvlistError("a resume token whose checksum is wrong")
    if size > _TOKEN_LIMIT_BYTES:
        raise nvlist.NvlistError(f"a resume token of {size} bytes")
    inflate = zlib.decompressobj()
    try:
        payload = inflate.decompress(packed, size + 1)
    except zlib.error as problem:
        raise nvlist.NvlistError(f"a resume token that does not unpack: {problem}") from problem
    if len(payload) != size:
        raise nvlist.NvlistError("a resume token of another size than it says")
    return nvlist.unpack(payload)


def _fletcher4(data: bytes) -> int:
    """The first word of Fletcher's checksum over little-endian 32-bit words; a rest of the data is left out."""
    total = 0
    for at in range(0, len(data) - 3, 4):
        total += int.from_bytes(data[at : at + 4], "little")
    return total & 2**64 - 1
