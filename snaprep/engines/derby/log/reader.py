"""Reading a log while Derby writes it: whole groups in order, file after file, and nothing that is not proven.

What may be read is what Derby itself would find after a crash: groups whose CRC is right, each beginning where the one
before it ended. So a reader is never ahead of the files. Derby makes the next file before it has flushed the last
groups of this one; the next file's header says where this one ends, and only there a reader goes on.

Whoever reads on for days must see when the files are not what they were. Before each piece the group that was read
last is looked at again; a place without a group is the end only as long as no whole group lies behind it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log.scan import CHECKSUM_BYTES, HEADER_BYTES, LogChanged, LogDamaged, LogGone, LogPosition
from snaprep.engines.derby.opening import opened

PIECE_BYTES = 256 << 10
_LOOK_AHEAD_BYTES = 1 << 20
_PROOF_BYTES = 1 << 20
_DOUBT_S = 1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Log from `start` on: whole groups of one file; without data the log goes on in the next file."""

    start: LogPosition
    data: bytes

    @property
    def end(self) -> LogPosition:
        if not self.data:
            return LogPosition(self.start.file + 1, HEADER_BYTES)
        return LogPosition(self.start.file, self.start.offset + len(self.data))


class LogReader:
    """Reads from a position on, which must be where a group ends. One thread at a time.

    Raises LogGone when files are missing, LogChanged when the log is not the one in which the position was found,
    LogDamaged when what can be read is not whole; from the constructor and from `read`.
    """

    def __init__(self, directory: Path, start: LogPosition) -> None:
        self.directory = directory
        self.position = start
        self._ends: dict[int, int] = {}  # of files that were seen closed
        self._seen = start  # how far the log was seen to go
        self._doubted: tuple[float, tuple[int, ...]] = (0.0, ())  # when doubts were last looked into, and at what
        self._file = self._open(start.file)
        try:
            self._last = self._walk_to(start)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def read(self, most_bytes: int = PIECE_BYTES) -> Piece | None:
        """The next piece, at most this long unless a single group is longer; None at the end of what is flushed."""
        self._must_be_unchanged()
        data = self._groups(most_bytes)
        if data:
            return self._passed(Piece(self.position, data))
        following = log.header(self.directory, self.position.file + 1)
        if following is None:
            self._look_further(self._must_be_the_last)
            return None
        if following.before < self.position:
            raise LogChanged(f"log{following.number}.dat says that the log before it ended at {following.before}")
        if following.before > self.position:
            self._look_further(lambda: self._must_be_unflushed(following))
            return None
        self._ends[self.position.file] = self.position.offset
        return self._passed(Piece(self.position, b""))

    def delta_bytes(self) -> int:
        """How much log lies behind the position: by the headers of what is closed, to the last whole group of the rest.

        Takes no longer for much log than for little. Raises LogGone.
        """
        end = max(self.position, self._seen)
        while (following := log.header(self.directory, end.file + 1)) is not None:
            self._ends[end.file] = following.before.offset
            end = LogPosition(following.number, HEADER_BYTES)
        self._seen = end = LogPosition(end.file, log.file_end(self.directory, end.file, end.offset))
        return distance_bytes(self.directory, self.position, end, self._ends)

    @property
    def seen(self) -> LogPosition:
        """How far the log goes, as of the last look at `delta_bytes`, or further when more was read."""
        return max(self.position, self._seen)

    # -- reading -----------------------------------------------------------------------------------------------

    def _open(self, number: int) -> IO[bytes]:
        """Raises LogGone, LogDamaged."""
        path = log.path_of(self.directory, number)
        try:
            file = opened(path, buffering=0)  # a buffer would go on showing what was there before
        except FileNotFoundError as error:
            raise LogGone(f"{path} does not exist") from error
        if log.parse_header(file.read(HEADER_BYTES), number) is None:
            file.close()
            raise LogDamaged(f"{path} does not begin as a log file does")
        return file

    def _walk_to(self, start: LogPosition) -> tuple[int, bytes]:
        """(offset, first bytes) of the group that ends at the start, or of the file's header."""
        last, at = 0, HEADER_BYTES
        while at < start.offset:
            end = log.group_end(self._file, LogPosition(start.file, at))
            if end is None:
                raise LogChanged(f"the log has no whole group at {start.file}:{at}, before {start}")
            last, at = at, end
        if at != start.offset:
            raise LogChanged(f"no group of this log ends at {start}")
        return last, self._lead(last)

    def _lead(self, offset: int) -> bytes:
        return os.pread(self._file.fileno(), CHECKSUM_BYTES if offset else HEADER_BYTES, offset)

    def _groups(self, most_bytes: int) -> bytes:
        """Whole groups from the position on."""
        found: list[bytes] = []
        size, at = 0, self.position
        while group := log.read_group(self._file, at):
            if found and size + len(group) > most_bytes:
                break
            found.append(group)
            self._last = at.offset, group[:CHECKSUM_BYTES]
            size += len(group)
            at = LogPosition(at.file, at.offset + len(group))
            if size >= most_bytes:
                break
        return b"".join(found)

    def _passed(self, piece: Piece) -> Piece:
        if not piece.data:
            following = self._open(piece.end.file)
            self._file.close()
            self._file = following
            self._last = 0, self._lead(0)
            self._ends = {number: end for number, end in self._ends.items() if number > piece.start.file}
        self.position = piece.end
        return piece

    # -- doubts ------------------------------------------------------------------------------------------------

    def _must_be_unchanged(self) -> None:
        """The group read last must still be there, in this same file."""
        offset, lead = self._last
        if self._lead(offset) != lead:
            raise LogChanged(f"what stood at {self.position.file}:{offset} was written anew")
        path = log.path_of(self.directory, self.position.file)
        try:
            there = path.stat()
        except FileNotFoundError:
            return  # removed after Derby closed it: what it held can still be read
        mine = os.fstat(self._file.fileno())
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            self._take_instead(path)

    def _take_instead(self, path: Path) -> None:
        """Another file stands there: Derby, started after a crash, makes a file that was only begun anew."""
        file = opened(path, buffering=0)
        offset, lead = self._last
        if os.pread(file.fileno(), len(lead), offset) != lead:
            file.close()
            raise LogChanged(f"{path} was put in the place of another file, and holds something else")
        self._file.close()
        self._file = file

    def _look_further(self, check: Callable[[], None]) -> None:
        """See that the end is one: when something has changed, and each second, for the files' clocks are coarse."""
        mine, there = os.fstat(self._file.fileno()), self.directory.stat()
        seen = (self.position.offset, mine.st_mtime_ns, mine.st_size, mine.st_nlink, there.st_mtime_ns)
        now_s = time.monotonic()
        if seen == self._doubted[1] and now_s - self._doubted[0] < _DOUBT_S:
            return
        check()
        self._nothing_behind()
        self._doubted = (now_s, seen)

    def _must_be_the_last(self) -> None:
        """There is no next file: then there must be none after it either, and this one still in its place."""
        number = self.position.file + 1
        later = [found for found in log.numbers(self.directory) if found > number]
        here = log.path_of(self.directory, self.position.file).exists()
        path = log.path_of(self.directory, number)
        size = _size(path)
        if log.header(self.directory, number) is not None:
            return  # it came meanwhile
        # Derby writes a header in pieces, front to back: a file that was long enough had a whole one.
        if size is not None and (later or size >= HEADER_BYTES):
            raise LogDamaged(f"{path} does not begin as a log file does")
        if later:
            raise LogGone(f"{path} does not exist, but log{later[0]}.dat does")
        if not here and self.position.offset > HEADER_BYTES:
            raise LogGone(f"log{self.position.file}.dat was removed, and no file goes on at {self.position}")

    def _must_be_unflushed(self, following: log.LogHeader) -> None:
        """The next file exists; this one's last groups come any moment, unless the next has some of its own."""
        with self._open(following.number) as file:
            begun = _some_group(file, LogPosition(following.number, HEADER_BYTES)) is not None
        if begun or log.header(self.directory, following.number + 1) is not None:
            self._must_be_damaged(f"no whole group up to {following.before}, where log{following.number}.dat goes on")

    def _nothing_behind(self) -> None:
        """No whole group lies behind the place where one is missing."""
        behind = _some_group(self._file, self.position)
        if behind is not None:
            self._must_be_damaged(f"no whole group, but one at {self.position.file}:{behind}")

    def _must_be_damaged(self, what: str) -> None:
        """Derby writes in order: a group missing before others is missing for good, unless it came meanwhile."""
        if log.group_end(self._file, self.position) is None:
            raise LogDamaged(f"at {self.position} of {self.directory} there is {what}")


