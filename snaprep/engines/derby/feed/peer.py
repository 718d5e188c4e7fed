"""Derby's replication protocol on a socket, both roles.

A primary connects, says the protocol's version and a position in its log, and then sends log and nothing else; the
replica answers the first two, pings when somebody asks it whether its primary lives, and answers a failover. It does
not acknowledge log: what a replica has is seen in its files.

The port has no authentication and no encryption: it listens on loopback, and is reached through SSH.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Self

from snaprep.engines.derby.feed.peer_codec import (
    PROTOCOL_VERSION,
    STREAM_HEADER,
    Decoder,
    Kind,
    Message,
    NotDerby,
    Value,
    encode,
)
from snaprep.engines.derby.log.reader import Piece
from snaprep.engines.derby.log.scan import LogPosition

_RECEIVE_BYTES = 256 << 10
_SWITCH = bytes(4)  # an end of file in a log, in the place of a record's length
_OUT_OF_STEP = "XRE05"
_OTHER_VERSION = "XRE02"


class PeerLost(Exception):
    """The connection broke, or the peer was silent or took nothing for too long."""


class PeerRefused(Exception):
    """The peer answered with an error. `state` is Derby's SQLState."""

    def __init__(self, state: str, texts: tuple[str, ...]) -> None:
        super().__init__(f"the replica refused: {state} ({', '.join(texts)})")
        self.state = state


class OutOfStep(PeerRefused):
    """The two logs do not end at the same place: here ours as the peer heard it, and its own.

    For a replica that has got log in this session its place is where its last record begins, else its log's end.
    """

    def __init__(self, texts: tuple[str, ...], ours: LogPosition, theirs: LogPosition) -> None:
        super().__init__(_OUT_OF_STEP, texts)
        self.ours, self.theirs = ours, theirs


