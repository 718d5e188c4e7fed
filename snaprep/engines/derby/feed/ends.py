"""Feeding a replica: the primary's log is read on one host and played to a replica on the other.

Nothing is asked of the primary's server, and nothing waits for it: its log files are read as they are written. The
replica is the truth about how far it is. Whatever dies, the replica is booted again, and its log's end on disk is
where the feed goes on, after both hosts have shown that they hold the same log up to there.
"""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snaprep.core.errors import CheckFailed, Stopped
from snaprep.core.words import size
from snaprep.engines.derby import files
from snaprep.engines.derby.feed.peer import Feeding
from snaprep.engines.derby.feed.replica import FedReplica, peer_told
from snaprep.engines.derby.log import archive
from snaprep.engines.derby.log import reader as log_reader
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log.reader import PIECE_BYTES, LogProof, LogReader, Piece
from snaprep.engines.derby.log.scan import LogChanged, LogDamaged, LogGone, LogPosition

ROOM_BYTES = 64 << 20  # what a replica writes between two looks, its pages included, and never less
_NEW_BASE = "a new base is needed: an increment from the newest common snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a replica says of itself before it is fed."""

    position: int  # where its log ends, as an instant
    proof: LogProof
    format: tuple[int, int]  # the database's, 10.14
    engine: str  # the server's own version, "10.14.2.0"; empty when it cannot be seen


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedProgress:
    """How far a feed is. Positions are instants.

    A replica keeps the last 100 KiB or less in memory: received, and not stored. `lag_bytes` and `lag_s` are of what it
    has not received, and would lack in a take-over; `delta_bytes` is what it has not stored.
    """

    read: int  # whole in the primary's files, and read
    sent: int  # on its way to the replica
    received: int  # given to the replica
    stored: int  # on the replica's disk
    sent_bytes: int
    delta_bytes: int
    lag_bytes: int
    lag_s: float


class Clock:
    """When the log was seen to go how far, which tells for how long a replica lacks what it lacks."""

    _MOST = 10_000

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: collections.deque[tuple[float, int]] = collections.deque(maxlen=self._MOST)

    def note(self, end: int) -> None:
        if not self._seen or end > self._seen[-1][1]:
            self._seen.append((time.time(), end))

    def lag_s(self, received: int) -> float:
        """For how long there has been log behind this position: 0 when there is none, and else at least so long."""
        while self._seen and self._seen[0][1] <= received:
            self._seen.popleft()
        if not self._seen:
            return 0.0
        begun_s = self._seen[0][0]
        file = LogPosition.from_instant(received).file
        if file < LogPosition.from_instant(self._seen[0][1]).file:  # closed before we looked
            with contextlib.suppress(FileNotFoundError):
                begun_s = min(begun_s, log.path_of(self._directory, file).stat().st_mtime)
        return max(0.0, time.time() - begun_s)