def _some_group(file: IO[bytes], start: LogPosition) -> int | None:
    """Where in the next MiB a whole group begins, at the start or behind damage; None when there is none."""
    data = os.pread(file.fileno(), _LOOK_AHEAD_BYTES, start.offset)
    at = data.find(log.CHECKSUM_SIGN)
    while at >= 0:
        offset = start.offset + at - log.CHECKSUM_SIGN_AT
        if offset >= start.offset and log.group_end(file, LogPosition(start.file, offset)) is not None:
            return offset
        at = data.find(log.CHECKSUM_SIGN, at + 1)
    return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def tip(directory: Path, known: LogPosition) -> LogPosition:
    """The end of the log, looked for from a place on where a group is known to end. Raises LogGone."""
    while True:
        end = LogPosition(known.file, log.file_end(directory, known.file, known.offset))
        following = log.header(directory, known.file + 1)
        if following is None or following.before != end:
            return end
        known = LogPosition(following.number, HEADER_BYTES)


def distance_bytes(directory: Path, a: LogPosition, b: LogPosition, ends: dict[int, int] | None = None) -> int:
    """Bytes of log after `a` up to `b`, negative when `b` comes first; by the headers only, so it takes no time.

    `ends` remembers where closed files end. Raises LogGone when a header is missing.
    """
    if b < a:
        return -distance_bytes(directory, b, a, ends)
    ends = {} if ends is None else ends
    total, start = 0, a.offset
    for number in range(a.file, b.file):
        if number not in ends:
            following = log.header(directory, number + 1)
            if following is None:
                raise LogGone(f"log{number + 1}.dat does not exist")
            ends[number] = following.before.offset
        total += ends[number] - start
        start = HEADER_BYTES
    return total + b.offset - start


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """What two logs must have in common to be the same one up to a position: hashes, empty where there is nothing."""

    position: int  # as an instant
    header: str
    tail: str  # of what lies before the position in its file, at most the last MiB
    previous: str  # the same of the file before


