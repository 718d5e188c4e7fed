"""Running `zfs`, with our errors, and the few sequences that have to wait for a kernel or a daemon."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from snaprep.agent.process import CommandFailed, Completed, run
from snaprep.core.errors import SnaprepError
from snaprep.core.volume import Image
from snaprep.volumes.base import Volume
from snaprep.volumes.zfs import mounts as zfs_mounts
from snaprep.volumes.zfs import privileged
from snaprep.volumes.zfs.errors import explain
from snaprep.volumes.zfs.facts import Rows, parse_get, parse_json
from snaprep.volumes.zfs.features import has_json, usage

COMMAND_S = 20.0  # most that one zfs command may take
# zfs-fuse says "busy" for a moment after an unmount, and while what was written to a clone goes to its disk: that is
# done every 5 s, and renaming the clone's origin was refused for up to 5.1 s.
BUSY_S = 15.0
_PAUSE_S = 0.02


def program(argv: list[str], *, deadline_s: float = COMMAND_S) -> Completed:
    """Run a program; what it complains about becomes a SnaprepError."""
    try:
        return run(argv, deadline_s=deadline_s)
    except CommandFailed as error:
        raise explain(error) from error


def zfs(*words: str, deadline_s: float = COMMAND_S) -> str:
    return program(["zfs", *words], deadline_s=deadline_s).text


def get(props: Iterable[str], names: Iterable[str], *options: str, deadline_s: float = COMMAND_S) -> Rows:
    """Properties of several datasets or snapshots with one process. Raises `unknown-dataset` when one is missing."""
    words = [*options, ",".join(props), *names]
    if speaks_json():  # in text a value with a line end looks like lines of its own
        rows = parse_json(zfs("get", "-jp", *words, deadline_s=deadline_s))
        if rows is not None:
            return rows
    return parse_get(zfs("get", "-Hp", "-o", "name,property,value,source", *words, deadline_s=deadline_s))


@functools.cache
def speaks_json() -> bool:
    """Whether this host's `zfs get` has -j. Asked once. Raises `volume-unavailable`."""
    try:
        return has_json(usage(["zfs", "get"], COMMAND_S))
    except CommandFailed as error:
        raise explain(error) from error


def get_local(names: Iterable[str]) -> Rows:
    """Every property that is set right on these datasets, user properties included."""
    return get(["all"], names, "-s", "local")


def existing(names: Iterable[str]) -> list[str]:
    """Those of the named datasets that exist."""
    found: list[str] = []
    for name in names:
        try:
            zfs("list", "-H", "-o", "name", name)
        except SnaprepError as error:
            if error.id != "unknown-dataset":
                raise
        else:
            found.append(name)
    return found


def mounts_below(image: str) -> list[zfs_mounts.Mount]:
    return [m for m in zfs_mounts.zfs_mounts() if m.dataset == image or m.dataset.startswith(f"{image}/")]


def users_of(mounts: Iterable[zfs_mounts.Mount]) -> tuple[str, ...]:
    """The processes that have something open in these mounts, as "pid name"."""
    return zfs_mounts.users_of({m.device for m in mounts})


def when_free(image: str, act: Callable[[], object]) -> None:
    """Repeat what is refused as busy while nobody can be seen inside, for a bounded time. Raises `dataset-busy`."""
    end = time.monotonic() + BUSY_S
    while True:
        try:
            act()
        except SnaprepError as error:
            if error.id != "dataset-busy":
                raise
            users = users_of(mounts_below(image))
            if users or time.monotonic() > end:
                raise _busy(image, users, error.info.what) from error
            time.sleep(_PAUSE_S)
        else:
            return


def _busy(image: str, users: Sequence[str], said: str = "") -> SnaprepError:
    by = f"by {', '.join(users)}" if users else f"and no process can be seen inside: {said}"
    return SnaprepError(
        "dataset-busy", f"{image} is in use {by}", hint="End those processes, then go on.", details=tuple(users)
    )


def unmount(image: str) -> None:
    """Unmount what of the image is mounted, deepest first. Raises `dataset-busy` with the processes that hold it."""
    mounted = mounts_below(image)
    users = users_of(mounted)
    if users:
        raise _busy(image, users)
    for mount in sorted(mounted, key=lambda m: m.dataset, reverse=True):
        when_free(image, lambda mount=mount: program(privileged.unmount(mount.dataset, mount.path)))  # type: ignore[misc]


def is_at(paths: dict[str, str]) -> bool:
    """Whether each dataset is mounted at its path, with nothing over it."""
    mounts = {m.dataset: m for m in zfs_mounts.zfs_mounts()}
    return all(n in mounts and mounts[n].path == path and mounts[n].on_top for n, path in paths.items())


def require_free_path(image: str, mountpoint: str) -> None:
    taken = [m for m in zfs_mounts.zfs_mounts() if m.path == mountpoint and m.dataset != image]
    if taken:
        what = f"{taken[-1].dataset} is mounted at {mountpoint}"
        raise SnaprepError("mountpoint-taken", what, hint="Unmount it first; it is not touched.")


def mount_parts(image: str, paths: dict[str, str]) -> None:
    """Mount what is not mounted yet, and prove it. `paths` is in order, the root's first.

    zfs-fuse mounts a clone that has a path by itself; a kernel's ZFS does not with canmount=noauto.
    """
    for name, path in paths.items():
        if zfs_mounts.of_dataset(zfs_mounts.zfs_mounts(), name) is None:
            when_free(image, lambda name=name, path=path: program(privileged.mount(name, path)))  # type: ignore[misc]
    if not is_at(paths):
        wrong = ", ".join(f"{name} at {path}" for name, path in paths.items())
        what = f"after mounting, not all of this is so: {wrong}"
        raise SnaprepError("mount-failed", what, hint="Look what is at the path; it is not touched.")


def with_users(image: Image) -> Image:
    """The same with the processes that have something of it open."""
    users = users_of(mounts_below(image.name))
    return replace(image, in_use_by=users) if users else image


@contextlib.contextmanager
def mounted(volume: Volume, image: str, at: Path) -> Iterator[Path]:
    """Have an image mounted at a path for a while."""
    volume.mount(image, str(at))
    try:
        yield at
    finally:
        volume.unmount(image)
        with contextlib.suppress(OSError):
            at.rmdir()