class FeedSource:
    """The primary's log, for one replica. Any number of these may read the same database."""

    def __init__(self, database: Path, engine: str = "") -> None:
        """`engine` is the version of the server. Raises `encrypted`, `durability-test`, `not-a-database`."""
        with log_told():
            found = files.read(database)
        _must_be_readable(found)
        self.database = database
        self._logs = found.log_directory
        self._format, self._engine = found.format_version, engine
        self._reader: LogReader | None = None
        self._properties = self._stamp()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def begin(self, hello: Hello) -> None:
        """Go to where the replica is.

        Raises `engine-versions-differ`, `log-differs` (the replica's log is not ours), `log-gap` (what it lacks is not
        here any more), `log-damaged`, `archive-off`.
        """
        self.close()
        self._must_match(hello)
        self._must_be_archived()
        position = LogPosition.from_instant(hello.position)
        with log_told():
            mine = log_reader.proof(self._logs, position)
            if not log_reader.agree(mine, hello.proof):
                what = f"up to {position}, where the replica's log ends, ours holds something else"
                raise CheckFailed("log-differs", what, hint=_NEW_BASE)
            self._reader = LogReader(self._logs, position)

    def read(self, most_bytes: int = PIECE_BYTES) -> Piece | None:
        """The next piece; None at the end of what is flushed. Raises as `begin` does."""
        with log_told():
            piece = self._begun.read(most_bytes)
        if (piece is None or not piece.data) and self._stamp() != self._properties:
            self._must_be_archived()
        return piece

    @property
    def position(self) -> LogPosition:
        return self._begun.position

    @property
    def delta_bytes(self) -> int:
        """Whole log in the files that was not read yet. Raises `log-gap`."""
        with log_told():
            return self._begun.delta_bytes()

    @property
    def seen(self) -> LogPosition:
        """How far the log goes, as of the last look at `delta_bytes`."""
        return self._begun.seen

    def clock(self) -> Clock:
        return Clock(self._logs)

    def distance_bytes(self, since: int) -> int:
        """Bytes of log from a position up to what was read; it may be of a file that is gone: then up to its end."""
        with contextlib.suppress(LogGone):
            return log_reader.distance_bytes(self._logs, LogPosition.from_instant(since), self.position)
        return self.position.offset - log.HEADER_BYTES

    @property
    def _begun(self) -> LogReader:
        assert self._reader is not None, "begin comes first"
        return self._reader

    def _must_match(self, hello: Hello) -> None:
        mine, theirs = (self._format, self._engine), (tuple(hello.format), hello.engine)
        if mine[0] != theirs[0] or (mine[1] and theirs[1] and mine[1] != theirs[1]):
            what = f"the primary is {_version(*mine)}, the replica {_version(*theirs)}"
            raise CheckFailed("engine-versions-differ", what, hint="run the same Derby on both hosts")

    def _must_be_archived(self) -> None:
        with log_told():
            archived = files.log_archived(self.database)
        if not archived:
            what = "log archive mode is off: what is not logged would be missing in the replica, without a sign"
            raise CheckFailed("archive-off", what, hint=f"switch it on again; then {_NEW_BASE}")
        self._properties = self._stamp()

    def _stamp(self) -> tuple[int, int, int]:
        """Changes when somebody writes service.properties."""
        with contextlib.suppress(FileNotFoundError):
            found = (self.database / "service.properties").stat()
            return found.st_ino, found.st_mtime_ns, found.st_size
        return (0, 0, 0)


