"""The agent's main loop: typed operations from an allow-list, each request in a thread of its own.

An operation is a plain function with annotated keyword parameters. Its arguments are decoded by the codec before it
runs; a parameter annotated `Progress` receives a function that tells the operator how it goes, one annotated
`Cancelled` an event that is set when the operator gave up, the deadline passed, or the session ends.

The session ends at the end of stdin, on SIGTERM, SIGHUP or SIGINT, and when the operator was silent for too long.
Then every running request is cancelled and waited for within a bound, and the `on_close` callbacks run, also bounded.
What must happen after the death of the agent itself is the guard's work, not ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import os
import pwd
import queue
import signal
import sys
import threading
import time
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import snaprep
from snaprep.agent import wire
from snaprep.agent.identity import boot_id, login_user
from snaprep.core.codec import decode_at, encode
from snaprep.core.errors import ErrorInfo, SnaprepError

Progress = Callable[[object], None]
Cancelled = threading.Event

_TICK_S = 0.2
_EVENTS_QUEUED = 1000  # an operator who reads too slowly loses progress, never replies
_CLOSE_BOUND_S = 15.0


class _Ended(BaseException):
    """A signal asked the agent to end."""


@dataclass(frozen=True, slots=True)
class _Operation:
    function: Callable[..., object]
    parameters: Mapping[str, Any]  # name -> hint, without the injected ones
    required: frozenset[str]
    injected: Mapping[str, Any]
    result: Any


@dataclass(slots=True)
class _Running:
    cancelled: threading.Event
    due_s: float
    thread: threading.Thread


def serve(
    registry: Mapping[str, Callable[..., object]],
    stdin: BinaryIO,
    stdout: BinaryIO,
    *,
    hello: wire.Hello,
    on_gone: Sequence[Callable[[], None]] = (),
    on_close: Sequence[Callable[[], None]] = (),
    silence_s: float = wire.SILENCE_S,
) -> None:
    """Serve until the operator is gone.

    Then `on_gone` run, for as long as they take, while running requests go on; then the bounded end with `on_close`.
    """
    session = _Session({name: _inspect(function) for name, function in registry.items()}, stdout)
    inbox: queue.SimpleQueue[wire.Frame | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(stdin, inbox), daemon=True, name="reader").start()
    session.send(hello)
    try:
        _loop(session, inbox, silence_s)
    except _Ended:
        pass
    finally:
        for callback in on_gone:
            callback()
        session.end(on_close)


def mutter(text: str) -> None:
    """Say something for whoever keeps our stderr. Nobody may be left to hear it, and that must stop nothing."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 (the asker keeps our last words)


def _inspect(function: Callable[..., object]) -> _Operation:
    hints = typing.get_type_hints(function)
    named = inspect.signature(function).parameters
    injected = {name: hints[name] for name in named if hints[name] in (Progress, Cancelled)}
    return _Operation(
        function,
        {name: hints[name] for name in named if name not in injected},
        frozenset(n for n, p in named.items() if n not in injected and p.default is p.empty),
        injected,
        hints["return"],
    )


def _read(stdin: BinaryIO, inbox: queue.SimpleQueue[wire.Frame | None]) -> None:
    try:
        while (frame := wire.read_frame(stdin)) is not None:
            inbox.put(frame)
    except (wire.WireError, OSError) as error:
        mutter(f"snaprep agent: {error}")
    inbox.put(None)


def _loop(session: _Session, inbox: queue.SimpleQueue[wire.Frame | None], silence_s: float) -> None:
    heard_s = time.monotonic()
    while not session.gone.is_set():
        session.cancel_overdue()
        try:
            frame = inbox.get(timeout=_TICK_S)
        except queue.Empty:
            if time.monotonic() - heard_s > silence_s:
                mutter(f"snaprep agent: no word from the operator for {silence_s:g} s")
                return
            continue
        if frame is None:
            return
        heard_s = time.monotonic()
        session.handle(frame)


