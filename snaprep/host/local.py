"""The agent as a program on this very machine, for tests and for a database that lives where the operator is."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from typing import cast

from snaprep.agent import bootstrap
from snaprep.agent.connection import Connection
from snaprep.agent.wire import LastWords
from snaprep.core.errors import HostUnreachable, SnaprepError
from snaprep.host.bundle import sha256_of_agent, zip_of_agent

_CLOSE_S = 35.0  # the agent's own closing is bounded by 30 s
_HELLO_S = 20.0


class LocalHost(Connection):
    """Starts the agent exactly as over SSH: the zip through stdin, then frames."""

    def __init__(self, name: str = "local", *, entry: str = bootstrap.ENTRY, code: bytes | None = None) -> None:
        """`entry` and `code` are for other registries than snaprep's own. Raises `no-python`, `agent-died`."""
        sha256 = sha256_of_agent() if code is None else bootstrap.digest(code)
        code = zip_of_agent() if code is None else code
        argv = bootstrap.start_argv(len(code), python=sys.executable, entry=entry)
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise HostUnreachable("no-python", f"cannot start {sys.executable}: {error}") from error
        process = self.process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: PT018
        stderr = process.stderr
        self._stdout = io.BufferedReader(cast("io.RawIOBase", process.stdout), 65_536)
        self._stdin = io.BufferedWriter(cast("io.RawIOBase", process.stdin), 65_536)
        super().__init__(
            name,
            self._stdout,
            self._stdin,
            LastWords(lambda: stderr.read(65_536)),
            describe_end=self._how_it_ended,
            close=self._end_process,
        )
        with contextlib.suppress(OSError):  # it died already; `open` says how
            self._stdin.write(code)
            self._stdin.flush()
        self.open(sha256, _HELLO_S)

    def _how_it_ended(self) -> SnaprepError | None:
        try:
            status = self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            return None
        return self._died(f"its process ended with status {status}") if status else None

    def _end_process(self) -> None:
        process = self.process
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5.0)

    def close(self) -> None:
        super().close()
        assert self.process.stderr is not None
        self._stdout.close()
        self.process.stderr.close()
