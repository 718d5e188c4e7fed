"""The agent over SSH by paramiko: the control plane. A database never travels here (see `reach`)."""

from __future__ import annotations

import contextlib
import io
import time
from typing import TYPE_CHECKING

from snaprep.agent import bootstrap
from snaprep.agent.connection import Connection
from snaprep.agent.wire import LastWords
from snaprep.core.errors import HostUnreachable, SnaprepError
from snaprep.host.bundle import sha256_of_agent, zip_of_agent
from snaprep.host.reach import Login, Reached, reach

if TYPE_CHECKING:
    import paramiko

_HELLO_S = 30.0
_CLOSE_S = 35.0  # the agent's own closing is bounded by 30 s
_COMMAND_NOT_FOUND = 127


class _ChannelReader(io.RawIOBase):
    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _ChannelWriter(io.RawIOBase):
    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._channel.sendall(data)
        return len(data)


class SshHost(Connection):
    """Raises HostUnreachable; the ids are listed in `base`."""

    def __init__(self, login: Login, *, entry: str = bootstrap.ENTRY, code: bytes | None = None) -> None:
        self.login = login
        sha256 = sha256_of_agent() if code is None else bootstrap.digest(code)
        code = zip_of_agent() if code is None else code
        self.reached: Reached = reach(login)
        try:
            self._channel = self._start(bootstrap.start_argv(
                len(code), python=login.python, entry=entry, become=login.become
            ))  # fmt: skip
            channel = self._channel
            super().__init__(
                login.name,
                io.BufferedReader(_ChannelReader(channel), 65_536),
                _ChannelWriter(channel),  # type: ignore[arg-type]
                LastWords(lambda: channel.recv_stderr(65_536)),
                describe_end=self._how_it_ended,
                close=self._end_channel,
            )
            with contextlib.suppress(OSError):  # it died already; `open` says how
                channel.sendall(code)
            self.open(sha256, _HELLO_S)
        except BaseException:
            self.reached.close()
            raise

    @property
    def host_key(self) -> str:
        """The verified key of the server, as in known_hosts: "ssh-ed25519 AAAA..."."""
        return self.reached.host_key

    def _start(self, argv: list[str]) -> paramiko.Channel:
        import paramiko  # noqa: PLC0415 (300 ms; `--help` does without)

        try:
            channel = self.reached.transport.open_session(timeout=self.login.deadline_s)
            channel.exec_command(bootstrap.start_command(argv))
        except (paramiko.SSHException, OSError) as error:
            raise HostUnreachable(
                "login-refused",
                f"{self.login.name} let us in but starts no program: {error}",
                hint="look for ForceCommand, MaxSessions and the shell of that user",
            ) from error
        return channel

    def _how_it_ended(self) -> SnaprepError | None:
        """What the exit status and the last words of the start mean; None when they mean nothing special."""
        name, login = self.login.name, self.login
        if not self._channel.status_event.wait(2.0):
            if not self.reached.transport.is_active():
                return self._died("the connection broke")
            return None
        status = self._channel.recv_exit_status()
        said = "\n".join(self._stderr.last())
        if self._hello is not None:
            return self._died(f"its process ended with status {status}") if status else None
        if status == bootstrap.TOO_OLD:
            return HostUnreachable("no-python", f"{name}: {said}", hint=_PYTHON_HINT)
        if login.become and ("sudo:" in said or "sudo: not found" in said):
            return HostUnreachable(
                "privilege",
                f"{login.user_name} may not become root on {name}: {said}",
                hint=f"let sudo run {login.python} without a password for this user, or log in as root",
                details=tuple(said.splitlines()),
            )
        if status == _COMMAND_NOT_FOUND or "not found" in said:
            return HostUnreachable("no-python", f"{name} has no {login.python}: {said}", hint=_PYTHON_HINT)
        return self._died(f"it ended with status {status} before it said hello")

    def _end_channel(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()
        until = time.monotonic() + _CLOSE_S
        while self.reached.transport.is_active() and time.monotonic() < until:
            if self._channel.status_event.wait(0.2) or self._channel.closed:
                break
        self._channel.close()
        self.reached.close()


_PYTHON_HINT = "install Python 3.11 or newer there, or name one with `python` in the host's section"
