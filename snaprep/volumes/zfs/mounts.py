"""What is mounted where, found by dataset, and which processes are inside.

Nothing here touches a file of the mounts themselves: a hung FUSE daemon must not hang the one who looks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from snaprep.volumes import mountinfo

_ZFS_TYPES = frozenset({"zfs", "fuse.zfs"})
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Mount:
    dataset: str
    path: str
    device: str  # "major:minor"
    read_only: bool = False
    on_top: bool = True  # nothing else was mounted over it at the same path


def of_zfs(rows: Iterable[mountinfo.Row]) -> tuple[Mount, ...]:
    """The ZFS mounts of one mount namespace, in the order in which they were made."""
    every = tuple(rows)
    top = {row.path: row.mount_id for row in every}
    return tuple(
        Mount(row.source, row.path, row.device, "ro" in row.options, top[row.path] == row.mount_id)
        for row in every
        if row.kind in _ZFS_TYPES
    )


def zfs_mounts() -> tuple[Mount, ...]:
    return of_zfs(mountinfo.rows())


def of_dataset(mounts: Iterable[Mount], dataset: str) -> Mount | None:
    return next((m for m in mounts if m.dataset == dataset), None)


def users_of(devices: Collection[str]) -> tuple[str, ...]:
    """Processes with a file, a mapping or their working directory on these devices, as "pid name", by pid."""
    if not devices:
        return ()
    wanted = frozenset(devices)
    namespaces: dict[str, dict[str, str]] = {}  # mount namespace -> mount id -> path, of the wanted devices only
    processes = [path for path in _PROC.iterdir() if path.name.isdecimal()]
    inside = sorted((int(p.name), p) for p in processes if _uses(p, wanted, namespaces))
    return tuple(f"{pid} {_name(process)}" for pid, process in inside)


def _uses(process: Path, wanted: frozenset[str], namespaces: dict[str, dict[str, str]]) -> bool:
    """Processes come and go while we look, and threads of the kernel have no files: neither is an error."""
    try:
        namespace = str((process / "ns/mnt").readlink())
        if namespace not in namespaces:
            namespaces[namespace] = _mount_ids(process, wanted)
        ids = namespaces[namespace]
        if not ids:
            return False
        for link in ("cwd", "root"):
            if _inside(str((process / link).readlink()), ids.values()):
                return True
        return _open_file_on(process, ids) or _mapping_on(process, wanted)
    except OSError:
        return False


def _mount_ids(process: Path, wanted: frozenset[str]) -> dict[str, str]:
    every = mountinfo.parse((process / "mountinfo").read_text(errors="surrogateescape"))
    return {row.mount_id: row.path for row in every if row.device in wanted}


def _inside(path: str, roots: Iterable[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _open_file_on(process: Path, ids: Collection[str]) -> bool:
    for descriptor in (process / "fd").iterdir():
        try:
            if not descriptor.readlink().is_absolute():
                continue  # a pipe or a socket
            info = (process / "fdinfo" / descriptor.name).read_text()
        except FileNotFoundError:
            continue  # closed since
        match = re.search(r"^mnt_id:\s*(\d+)", info, re.MULTILINE)
        if match and match.group(1) in ids:
            return True
    return False


def _mapping_on(process: Path, wanted: frozenset[str]) -> bool:
    numbers = {tuple(int(n) for n in device.split(":")) for device in wanted}
    for line in (process / "maps").read_text(errors="surrogateescape").splitlines():
        device = line.split(maxsplit=4)[3]
        major, minor = device.split(":")
        if (int(major, 16), int(minor, 16)) in numbers:
            return True
    return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "?"
