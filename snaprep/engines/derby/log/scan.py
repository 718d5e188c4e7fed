"""Derby's transaction log, read from its files: where it ends, how much lies between two positions, what committed.

A log file is a header of 24 bytes and then groups: a checksum record that carries length and CRC-32 of what follows,
then records `int length | long instant | body | int length`. Derby writes a group per flush, allocates a megabyte
ahead with zeros, and ends a closed file with an int 0. Only whole groups with the right CRC count here, so a scan
beside a running server sees a prefix of the truth. Encrypted logs cannot be read: their checksum records are secret.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from snaprep.engines.derby.opening import content, opened

HEADER_BYTES = 24
USUAL_FILE_BYTES = 1 << 20  # Derby closes a file that is longer, unless it was told otherwise
CHECKSUM_BYTES = 37  # the record that opens a group, framing included
GROUP_MOST_BYTES = 16 << 20  # held in memory at once; Derby's own are 32 KiB, or one record
_GROUP_USUAL_BYTES = 64 << 10
_CHECKSUM_BODY_BYTES = 21
_FRAME_BYTES = 16  # length, instant, length
_READ_BYTES = 1 << 20
_LOG_FORMAT = 128
CHECKSUM_SIGN = bytes.fromhex("00814900000001c501")  # record, group CHECKSUM, no transaction, operation 453, CRC-32
CHECKSUM_SIGN_AT = 12  # behind length and instant
_CONTROL_FORMAT = b"\x00\x00\x00\x80\x00\x00\x00\x09"

_COMMIT = 0x10  # flag of a record's group
_BEGIN, _END = 169, 102  # operations that open and end a transaction
_CHECKPOINT = 263
_ROLLBACK_FIRST = 0x10  # status in the opening of an internal transaction: checkpoint, index split
_SPACE = frozenset({97, 111, 113, 241, 242, 287})  # pages allocated, initialised, freed; files made; room given back


class LogDamaged(Exception):
    """There is no log here that Derby would start from."""


class LogGone(Exception):
    """A log file between two ends is missing: Derby deleted it at a checkpoint, or the position is another log's."""


class LogChanged(Exception):
    """What stood at a place in the log is not there any more: it was written anew, cut, or is another database's."""


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """A place in the log: number of the file and bytes from its start. Derby writes both as one `instant`."""

    file: int
    offset: int

    @property
    def instant(self) -> int:
        return self.file << 32 | self.offset

    @classmethod
    def from_instant(cls, instant: int) -> Self:
        return cls(instant >> 32, instant & 0xFFFFFFFF)

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogControl:
    """What log.ctrl says. `version` is the database's format, which an upgrade may leave behind the engine's."""

    checkpoint: LogPosition
    version: tuple[int, int]
    beta: bool
    unsafe: bool  # the server ran with derby.system.durability=test: a crash may lose anything


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHeader:
    """The head of a log file: its number, and where the file before it ended."""

    number: int
    before: LogPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    """`count` commits lie after `since`; `first` and `last` are where their records begin; `end` is the log's end."""

    since: LogPosition
    end: LogPosition
    count: int
    first: LogPosition | None
    last: LogPosition | None


def log_files(directory: Path) -> list[int]:
    """The numbers of the log files that carry a whole header, ascending; to Derby too an empty one is none."""
    return [number for number in numbers(directory) if header(directory, number) is not None]


def numbers(directory: Path) -> list[int]:
    """The numbers of everything that is named like a log file, ascending."""
    names = (re.fullmatch(r"log([1-9]\d*)\.dat", path.name) for path in directory.iterdir())
    return sorted(int(match[1]) for match in names if match)


def log_end(directory: Path) -> LogPosition:
    """Where Derby, started from these files, goes on: the end of the last whole group in the highest file.

    Looked for from the last checkpoint on, as recovery does. Raises LogDamaged when no log file has a header.
    """
    for number in reversed(numbers(directory)):
        if header(directory, number) is not None:
            return LogPosition(number, file_end(directory, number, _known_group(directory, number)))
    raise LogDamaged(f"no log file with a whole header in {directory}")


def _known_group(directory: Path, number: int) -> int:
    """Where a whole group of this file begins behind which to look for the end: that of the last checkpoint.

    Derby names a checkpoint in log.ctrl when the log up to it is on disk, so what lies before need not be read again: a
    full file of small groups takes 10 ms. Where there is none in this file, or it is not found, the first group's.
    """
    try:
        at = checkpoint(directory)
        if at.file != number:
            return HEADER_BYTES
        with opened(path_of(directory, number)) as file:
            first = max(HEADER_BYTES, at.offset - _GROUP_USUAL_BYTES)
            file.seek(first)
            offset = first + file.read(at.offset - first).rfind(CHECKSUM_SIGN) - CHECKSUM_SIGN_AT
            end = group_end(file, LogPosition(number, offset)) if offset >= first else None
    except (LogDamaged, FileNotFoundError):
        return HEADER_BYTES
    return offset if end is not None and end > at.offset else HEADER_BYTES


