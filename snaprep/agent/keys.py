"""Keys that live as long as a run: made on the source, let in on the target for one fixed program.

The target's line reads `restrict,expiry-time="...",command="<the relay>" ssh-ed25519 AAAA snaprep:<run>`. `restrict`
without any forwarding option matters: `port-forwarding,permitopen=` would still allow a remote listener.
authorized_keys is replaced by rename, with its mode and owner, under a lock on its folder that all runs respect.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from snaprep.agent import process
from snaprep.agent.pipe import checked_run
from snaprep.agent.rewrite import rewrite
from snaprep.core.errors import SnaprepError

_PUBLIC = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{60,80}={0,2}")
_OURS = re.compile(rb"restrict,expiry-time=\"(\d{14})\",command=.* ssh-ed25519 \S+ snaprep:(\S+)")
_EXPIRY = "%Y%m%d%H%M%S"
_LOCK_S = 10.0


@dataclass(frozen=True, slots=True)
class Authorized:
    """A key that is let in. `made` says what did not exist before and is removed with it."""

    run: str
    path: str
    made_file: bool
    made_folder: bool


@dataclass(frozen=True, slots=True)
class Leftover:
    """One of our lines in authorized_keys."""

    run: str
    path: str
    expires_s: float
    expired: bool


def make_key(folder: Path, run: str) -> tuple[Path, str]:
    """A new ed25519 key in `folder` (private to this user): the file and the public half. Raises `no-key`."""
    path = folder / "key"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"snaprep:{checked_run(run)}", "-f", str(path)]
    try:
        process.run(argv, deadline_s=20)
    except process.CommandFailed as error:
        raise SnaprepError("no-key", f"ssh-keygen made no key: {error}", hint="install openssh-client") from error
    kind, data, *_ = path.with_suffix(".pub").read_text("ascii").split()
    return path, f"{kind} {data}"


def authorized_line(public_key: str, run: str, command: list[str], *, lifetime_s: float) -> str:
    """The line for authorized_keys. The expiry is by this host's clock and time zone, as its sshd reads it."""
    if not _PUBLIC.fullmatch(public_key):
        raise SnaprepError("bad-request", "this is no ed25519 public key")
    expires = time.strftime(_EXPIRY, time.localtime(time.time() + lifetime_s))
    quoted = shlex.join(command).replace('"', '\\"')  # sshd undoes exactly this, and no other escape
    return f'restrict,expiry-time="{expires}",command="{quoted}" {public_key} snaprep:{checked_run(run)}'


def default_path(user: str) -> str:
    return str(Path(pwd.getpwnam(user).pw_dir) / ".ssh" / "authorized_keys")


def authorize(line: str, run: str, user: str, path: str | None = None) -> Authorized:
    """Let the key in. Our line comes first, so that taking it away gives the file back byte for byte.

    Raises `authorized-keys` when the file cannot be replaced.
    """
    target = Path(os.path.realpath(path or default_path(user)))
    owner = pwd.getpwnam(user)
    made_folder = _make_folder(target.parent, owner)
    with _locked(target.parent):
        made_file = not target.exists()
        _replace(target, owner, lambda content: line.encode() + b"\n" + content)
    return Authorized(run, str(target), made_file, made_folder)


def withdraw(authorized: Authorized) -> None:
    """Take the key away again; gone already is fine."""
    path = Path(authorized.path)
    if not path.exists():
        return
    with _locked(path.parent):
        _drop(path, lambda run: run == authorized.run)
        if authorized.made_file and path.stat().st_size == 0:
            path.unlink()
    if authorized.made_folder:
        with contextlib.suppress(OSError):  # somebody else uses it by now
            path.parent.rmdir()


def leftovers(user: str, path: str | None = None) -> tuple[Leftover, ...]:
    """Our lines that are there now, of runs under way too."""
    target = Path(os.path.realpath(path or default_path(user)))
    try:
        content = target.read_bytes()
    except FileNotFoundError:
        return ()
    found = []
    for line in content.splitlines():
        if match := _OURS.fullmatch(line):
            expires_s = time.mktime(time.strptime(match[1].decode(), _EXPIRY))
            found.append(Leftover(match[2].decode(), str(target), expires_s, expires_s < time.time()))
    return tuple(found)


def clean(user: str, runs: frozenset[str], path: str | None = None) -> int:
    """Take away our lines of these runs; returns how many there were."""
    target = Path(os.path.realpath(path or default_path(user)))
    there = [left for left in leftovers(user, path) if left.run in runs]
    if there:
        with _locked(target.parent):
            _drop(target, lambda run: run in runs)
    return len(there)


def _drop(path: Path, ours: Callable[[str], bool]) -> None:
    def without(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        return b"".join(
            line
            for line in lines
            if not ((match := _OURS.fullmatch(line.rstrip(b"\r\n"))) and ours(match[2].decode("utf-8", "replace")))
        )

    _replace(path, pwd.getpwuid(path.stat().st_uid), without)


def _make_folder(folder: Path, owner: pwd.struct_passwd) -> bool:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    except OSError as error:
        raise _refused(folder, error) from error
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One rewrite at a time on this host: the folder itself is locked, so no file is left behind."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        until = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise _refused(folder, error) from error
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, owner: pwd.struct_passwd, change: Callable[[bytes], bytes]) -> None:
    try:
        content = path.read_bytes() if _is_there(path, owner) else b""
        changed = change(content)
        if changed != content:
            rewrite(path, changed, new_owner=(owner.pw_uid, owner.pw_gid))
    except OSError as error:
        raise _refused(path, error) from error


def _is_there(path: Path, owner: pwd.struct_passwd) -> bool:
    """Root must not be led to somebody else's file. Raises OSError."""
    if not path.exists():
        return False
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode) or state.st_uid not in (0, owner.pw_uid):
        raise OSError("it is no plain file of that user or of root")
    return True


def _refused(path: Path, error: Exception) -> SnaprepError:
    return SnaprepError(
        "authorized-keys",
        f"{path} cannot be changed: {error}",
        hint="the user that snaprep logs in with must own it; `relay = true` does without a key",
    )
