"""A feed between two hosts: the source's loop, the target's loop, and the frames that go between them.

The target speaks first and says where its replica is; the source proves that it has that same log and can go on from
there; then log goes one way, and how far the replica has stored it goes the other. Each end says so when it fails, so
that both know why. The frames run over any two descriptors, and carry their own CRC.
"""

from __future__ import annotations

import enum
import json
import os
import select
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from snaprep.core.codec import decode, encode
from snaprep.core.errors import ErrorInfo, SnaprepError, Stopped, from_info
from snaprep.engines.derby.feed.ends import FeedProgress, FeedSource, FeedTarget, Hello
from snaprep.engines.derby.log.reader import Piece
from snaprep.engines.derby.log.scan import GROUP_MOST_BYTES, LogPosition

_HEAD = struct.Struct(">cII")  # kind, length, CRC-32
_MOST_BYTES = GROUP_MOST_BYTES + (1 << 20)
_READ_BYTES = 256 << 10
_POLL_S = 0.02  # how long a caught-up source waits before it looks at the log again
_REPORT_S = 0.5
_TICK_S = 0.5  # how soon a wait notices that it was given up
_SILENCE_S = 30.0
_BOOT_S = 600.0  # a copy taken at work is redone first
_HELLO, _AGREED, _READY, _LOG, _BEAT, _STORED, _END, _DONE, _FAILED = b"HARLBSEDX"
_SEE_LINK = "check the network between the hosts; the feed goes on where the replica is"


class Finish(enum.Enum):
    """How a feed ends when it has played everything."""

    STOP = "stop"  # the replica shuts down, with all of it on disk
    PROMOTE = "promote"  # the replica becomes an ordinary database, open for clients
    LEAVE = "leave"  # the replica runs on and waits for a primary that has sent the same last record