def checkpoint(directory: Path) -> LogPosition:
    """Where recovery begins to redo. Raises LogDamaged."""
    return control(directory).checkpoint


def checkpoint_reach(directory: Path) -> LogPosition:
    """The oldest place that recovery from the last checkpoint needs: to redo, or to undo what was open then.

    Raises LogDamaged when the checkpoint's record is not there.
    """
    at = checkpoint(directory)
    try:
        with opened(path_of(directory, at.file)) as file:
            file.seek(at.offset)
            record = file.read(_FRAME_BYTES + 64)
        length, instant = struct.unpack_from(">iq", record)
        body = record[12 : 12 + min(length, len(record))]
        _, place = _compressed_int(body, 2)
        _, place = _compressed_long(body, place + 2)
        operation = int.from_bytes(body[place : place + 2], "big")
        redo, place = _compressed_long(body, place + 2)
        undo, _ = _compressed_long(body, place)
    except (FileNotFoundError, struct.error, IndexError) as error:
        raise LogDamaged(f"the checkpoint's record at {at} is not in {directory}") from error
    if instant != at.instant or operation != _CHECKPOINT:
        raise LogDamaged(f"what stands at {at} in {directory} is no checkpoint")
    return min(at, LogPosition.from_instant(redo), LogPosition.from_instant(undo))


def control(directory: Path) -> LogControl:
    """log.ctrl, or its mirror when the first is torn. Raises LogDamaged when neither is whole."""
    for name in ("log.ctrl", "logmirror.ctrl"):
        path = directory / name
        data = content(path)
        if len(data) < 48 or not data.startswith(_CONTROL_FORMAT):
            continue
        instant, major, minor, _build, flags = struct.unpack_from(">qiiiB", data, 8)
        (crc,) = struct.unpack_from(">q", data, 40)
        if zlib.crc32(data[:40]) == crc:
            return LogControl(
                checkpoint=LogPosition.from_instant(instant),
                version=(major, minor),
                beta=bool(flags & 1),
                unsafe=bool(flags & 2),
            )
    raise LogDamaged(f"neither log.ctrl nor its mirror is whole in {directory}")


def bytes_between(directory: Path, a: LogPosition, b: LogPosition) -> int:
    """Bytes of log after `a` up to `b`, negative when `b` comes first; ends of files and preallocation left out.

    Raises LogGone when a file between them is missing.
    """
    if b < a:
        return -bytes_between(directory, b, a)
    total, start = 0, a.offset
    for number in range(a.file, b.file):
        total += file_end(directory, number) - start
        start = HEADER_BYTES
    return total + b.offset - start


def written_bytes(directory: Path, a: LogPosition, b: LogPosition) -> int:
    """About how many bytes of log lie between two positions. Closed files that are gone count as those that are left
    do; so it is for rates, not for proofs.
    """
    if a.file == b.file:
        return max(0, b.offset - a.offset)
    sizes = []
    for number in numbers(directory):
        if number < b.file:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path_of(directory, number).stat().st_size)
    each = sum(sizes) // len(sizes) if sizes else USUAL_FILE_BYTES
    return max(0, (b.file - a.file) * each + b.offset - a.offset)


def count_commits(directory: Path, since: LogPosition) -> Commits:
    """Count the commits whose record lies after `since`.

    Counted is every COMMIT of a transaction that changed something: never one that only read (Derby logs nothing for
    it), was rolled back or only prepared, is internal (checkpoint, index split; marked in its opening record), or only
    moved space about (pages allocated, room given back after an update). Not told apart from a user's are the small
    transactions that Derby nests for its own catalogs: identity values handed out in blocks, a statement compiled into
    a catalog, index statistics brought up to date in the background. So the count is exact for plain inserts, updates
    and deletes without those, and otherwise a little too high, never too low.

    Raises LogGone when `since` or a file after it is not here, LogDamaged when there is no log.
    """
    end = log_end(directory)
    if since > end:
        raise LogGone(f"the log ends at {end}, before {since}")
    open_ones: dict[int, int] = {}  # transaction -> flags seen so far
    found: list[LogPosition] = []
    # The file before gives the openings of what was under way at `since`; it may be gone.
    context = since.file - 1 if path_of(directory, since.file - 1).exists() else since.file
    for number in range(context, end.file + 1):
        for offset, body in _records(_existing(directory, number), number):
            place = LogPosition(number, offset)
            if _ends_user_commit(body, open_ones) and place >= since:
                found.append(place)
    return Commits(
        since=since,
        end=end,
        count=len(found),
        first=found[0] if found else None,
        last=found[-1] if found else None,
    )


_INTERNAL, _BEGUN, _CHANGED = 1, 2, 4


