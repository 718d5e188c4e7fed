"""What a Derby database's files say without booting it, and who has it booted."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snaprep.core.errors import CheckFailed
from snaprep.engines.derby.descriptors import open_by
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.opening import opened

OS_LOCK = "dbex.lck"  # holds the lock
LOCK_NOTE = "db.lck"  # names the holder, and is a sign and no lock
SIGN = "service.properties"  # without it Derby finds no database
AWAY = "service.properties.snaprep-away"
_ASIDE = "service.propertiesold"
_LAST_LINE = "#--- last line"
_REWRITTEN_S, _LOOK_S = 1.0, 0.005
_OF_A_DATABASE = re.compile(r"(.+)/(?:seg0/c[0-9a-f]+|log/log[0-9]+)\.dat")
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid

UNKNOWN_PID = 0


class NotADatabase(Exception):
    """The directory has no service.properties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFiles:
    """`log_directory` is where log<N>.dat lie; `format_version` is what log.ctrl says, (10, 14) for 10.14.2.

    `log_unsafe`: the database was written with derby.system.durability=test, so no crash of it can be recovered.
    """

    directory: Path
    properties: Mapping[str, str]
    log_directory: Path
    log_apart: bool  # a logDevice: the log may lie in another dataset
    encrypted: bool
    log_archived: bool  # as at the next boot; the present one may differ
    format_version: tuple[int, int]
    log_unsafe: bool
    log_end: log.LogPosition | None  # None when the log is encrypted
    jars: tuple[str, ...]  # installed with SQLJ.INSTALL_JAR, replicated by no log


def read(directory: Path) -> DatabaseFiles:
    """All facts of a database in one go. Raises NotADatabase, LogDamaged."""
    properties = service_properties(directory)
    log_at = log_directory(directory)
    encrypted = properties.get("dataEncryption", "").lower() == "true"
    control = log.control(log_at)
    return DatabaseFiles(
        directory=directory,
        properties=properties,
        log_directory=log_at,
        log_apart=log_at.resolve() != (directory / "log").resolve(),
        encrypted=encrypted,
        log_archived=_archives(properties),
        format_version=control.version,
        log_unsafe=control.unsafe,
        log_end=None if encrypted else log.log_end(log_at),
        jars=installed_jars(directory),
    )


def log_archived(directory: Path) -> bool:
    """Whether the log is archived, as at the next boot; the present one may differ. Raises NotADatabase."""
    return _archives(service_properties(directory))


def _archives(properties: Mapping[str, str]) -> bool:
    return properties.get("derby.storage.logArchiveMode", "").lower() == "true"


def service_properties(directory: Path) -> dict[str, str]:
    """service.properties as Java reads it: escapes undone, lines joined. Raises NotADatabase.

    When a property changes Derby puts the file aside and writes it anew: a moment without it, or with a part of it.
    """
    ends = time.monotonic() + _REWRITTEN_S
    text = _sign(directory)
    while text is None or _LAST_LINE not in text:
        if not (directory / _ASIDE).exists() or time.monotonic() > ends:
            text = _sign(directory)  # it is whole by now, or was never being written
            break
        time.sleep(_LOOK_S)
        text = _sign(directory)
    if text is None:
        raise NotADatabase(f"{directory} holds no service.properties")
    return parse_properties(text)


def _sign(directory: Path) -> str | None:
    try:
        return (directory / (AWAY if is_away(directory) else SIGN)).read_text("latin-1")
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_database(directory: Path) -> bool:
    """There are a database's files, whether or not they were put away."""
    return (directory / SIGN).is_file() or is_away(directory)


def is_away(directory: Path) -> bool:
    return (directory / AWAY).is_file() and not (directory / SIGN).exists()


def put_away(directory: Path) -> None:
    """Nobody boots the database any more; who has it booted goes on. Away already is fine.

    Clients that are refused by a gate boot what is shut down all the same, and then its log has moved.
    """
    if not is_away(directory):
        (directory / SIGN).rename(directory / AWAY)


def bring_back(directory: Path) -> None:
    """Take `put_away` back; fine when there is nothing to take back."""
    if is_away(directory):
        (directory / AWAY).rename(directory / SIGN)


def refuse_unsupported(directory: Path) -> None:
    """Raises `encrypted`, `log-device`."""
    properties = service_properties(directory)
    if properties.get("dataEncryption", "").lower() == "true":
        what = f"{directory} is encrypted: its log cannot be compared, so nothing could prove a copy of it"
        raise CheckFailed("encrypted", what, hint="this is not supported")
    logs = log_directory(directory)
    if logs.resolve() != (directory / "log").resolve():
        what = f"the log of {directory} lies in {logs} (logDevice), an absolute path that a replica cannot share"
        hint = "mount a dataset at the database's own log folder instead, and name it in `children`"
        raise CheckFailed("log-device", what, hint=hint)


def parse_properties(text: str) -> dict[str, str]:
    """A Java properties file's text: escapes undone, lines joined."""
    text = re.sub(r"(?<!\\)((?:\\\\)*)\\\r?\n[ \t\f]*", r"\1", text)
    pairs = {}
    for line in text.splitlines():
        match = re.match(r"[ \t\f]*(?![#!])((?:[^\\:= \t\f]|\\.)+)[ \t\f]*[:=]?[ \t\f]*(.*)", line)
        if match:
            pairs[_unescaped(match[1])] = _unescaped(match[2])
    return pairs