class _Session:
    def __init__(self, operations: Mapping[str, _Operation], stdout: BinaryIO) -> None:
        self.gone = threading.Event()
        self._operations = operations
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        self._outbox: queue.SimpleQueue[wire.Frame | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, args=(stdout,), daemon=True, name="writer")
        self._writer.start()

    def send(self, frame: wire.Frame) -> None:
        self._outbox.put(frame)

    def _write(self, stdout: BinaryIO) -> None:
        while (frame := self._outbox.get()) is not None:
            try:
                stdout.write(_packed(frame))
                stdout.flush()
            except OSError:
                self.gone.set()
                return

    def handle(self, frame: wire.Frame) -> None:
        match frame:
            case wire.Request():
                self._start(frame)
            case wire.Cancel(id=number):
                with self._lock:
                    if running := self._running.get(number):
                        running.cancelled.set()
            case wire.Renew(number=number):
                self.send(wire.Renewed(number))
            case _:
                mutter(f"snaprep agent: an operator does not send {type(frame).__name__}")
                self.gone.set()

    def _start(self, request: wire.Request) -> None:
        try:
            operation, arguments = self._check(request)
        except ValueError as error:
            info = ErrorInfo("bad-request", f"{request.op}: {error}", hint="operator and agent differ in version")
            self.send(wire.Reply(request.id, error=info))
            return
        cancelled = threading.Event()
        for name, hint in operation.injected.items():
            arguments[name] = cancelled if hint is Cancelled else lambda event: self._tell(request.id, event)
        thread = threading.Thread(
            target=self._run, args=(request.id, operation, arguments), daemon=True, name=f"{request.op}-{request.id}"
        )
        with self._lock:
            self._running[request.id] = _Running(cancelled, time.monotonic() + request.deadline_s, thread)
        thread.start()

    def _check(self, request: wire.Request) -> tuple[_Operation, dict[str, Any]]:
        operation = self._operations.get(request.op)
        if operation is None:
            raise ValueError("no such operation")
        if not isinstance(request.args, dict):
            raise ValueError("arguments must be an object")  # noqa: TRY004 (one class for all that is refused)
        if unknown := request.args.keys() - operation.parameters.keys():
            raise ValueError(f"unknown argument {min(unknown)!r}")
        if missing := operation.required - request.args.keys():
            raise ValueError(f"argument {min(missing)!r} is missing")
        with self._lock:
            if request.id in self._running:
                raise ValueError(f"a request with the id {request.id} is running")
        return operation, {n: decode_at(operation.parameters[n], v, n) for n, v in request.args.items()}

    def _tell(self, number: int, event: object) -> None:
        if self._outbox.qsize() < _EVENTS_QUEUED:
            self.send(wire.Event(number, encode(event)))

    def _run(self, number: int, operation: _Operation, arguments: dict[str, Any]) -> None:
        try:
            reply = wire.Reply(number, value=encode(operation.function(**arguments), operation.result))
        except SnaprepError as error:
            reply = wire.Reply(number, error=error.info)
        except Exception as error:  # noqa: BLE001 (a bug in one operation must not end the others)
            reply = wire.Reply(number, error=_bug(error))
        with self._lock:
            del self._running[number]
        self.send(reply)

    def cancel_overdue(self) -> None:
        now = time.monotonic()
        with self._lock:
            for running in self._running.values():
                if now > running.due_s:
                    running.cancelled.set()

    def end(self, on_close: Sequence[Callable[[], None]]) -> None:
        until = time.monotonic() + _CLOSE_BOUND_S
        with self._lock:
            threads = [running.thread for running in self._running.values()]
            for running in self._running.values():
                running.cancelled.set()
        _join(threads, until)
        closers = [threading.Thread(target=callback, daemon=True) for callback in list(on_close)]
        for closer in closers:
            closer.start()
        _join(closers, until + _CLOSE_BOUND_S)
        self._outbox.put(None)
        self._writer.join(1.0)


def _join(threads: Sequence[threading.Thread], until_s: float) -> None:
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()))


def _packed(frame: wire.Frame) -> bytes:
    try:
        return wire.pack(frame)
    except wire.WireError as error:
        if isinstance(frame, wire.Reply):
            return wire.pack(wire.Reply(frame.id, error=ErrorInfo("reply-too-large", str(error))))
        return b""


def _bug(error: Exception) -> ErrorInfo:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return ErrorInfo(
        "bug",
        f"{type(error).__name__}: {error}",
        hint="this is a mistake in snaprep; please report it with the details",
        details=tuple(lines[-60:]),
    )


def own_hello(code: str | None) -> wire.Hello:
    """Who this agent is. `code` is the path of the zip that it runs from, None when it is installed."""
    digest = ""
    if code is not None:
        with open(code, "rb") as file:  # noqa: PTH123 (/proc/self/fd/N, not a path in any folder)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return wire.Hello(
        version=snaprep.__version__,
        sha256=digest,
        python=".".join(map(str, sys.version_info[:3])),
        pid=os.getpid(),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        login_user=login_user(),
        node=os.uname().nodename,
        boot_id=boot_id(),
    )


def take_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for frames alone: what anything prints goes to stderr, and no child inherits them."""
    stdin, stdout = os.dup(0), os.dup(1)  # not inheritable
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    typing.cast("io.TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)
    return os.fdopen(stdin, "rb"), os.fdopen(stdout, "wb")


def run(
    registry: Mapping[str, Callable[..., object]],
    on_close: Sequence[Callable[[], None]],
    code: str | None = None,
    on_gone: Sequence[Callable[[], None]] = (),
) -> typing.NoReturn:
    """Serve a registry on this process's stdio, then end the process."""

    def end(_signal: int, _frame: object) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # once is enough: the end itself is bounded
        raise _Ended

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    stdin, stdout = take_stdio()
    serve(registry, stdin, stdout, hello=own_hello(code), on_gone=on_gone, on_close=on_close)
    os._exit(0)  # threads that are past their bound must not keep the process