def _ends_user_commit(body: bytes, open_ones: dict[int, int]) -> bool:
    """Follow one record; true when it commits a transaction that counts."""
    group, at = _compressed_int(body, 2)
    if body[at : at + 2] == b"\0\0":
        return False  # a checksum: of no transaction
    transaction, at = _compressed_long(body, at + 2)
    operation = body[at] << 8 | body[at + 1]
    if operation == _BEGIN:
        status = int.from_bytes(body[at + 2 : at + 6], "big")
        open_ones[transaction] = _BEGUN | (_INTERNAL if status & _ROLLBACK_FIRST else 0)
    elif operation == _END:
        seen = open_ones.pop(transaction, 0)
        changed = bool(seen & _CHANGED) or not seen & _BEGUN
        return bool(group & _COMMIT) and changed and not seen & _INTERNAL
    elif operation not in _SPACE:
        open_ones[transaction] = open_ones.get(transaction, 0) | _CHANGED
    return False


def path_of(directory: Path, number: int) -> Path:
    return directory / f"log{number}.dat"


def _existing(directory: Path, number: int) -> Path:
    path = path_of(directory, number)
    if not path.exists():
        raise LogGone(f"{path} does not exist")
    return path


def parse_header(data: bytes, number: int) -> LogHeader | None:
    """The header of the file of this number; None when these bytes are not one."""
    if len(data) < HEADER_BYTES:
        return None
    found_format, _obsolete, found_number, before = struct.unpack_from(">iiqq", data)
    if found_format != _LOG_FORMAT or found_number != number or before < 0:
        return None
    return LogHeader(number=number, before=LogPosition.from_instant(before))


def header(directory: Path, number: int) -> LogHeader | None:
    """The header of a log file; None when the file has no whole one, or is not there."""
    try:
        with opened(path_of(directory, number)) as file:
            return parse_header(file.read(HEADER_BYTES), number)
    except FileNotFoundError:
        return None


def group_end(file: IO[bytes], at: LogPosition) -> int | None:
    """Where the group that begins at a position of this open file ends; None when no whole one is there."""
    file.seek(at.offset)
    lead = file.read(CHECKSUM_BYTES)
    left = lead_data_bytes(lead, at)
    if left is None:
        return None
    end, crc = at.offset + CHECKSUM_BYTES + left, 0
    while left:
        data = file.read(min(left, _READ_BYTES))
        if not data:
            return None
        crc = zlib.crc32(data, crc)
        left -= len(data)
    return end if crc == _lead_crc(lead) else None


def read_group(file: IO[bytes], at: LogPosition) -> bytes | None:
    """The group that begins at a position of this open file, its checksum record included; None when none is there.

    Raises LogDamaged when it is longer than GROUP_MOST_BYTES.
    """
    file.seek(at.offset)
    lead = file.read(CHECKSUM_BYTES)
    data_bytes = lead_data_bytes(lead, at)
    if data_bytes is None:
        return None
    if data_bytes > GROUP_MOST_BYTES:
        if group_end(file, at) is None:  # a damaged length
            return None
        raise LogDamaged(f"a group of {data_bytes} bytes at {at}: derby.storage.logBufferSize is too large")
    data = file.read(data_bytes)
    return lead + data if len(data) == data_bytes and zlib.crc32(data) == _lead_crc(lead) else None


def lead_data_bytes(lead: bytes, at: LogPosition) -> int | None:
    """How many bytes a checksum record at this position covers; None when this is none."""
    if len(lead) < CHECKSUM_BYTES:
        return None
    length, instant = struct.unpack_from(">iq", lead)
    data_bytes, _crc, length_again = struct.unpack_from(">iqi", lead, 21)
    whole = length == length_again == _CHECKSUM_BODY_BYTES and instant == at.instant and lead[12:21] == CHECKSUM_SIGN
    return data_bytes if whole and data_bytes > _FRAME_BYTES else None


def _lead_crc(lead: bytes) -> int:
    return int.from_bytes(lead[25:33], "big", signed=True)


def _records(path: Path, number: int) -> Iterator[tuple[int, bytes]]:
    """(offset, body) of each record in whole groups, without the checksum records, up to the first that is not."""
    start = HEADER_BYTES
    with opened(path) as file:
        while group := read_group(file, LogPosition(number, start)):
            at = CHECKSUM_BYTES
            while at < len(group):
                length = int.from_bytes(group[at : at + 4], "big")
                yield start + at, group[at + 12 : at + 12 + length]
                at += length + _FRAME_BYTES
            start += len(group)


def file_end(directory: Path, number: int, start: int = HEADER_BYTES) -> int:
    """Where the last whole group of a file ends, looked for from the start of a group on. Raises LogGone."""
    with opened(_existing(directory, number)) as file:
        while (end := group_end(file, LogPosition(number, start))) is not None:
            start = end
    return start


def _compressed_int(data: bytes, at: int) -> tuple[int, int]:
    """Derby's short form: the top bits of the first byte say whether 1, 2 or 4 bytes follow. Returns (value, next)."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | data[at + 1], at + 2
    return int.from_bytes(data[at : at + 4], "big") & 0x7FFFFFFF, at + 4


def _compressed_long(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 0x40:
        return int.from_bytes(data[at : at + 2], "big"), at + 2
    if first < 0x80:
        return int.from_bytes(data[at : at + 4], "big") & 0x3FFFFFFF, at + 4
    return int.from_bytes(data[at : at + 8], "big") & 0x7FFFFFFFFFFFFFFF, at + 8
