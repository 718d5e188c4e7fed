"""The agent's end of its guard."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import typing
from collections.abc import Callable
from typing import Any, BinaryIO

from snaprep.agent import bootstrap
from snaprep.agent.connection import Connection
from snaprep.agent.process import patient_s
from snaprep.agent.wire import LastWords
from snaprep.core.errors import SnaprepError
from snaprep.core.spec import DerbySpec

_ENTRY = "snaprep.agent.guard:main"
_START_S = 20.0
_END_S = 10.0
_LAST_WORDS_S = 0.5  # a thaw takes milliseconds


class GuardProcess:
    """A guard that was started; speaks to it over its stdio."""

    def __init__(self, spec: DerbySpec, on_lost: Callable[[], None]) -> None:
        """`on_lost` is called, from a thread of its own, when the guard ends without having been asked to."""
        argv, descriptors = bootstrap.child_argv(_ENTRY)
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,
        )
        stdin, stdout, stderr = (
            typing.cast("BinaryIO", f) for f in (self._process.stdin, self._process.stdout, self._process.stderr)
        )
        self._connection = Connection(
            "the guard",
            stdout,
            stdin,
            LastWords(lambda: stderr.read1(65_536)),  # type: ignore[attr-defined]
            describe_end=lambda: None,
            close=lambda: _close(stdin),
        )
        self._connection.open("", _START_S)
        self._client_pid: int | None = None
        self._asked = False
        threading.Thread(target=self._watch, args=(on_lost,), daemon=True, name="guard-watch").start()
        self.call("configure", {"spec": spec}, deadline_s=_START_S)

    def _watch(self, on_lost: Callable[[], None]) -> None:
        self._process.wait()
        if not self._asked:
            on_lost()

    @property
    def alive(self) -> bool:
        return self._connection.alive

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, op: str, args: dict[str, object] | None = None, *, deadline_s: float) -> Any:  # noqa: ANN401 (JSON)
        """Raises what the guard's engine raised, or `agent-died` when the guard is gone."""
        return self._connection.call(op, args or {}, Any, deadline_s=deadline_s)

    def ready(self) -> None:
        """Have its client up, and remember which process that is."""
        self._client_pid = int(self.call("ready", deadline_s=_START_S + 10))

    def awake(self) -> None:
        """Have its client up, and nothing more: the database may be a replica."""
        self._client_pid = int(self.call("awake", deadline_s=_START_S + 10))

    def end_client(self) -> None:
        """See the client of a guard that was killed end, and end it if its last words take long.

        They are a thaw, on connections that were open before the freeze: a new one may hang while it stands. What else
        it had begun goes on in the server; there it then shows as a session without a client.
        """
        if self._client_pid is None:
            return
        began_s = time.monotonic()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while (took_s := time.monotonic() - began_s) < _END_S:
                os.kill(self._client_pid, signal.SIGKILL if took_s > patient_s(_LAST_WORDS_S) else 0)
                time.sleep(0.005)

    def close(self) -> None:
        """Let the guard end; it puts back what it still holds first."""
        self._asked = True
        with contextlib.suppress(SnaprepError):
            self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
            self._release()

    def _release(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                _close(typing.cast("BinaryIO", pipe))


def _close(pipe: BinaryIO) -> None:
    with contextlib.suppress(OSError):
        pipe.close()
