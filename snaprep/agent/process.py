"""Running other programs on this host: argv lists, no shell, a deadline on each, their words kept.

Everything done to the host can be shown as the line a person would have typed (the newest are kept), which is what
`--show-commands` prints.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import IO

_STDERR_KEPT_BYTES = 16_384
_KILLED_S = 1.0  # until a killed program has ended


@dataclass(frozen=True, slots=True)
class Completed:
    argv: tuple[str, ...]
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape")


class CommandFailed(Exception):
    """A program ended with a status other than 0. `stderr` is what it said, cut to 16 KiB."""

    def __init__(self, argv: tuple[str, ...], status: int, stderr: str) -> None:
        super().__init__(f"{shlex.join(argv)} ended with status {status}: {stderr.strip()}")
        self.argv = argv
        self.status = status
        self.stderr = stderr


class CommandTimeout(CommandFailed):
    """A program did not end within its deadline and was killed."""

    def __init__(self, argv: tuple[str, ...], deadline_s: float) -> None:
        super().__init__(argv, -9, f"not done after {deadline_s:g} s")


class CommandMissing(CommandFailed):
    """The program is not installed."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        super().__init__(argv, 127, f"{argv[0]} is not installed")


_numbers = itertools.count(1)
_commands: collections.deque[tuple[int, str]] = collections.deque(maxlen=1000)


def patient_s(deadline_s: float) -> float:
    """A deadline, on hosts that are much slower than deadlines expect, emulated ones: times SNAPREP_PATIENCE."""
    return deadline_s * float(os.environ.get("SNAPREP_PATIENCE", "1"))


def environment() -> dict[str, str]:
    """The environment for every program: English messages, and the sbin folders that a login shell may lack."""
    env = dict(os.environ)
    env["LC_ALL"] = "C"
    env["PATH"] = env.get("PATH", "") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return env


def as_root(argv: list[str]) -> list[str]:
    """The same program with root's rights: as it is for root, else by the line of sudoers that allows exactly it."""
    return argv if os.geteuid() == 0 else ["sudo", "-n", *in_full(argv)]


def in_full(argv: list[str]) -> list[str]:
    """With the program's whole path, as sudoers wants it; as it is when there is no such program."""
    return [shutil.which(argv[0], path=environment()["PATH"]) or argv[0], *argv[1:]]


def noted(argv: list[str]) -> None:
    """Show a command line for what is done without one."""
    _commands.append((next(_numbers), shlex.join(argv)))


def newest_command() -> int:
    """The number of the newest command line; 0 before there is one."""
    return _commands[-1][0] if _commands else 0


def commands_since(number: int) -> tuple[str, ...]:
    """The command lines after the one of this number, as far as they are kept."""
    return tuple(line for n, line in list(_commands) if n > number)  # a copy: other threads add to it


def run(argv: list[str], *, deadline_s: float, stdin: bytes = b"") -> Completed:
    """Run a program to its end.

    Raises CommandMissing, CommandTimeout, or CommandFailed when its status is not 0.
    """
    noted(argv)
    deadline_s = patient_s(deadline_s)
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment())
    except FileNotFoundError as error:
        raise CommandMissing(tuple(argv)) from error
    try:
        stdout, said = process.communicate(stdin, timeout=deadline_s)
    except subprocess.TimeoutExpired as error:
        raise CommandTimeout(tuple(argv), deadline_s) from error
    finally:
        _end(process)
    stderr = said[-_STDERR_KEPT_BYTES:].decode("utf-8", "replace")
    if process.returncode != 0:
        raise CommandFailed(tuple(argv), process.returncode, stderr)
    return Completed(tuple(argv), stdout, stderr)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills what still runs. A program that the kernel keeps, waiting for a disk that has gone, is left behind."""
    if process.poll() is None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILLED_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def start(
    argv: list[str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.PIPE,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that it and its children can be ended together.

    Raises CommandMissing.
    """
    noted(argv)
    try:
        return subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=stderr, env=environment(), start_new_session=True,
            pass_fds=pass_fds, bufsize=0,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise CommandMissing(tuple(argv)) from error


def own_argv(entry: str, *words: str) -> list[str]:
    """argv of another Python process that runs `module:function` of this same code with these words.

    A streamed agent's code is in a memory file: the program reads it there, so it has to start while the agent lives.
    """
    module, function = entry.split(":")
    code = next((p for p in sys.path if p.startswith("/proc/self/fd/")), None)
    paths = [code.replace("self", str(os.getpid()), 1)] if code is not None else [p for p in sys.path if p]
    start = f"import sys;sys.path[:0]={paths!r};from {module} import {function} as f;f()"
    return [sys.executable, "-I", "-S", "-c", start, *words]