def _unescaped(text: str) -> str:
    names = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}

    def plain(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else names.get(match[2], match[2])

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", plain, text)


def installed_jars(directory: Path) -> tuple[str, ...]:
    """Names of the jars stored in the database, relative to its `jar` folder, sorted."""
    jar = directory / "jar"
    return tuple(sorted(str(path.relative_to(jar)) for path in _walk(jar) if path.is_file()))


def locked_by(directory: Path) -> int | None:
    """The process that has the database booted, None when there is none.

    Asked is the kernel: who holds the lock on dbex.lck. UNKNOWN_PID when somebody holds it whom this process cannot
    see: another pid namespace, or another host on a network filesystem.
    """
    try:
        file = opened(directory / OS_LOCK, buffering=0)
    except FileNotFoundError:
        return None
    with file:
        kind, pid = _lock_holder(file.fileno())
        if kind == fcntl.F_UNLCK:
            return None
        identity = os.fstat(file.fileno())
        holders = [holder for holder in opened_by(identity.st_dev, identity.st_ino) if holder != os.getpid()]
    # The number means nothing when it was counted in another namespace: believe it only beside an open file.
    if pid in holders:
        return pid
    return holders[0] if len(holders) == 1 else UNKNOWN_PID


def locked(directory: Path) -> bool:
    """Whether anybody has the database booted; takes no time, for it does not look for who."""
    try:
        with opened(directory / OS_LOCK, buffering=0) as file:
            return _lock_holder(file.fileno())[0] != fcntl.F_UNLCK
    except FileNotFoundError:
        return False


def boot(directory: Path) -> tuple[int, int] | None:
    """Changes with each boot of the database; None while it is shut down."""
    try:
        made = (directory / LOCK_NOTE).stat()
    except FileNotFoundError:
        return None
    return made.st_ino, made.st_mtime_ns


def _lock_holder(file: int) -> tuple[int, int]:
    """(kind of lock, pid) of whoever would keep us from locking the whole file for writing."""
    wish = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, wish))
    return int(kind), int(pid)


def opened_by(device: int, inode: int) -> Iterator[int]:
    """The processes of this pid namespace that have a file open, by /proc."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _has_open(process / "fd", device, inode):
            yield int(process.name)


def _has_open(descriptors: Path, device: int, inode: int) -> bool:
    try:
        links = list(descriptors.iterdir())
    except OSError:  # gone, or not ours to see
        return False
    for link in links:
        try:
            found = link.stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (device, inode):
            return True
    return False


def held_open(pid: int, directory: Path) -> str:
    """A file below a directory that a process has open: a server lets go of a database before it closes them. Empty
    when there is none.
    """
    return next((path for _, path in open_by(pid) if path.startswith(f"{directory}/")), "")


def booted_by(pid: int) -> frozenset[str]:
    """The databases whose data or log a server has open, as the kernel names them."""
    return frozenset(found[1] for _, path in open_by(pid) if (found := _OF_A_DATABASE.fullmatch(path)))


def remove_lock_files(copy: Path) -> tuple[str, ...]:
    """Remove the lock files that travelled in a copy; returns what there was.

    Raises BlockingIOError when somebody has this very directory booted: then it is no copy.
    """
    holder = locked_by(copy)
    if holder is not None:
        raise BlockingIOError(f"{copy} is booted by process {holder or 'out of sight'}")
    present = tuple(name for name in (LOCK_NOTE, OS_LOCK) if (copy / name).exists())
    for name in present:
        (copy / name).unlink()
    return present


_USUAL_PLACES = (
    "/usr/share/java",
    "/usr/share/derby/lib",
    "/opt/derby/lib",
    "/opt/db-derby*/lib",
    "/usr/lib/derby*/lib",
)


def classpath(jars: Sequence[str] = ()) -> tuple[str, ...]:
    """The jars of Derby's client: those given, else derbyclient.jar (and what it needs) from the usual places.

    Raises FileNotFoundError when there is none, or when one that was given is not there.
    """
    missing = [jar for jar in jars if not Path(jar).is_file()]
    if missing:
        raise FileNotFoundError(f"no such jar: {', '.join(missing)}")
    if jars:
        return tuple(jars)
    home = os.environ.get("DERBY_HOME")
    for place in ((f"{home}/lib",) if home else ()) + _USUAL_PLACES:
        for folder in sorted(Path("/").glob(place.lstrip("/")), reverse=True):
            # Since 10.15 the client needs what was split off into derbyshared.jar.
            found = [folder / name for name in ("derbyclient.jar", "derbyshared.jar") if (folder / name).is_file()]
            if found and found[0].name == "derbyclient.jar":
                return tuple(map(str, found))
    raise FileNotFoundError("derbyclient.jar is in none of the usual places")


def log_directory(directory: Path) -> Path:
    """Where the log files lie: beside the data, or under the logDevice. Raises NotADatabase."""
    return Path(service_properties(directory).get("logDevice") or directory) / "log"


def places(directory: Path) -> tuple[Path, ...]:
    """Everything that belongs to a database, wherever links and a logDevice lead; empty when there is none."""
    try:
        logs = log_directory(directory)
    except NotADatabase:
        return ()
    named = (directory, directory / "seg0", directory / "jar", logs)
    return tuple(path for path in named if path.exists())


def occupied_bytes(directory: Path) -> int:
    """What the filesystem gave out, not lengths of files: Derby allocates ahead, and datasets compress."""
    total = 0
    for path in _walk(directory):
        try:
            found = path.lstat()
        except FileNotFoundError:  # a database at work makes and removes files
            continue
        if stat.S_ISREG(found.st_mode):
            total += found.st_blocks * 512
    return total


def _walk(directory: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(directory):
        for name in names:
            yield Path(folder, name)
