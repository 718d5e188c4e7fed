"""Logs that no server wrote, for sizes that would take one too long: right headers, groups and CRCs, of nothing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from snaprep.engines.derby.log.scan import CHECKSUM_SIGN, HEADER_BYTES, LogPosition


def write_log(directory: Path, files: int, file_bytes: int = 1 << 20, group_bytes: int = 4000) -> int:
    """Files 1 to `files`, each of about that size; returns the bytes of groups in all."""
    before, total = 0, 0
    for number in range(1, files + 1):
        data = bytearray(struct.pack(">iiqq", 128, 9, number, before))
        while len(data) < file_bytes:
            data += _group(LogPosition(number, len(data)), group_bytes)
        before = LogPosition(number, len(data)).instant
        total += len(data) - HEADER_BYTES
        (directory / f"log{number}.dat").write_bytes(data + bytes(4))
    return total


def _group(at: LogPosition, size: int) -> bytes:
    record = LogPosition(at.file, at.offset + 37)
    body = struct.pack(">iq", size - 16, record.instant) + b"r" * (size - 16) + struct.pack(">i", size - 16)
    lead = struct.pack(">iq", 21, at.instant) + CHECKSUM_SIGN
    return lead + struct.pack(">iqi", len(body), zlib.crc32(body), 21) + body
