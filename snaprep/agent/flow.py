"""One end of a stream: waiting for one descriptor while looking after the rest, in one thread, with bounds.

What waits: the link to the peer, the program at this end, its stderr, a rate limit. Whatever is waited for, the
program's stderr is drained, the peer hears that we are alive, progress is told and a cancel is seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from snaprep.agent import process
from snaprep.agent.pipe import ALIVE, HEAD, PIPE_BYTES, Link, process_end, widen
from snaprep.core.codec import encode
from snaprep.core.errors import SnaprepError

PART, DATA, TRAILER, END, TAKEN, RESULT, ERROR = (bytes([c]) for c in b"PDTEARX")
CHUNK_BYTES = PIPE_BYTES
SMALL_BYTES = 1 << 16
TICK_S = 0.1
GATHER_BYTES = 1 << 16  # a reader with room for this many waits for more than the first piece
GATHER_S = 0.001
_STDERR_BYTES = 16_384
_LOOK_S = 0.002  # between two looks at a program whose end nobody tells


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    stall_s: float = 60.0  # no byte, and no sign of life from the peer, for so long
    finish_s: float = 600.0  # for a program to end after its last byte
    progress_s: float = 0.5  # how often progress is told


@dataclass(frozen=True, slots=True)
class Moved:
    """Progress: `rate_bytes_s` is that of the last interval; of a stream that broke, of all it had."""

    part: str
    total_bytes: int
    seconds: float
    rate_bytes_s: float


class Throttle:
    """A rate limit that may be changed while a stream runs, from another thread. None: no limit."""

    def __init__(self, bytes_per_s: int | None = None) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_s = 0.0  # when the bytes that were let through are paid for

    def chunk_bytes(self) -> int:
        """The most to read at once: a quarter of a second's worth."""
        rate = self.bytes_per_s
        return CHUNK_BYTES if not rate else max(1, min(CHUNK_BYTES, rate // 4))

    def pay(self, count: int) -> float:
        """Account for bytes about to be sent; returns for how long to wait, in seconds."""
        rate = self.bytes_per_s
        if not rate:
            return 0.0
        now = time.monotonic()
        self._free_s = max(self._free_s, now - 0.25) + count / rate
        return max(0.0, self._free_s - now)


class Flow:
    """One end of a stream: waits for one descriptor while looking after the rest."""

    def __init__(
        self,
        link: Link,
        limits: Limits,
        on_progress: Callable[[Moved], None] | None,
        cancelled: threading.Event | None,
    ) -> None:
        self.link, self.limits = link, limits
        self.part, self.total_bytes = "", 0
        self.began_s = time.monotonic()
        self.program: subprocess.Popen[bytes] | None = None
        self._program_name = ""
        self.said = b""  # the end of what the program said on stderr
        self._on_progress, self._cancelled = on_progress, cancelled
        self._told = (self.began_s, 0)
        self._alive_s = self.began_s
        self.between_frames = True  # whether a frame of ours may be written now
        self._poll = select.poll()
        self._beside: dict[int, tuple[int, Callable[[], None]]] = {}

    # -- waiting -------------------------------------------------------------------------------------------------

    def watch(self, fd: int, mask: int, handler: Callable[[], None]) -> None:
        self._beside[fd] = (mask, handler)
        self._poll.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        if self._beside.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def wait(self, fd: int, mask: int, stalled: Callable[[float], None]) -> None:
        """Until `fd` is ready. `stalled` gets the seconds waited at every tick, and raises when it is too long."""
        since_s = time.monotonic()
        beside = self._beside.get(fd)
        self._poll.register(fd, mask)
        try:
            while not self.glance(TICK_S, fd):
                stalled(time.monotonic() - since_s)
        finally:
            if beside is not None and fd in self._beside:
                self._poll.register(fd, beside[0])
            else:
                self._poll.unregister(fd)

    def glance(self, seconds: float = 0, fd: int = -1) -> bool:
        """Look after everything that is watched; whether `fd` became ready."""
        ready = False
        for there, _ in self._poll.poll(seconds * 1000):
            if there == fd:
                ready = True
            elif there in self._beside:
                self._beside[there][1]()
        if self._cancelled is not None and self._cancelled.is_set():
            raise SnaprepError("cancelled", "the stream was cancelled")
        self._tell()
        return ready

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.glance(min(left, TICK_S))

    def _tell(self) -> None:
        now = time.monotonic()
        told_s, told_bytes = self._told
        if now - told_s >= self.limits.progress_s:
            self._told = (now, self.total_bytes)
            self._tell_moved((self.total_bytes - told_bytes) / (now - told_s))
        if self.between_frames and now - self._alive_s > min(5.0, self.limits.stall_s / 4):
            self._alive_s = now
            try:
                os.write(self.link.write_fd, HEAD.pack(ALIVE, 0))
            except BlockingIOError:
                pass  # full of what says the same
            except OSError as error:
                raise self.lost(str(error)) from error

    def tell_end(self) -> None:
        """How far a stream came that goes no further, at the rate of the whole of it."""
        self._tell_moved(self.total_bytes / max(time.monotonic() - self.began_s, 1e-3))

    def _tell_moved(self, rate_bytes_s: float) -> None:
        if self._on_progress is not None:
            self._on_progress(Moved(self.part, self.total_bytes, time.monotonic() - self.began_s, rate_bytes_s))

    # -- moving --------------------------------------------------------------------------------------------------

    def write(self, fd: int, pieces: list[memoryview], stalled: Callable[[float], None]) -> None:
        while pieces:
            try:
                count = os.writev(fd, pieces)
            except BlockingIOError:
                self.wait(fd, select.POLLOUT, stalled)
                continue
            while pieces and count >= len(pieces[0]):
                count -= len(pieces.pop(0))
            if pieces and count:
                pieces[0] = pieces[0][count:]

    def read(self, fd: int, into: memoryview, stalled: Callable[[float], None]) -> int:
        """What is there, at least one byte; 0 at the end.

        A writer that is slower than we are writes a few kilobytes at a time. Being woken for each, and making a frame
        of each, costs more than hashing it, so it gets a moment to write more.
        """
        while True:
            try:
                return os.readv(fd, [into])
            except BlockingIOError:
                self.wait(fd, select.POLLIN, stalled)
                if len(into) >= GATHER_BYTES:
                    self.pause(GATHER_S)

    def watches(self, fd: int) -> bool:
        return fd in self._beside

    def frame(self, kind: bytes, payload: memoryview, stalled: Callable[[float], None]) -> None:
        """Send one frame to the peer. Raises `link-lost`."""
        self.between_frames = False  # and stays so when this fails half-way
        try:
            self.write(self.link.write_fd, [memoryview(HEAD.pack(kind, len(payload))), payload], stalled)
        except OSError as error:
            raise self.lost(str(error)) from error
        self.between_frames = True
        self._alive_s = time.monotonic()

    def note(self, kind: bytes, value: object, stalled: Callable[[float], None]) -> None:
        self.frame(kind, memoryview(json.dumps(encode(value)).encode()), stalled)

    def lost(self, what: str) -> SnaprepError:
        return self.link.lost(what)

    def silent(self, seconds: float) -> None:
        """A `stalled` for waiting on the peer."""
        if seconds > self.limits.stall_s:
            raise SnaprepError(
                "link-stalled",
                f"nothing came from the peer for {self.limits.stall_s:g} s",
                hint="check the network between the hosts, and whether the other host still answers",
            )

    # -- the program ---------------------------------------------------------------------------------------------

    def start(self, argv: list[str], *, receives: bool) -> subprocess.Popen[bytes]:
        """Start the program at our end, with its stderr drained from now on."""
        self.said = b""
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        try:
            program = process.start(argv, stdin=pipe if receives else null, stdout=null if receives else pipe)
        except process.CommandFailed as error:
            raise SnaprepError("command-missing", str(error)) from error
        self.program, self._program_name = program, argv[0]
        assert program.stderr is not None
        fd = program.stderr.fileno()
        os.set_blocking(fd, False)
        self.watch(fd, select.POLLIN, lambda: self._hear_program(fd))
        data = program.stdin if receives else program.stdout
        assert data is not None
        os.set_blocking(data.fileno(), False)
        widen(data.fileno())
        return program

    def _hear_program(self, fd: int) -> None:
        try:
            data = os.read(fd, 65_536)
        except BlockingIOError:
            return
        self.said = (self.said + data)[-_STDERR_BYTES:]
        if not data:
            self.unwatch(fd)

    def finish(self) -> tuple[int, tuple[str, ...]]:
        """Wait for the program's end: its status and its words. Raises `program-stalled`."""
        program = self.program
        assert program is not None
        assert program.stderr is not None
        fd = program.stderr.fileno()
        until = time.monotonic() + self.limits.finish_s
        with self._woken_by_end_of(program) as look_s:
            while program.poll() is None:
                if time.monotonic() > until:
                    raise self.program_stalled(self.limits.finish_s)
                self.glance(look_s)
        while fd in self._beside and self._beside_ready():
            self.glance()
        self.drop_program()
        return program.returncode, self.words()

    @contextlib.contextmanager
    def _woken_by_end_of(self, program: subprocess.Popen[bytes]) -> Iterator[float]:
        """Let a glance return when the program ends; gives how long one may take, short where it cannot be woken."""
        try:
            fd = os.pidfd_open(program.pid)
        except OSError:
            yield _LOOK_S
            return
        self._poll.register(fd, select.POLLIN)
        try:
            yield TICK_S
        finally:
            self._poll.unregister(fd)
            os.close(fd)

    def _beside_ready(self) -> bool:
        return bool(self._poll.poll(0))

    def words(self) -> tuple[str, ...]:
        return tuple(line for line in self.said.decode("utf-8", "replace").splitlines() if line.strip())[-20:]

    def program_stalled(self, seconds: float) -> SnaprepError:
        return SnaprepError(
            "program-stalled",
            f"{self._program_name} moved nothing for {seconds:g} s",
            hint="see what the pool is doing there",
            details=self.words(),
        )

    def drop_program(self) -> None:
        """Kill what still runs and close its pipes; in this order, so that it never sees a clean end."""
        program, self.program = self.program, None
        if program is None:
            return
        process_end(program)
        for file in (program.stdin, program.stdout, program.stderr):
            if file is not None:
                self.unwatch(file.fileno())
                file.close()

    def close(self, *, well: bool) -> None:
        """End the program, and let go of the link."""
        self.drop_program()
        if well:
            self.link.done()
        else:
            self.link.close()

    def tell(self, error: SnaprepError) -> None:
        """Send an error to the peer if a frame can be sent at all; else it sees the link end."""
        if self.between_frames:
            with contextlib.suppress(SnaprepError):
                self.link.send(ERROR, json.dumps(encode(error.info)).encode(), deadline_s=2)
