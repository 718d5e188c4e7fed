"""A duplex byte pipe between two agents, as a pair of descriptors, and the private folder of a run.

A link carries frames: one byte of kind, four of length, then as many bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import select
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaprep.agent.identity import runtime_folder
from snaprep.agent.wire import LastWords
from snaprep.core.codec import encode
from snaprep.core.errors import SnaprepError, Stopped

PIPE_BYTES = 1 << 20
HEAD = struct.Struct(">cI")  # what follows, and how many bytes of it
GREETING, HEADER, ALIVE = b"G", b"H", b"K"
_SMALL_BYTES = 1 << 16  # every frame but data
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHeader:
    """What a stream is, sent before its first byte so that the target can refuse it."""

    run: str
    stream: str  # one id for each stream of a run
    image: str
    parts: tuple[str, ...]
    base_guid: int | None  # the root's; None for a full stream
    head: str
    head_guid: int


class Link:
    """A duplex byte pipe to the peer's agent. `why` tells what the carrier said when it ended."""

    def __init__(
        self, read_fd: int, write_fd: int, *, why: Callable[[], str], on_close: Callable[[bool], None]
    ) -> None:
        self.read_fd, self.write_fd, self.why = read_fd, write_fd, why
        self.header: StreamHeader | None = None
        self.keep: Callable[[Link], None] | None = None  # who takes it back when a stream went well
        self._on_close = on_close
        self._closed = False
        for fd in (read_fd, write_fd):
            os.set_blocking(fd, False)
            widen(fd)

    def send(self, kind: bytes, payload: bytes, *, deadline_s: float = 10) -> None:
        """Send one small frame. Raises `link-lost`."""
        rest = memoryview(HEAD.pack(kind, len(payload)) + payload)
        until = time.monotonic() + deadline_s
        while rest:
            try:
                rest = rest[os.write(self.write_fd, rest) :]
            except BlockingIOError:
                if not _ready(self.write_fd, select.POLLOUT, until):
                    raise self.lost("it takes no bytes") from None
            except OSError as error:
                raise self.lost(str(error)) from error

    def receive(self, *, deadline_s: float) -> tuple[bytes, bytes]:
        """Receive one small frame. Raises `link-lost`."""
        until = time.monotonic() + deadline_s
        kind, length = HEAD.unpack(self._exactly(HEAD.size, until))
        if length > _SMALL_BYTES:
            raise self.lost("what comes out of it is no frame")
        return kind, self._exactly(length, until)

    def _exactly(self, count: int, until_s: float) -> bytes:
        data = b""
        while len(data) < count:
            if not _ready(self.read_fd, select.POLLIN, until_s):
                raise self.lost("nothing came out of it")
            with contextlib.suppress(BlockingIOError):
                piece = os.read(self.read_fd, count - len(data))
                if not piece:
                    raise self.lost("it ended")
                data += piece
        return data

    def lost(self, what: str) -> SnaprepError:
        return classified(f"the link broke: {what}", self.why())

    @property
    def idle(self) -> bool:
        """Open, with nothing said by the peer: an end would show as something to read."""
        poller = select.poll()
        poller.register(self.read_fd, select.POLLIN)
        poller.register(self.write_fd, 0)
        return not self._closed and not poller.poll(0)

    def done(self) -> None:
        """A stream went well: the link is kept for the next one where somebody does, else closed."""
        if self.keep is None:
            self.close(well=True)
        else:
            self.header = None
            self.keep(self)

    def close(self, *, well: bool = False) -> None:
        """Close both directions. `well` lets the relay end with status 0."""
        if not self._closed:
            self._closed = True
            for fd in {self.read_fd, self.write_fd}:
                os.close(fd)
            self._on_close(well)


def classified(what: str, said: str) -> SnaprepError:
    """The error for a link that broke or did not come up, by what ssh said."""
    if "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
        id_, hint = "link-host-key", "the source sees another target than the operator: check `address` and `data_port`"
    elif "Permission denied" in said:
        id_, hint = "link-refused", "the target's sshd reads another AuthorizedKeysFile, or forbids this user's keys"
    elif "nobody listens for this run" in said:
        id_, hint = "link-lost", "the target's agent is gone; run the command again"
    else:
        id_, hint = "link-lost", "check the network between the hosts; `resume` goes on where this stopped"
    lines = said.splitlines()[-20:]
    return Stopped(id_, f"{what}; {lines[-1]}" if lines else what, hint=hint, details=tuple(lines[:-1]))