class Wire:
    """Frames over two descriptors, which stay the caller's. Every wait has a bound."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        for fd in (read_fd, write_fd):
            os.set_blocking(fd, False)
        self._data = bytearray()
        self._frames: list[tuple[int, bytes]] = []
        self._ended = False
        self._heard_s = time.monotonic()
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """End whatever waits on this wire; from any thread."""
        self._given_up.set()

    def _must_go_on(self) -> None:
        if self._given_up.is_set():
            raise Stopped("feed-ended", "the feed was ended from this side", hint=_SEE_LINK)

    def send(self, kind: int, payload: bytes, *, stall_s: float = _SILENCE_S) -> None:
        """Raises `feed-link-lost` when the peer takes nothing for so long."""
        rest = memoryview(_HEAD.pack(bytes((kind,)), len(payload), zlib.crc32(payload)) + payload)
        moved_s = time.monotonic()
        while rest:
            self._must_go_on()
            readable, writable = self._wait(min(stall_s, _TICK_S), write=True)
            if writable:
                moved_s = time.monotonic()
            elif time.monotonic() - moved_s >= stall_s:
                raise _lost(f"the other host takes nothing for {stall_s:g} s")
            if readable:
                self._take_in()  # its words must not pile up while ours wait
            try:
                rest = rest[os.write(self._write_fd, rest) if writable else 0 :]
            except BlockingIOError:
                continue
            except OSError as error:
                self._must_not_have_failed()
                raise _lost(str(error)) from error

    def _must_not_have_failed(self) -> None:
        """The link broke: perhaps the peer had said why before. Raises that."""
        while not self._ended and self._wait(0, write=False)[0]:
            self._take_in()
        for kind, payload in self._frames:
            if kind == _FAILED:
                raise from_info(_parsed(ErrorInfo, payload))

    def frames(self, timeout_s: float) -> list[tuple[int, bytes]]:
        """What has come, at the latest after the timeout. Raises `feed-link-lost`, or the error that the peer tells."""
        self._must_go_on()
        if not self._frames and self._wait(timeout_s, write=False)[0]:
            self._take_in()
        found, self._frames = self._frames, []
        for kind, payload in found:
            if kind == _FAILED:
                raise from_info(_parsed(ErrorInfo, payload))
        if not found and self._ended:
            raise _lost("it ended")
        return found

    def expect(self, kind: int, deadline_s: float) -> bytes:
        """Wait for one kind of frame; beats are stepped over. Raises `feed-link-lost`."""
        ends = time.monotonic() + deadline_s
        while time.monotonic() < ends:
            found = self.frames(min(_TICK_S, max(0.0, ends - time.monotonic())))
            for place, (got, payload) in enumerate(found):
                if got == kind:
                    self._frames = found[place + 1 :] + self._frames
                    return payload
                if got not in (_BEAT, _STORED):
                    raise _lost(f"a frame {chr(got)!r} in the place of {chr(kind)!r}")
        raise _lost(f"the other host does not answer for {deadline_s:g} s")

    def must_not_be_silent(self) -> None:
        if time.monotonic() - self._heard_s > _SILENCE_S:
            raise _lost(f"the other host says nothing for {_SILENCE_S:g} s")

    def fail(self, error: SnaprepError) -> None:
        """Tell the peer why, if it still listens."""
        try:
            self.send(_FAILED, _json(error.info), stall_s=1)
        except SnaprepError:
            return

    def _wait(self, timeout_s: float, *, write: bool) -> tuple[bool, bool]:
        poll = select.poll()
        if not self._ended:
            poll.register(self._read_fd, select.POLLIN)
        if write:
            both = select.POLLIN | select.POLLOUT if self._read_fd == self._write_fd else select.POLLOUT
            poll.register(self._write_fd, both)
        got = dict(poll.poll(max(0.0, timeout_s) * 1000))
        readable = bool(got.get(self._read_fd, 0) & ~select.POLLOUT)
        return readable and not self._ended, bool(got.get(self._write_fd, 0) & ~select.POLLIN)

    def _take_in(self) -> None:
        try:
            data = os.read(self._read_fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise _lost(str(error)) from error
        self._ended = not data
        self._heard_s = time.monotonic()
        self._data += data
        while len(self._data) >= _HEAD.size:
            kind, length, crc = _HEAD.unpack_from(self._data)
            if length > _MOST_BYTES:
                raise _lost("what comes is no feed")
            end = _HEAD.size + length
            if len(self._data) < end:
                return
            payload = bytes(memoryview(self._data)[_HEAD.size : end])
            del self._data[:end]
            if zlib.crc32(payload) != crc:
                raise _lost("what comes is damaged")
            self._frames.append((kind[0], payload))


class Sender:
    """The source's loop. `run` blocks; the other methods may be called from any thread meanwhile."""

    def __init__(
        self,
        source: FeedSource,
        wire: Wire,
        report: Callable[[FeedProgress], None] = lambda _: None,
        pay: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        """`report` hears how far it is; `pay` says how many seconds to wait after so many bytes."""
        self._source, self._wire = source, wire
        self._report, self._pay = report, pay
        self._asked = threading.Event()
        self._finish: tuple[Finish, int | None] | None = None
        self._clock = source.clock()
        self._progress = FeedProgress(
            read=0, sent=0, received=0, stored=0, sent_bytes=0, delta_bytes=0, lag_bytes=0, lag_s=0.0
        )

    @property
    def progress(self) -> FeedProgress:
        return self._progress

    def finish(self, how: Finish, at: int | None = None) -> None:
        """Read on to the end of the log, then end the feed; with `at`, the log must end there: `log-ends-differ`."""
        self._finish = how, at
        self._asked.set()

    def run(self) -> FeedProgress:
        """Feed until asked to finish; returns how far the replica is. Raises what either side raised."""
        try:
            return self._run()
        except SnaprepError as error:
            self._wire.fail(error)
            raise
        finally:
            self._source.close()

    def _run(self) -> FeedProgress:
        hello = _parsed(Hello, self._wire.expect(_HELLO, _BOOT_S))
        self._source.begin(hello)
        self._wire.send(_AGREED, b"")
        self._wire.expect(_READY, _BOOT_S)
        at = hello.position
        self._progress = replace(self._progress, read=at, sent=at, received=at, stored=at)
        due_s = free_s = 0.0
        while True:
            asked = self._asked.is_set()  # before the read: what was logged before the order has to be read after it
            paid = time.monotonic() >= free_s
            piece = self._source.read() if paid else None
            if piece is not None:
                self._wire.send(_LOG, struct.pack(">Q", piece.start.instant) + piece.data)
                end = piece.end.instant
                sent_bytes = self._progress.sent_bytes + len(piece.data)
                self._progress = replace(self._progress, read=end, sent=end, sent_bytes=sent_bytes)
                free_s = time.monotonic() + self._pay(len(piece.data))
            elif paid and asked:
                return self._end()
            self._hear(0.0 if piece is not None else _POLL_S)
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + _REPORT_S
                self._measure()
                self._wire.send(_BEAT, b"")
                self._wire.must_not_be_silent()

    def _hear(self, timeout_s: float) -> None:
        for kind, payload in self._wire.frames(timeout_s):
            if kind == _STORED:
                stored, received = struct.unpack(">QQ", payload)
                self._progress = replace(self._progress, stored=stored, received=received)

    def _measure(self) -> None:
        unread, now = self._source.delta_bytes, self._progress
        unstored, unreceived = (max(0, self._source.distance_bytes(at)) for at in (now.stored, now.received))
        self._clock.note(self._source.seen.instant)
        self._progress = replace(
            now,
            delta_bytes=unread + unstored,
            lag_bytes=unread + unreceived,
            lag_s=self._clock.lag_s(now.received),
        )
        self._report(self._progress)

    def _end(self) -> FeedProgress:
        assert self._finish is not None
        how, at = self._finish
        if at is not None and at != self._source.position.instant:
            there = LogPosition.from_instant(at)
            raise Stopped("log-ends-differ", f"the log ends at {self._source.position}, not at {there}")
        self._wire.send(_END, how.value.encode())
        (stored,) = struct.unpack(">Q", self._wire.expect(_DONE, _BOOT_S))
        if how is Finish.STOP and stored != self._source.position.instant:
            theirs = LogPosition.from_instant(stored)
            raise Stopped("log-ends-differ", f"the log ends at {self._source.position}, the replica's at {theirs}")
        self._progress = replace(self._progress, received=stored, stored=stored, delta_bytes=0, lag_bytes=0, lag_s=0.0)
        self._report(self._progress)
        return self._progress


class Player:
    """The target's loop: boots the replica, plays, and says what is stored. `run` blocks."""

    def __init__(self, target: FeedTarget, wire: Wire) -> None:
        self._target, self._wire = target, wire

    def run(self) -> Finish:
        """Play until the source ends the feed. Raises what either side raised; the replica then waits for the next."""
        try:
            return self._run()
        except SnaprepError as error:
            self._wire.fail(error)
            raise
        finally:
            self._target.abandon()

    def _run(self) -> Finish:
        hello = self._target.hello()
        self._wire.send(_HELLO, _json(hello))
        self._wire.expect(_AGREED, _BOOT_S)
        self._target.begin(hello.position, _BOOT_S)
        self._wire.send(_READY, b"")
        due_s = 0.0
        while True:
            for kind, payload in self._wire.frames(_POLL_S):
                if kind == _LOG:
                    self._play(payload)
                elif kind == _END:
                    return self._end(Finish(payload.decode()))
            self._target.attend()
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + _REPORT_S
                self._target.must_have_room()
                stored, received = self._target.stored().instant, self._target.feeding.sent.instant
                self._wire.send(_STORED, struct.pack(">QQ", stored, received))
                self._wire.must_not_be_silent()

    def _play(self, payload: bytes) -> None:
        start = LogPosition.from_instant(struct.unpack_from(">Q", payload)[0])
        piece = Piece(start, payload[8:])
        if piece.start != self._target.feeding.sent:
            raise _lost(f"log from {piece.start} came, and {self._target.feeding.sent} is next")
        self._target.play(piece)

    def _end(self, how: Finish) -> Finish:
        if how is Finish.STOP:
            stored = self._target.stop()
        elif how is Finish.PROMOTE:
            stored = self._target.feeding.sent
            self._target.promote()
        else:
            stored = self._target.feeding.sent
            self._target.abandon()
        self._wire.send(_DONE, struct.pack(">Q", stored.instant))
        return how


def _json(value: object) -> bytes:
    return json.dumps(encode(value)).encode()


def _parsed(hint: type[Any], payload: bytes) -> Any:  # noqa: ANN401 (of that type)
    try:
        return decode(hint, json.loads(payload))
    except ValueError as error:
        raise _lost(f"a message that is none: {error}") from error


def _lost(what: str) -> SnaprepError:
    return Stopped("feed-link-lost", f"the feed's link broke: {what}", hint=_SEE_LINK)
