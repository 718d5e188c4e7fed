"""`ZfsOps` by libzfs_core: no process, no text to parse, and several snapshots in one transaction.

Each call is noted as the command that a person would have typed for it.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Queue
from typing import TypeVar, cast

from snaprep.agent import process
from snaprep.core.errors import SnaprepError
from snaprep.volumes import libzfs_core as lzc
from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.zfs import stream as zfs_stream
from snaprep.volumes.zfs.command import COMMAND_S
from snaprep.volumes.zfs.errors import hint_of

T = TypeVar("T")

# What a call says when it refuses, as our error ids: by the first class that fits, else by the number.
_IDS: tuple[tuple[tuple[type[lzc_exc.ZFSError], ...], str], ...] = (
    ((lzc_exc.SnapshotExists,), "snapshot-exists"),
    ((lzc_exc.SnapshotIsHeld,), "point-held"),
    ((lzc_exc.SnapshotIsCloned,), "has-dependents"),
    ((lzc_exc.NoSpace, lzc_exc.QuotaExceeded), "no-space"),
    ((lzc_exc.ReadOnlyPool,), "pool-unhealthy"),
    ((lzc_exc.SnapshotMismatch,), "base-missing"),
    ((lzc_exc.SuspendedPool, lzc_exc.ZFSInitializationFailed), "volume-unavailable"),
    ((lzc_exc.EncryptionKeyNotLoaded,), "key-not-loaded"),
)
_CODES = {
    errno.ENOENT: "unknown-dataset",
    errno.EPERM: "not-permitted",
    errno.EACCES: "not-permitted",
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.EBUSY: "dataset-busy",
    errno.EROFS: "pool-unhealthy",
    errno.EIO: "volume-unavailable",
}
_FLAGS = {"-L": ("large_blocks",), "-c": ("compress",), "-e": ("embedded_data",), "-w": ("raw",)}


def why_not(pool: str) -> str:
    """What keeps the library from being used for a pool that is there; empty when it answers."""
    try:
        found = _in_time(lambda: lzc.lzc_exists(pool))
    except lzc_exc.ZFSInitializationFailed as error:
        return error.reason
    except lzc_exc.ZFSError as error:
        return str(error)
    return "" if found else f"libzfs_core does not see pool {pool}"


class LibraryOps:
    """By the C library. Ask `why_not` first."""

    @property
    def way(self) -> str:
        return "snapshots, holds and estimates by libzfs_core; streams, mounts and properties by the zfs command"

    def existing(self, names: Sequence[str]) -> list[str]:
        """Raises `volume-unavailable` where nothing can be looked at: the library calls that absent, too."""
        found = [name for name in names if _exists(name)]
        pools = {re.split("[/@#]", name, maxsplit=1)[0] for name in names if name not in found}
        for pool in sorted(pools):
            if not _exists(pool):
                raise _error("volume-unavailable", f"pool {pool} is not there, or does not answer")
        return found

    def snapshot(self, snapshots: Sequence[str], properties: Mapping[str, str]) -> None:
        marks: dict[bytes, object] = {name.encode(): value.encode() for name, value in properties.items()}
        _called(["snapshot", *zfs_stream.options(properties), *snapshots], lambda: lzc.lzc_snapshot(snapshots, marks))

    def hold(self, tag: str, snapshots: Sequence[str]) -> None:
        """One that is held already keeps the kernel from holding any, and it names one at a time: the others are asked
        for again without it.
        """

        def hold() -> list[bytes]:
            left = list(snapshots)
            while left:
                try:
                    return lzc.lzc_hold(dict.fromkeys(left, tag))
                except lzc_exc.HoldFailure as failure:
                    held = {error.name for error in failure.errors if isinstance(error, lzc_exc.HoldExists)}
                    rest = [snapshot for snapshot in left if snapshot.encode() not in held]
                    if rest == left:
                        raise
                    left = rest
            return []

        if absent := _called(["hold", tag, *snapshots], hold):
            raise _error("unknown-dataset", f"{absent[0].decode()} does not exist")

    def release(self, tag: str, snapshots: Sequence[str]) -> list[str]:
        def release() -> None:
            try:
                lzc.lzc_release({snapshot: [tag] for snapshot in snapshots})
            except lzc_exc.HoldReleaseFailure as failure:
                if not all(isinstance(error, lzc_exc.HoldNotFound) for error in failure.errors):
                    raise

        _called(["release", tag, *snapshots], release)
        return self.existing(snapshots)

    def destroy(self, snapshots: Sequence[str]) -> None:
        """All of them, or none. Raises `point-held`; `dataset-busy` when what holds one is no hold but a running send,
        which ZFS tells by the same number.
        """
        try:
            _called(["destroy", *snapshots], lambda: lzc.lzc_destroy_snaps(snapshots, defer=False))
        except SnaprepError as error:
            if error.id == "point-held" and not any(lzc.lzc_get_holds(s) for s in self.existing(snapshots)):
                raise _error("dataset-busy", f"{' or '.join(snapshots)} is being read") from error
            raise

    def bookmark(self, snapshots: Sequence[str]) -> None:
        """All of them or none, so what is there already is left out."""

        def bookmark() -> None:
            left = list(snapshots)
            while left:
                try:
                    lzc.lzc_bookmark({snapshot.replace("@", "#"): snapshot for snapshot in left})
                except lzc_exc.BookmarkFailure as failure:
                    there = {error.name for error in failure.errors if isinstance(error, lzc_exc.BookmarkExists)}
                    rest = [snapshot for snapshot in left if snapshot.replace("@", "#").encode() not in there]
                    if rest == left:
                        raise
                    left = rest
                else:
                    return

        _called(["bookmark", *snapshots], bookmark)

    def bookmarks(self, dataset: str) -> list[str]:
        typed = ["list", "-H", "-d", "1", "-o", "name", "-t", "bookmark", dataset]
        return [f"{dataset}#{name.decode()}" for name in _called(typed, lambda: lzc.lzc_get_bookmarks(dataset))]

    def destroy_bookmarks(self, bookmarks: Sequence[str]) -> None:
        """All of them, or none."""
        if bookmarks:
            _called(["destroy", *bookmarks], lambda: lzc.lzc_destroy_bookmarks(bookmarks))

    def stream_bytes(self, snapshot: str, base: str | None, flags: Sequence[str]) -> int:
        words = [word for flag in flags for word in _FLAGS[flag]]
        typed = zfs_stream.dry(zfs_stream.send(snapshot, base, flags))
        return _called(typed[1:], lambda: lzc.lzc_send_space(snapshot, base, words))

    def sync(self, pool: str) -> None:
        _called([pool], lambda: lzc.lzc_sync(pool), command=("zpool", "sync"))


def _exists(name: str) -> bool:
    return _called(["list", "-H", "-o", "name", name], lambda: lzc.lzc_exists(name))


def _called(words: Sequence[str], act: Callable[[], T], *, command: Sequence[str] = ("zfs",)) -> T:
    """What the call returns; `words` are those of the command that does the same."""
    process.noted([*command, *words])
    try:
        return _in_time(act)
    except lzc_exc.ZFSError as error:
        raise _explained(error) from error


def _in_time(act: Callable[[], T]) -> T:
    """A call to the kernel cannot be interrupted: when it does not return in time, it is left behind in its thread.

    Raises `volume-timeout`.
    """
    done: Queue[tuple[T | None, BaseException | None]] = Queue()

    def run() -> None:
        try:
            done.put((act(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
            done.put((None, error))

    threading.Thread(target=run, name="libzfs_core", daemon=True).start()
    deadline_s = process.patient_s(COMMAND_S)
    try:
        value, error = done.get(timeout=deadline_s)
    except Empty:
        raise _error("volume-timeout", f"libzfs_core has not answered for {deadline_s:g} s") from None
    if error is not None:
        raise error
    return cast("T", value)


def _explained(error: lzc_exc.ZFSError) -> SnaprepError:
    """The error that people see. Of a call on several things, the first that failed."""
    first = error.errors[0] if isinstance(error, lzc_exc.MultipleOperationsFailure) else error
    by_class = next((meant for kinds, meant in _IDS if isinstance(first, kinds)), None)
    return _error(by_class or _CODES.get(first.code or 0, "zfs-failed"), str(error))


def _error(id: str, what: str) -> SnaprepError:
    return SnaprepError(id, what, hint=hint_of(id))