def widen(fd: int) -> None:
    """A pipe of 1 MiB means fewer wake-ups; not for sockets, and not beyond the system's limit."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _ready(fd: int, mask: int, until_s: float) -> bool:
    poller = select.poll()
    poller.register(fd, mask)
    return bool(poller.poll(max(0.0, until_s - time.monotonic()) * 1000))


def run_folder(run: str, purpose: str, user: str | None = None) -> Path:
    """A folder that only `user` (default: us) can enter, in memory where the system has such a place."""
    top = runtime_folder("snaprep")
    of_run = top / checked_run(run)
    for folder in (top, of_run):
        folder.mkdir(mode=0o711, exist_ok=True)
        state = folder.lstat()
        if state.st_uid != os.geteuid() or state.st_mode & 0o022 or not folder.is_dir() or folder.is_symlink():
            raise SnaprepError("unsafe-folder", f"{folder} is not ours alone", hint="remove it, and see who made it")
    made = Path(tempfile.mkdtemp(prefix=f"{purpose}-{os.getpid()}-", dir=of_run))  # 0700
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(made, entry.pw_uid, entry.pw_gid)
    return made


def remove_folder(folder: Path) -> None:
    """Remove a folder of `run_folder` with the files in it, and the run's folder when it was the last."""
    with contextlib.suppress(FileNotFoundError):
        for file in folder.iterdir():
            file.unlink(missing_ok=True)
        folder.rmdir()
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def greeted(kind: bytes, payload: bytes, run: str) -> bool:
    """Whether this frame is the greeting of this run's target."""
    try:
        return kind == GREETING and bool(json.loads(payload) == {"run": run})
    except ValueError:
        return False


def header_bytes(header: StreamHeader) -> bytes:
    return json.dumps(encode(header)).encode()


def ssh_link(ssh: subprocess.Popen[bytes]) -> Link:
    """The link over an ssh that was started with pipes on all three descriptors."""
    assert ssh.stdin is not None and ssh.stdout is not None and ssh.stderr is not None  # noqa: PT018
    stderr = ssh.stderr
    words = LastWords(lambda: stderr.read(65_536))

    def why() -> str:
        try:
            status: Any = ssh.wait(2.0)
        except subprocess.TimeoutExpired:
            status = None
        said = words.last()
        return "\n".join(said) or (f"ssh ended with status {status}" if status is not None else "ssh still runs")

    def end(well: bool) -> None:  # noqa: FBT001 (a callback)
        if well:  # everything was said: nobody has to wait for the goodbye
            threading.Thread(target=reap, args=(2.0,), daemon=True, name="goodbye").start()
        else:
            reap(0.2)

    def reap(bound_s: float) -> None:
        try:
            ssh.wait(bound_s)
        except subprocess.TimeoutExpired:
            process_end(ssh)
        words.last()
        stderr.close()

    return Link(_detach(ssh.stdout), _detach(ssh.stdin), why=why, on_close=end)


def _detach(file: Any) -> int:  # noqa: ANN401 (a raw file of a Popen)
    fd: int = os.dup(file.fileno())
    file.close()
    return fd


def process_end(program: subprocess.Popen[bytes], *, bound_s: float = 3.0) -> None:
    """End a program of `process.start` and its children: ask, then kill. Bounded."""
    for number in (15, 9):
        if program.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(bound_s)


def checked_run(run: str) -> str:
    """The run's id, which must be a plain word: it stands in file names and in authorized_keys."""
    if not _RUN.fullmatch(run):
        raise SnaprepError("bad-request", f"{run!r} is no id of a run")
    return run


def runs_here() -> dict[str, bool]:
    """Runs of this user that have a folder here, and whether an agent of theirs is alive; else it was killed."""
    top = runtime_folder("snaprep")
    found = sorted(top.iterdir()) if top.is_dir() else []
    return {run.name: any(map(_made_by_the_living, run.iterdir())) for run in found}


def _made_by_the_living(folder: Path) -> bool:
    """A folder's name carries the pid of the agent that made it."""
    pid = folder.name.split("-")[1:2]
    return bool(pid) and Path("/proc", pid[0]).is_dir()


def clean_run(run: str) -> None:
    """Remove what an agent that was killed has left of a run: a socket, a key."""
    folder = runtime_folder("snaprep") / checked_run(run)
    if folder.is_dir():
        for left in list(folder.iterdir()):
            remove_folder(left)
