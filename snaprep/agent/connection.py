"""The asking end of a process that serves frames: requests out, replies and events in, whatever carries the bytes.

The operator asks an agent this way, and an agent its guard.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Generic, TypeVar

from snaprep.agent import wire
from snaprep.agent.process import patient_s
from snaprep.core.codec import decode_at, encode
from snaprep.core.errors import HostUnreachable, SnaprepError, from_info, named

T = TypeVar("T")
OnProgress = Callable[[Any], None]  # gets the event as plain JSON; runs in the reader, so be quick

_GRACE_S = 2.0  # for an operation that was told to give up


class Call(Generic[T]):
    """A request under way; see `base.Pending`."""

    def __init__(
        self,
        connection: Connection,
        number: int,
        op: str,
        result_type: type[T],
        deadline_s: float,
        on_progress: OnProgress | None,
    ) -> None:
        self._connection, self._number, self._op, self._type = connection, number, op, result_type
        self._deadline_s, self._until_s = deadline_s, time.monotonic() + deadline_s
        self._on_progress = on_progress
        self._over = threading.Event()
        self._reply: wire.Reply | None = None
        self._failure: Exception | None = None

    def tell(self, event: object) -> None:
        if self._on_progress is not None:
            try:
                self._on_progress(event)
            except Exception as error:  # noqa: BLE001 (it surfaces in `result`, where the caller can see it)
                self.fail(error)
                self.cancel()

    def settle(self, reply: wire.Reply) -> None:
        self._reply = reply
        self._over.set()

    def fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._over.set()

    def done(self) -> bool:
        return self._over.is_set()

    def cancel(self) -> None:
        self._connection.tell_cancel(self._number)

    def result(self) -> T:
        late = not self._over.wait(max(0.0, self._until_s - time.monotonic()))
        if late:
            self.cancel()
            self._over.wait(_GRACE_S)
        if self._failure is not None:
            raise self._failure
        if self._reply is not None and self._reply.error is None:
            value: T = decode_at(self._type, self._reply.value, self._op)
            return value
        if late:
            raise HostUnreachable(
                "deadline",
                f"{self._connection.name} did not finish {self._op} within {self._deadline_s:g} s",
                hint="see what keeps the host busy; the operation was told to give up",
                details=(self._reply.error.what,) if self._reply is not None and self._reply.error is not None else (),
            )
        assert self._reply is not None and self._reply.error is not None  # noqa: PT018 (a fact for the checker)
        raise from_info(named(self._reply.error, self._connection.name))


class Connection:
    """`close` of the carrier ends the reader; `describe_end` says how the agent ended, when it did."""

    def __init__(
        self,
        name: str,
        reader: BinaryIO,
        writer: BinaryIO,
        stderr: wire.LastWords,
        *,
        describe_end: Callable[[], SnaprepError | None],
        close: Callable[[], None],
    ) -> None:
        self.name = name
        self._reader, self._writer, self._stderr = reader, writer, stderr
        self._describe_end, self._close_carrier = describe_end, close
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call[Any]] = {}
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._end: SnaprepError | None = None
        self._ended = threading.Event()
        self._greeted = threading.Event()
        self._hello: wire.Hello | None = None
        self._heard_s = time.monotonic()
        self._thread = threading.Thread(target=self._read, daemon=True, name=f"{name}-reader")

    def open(self, sha256: str, deadline_s: float) -> wire.Hello:
        """Wait for the agent's hello and compare the code that it runs with what was sent."""
        self._thread.start()
        if not self._greeted.wait(patient_s(deadline_s)):
            self._over("it said nothing after it was started", "deadline")
        if self._hello is None:
            self.close()
            raise self._end or self._died("it ended before it said hello")
        if self._hello.sha256 != sha256:
            self.close()
            raise HostUnreachable(
                "agent-died",
                f"{self.name} runs other code than was sent ({self._hello.sha256[:12]}, not {sha256[:12]})",
                hint="something on the way changed it: look at the login shell's and sudo's startup files",
            )
        threading.Thread(target=self._renew, daemon=True, name=f"{self.name}-renew").start()
        return self._hello

    @property
    def hello(self) -> wire.Hello:
        if self._hello is None:
            raise self._died("it has not said hello")
        return self._hello

    @property
    def alive(self) -> bool:
        return self._greeted.is_set() and not self._ended.is_set()

    def call(
        self,
        op: str,
        args: Mapping[str, object],
        result_type: type[T],
        *,
        deadline_s: float,
        on_progress: OnProgress | None = None,
    ) -> T:
        return self.begin(op, args, result_type, deadline_s=deadline_s, on_progress=on_progress).result()

    def begin(
        self,
        op: str,
        args: Mapping[str, object],
        result_type: type[T],
        *,
        deadline_s: float,
        on_progress: OnProgress | None = None,
    ) -> Call[T]:
        number = next(self._numbers)
        deadline_s = patient_s(deadline_s)
        call: Call[T] = Call(self, number, op, result_type, deadline_s, on_progress)
        request = wire.Request(number, op, {name: encode(value) for name, value in args.items()}, deadline_s)
        with self._lock:
            if self._end is not None:
                raise self._end
            self._calls[number] = call
        self._send(request)
        return call

    def tell_cancel(self, number: int) -> None:
        self._send(wire.Cancel(number))

    def close(self) -> None:
        self._over("the session was closed", "agent-died")
        self._close_carrier()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _send(self, frame: wire.Frame) -> None:
        data = wire.pack(frame)
        try:
            with self._write_lock:
                self._writer.write(data)
                self._writer.flush()
        except (OSError, ValueError):
            self._over("the way to it broke", "agent-died")

    def _read(self) -> None:
        reason = "it ended"
        try:
            while (frame := wire.read_frame(self._reader)) is not None:
                self._heard_s = time.monotonic()
                self._handle(frame)
        except (wire.WireError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
        self._over(reason, "agent-died")

    def _handle(self, frame: wire.Frame) -> None:
        match frame:
            case wire.Hello():
                self._hello = frame
                self._greeted.set()
            case wire.Event(id=number, event=event):
                if call := self._calls.get(number):
                    call.tell(event)
            case wire.Reply(id=number):
                with self._lock:
                    call = self._calls.pop(number, None)
                if call is not None:
                    call.settle(frame)
            case wire.Renewed():
                pass
            case _:
                raise wire.WireError(f"an agent does not send {type(frame).__name__}")

    def _renew(self) -> None:
        for number in itertools.count(1):
            if self._ended.wait(wire.RENEW_EVERY_S):
                return
            if time.monotonic() - self._heard_s > patient_s(wire.SILENCE_S):
                self._over(f"it said nothing for {wire.SILENCE_S:g} s", "agent-died")
                self._close_carrier()
                return
            self._send(wire.Renew(number))

    def _over(self, reason: str, id_: str) -> None:
        """Once: every call under way, and every later one, fails with how the agent ended."""
        with self._lock:
            if self._end is not None:
                return
            self._end = HostUnreachable(id_, f"the agent on {self.name} is gone: {reason}")
        if reason != "the session was closed":
            described = (self._describe_end() if id_ == "agent-died" else None) or self._died(reason, id_)
            with self._lock:
                self._end = described
        with self._lock:
            calls, self._calls = list(self._calls.values()), {}
            end = self._end
        self._ended.set()
        self._greeted.set()
        for call in calls:
            call.fail(end)

    def _died(self, reason: str, id_: str = "agent-died") -> HostUnreachable:
        return HostUnreachable(
            id_,
            f"the agent on {self.name} is gone: {reason}",
            hint="what it held on that host is released by its guard when the lease ends; run the command again",
            details=self._stderr.last(),
        )
