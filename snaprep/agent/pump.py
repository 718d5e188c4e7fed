"""Moving one stream between two agents: counted, hashed at both ends, bounded in every wait.

Frames on the link, each with a kind and a length. From the sender: H the stream's header, P a part begins, D data,
T the part's trailer (bytes and SHA-256), E the end. From the receiver: A a part was taken, R the result. From both:
K "I am alive" while a program keeps us waiting, X an error, which ends the stream.

The receiver holds the last chunk back until the trailer's digest is compared: a stream that was damaged on the way
never becomes whole for the program that reads it, so `zfs receive` cannot commit it.

Everything runs in the caller's thread. No descriptor blocks; while one is waited for, the others are looked after.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from snaprep.agent.flow import (
    CHUNK_BYTES,
    DATA,
    END,
    ERROR,
    PART,
    RESULT,
    SMALL_BYTES,
    TAKEN,
    TICK_S,
    TRAILER,
    Flow,
    Limits,
    Moved,
    Throttle,
)
from snaprep.agent.pipe import ALIVE, HEAD, HEADER, Link, StreamHeader, header_bytes, process_end
from snaprep.core.codec import decode
from snaprep.core.errors import ErrorInfo, SnaprepError, Stopped, from_info

__all__ = ["Limits", "Moved", "PartDone", "Received", "Sent", "Throttle", "receive_stream", "send_stream"]

_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class PartDone:
    part: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Received:
    parts: tuple[PartDone, ...]
    bytes: int
    seconds: float
    said: tuple[str, ...] = ()  # what the receiving programs said on stderr though they did well


@dataclass(frozen=True, slots=True)
class Sent:
    parts: tuple[PartDone, ...]
    bytes: int
    seconds: float
    peer: Received


def send_stream(
    link: Link,
    header: StreamHeader,
    parts: Sequence[tuple[str, list[str]]],
    *,
    limits: Limits = _LIMITS,
    throttle: Throttle | None = None,
    on_progress: Callable[[Moved], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Sent:
    """Run each part's program and send what it writes; returns when the target has taken it all.

    Closes the link, unless the stream went well and somebody keeps it for the next one.

    Raises `send-failed`, `receive-failed` (with the receiver's words), `program-killed`, `program-stalled`,
    `link-stalled`, `link-lost`, `stream-damaged`, `cancelled`, or what the target refused the stream with.
    """
    return _Sender(Flow(link, limits, on_progress, cancelled), throttle or Throttle()).run(header, parts)


class _Sender:
    def __init__(self, flow: Flow, throttle: Throttle) -> None:
        self._flow, self._throttle = flow, throttle
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self._inbox = b""
        self._heard_s = time.monotonic()
        self._result: Received | None = None
        self._refusal: SnaprepError | None = None

    def run(self, header: StreamHeader, parts: Sequence[tuple[str, list[str]]]) -> Sent:
        flow = self._flow
        well = False
        try:
            flow.watch(flow.link.read_fd, select.POLLIN, self._hear)
            flow.frame(HEADER, memoryview(header_bytes(header)), self._peer_silent)
            done = tuple(self._part(part, argv) for part, argv in parts)
            flow.frame(END, memoryview(b""), self._peer_silent)
            while self._result is None:
                flow.glance(TICK_S)
                self._peer_silent(0)
            well = True
            return Sent(done, flow.total_bytes, time.monotonic() - flow.began_s, self._result)
        except SnaprepError as error:
            flow.tell_end()
            raise self._explained(error) from error  # before the program is ended, which may take seconds
        finally:
            flow.close(well=well)

    def _part(self, part: str, argv: list[str]) -> PartDone:
        flow = self._flow
        flow.part = part
        flow.note(PART, part, self._peer_silent)
        program = flow.start(argv, receives=False)
        assert program.stdout is not None
        fd = program.stdout.fileno()
        digest, count = hashlib.sha256(), 0
        while size := flow.read(fd, self._buffer[: self._throttle.chunk_bytes()], self._program_silent):
            chunk = self._buffer[:size]
            digest.update(chunk)
            count += size
            if delay_s := self._throttle.pay(size):
                flow.pause(delay_s)
            flow.total_bytes += size
            flow.frame(DATA, chunk, self._peer_silent)
            flow.glance()
        status, words = flow.finish()
        if status != 0:
            raise _badly_ended("send-failed", "source", argv, status, words)
        done = PartDone(part, count, digest.hexdigest())
        flow.note(TRAILER, done, self._peer_silent)
        return done

    def _peer_silent(self, seconds: float) -> None:
        """Waiting for the peer: any frame of it counts, also while it takes no bytes."""
        self._flow.silent(min(seconds, time.monotonic() - self._heard_s) if seconds else self._quiet_s())

    def _quiet_s(self) -> float:
        return time.monotonic() - self._heard_s

    def _program_silent(self, seconds: float) -> None:
        self._flow.silent(self._quiet_s())
        if seconds > self._flow.limits.stall_s:
            raise self._flow.program_stalled(seconds)

    def _hear(self) -> None:
        """Frames of the receiver, which may come at any time."""
        try:
            data = os.read(self._flow.link.read_fd, SMALL_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._flow.unwatch(self._flow.link.read_fd)
            if self._result is not None:
                return
            raise self._flow.lost("it ended before the target said that it has everything")
        self._heard_s = time.monotonic()
        self._inbox += data
        while len(self._inbox) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._inbox)
            if len(self._inbox) < HEAD.size + length:
                return
            payload = self._inbox[HEAD.size : HEAD.size + length]
            self._inbox = self._inbox[HEAD.size + length :]
            if kind == ERROR:
                self._refusal = from_info(_parsed(ErrorInfo, payload))
                raise self._refusal
            if kind == RESULT:
                self._result = _parsed(Received, payload)
            elif kind not in (ALIVE, TAKEN):
                raise SnaprepError("stream-damaged", f"the target sent a frame of kind {kind!r}")

    def _explained(self, error: SnaprepError) -> SnaprepError:
        """Tell the peer why, or hear from it why: a broken link may still hold the target's last words."""
        flow = self._flow
        if self._refusal is not None:
            return self._refusal
        if error.id == "link-lost":
            until = time.monotonic() + 2.0
            try:
                while flow.watches(flow.link.read_fd) and time.monotonic() < until:
                    self._flow.glance(TICK_S)
            except SnaprepError as last:
                return error if last.id in ("link-lost", "cancelled") else last
            return error
        flow.tell(error)
        return error


def receive_stream(
    link: Link,
    open_receiver: Callable[[StreamHeader, str], list[str]],
    *,
    limits: Limits = _LIMITS,
    on_progress: Callable[[Moved], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Received:
    """Feed each part to the program that `open_receiver` names; it may refuse by raising.

    Closes the link, unless the stream went well and somebody keeps it for the next one.

    Raises `receive-failed`, `program-killed`, `program-stalled`, `link-stalled`, `link-lost`, `stream-damaged`,
    `cancelled`, or what the source sent (`send-failed`, ...).
    """
    return _Receiver(Flow(link, limits, on_progress, cancelled), open_receiver).run()


class _Receiver:
    def __init__(self, flow: Flow, open_receiver: Callable[[StreamHeader, str], list[str]]) -> None:
        self._flow, self._open = flow, open_receiver
        self._spare = memoryview(bytearray(CHUNK_BYTES))
        self._other = memoryview(bytearray(CHUNK_BYTES))
        self._from_peer = False

    def run(self) -> Received:
        flow = self._flow
        well = False
        try:
            result = self._stream()
            flow.note(RESULT, result, flow.silent)
            well = True
        except SnaprepError as error:
            if not self._from_peer:  # before the program is ended, which may take seconds
                flow.tell(error)
            raise
        finally:
            flow.close(well=well)
        return result

    def _stream(self) -> Received:
        flow = self._flow
        header = flow.link.header
        if header is None:
            kind, length = self._head()
            header = _parsed(StreamHeader, self._payload(length))
            if kind != HEADER:
                raise _damaged(kind)
        done: list[PartDone] = []
        said: list[str] = []
        while True:
            kind, length = self._head()
            if kind == END:
                return Received(tuple(done), flow.total_bytes, time.monotonic() - flow.began_s, tuple(said))
            if kind != PART:
                raise _damaged(kind)
            flow.part = _parsed(str, self._payload(length))
            part, words = self._part(self._open(header, flow.part))
            done.append(part)
            said += words
            flow.note(TAKEN, part, flow.silent)

    def _part(self, argv: list[str]) -> tuple[PartDone, tuple[str, ...]]:
        flow = self._flow
        program = flow.start(argv, receives=True)
        assert program.stdin is not None
        flow.watch(program.stdin.fileno(), 0, lambda: self._early_end(argv))  # mask 0: errors only
        digest, count = hashlib.sha256(), 0
        held = self._spare[:0]
        while True:
            kind, length = self._head()
            if kind == TRAILER:
                break
            if kind != DATA or length > CHUNK_BYTES:
                raise _damaged(kind)
            chunk = self._spare[:length]
            self._fill(chunk)
            digest.update(chunk)
            count += length
            flow.total_bytes += length
            self._feed(argv, held)
            held, self._spare, self._other = chunk, self._other, self._spare
            flow.glance()
        wanted = _parsed(PartDone, self._payload(length))
        if (count, digest.hexdigest()) != (wanted.bytes, wanted.sha256):
            raise SnaprepError(
                "stream-damaged",
                f"{count} bytes, SHA-256 {digest.hexdigest()[:16]}, came of {wanted.bytes}, {wanted.sha256[:16]}",
                hint="nothing of it was committed; test the memory and the network cards of both hosts",
            )
        self._feed(argv, held)
        flow.unwatch(program.stdin.fileno())
        program.stdin.close()
        program.stdin = None
        status, words = flow.finish()
        if status != 0:
            raise _badly_ended("receive-failed", "target", argv, status, words)
        return wanted, words

    def _feed(self, argv: list[str], data: memoryview) -> None:
        flow = self._flow
        assert flow.program is not None
        assert flow.program.stdin is not None
        try:
            flow.write(flow.program.stdin.fileno(), [data] if data else [], self._program_silent)
        except BrokenPipeError:
            self._early_end(argv)

    def _early_end(self, argv: list[str]) -> None:
        """The program closed its input before the stream ended."""
        flow = self._flow
        assert flow.program is not None
        assert flow.program.stdin is not None
        flow.unwatch(flow.program.stdin.fileno())
        program = flow.program
        try:
            program.wait(2.0)
        except subprocess.TimeoutExpired:
            process_end(program)
        status, words = flow.finish()
        raise _badly_ended("receive-failed", "target", argv, status, words, " before the stream did")

    def _program_silent(self, seconds: float) -> None:
        if seconds > self._flow.limits.stall_s:
            raise self._flow.program_stalled(seconds)

    def _head(self) -> tuple[bytes, int]:
        head = memoryview(bytearray(HEAD.size))
        while True:
            self._fill(head)
            kind, length = HEAD.unpack(head)
            if kind == ERROR:
                self._from_peer = True
                raise from_info(_parsed(ErrorInfo, self._payload(length)))
            if kind != ALIVE:
                return kind, length

    def _payload(self, length: int) -> bytes:
        if length > SMALL_BYTES:
            raise _damaged(b"?")
        payload = memoryview(bytearray(length))
        self._fill(payload)
        return bytes(payload)

    def _fill(self, view: memoryview) -> None:
        while view:
            try:
                count = self._flow.read(self._flow.link.read_fd, view, self._flow.silent)
            except ConnectionError as error:
                raise self._flow.lost(str(error)) from error
            if count == 0:
                raise self._flow.lost("it ended before the stream did")
            view = view[count:]


def _parsed(hint: type[Any], payload: bytes) -> Any:  # noqa: ANN401 (of that type)
    try:
        return decode(hint, json.loads(payload))
    except ValueError as error:
        raise SnaprepError("stream-damaged", f"a frame on the link holds no {hint.__name__}: {error}") from error


def _badly_ended(
    failed: str, side: str, argv: list[str], status: int, words: tuple[str, ...], when: str = ""
) -> SnaprepError:
    """One that was killed has found nothing wrong, so the same may be tried again."""
    if status < 0:
        what = f"the {side}'s {' '.join(argv[:2])} was killed by signal {-status}"
        hint = f"the {side}'s kernel log says whether it was short of memory; `resume` goes on where this stopped"
        return Stopped("program-killed", what, hint=hint, details=words)
    return SnaprepError(failed, f"{argv[0]} ended with status {status}{when}", details=words)


def _damaged(kind: bytes) -> SnaprepError:
    return SnaprepError("stream-damaged", f"a frame of kind {kind!r} came where none may be")
