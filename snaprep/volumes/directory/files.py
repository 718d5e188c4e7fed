"""What lies below a directory, who has it open, and the filesystem around it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snaprep.core.errors import CheckFailed, SnaprepError, Stopped
from snaprep.volumes import mountinfo
from snaprep.volumes.directory import marks

_PROC = Path("/proc")
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The filesystem that holds a directory."""

    path: str  # where it is mounted
    kind: str
    number: int
    import_id: str
    read_only: bool
    free_bytes: int
    size_bytes: int


def store(directory: Path) -> Store:
    """Raises `volume-unavailable`."""
    try:
        found, seen = os.statvfs(directory), directory.stat()
    except OSError as error:
        what = f"{directory} cannot be looked at: {error.strerror}"
        raise CheckFailed("volume-unavailable", what, hint="mount its filesystem, or check derby.database") from error
    top = directory.resolve()
    while not top.is_mount() and top != top.parent:
        top = top.parent
    return Store(
        path=str(top),
        kind=_kind(top),
        number=found.f_fsid,
        import_id=f"{seen.st_dev:x}-{found.f_fsid:x}",
        read_only=bool(found.f_flag & os.ST_RDONLY),
        free_bytes=found.f_bavail * found.f_frsize,
        size_bytes=found.f_blocks * found.f_frsize,
    )


def _kind(top: Path) -> str:
    """As the kernel calls it: ext4, xfs, ... The last mount at a path is the one that is seen."""
    kinds = [row.kind for row in mountinfo.rows() if row.path == str(top)]
    return kinds[-1] if kinds else ""


def size_bytes(directory: Path, until_s: float) -> int:
    """What everything below it occupies. Raises `volume-timeout` when that cannot be told in time."""
    total, folders = 0, [directory]
    while folders:
        if time.monotonic() > until_s:
            what = f"{directory} could not be looked through in time"
            raise SnaprepError("volume-timeout", what, hint="Does the filesystem answer? See the kernel's log.")
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
        except FileNotFoundError:
            continue  # a database removes files while we look
    return total


def users_below(directory: Path) -> Mapping[str, tuple[str, ...]]:
    """Processes with open files below a directory, "pid name" -> the files."""
    prefix, found = f"{directory}/", dict[str, tuple[str, ...]]()
    for process in _PROC.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            files = tuple(t for fd in (process / "fd").iterdir() if (t := _target(fd)).startswith(prefix))
            if files:
                found[f"{process.name} {(process / 'comm').read_text().strip()}"] = files
        except OSError:
            continue  # it ended while we looked
    return found


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)  # noqa: PTH115 (a Path for each open file of a host takes long)
    except FileNotFoundError:
        return ""  # closed since


def inside(users: Mapping[str, tuple[str, ...]], directory: Path) -> tuple[str, ...]:
    """Those of them who have files of this directory open."""
    return tuple(sorted(name for name, files in users.items() if any(f.startswith(f"{directory}/") for f in files)))


def must_be_unused(directory: Path) -> None:
    """Nobody has a file of it open. Raises `dataset-busy`."""
    if users := inside(users_below(directory), directory):
        what = f"{directory} is in use by {', '.join(users)}"
        raise Stopped("dataset-busy", what, hint="end those processes, or wait for them, then go on", details=users)


def remove(directory: Path) -> None:
    """Remove a directory that a run made. Its mark goes last, so what a kill leaves is still known as ours.

    Raises `dataset-busy`: a server goes on with a copy when the run that asked for it has died.
    """
    must_be_unused(directory)
    try:
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != marks.NAME:
                entry.unlink()
        (directory / marks.NAME).unlink(missing_ok=True)
        directory.rmdir()
    except OSError as error:
        what = f"{directory} cannot be removed: {error}"
        raise Stopped("dataset-busy", what, hint="somebody writes into it: see who, then go on") from error
    marks.sync(directory.parent)
