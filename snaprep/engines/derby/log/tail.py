"""The end of a log, carried from one copy of a database to the other, so that both logs end at the same place.

Two copies that have the same log up to a place, one of which went on alone: the other gets the bytes that it lacks, as
they are, behind its own. Its next boot replays them like anything else in its log. What both have is compared first.
"""

from __future__ import annotations

import base64
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from snaprep.core.errors import Stopped, VerifyFailed
from snaprep.engines.derby import files
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log.scan import HEADER_BYTES, LogPosition
from snaprep.engines.derby.opening import opened
from snaprep.engines.derby.session import SOMEBODY_OPENED, files_told

SHOWN_BYTES = 64 << 10  # of a log's end, for who may lack some of it
MOST_BYTES = 4 << 20
_END_MARK = b"\0\0\0\0"  # what follows the last record; Derby's own preallocation looks the same


@dataclass(frozen=True, slots=True)
class LogPart:
    """Bytes of one file from an offset on; from 0 on the file's header is among them."""

    number: int
    offset: int
    data: str  # base64

    @property
    def bytes(self) -> bytes:
        return base64.b64decode(self.data)


@dataclass(frozen=True, slots=True)
class LogTail:
    """All log from `start` to `end`, as instants."""

    start: int
    end: int
    parts: tuple[LogPart, ...]


def read(database: Path, since: int | None) -> LogTail:
    """The log from a position on, or about the last 64 KiB of it. Nobody may be writing to it.

    Raises `log-ends-differ` when the position is not in the log any more, `log-damaged`.
    """
    with files_told():
        directory = files.log_directory(database)
        end = log.log_end(directory)
        start = _some_way_back(directory, end) if since is None else LogPosition.from_instant(since)
        if start > end or log.header(directory, start.file) is None:
            raise _differs(f"the log ends at {end}, and does not hold what follows {start}")
        if log.bytes_between(directory, start, end) > MOST_BYTES:
            what = f"the log from {start} to {end} is more than a switchover carries"
            raise Stopped("tail-too-long", what, hint="the replica lags far behind: see why, then run it again")
        parts = [_part(directory, number, start, end) for number in range(start.file, end.file + 1)]
    return LogTail(start.instant, end.instant, tuple(parts))


def _some_way_back(directory: Path, end: LogPosition) -> LogPosition:
    """The first group of the last file within SHOWN_BYTES of its end; the file's beginning when it is short."""
    if end.offset <= SHOWN_BYTES:
        return LogPosition(end.file, 0)
    at = HEADER_BYTES
    with opened(log.path_of(directory, end.file)) as file:
        while at < end.offset - SHOWN_BYTES and (after := log.group_end(file, LogPosition(end.file, at))) is not None:
            at = after
    return LogPosition(end.file, at)


def _part(directory: Path, number: int, start: LogPosition, end: LogPosition) -> LogPart:
    offset = start.offset if number == start.file else 0
    until = end.offset if number == end.file else log.file_end(directory, number)
    with opened(log.path_of(directory, number)) as file:
        data = os.pread(file.fileno(), until - offset, offset)
    return LogPart(number, offset, base64.b64encode(data).decode())


def append(database: Path, tail: LogTail) -> None:
    """Add what this copy's log lacks of the tail, once what it has is found equal. Nobody may have it booted.

    Raises `log-ends-differ`: then nothing was added.
    """
    with files_told():
        files.remove_lock_files(database)
        directory = files.log_directory(database)
        mine, end = log.log_end(directory), LogPosition.from_instant(tail.end)
        _must_fit(directory, mine, tail)
        for part in tail.parts:
            skip = max(0, mine.offset - part.offset) if part.number == mine.file else 0
            if part.number >= mine.file and len(part.bytes) > skip:
                _write(directory, LogPosition(part.number, part.offset + skip), part.bytes[skip:])
        now = log.log_end(directory)
    if now != end:
        raise _differs(f"the copy's log ends at {now}, that of the other side at {end}")


def _must_fit(directory: Path, mine: LogPosition, tail: LogTail) -> None:
    start, end = LogPosition.from_instant(tail.start), LogPosition.from_instant(tail.end)
    if mine > end:
        raise _differs(f"the copy's log ends at {mine}, behind that of the other side: {end}")
    # A file that has only been begun elsewhere goes on where the copy's last one ended.
    follows = start.offset == 0 and log.parse_header(tail.parts[0].bytes, start.file)
    if mine < start and not (follows and follows.before == mine):
        raise _differs(f"the copy's log ends at {mine}; what is known of the other starts later")
    for part in tail.parts:
        until = mine.offset if part.number == mine.file else part.offset + len(part.bytes)
        if part.number > mine.file or until <= part.offset:
            continue
        with opened(log.path_of(directory, part.number)) as file:
            have = os.pread(file.fileno(), until - part.offset, part.offset)
        if have != part.bytes[: until - part.offset]:
            raise _differs(f"the two logs differ before {mine}: they are not one history")


def _differs(what: str) -> VerifyFailed:
    return VerifyFailed("log-ends-differ", what, hint=SOMEBODY_OPENED)


def _write(directory: Path, at: LogPosition, data: bytes) -> None:
    path = log.path_of(directory, at.file)
    made = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, data + _END_MARK, at.offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if made:
        owner = directory.stat()
        shutil.chown(path, owner.st_uid, owner.st_gid)
        shutil.copymode(next(directory.glob("log*.ctrl")), path)
