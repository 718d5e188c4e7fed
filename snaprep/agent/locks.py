"""One lock per pair on both hosts, one per database on its host. A lock ends with the process that holds it.

The lock file tells who holds it, so that a second operator reads a name instead of "busy". Beside it is the way in for
a second terminal: a folder into which commands for the running run are put.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from dataclasses import asdict
from pathlib import Path

from snaprep.agent.identity import runtime_folder
from snaprep.core.errors import Locked, Stopped
from snaprep.core.model import RunInfo

_PAUSE_S = 0.02


def state_folder() -> Path:
    """Where this host keeps locks, which must not outlive a boot: /run/snaprep-locks, or a user's own folder."""
    folder = runtime_folder("snaprep-locks")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise Locked("state-folder", f"{folder} belongs to somebody else", hint="remove it")
    folder.chmod(0o700)
    return folder


class Lock:
    """A held lock."""

    def __init__(self, kind: str, key: str, info: RunInfo) -> None:
        """Raises `locked` with who holds it."""
        self.path = lock_path(kind, key)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(self._file)
        except BlockingIOError as error:
            os.close(self._file)
            held = holder(kind, key)
            by = f"{held.verb} by {held.operator}" if held else "another run"
            run = f", run {held.run}" if held and held.run else ""
            hint = "wait for it, watch it with `snaprep status`, or end it with `snaprep abort`"
            raise Locked("locked", f"the {kind} is held: {by}{run}", hint=hint) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, json.dumps(asdict(info)).encode())

    def release(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.close(self._file)


def _take(file: int) -> None:
    """Somebody who only looks holds it for a moment; that is no reason to refuse. Raises BlockingIOError."""
    for _ in range(4):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(_PAUSE_S)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_path(kind: str, key: str) -> Path:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", key)[-60:]
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return state_folder() / f"{kind}-{plain}-{digest}.lock"


def holder(kind: str, key: str) -> RunInfo | None:
    """Who holds a lock now; None when nobody does."""
    path = lock_path(kind, key)
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    else:
        return None
    finally:
        os.close(file)


def await_guard(key: str, deadline_s: float) -> None:
    """See whatever guard halts a database open it. Raises `guard-at-work`."""
    ends_s = time.monotonic() + deadline_s
    while holder("guard", key) is not None:
        if time.monotonic() > ends_s:
            hint = "it opens the database when its lease ends; look at derby.log if it does not"
            raise Stopped("guard-at-work", "another guard keeps this database halted", hint=hint)
        time.sleep(_PAUSE_S)


def _read(path: Path) -> RunInfo:
    try:
        return RunInfo(**json.loads(path.read_text()))
    except (ValueError, TypeError, OSError):
        return RunInfo(run="", verb="a run", operator="somebody", pid=0)


def inbox(key: str) -> Path:
    """The folder in which commands of a second terminal wait for the run that holds the pair's lock."""
    folder = lock_path("pair", key).with_suffix(".inbox")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def post(key: str, command: str) -> None:
    """Leave a command for the running run."""
    folder = inbox(key)
    number = len(list(folder.iterdir()))
    part = folder / f".{os.getpid()}"
    part.write_text(command)
    part.rename(folder / f"{number:06d}-{os.getpid()}")


def collect(key: str) -> tuple[str, ...]:
    """Take the commands that wait, oldest first."""
    found = []
    for path in sorted(p for p in inbox(key).iterdir() if not p.name.startswith(".")):
        found.append(path.read_text())
        path.unlink()
    return tuple(found)