def proof(directory: Path, position: LogPosition) -> LogProof:
    """Hash what lies before a position. Raises LogGone when its file is not here, LogChanged when it is shorter."""
    previous = log.header(directory, position.file)
    if previous is None:
        raise LogGone(f"log{position.file}.dat does not exist")
    before = previous.before
    has_previous = before.offset > HEADER_BYTES and log.header(directory, before.file) is not None
    return LogProof(
        position=position.instant,
        header=_hashed(directory, position.file, 0, HEADER_BYTES),
        tail=_tail(directory, position),
        previous=_tail(directory, before) if has_previous else "",
    )


def agree(a: LogProof, b: LogProof) -> bool:
    """Whether two proofs are of the same log. One that rests on nothing but a header proves nothing."""
    if (a.position, a.header, a.tail) != (b.position, b.header, b.tail):
        return False
    if a.previous and b.previous:
        return a.previous == b.previous
    return bool(a.tail)


def _tail(directory: Path, end: LogPosition) -> str:
    start = max(HEADER_BYTES, end.offset - _PROOF_BYTES)
    return _hashed(directory, end.file, start, end.offset) if end.offset > start else ""


def _hashed(directory: Path, number: int, start: int, end: int) -> str:
    with opened(log.path_of(directory, number)) as file:
        data = os.pread(file.fileno(), end - start, start)
    if len(data) < end - start:
        raise LogChanged(f"log{number}.dat is shorter than {end} bytes")
    return hashlib.sha256(data).hexdigest()
