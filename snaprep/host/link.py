"""`relay`: the data goes through the operator, for hosts that cannot see each other.

Two OpenSSH processes, one to each host, start the relay of that host's agent; each one's output is the other's input.
So both agents see the same kind of link as between hosts that can, with one connection more in between, and nothing
of ours touches the bytes on the way: counting, hashing and limits are at the two ends.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
from collections.abc import Sequence

from snaprep.agent.link import CIPHERS
from snaprep.agent.pipe import process_end, widen
from snaprep.agent.wire import LastWords
from snaprep.host.reach import Login

_TICK_S = 0.2


def ssh_argv(login: Login, command: Sequence[str]) -> list[str]:
    """The operator's own ssh to a host, with the operator's configuration, keys and known_hosts."""
    options = {
        "BatchMode": "yes", "ControlPath": "none", "ControlMaster": "no", "Ciphers": CIPHERS, "Compression": "no",
        "IPQoS": "throughput", "ConnectTimeout": f"{max(1, round(login.deadline_s))}", "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3", "StrictHostKeyChecking": "yes", "LogLevel": "ERROR",
    }  # fmt: skip
    if login.known_hosts:
        options["UserKnownHostsFile"] = " ".join(login.known_hosts)
        options["GlobalKnownHostsFile"] = "/dev/null"
    if login.identity_files:
        options["IdentitiesOnly"] = "yes"
    argv = ["ssh", "-T", "-x", *(f"-o{name}={value}" for name, value in options.items())]
    if login.ssh_config != "~/.ssh/config":
        argv += ["-F", os.path.expanduser(login.ssh_config) if login.ssh_config else "none"]  # noqa: PTH111
    for file in login.identity_files:
        argv += ["-i", file]
    if login.port is not None:
        argv += ["-p", str(login.port)]
    if login.user is not None:
        argv += ["-l", login.user]
    return [*argv, "--", login.address, shlex.join(command)]


class Joint:
    """One joined connection. The agents find it among their links; when one side ends, so does the other."""

    def __init__(self, source: Login, source_relay: Sequence[str], target: Login, target_relay: Sequence[str]) -> None:
        """`..._relay` is the command that the agent's listener there names."""
        there, back = os.pipe(), os.pipe()
        for fd in (*there, *back):
            widen(fd)
        try:
            self._source = _start(ssh_argv(source, source_relay), back[0], there[1])
            self._target = _start(ssh_argv(target, target_relay), there[0], back[1])
        finally:
            for fd in (*there, *back):
                os.close(fd)
        self._words = [(login.name, _words(ssh)) for login, ssh in ((source, self._source), (target, self._target))]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="joint")
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._source.poll() is None and self._target.poll() is None

    def why(self) -> str:
        """What either ssh said."""
        return "\n".join(f"{name}: {line}" for name, words in self._words for line in words.last())

    def close(self) -> None:
        self._over.set()
        self._thread.join(10.0)

    def _watch(self) -> None:
        """When one ssh ends, the other gets a moment to pass on what it still has."""
        while self.alive and not self._over.wait(_TICK_S):
            pass
        for ssh in (self._source, self._target):
            with contextlib.suppress(subprocess.TimeoutExpired):
                ssh.wait(0.1 if self._over.is_set() else 3.0)
            process_end(ssh)
        for _, words in self._words:
            words.last()
        for ssh in (self._source, self._target):
            assert ssh.stderr is not None
            ssh.stderr.close()


def _start(argv: list[str], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True, bufsize=0)


def _words(ssh: subprocess.Popen[bytes]) -> LastWords:
    assert ssh.stderr is not None
    stderr = ssh.stderr
    return LastWords(lambda: stderr.read(65_536))