class Connection:
    """Messages over a connected socket. One thread at a time; every call has a bound."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = Decoder()
        self._received: list[Message] = []
        self._closed_by_peer = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setblocking(False)  # noqa: FBT003 (its only argument)
        self._written(memoryview(STREAM_HEADER))  # each side waits for the other's; into an empty buffer it fits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection behind everything sent: with something unread it would be reset, and the last log lost."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(_RECEIVE_BYTES):
                continue
        self._socket.close()

    def fileno(self) -> int:
        """For a wait on several things: readable means that `attend` has something to do."""
        return self._socket.fileno()

    def send(self, kind: Kind, value: Value = None, *, stall_s: float = 30) -> None:
        """Send one message, and take in what the peer says meanwhile.

        Raises PeerLost when the peer takes nothing for `stall_s`, or is gone.
        """
        rest = memoryview(encode(Message(kind, value)))
        while rest:
            readable, writable = self._wait(select.POLLIN | select.POLLOUT, stall_s)
            if not readable and not writable:
                raise PeerLost(f"the peer takes nothing for {stall_s:g} s")
            if readable:
                self._take_in()
            if self._closed_by_peer:
                raise PeerLost("the peer closed the connection")
            if writable:
                rest = rest[self._written(rest) :]

    def receive(self, deadline_s: float) -> Message:
        """The next message. Raises PeerLost when none comes in time or ever, NotDerby."""
        ends = time.monotonic() + deadline_s
        while not self._received:
            if self._closed_by_peer:
                raise PeerLost("the peer closed the connection")
            left = ends - time.monotonic()
            if left <= 0:
                raise PeerLost(f"the peer says nothing for {deadline_s:g} s")
            if self._wait(select.POLLIN, left)[0]:
                self._take_in()
        return self._received.pop(0)

    def waiting(self, timeout_s: float = 0) -> list[Message]:
        """What has arrived, at the latest after the timeout. Raises PeerLost when the peer is gone, NotDerby."""
        if not self._received and self._wait(select.POLLIN, timeout_s)[0]:
            self._take_in()
        found, self._received = self._received, []
        if not found and self._closed_by_peer:
            raise PeerLost("the peer closed the connection")
        return found

    def await_end(self, deadline_s: float) -> None:
        """Read until the peer closes the connection; it may break it. Raises PeerLost when it does neither."""
        ends = time.monotonic() + deadline_s
        while not self._closed_by_peer:
            left = ends - time.monotonic()
            if left <= 0:
                raise PeerLost(f"the peer does not close the connection for {deadline_s:g} s")
            if self._wait(select.POLLIN, left)[0]:
                self._take_in()

    def _wait(self, events: int, timeout_s: float) -> tuple[bool, bool]:
        """(something can be read, something can be written); an error counts as both."""
        poll = select.poll()
        poll.register(self._socket, events)
        got = dict(poll.poll(max(0, timeout_s) * 1000)).get(self._socket.fileno(), 0)
        broken = got & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
        return bool(got & select.POLLIN or broken), bool(got & select.POLLOUT or broken)

    def _take_in(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._received += self._decoder.feed(data)
        else:
            self._closed_by_peer = True

    def _written(self, rest: memoryview) -> int:
        try:
            return self._socket.send(rest)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PeerLost(f"the connection broke: {error}") from error


class Feeding:
    """We are the primary: what is played here, a replica appends to its log and replays."""

    def __init__(self, connection: Connection, position: LogPosition) -> None:
        self._connection = connection
        self.sent = position  # everything up to here went out

    @classmethod
    def begin(cls, address: str, port: int, position: LogPosition, *, deadline_s: float = 10) -> Self:
        """Connect to a replica that waits, at the end of its log.

        Raises PeerLost, NotDerby, OutOfStep, PeerRefused. After a refusal the replica shuts its database down.
        """
        try:
            sock = socket.create_connection((address, port), deadline_s)
        except OSError as error:
            raise PeerLost(f"nobody waits at {address}:{port}: {error}") from error
        return cls.begin_on(sock, position, deadline_s=deadline_s)

    @classmethod
    def begin_on(cls, sock: socket.socket, position: LogPosition, *, deadline_s: float = 10) -> Self:
        """As `begin`, on a connected socket, which is closed when this fails."""
        connection = Connection(sock)
        try:
            for kind, value in ((Kind.VERSION, PROTOCOL_VERSION), (Kind.INSTANT, position.instant)):
                connection.send(kind, value, stall_s=deadline_s)
                _must_agree(connection.receive(deadline_s))
        except BaseException:
            connection.close()
            raise
        return cls(connection, position)

    def close(self) -> None:
        """Break the connection without a word; the replica waits for a primary again."""
        self._connection.close()

    def fileno(self) -> int:
        return self._connection.fileno()

    def play(self, piece: Piece, *, stall_s: float = 30) -> None:
        """Send the next piece of log. Raises PeerLost, PeerRefused, NotDerby; ValueError for one out of order."""
        if piece.start != self.sent:
            raise ValueError(f"{piece.start} does not follow {self.sent}")
        self._connection.send(Kind.LOG, piece.data or _SWITCH, stall_s=stall_s)
        self.sent = piece.end
        self.attend()

    def attend(self, timeout_s: float = 0) -> None:
        """Answer what the replica asks; returns when something came or after the timeout. Raises as `play` does."""
        for message in self._connection.waiting(timeout_s):
            self._answer(message)

    def _answer(self, message: Message) -> None:
        if message.kind == Kind.PING:
            self._connection.send(Kind.PONG)
        elif message.kind == Kind.ERROR:
            _must_agree(message)

    def stop(self, deadline_s: float = 30) -> None:
        """End replication: the replica writes its log out and shuts down. Raises PeerLost."""
        self._connection.send(Kind.STOP, stall_s=deadline_s)
        self._connection.await_end(deadline_s)
        self._connection.close()

    def failover(self, deadline_s: float = 300) -> None:
        """The replica replays what it has and becomes an ordinary database, open for clients.

        Raises PeerLost, PeerRefused. How long it takes depends on what is not yet replayed.
        """
        self._connection.send(Kind.FAILOVER, stall_s=deadline_s)
        ends = time.monotonic() + deadline_s
        while (answer := self._connection.receive(max(0, ends - time.monotonic()))).kind != Kind.ACK:
            self._answer(answer)
        self._connection.close()


def _must_agree(answer: Message) -> None:
    if answer.kind == Kind.ACK:
        return
    if answer.kind != Kind.ERROR or not isinstance(answer.value, tuple) or not answer.value:
        raise NotDerby(f"{answer.kind.name} in the place of an answer")
    texts = answer.value
    state = texts[-1].partition(".")[0]
    if state == _OUT_OF_STEP and len(texts) == 6 and all(text.isdecimal() for text in texts[1:5]):
        numbers = [int(text) for text in texts[1:5]]
        raise OutOfStep(texts, LogPosition(*numbers[:2]), LogPosition(*numbers[2:]))
    raise PeerRefused(state, texts)


class StandIn:
    """We are the replica: takes a primary that began with `startMaster`, and gives what it sends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def accept(cls, listener: socket.socket, position: LogPosition | None, *, deadline_s: float = 10) -> Self:
        """Take one primary whose log ends at a position (None: wherever it does).

        Raises PeerLost, NotDerby, and OutOfStep after having said so to the primary.
        """
        listener.settimeout(deadline_s)
        try:
            sock, _ = listener.accept()
        except OSError as error:
            raise PeerLost(f"no primary came: {error}") from error
        connection = Connection(sock)
        try:
            cls._agree(connection, position, deadline_s)
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    @staticmethod
    def _agree(connection: Connection, position: LogPosition | None, deadline_s: float) -> None:
        version = connection.receive(deadline_s)
        if version != Message(Kind.VERSION, PROTOCOL_VERSION):
            connection.send(Kind.ERROR, (_OTHER_VERSION,))
            raise NotDerby(f"a primary that begins with {version.kind.name} {version.value!r}")
        connection.send(Kind.ACK, "UID OK")
        instant = connection.receive(deadline_s)
        if instant.kind != Kind.INSTANT or not isinstance(instant.value, int):
            raise NotDerby(f"{instant.kind.name} in the place of a position")
        theirs = LogPosition.from_instant(instant.value)
        if position is not None and theirs != position:
            numbers = (theirs.file, theirs.offset, position.file, position.offset)
            texts = ("stand-in", *map(str, numbers), f"{_OUT_OF_STEP}.C")
            connection.send(Kind.ERROR, texts)
            raise OutOfStep(texts, position, theirs)
        connection.send(Kind.ACK, "Instant OK")

    def close(self) -> None:
        self._connection.close()

    def receive(self, deadline_s: float) -> Message:
        """The next message of the primary; its failover is acknowledged. Raises PeerLost, NotDerby."""
        message = self._connection.receive(deadline_s)
        if message.kind == Kind.FAILOVER:
            self._connection.send(Kind.ACK, "failover succeeded")
        return message

    def ping(self, deadline_s: float = 5) -> list[Message]:
        """Ask whether the primary lives; returns what else it said before its answer. Raises PeerLost."""
        self._connection.send(Kind.PING)
        others = []
        ends = time.monotonic() + deadline_s
        while (message := self._connection.receive(max(0, ends - time.monotonic()))).kind != Kind.PONG:
            others.append(message)
        return others
