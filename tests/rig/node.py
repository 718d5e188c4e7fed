"""A machine made of its own network, mount, host name, IPC and PID namespaces. Powering it off kills the
namespace's first process by its pid, and with it everything inside and nothing outside.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

INIT = Path(__file__).with_name("init.py")
POLL_S = 0.01
BOOT_S = 20.0
END_S = 10.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RigError(Exception):
    """Something of the rig did not do what it was told; the message carries what it printed."""


class Pace:
    """How much longer than on this machine everything may take: more than 1 when the hosts are emulated."""

    slowness = 1.0


def patience_s(seconds: float) -> float:
    """What may take `seconds` on a real machine, on the machines that are in use."""
    return seconds * Pace.slowness


def wait_until(done: Callable[[], object], what: str, timeout_s: float) -> None:
    """Polls until `done()` is true. Raises RigError, naming `what`, after `timeout_s` at the hosts' pace."""
    end = time.monotonic() + patience_s(timeout_s)
    while not done():
        if time.monotonic() > end:
            raise RigError(f"{what}: not within {timeout_s:g} s")
        time.sleep(POLL_S)


def child_of(pid: int) -> int | None:
    """The pid of the one child of process `pid`, as seen from outside; None when there is none (yet)."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - looked at often, and three times as fast
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The command's name stands in brackets and may itself hold spaces and brackets.
            state, parent = stat.rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                return int(name)
    return None


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Node:
    """`state` is its directory outside; `mounts` the steps that `init.py` takes at every boot."""

    def __init__(self, name: str, state: Path, mounts: Sequence[Sequence[str]], env: Mapping[str, str]) -> None:
        self.name = name
        self.state = state
        self.mounts = [list(step) for step in mounts]
        self.env = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "HOME": "/root", **env}
        self.pid = 0  # of the first process, seen from outside; 0 while powered off
        self.slowness = 1.0  # how much longer than they say its commands may take
        self._unshare: subprocess.Popen[bytes] | None = None

    @property
    def is_up(self) -> bool:
        return self.pid != 0

    def power_on(self) -> None:
        """The namespaces with their mounts, and nothing running in them. Raises RigError."""
        if self._unshare is not None:
            raise RigError(f"{self.name} is already up")
        namespaces = ("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
        init = (sys.executable, "-I", "-S", str(INIT), self.name, json.dumps(self.mounts))
        self._unshare = subprocess.Popen(
            ("unshare", *namespaces, "--propagation", "private", *init),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=self.env,
        )
        answer = _read_line(self._unshare, BOOT_S)
        pid = child_of(self._unshare.pid)
        if answer != b"up\n" or pid is None:
            self._unshare.kill()
            stderr = self._unshare.communicate(timeout=END_S)[1]
            self._unshare = None
            raise RigError(f"{self.name} did not boot: {stderr.decode(errors='replace')}")
        self.pid = pid

    def power_off(self) -> None:
        """Kills everything inside at once, as a pulled plug would. What was written to files stays."""
        if self._unshare is None:
            return
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        # The kernel lets the first process go only after all the others are gone.
        self._unshare.wait(END_S)
        for pipe in (self._unshare.stdin, self._unshare.stdout, self._unshare.stderr):
            if pipe is not None:
                pipe.close()
        self._unshare = None
        self.pid = 0

    def argv(self, argv: Sequence[str | Path], *, cwd: str | Path | None = None, user: str | None = None) -> list[str]:
        """The command line that runs `argv` inside. The inner process dies with the outer one."""
        if not self.pid:
            raise RigError(f"{self.name} is powered off")
        # Its root too: in a chroot the mount namespace begins above where we stand.
        enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-u", "-i", "-p", "-r", "-w"]
        become = ["setpriv", "--pdeathsig", "KILL"]
        if user is not None:
            become += ["--reuid", user, "--regid", user, "--clear-groups"]
        place = ["env", f"--chdir={cwd}"] if cwd is not None else []
        return [*enter, *become, *place, *map(str, argv)]

    def entered(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: str | Path | None, user: str | None
    ) -> tuple[list[str], dict[str, str]]:
        """The command line that runs `argv` inside with `env` added, and the environment that it is started in."""
        return self.argv(argv, cwd=cwd, user=user), {**self.env, **env}

    def ip(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Runs `ip` commands in the network namespace only, so that they may name outside pids."""
        return subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", "ip", "-batch", "-"],
            input=commands,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        user: str | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts `argv` inside. `kill()` on the result kills the program; for any other signal use
        `signal_inner`, because the pid of the result is that of `nsenter`.
        """
        command, environment = self.entered(argv, env=env or {}, cwd=cwd, user=user)
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True
        )

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        stdin: str = "",
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        user: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs `argv` inside and returns what it printed. Raises RigError when it fails (with `check`) or
        does not end within `timeout_s`; then it has been killed.
        """
        command, environment = self.entered(argv, env=env or {}, cwd=cwd, user=user)
        try:
            done = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s * self.slowness,
                env=environment,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RigError(f"{self.name}: {' '.join(map(str, argv))}: not within {timeout_s:g} s") from error
        if check and done.returncode != 0:
            said = f"{done.stdout}{done.stderr}".strip()
            raise RigError(f"{self.name}: {' '.join(map(str, argv))}: exit {done.returncode}: {said}")
        return done


def _read_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
    if process.stdout is None:
        return b""
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    return process.stdout.readline() if ready else b""


def inner_pid(process: subprocess.Popen[bytes], timeout_s: float = 5.0) -> int:
    """The outside pid of the program that `Node.popen` started. Raises RigError when it has ended."""
    end = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < end:
        pid = child_of(process.pid)
        if pid is not None:
            return pid
        time.sleep(POLL_S)
    raise RigError(f"no such program any more (exit {process.poll()})")


def signal_inner(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal to the program that `Node.popen` started."""
    os.kill(inner_pid(process), number)


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGKILL) -> None:
    """Ends a program that `Node.popen` started, and returns when it is gone. Does nothing when it has
    ended already.
    """
    if process.poll() is not None:
        return
    try:
        pid = inner_pid(process)
        os.kill(pid, number)
    except (RigError, ProcessLookupError):
        process.wait(END_S)
        return
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(END_S)
    wait_until(lambda: not alive(pid), f"end of process {pid}", END_S)