class FeedTarget:
    """The replica's side: boots it, plays, and knows what is on its disk."""

    def __init__(self, replica: FedReplica, engine: str = "") -> None:
        self.replica = replica
        self._engine = engine
        self._feeding: Feeding | None = None
        self._stored: LogPosition | None = None

    @property
    def _directory(self) -> Path:
        return self.replica.directory

    def hello(self, deadline_s: float = 60) -> Hello:
        """Take the replica down if it runs, and say where it is.

        Raises `replica-not-stopped`, `log-damaged`, `no-space`.
        """
        self.stop(deadline_s)
        self.must_have_room()
        with log_told():
            found = files.read(self._directory)
            _must_be_readable(found)
            end = settle_end(found.log_directory)
            proof = log_reader.proof(found.log_directory, end)
        self._stored = end
        return Hello(position=end.instant, proof=proof, format=found.format_version, engine=self._engine)

    def begin(self, position: int, deadline_s: float = 60) -> None:
        """Boot the replica, whose log ends there, and connect to it.

        Raises `replica-not-armed`, `replica-out-of-step`, `replica-lost`.
        """
        self.replica.boot(deadline_s)
        self._feeding = self.replica.connect(LogPosition.from_instant(position))

    @property
    def feeding(self) -> Feeding:
        assert self._feeding is not None, "begin comes first"
        return self._feeding

    def play(self, piece: Piece, *, stall_s: float = 30) -> None:
        """Give it the next piece. Raises `replica-lost`; it is booted again by `hello` and `begin`."""
        with peer_told():
            self.feeding.play(piece, stall_s=stall_s)

    def attend(self, timeout_s: float = 0) -> None:
        """Hear what the replica asks, at most this long. Raises `replica-lost`."""
        with peer_told():
            self.feeding.attend(timeout_s)

    def must_have_room(self) -> None:
        """A server whose disk is full may leave anything behind, so it never comes to that. Raises `no-space`."""
        left = archive.room_bytes(self._directory)
        if left < ROOM_BYTES:
            what = f"{size(left)} are left on the filesystem of the replica; below {size(ROOM_BYTES)} it is not fed"
            raise Stopped("no-space", what, hint="make room there; it goes on where it is")

    def stored(self) -> LogPosition:
        """How far the log on the replica's disk goes. Nothing before it is ever needed again from the source."""
        known = self._stored or self.replica.end()
        try:
            self._stored = log_reader.tip(files.log_directory(self._directory), known)
        except LogGone:  # the replica let go of that file itself
            self._stored = self.replica.end()
        return self._stored

    def stop(self, deadline_s: float = 60) -> LogPosition:
        """Take the replica down with all it has received written out; fine when it is down. Returns its log's end.

        Raises `replica-not-stopped`.
        """
        feeding, self._feeding = self._feeding, None
        return self.replica.stop(feeding, deadline_s)

    def promote(self, deadline_s: float = 300) -> None:
        """Make the replica an ordinary database, open for clients. Raises `promote-failed`."""
        feeding = self.feeding
        self._feeding = None
        self.replica.promote(feeding, deadline_s)

    def abandon(self) -> None:
        """Break the connection without a word; the replica runs on and waits."""
        feeding, self._feeding = self._feeding, None
        if feeding is not None:
            feeding.close()


def settle_end(directory: Path) -> LogPosition:
    """The end of the log of a copy that nobody has booted; a next file that was only just begun is removed.

    Derby makes the next file before it has flushed this one. A copy or a crash in that moment leaves an empty file
    behind a torn one, and a replica booted from these would go on in the empty one, leaving a gap without a sign.
    Raises LogDamaged when there is a gap, or nothing at the checkpoint.
    """
    start = min(log.checkpoint(directory).file, log.log_end(directory).file)
    end = log_reader.tip(directory, LogPosition(start, log.HEADER_BYTES))
    for number in log.numbers(directory):
        if number <= end.file:
            continue
        if number > end.file + 1 or _has_groups(directory, number):
            raise LogDamaged(f"the log of {directory} is whole up to {end}, but log{number}.dat goes on behind it")
        log.path_of(directory, number).unlink()
    return end


def _has_groups(directory: Path, number: int) -> bool:
    return log.header(directory, number) is not None and log.file_end(directory, number) > log.HEADER_BYTES


def _must_be_readable(found: files.DatabaseFiles) -> None:
    if found.encrypted:
        what = f"{found.directory} is encrypted: its log cannot be proven whole from outside"
        raise CheckFailed("encrypted", what, hint="this is not supported")
    if found.log_unsafe:
        what = f"{found.directory} was written with derby.system.durability=test"
        raise CheckFailed("durability-test", what, hint="start the server without it")


def _version(form: tuple[int, ...], engine: str) -> str:
    return f"Derby {engine or 'of unknown version'} with a database of {'.'.join(map(str, form))}"


@contextlib.contextmanager
def log_told() -> Iterator[None]:
    """Turn what is wrong with a log into an error of ours."""
    try:
        yield
    except LogGone as error:
        raise Stopped("log-gap", str(error), hint=_NEW_BASE) from error
    except LogChanged as error:
        raise Stopped("log-differs", str(error), hint=_NEW_BASE) from error
    except LogDamaged as error:
        raise Stopped("log-damaged", str(error), hint="look at derby.log; see docs/what-if.md") from error
    except files.NotADatabase as error:
        raise CheckFailed("not-a-database", str(error), hint="check derby.database") from error
