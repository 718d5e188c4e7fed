"""libzfs_core's functions for snapshots, holds and bookmarks: many at once, all or none.

The examples need the kernel module. They are run with a pool `tank`, a filesystem `tank/db` and its snapshots
`tank/db@monday` and `tank/db@tuesday`, and `lzc` is this binding.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable, Sequence
from typing import Any, cast

from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.lzc import translate
from snaprep.volumes.lzc.library import Output, call
from snaprep.volumes.lzc.names import ByName, Name, Properties, as_name, as_names

BookmarkProperties = dict[bytes, dict[bytes, Any]]


def _absent(failed: Output) -> list[bytes]:
    """What a call that succeeded has passed over."""
    return list(failed.pairs)


def lzc_snapshot(snaps: Iterable[Name], props: Properties | None = None) -> None:
    """Make snapshots, of several filesystems of one pool in one transaction: all of them or none.

    `props` are user properties (names with a colon) of each of them, text as bytes.

    Raises SnapshotFailure. Its `errors` name each snapshot that exists already; for every other cause the kernel names
    the snapshot only when there was one: FilesystemNotFound, DuplicateSnapshots, PoolsDiffer, NameInvalid, NameTooLong,
    PropertyInvalid.

    >>> lzc.lzc_snapshot([b"tank/db@now", b"tank@now"], {b"snaprep:run": b"7"})
    >>> try:
    ...     lzc.lzc_snapshot([b"tank/db@now"])
    ... except lzc.exceptions.SnapshotFailure as failure:
    ...     failure.failures
    ((b'tank/db@now', 17),)
    """
    wanted, failed = as_names(snaps), Output()
    code = call("lzc_snapshot", wanted, props or {}, failed)
    if code:
        names = list(wanted)
        raise translate.several(
            code,
            failed.pairs,
            names,
            lzc_exc.SnapshotFailure,
            lambda number, name: translate.snapshot(number, name, names),
        )


def lzc_destroy_snaps(snaps: Iterable[Name], defer: bool) -> None:  # noqa: FBT001  # pyzfs's signature
    """Destroy snapshots of one pool, all or none. Those that do not exist are passed over.

    With `defer`, one that is held or cloned goes when the last hold or clone does.

    Raises SnapshotDestructionFailure: SnapshotIsCloned, SnapshotIsHeld, PoolNotFound.

    >>> lzc.lzc_destroy_snaps([b"tank/db@monday", b"tank/db@never"], defer=False)
    """
    wanted, failed = as_names(snaps), Output()
    code = call("lzc_destroy_snaps", wanted, defer, failed)
    if code:
        raise translate.several(
            code, failed.pairs, list(wanted), lzc_exc.SnapshotDestructionFailure, translate.destroy_snapshot
        )


def lzc_snaprange_space(firstsnap: Name, lastsnap: Name) -> int:
    """Bytes that would be free if all snapshots from the first to the last were destroyed.

    Raises SnapshotNotFound, SnapshotMismatch, PoolsDiffer, NameInvalid, NameTooLong.

    >>> lzc.lzc_snaprange_space(b"tank/db@monday", b"tank/db@tuesday") >= 0
    True
    """
    first, last = as_name(firstsnap), as_name(lastsnap)
    space = ctypes.c_uint64()
    code = call("lzc_snaprange_space", first, last, ctypes.byref(space))
    if code:
        raise translate.range_space(code, first, last)
    return space.value


def lzc_hold(holds: ByName[Name], fd: int | None = None) -> list[bytes]:
    """Hold snapshots of one pool, so that nothing destroys them. `holds` maps snapshots to tags; all or none.

    With `fd`, a descriptor of /dev/zfs opened with O_EXCL, the holds end when it is closed: at the latest with the
    process, and after a power cut at the next import.

    Returns the snapshots that do not exist, which were passed over. Raises BadHoldCleanupFD, and HoldFailure:
    HoldExists, NameTooLong (the tag), PoolsDiffer, NameInvalid, FeatureNotSupported.

    >>> descriptor = os.open("/dev/zfs", os.O_EXCL)
    >>> lzc.lzc_hold({b"tank/db@monday": b"mine", b"tank/db@never": b"mine"}, descriptor)
    [b'tank/db@never']
    >>> os.close(descriptor)
    >>> lzc.lzc_get_holds(b"tank/db@monday")
    {}
    """
    wanted = {as_name(snapshot): as_name(tag) for snapshot, tag in holds.items()}
    failed = Output()
    code = call("lzc_hold", dict(wanted), -1 if fd is None else fd, failed)
    if code == errno.EBADF:
        raise translate.coded(lzc_exc.BadHoldCleanupFD(), code)
    if code:
        raise translate.several(
            code,
            failed.pairs,
            list(wanted),
            lzc_exc.HoldFailure,
            lambda number, name: translate.hold(number, name, wanted),
        )
    return _absent(failed)


def lzc_release(holds: ByName[Sequence[Name]]) -> list[bytes]:
    """End holds. `holds` maps snapshots of one pool to lists of tags.

    Returns what does not exist and was passed over: snapshots, and `snapshot#tag` for tags. Raises HoldReleaseFailure:
    HoldNotFound, PoolsDiffer, NameInvalid, NameTooLong, FeatureNotSupported.

    >>> lzc.lzc_hold({b"tank/db@monday": b"mine"})
    []
    >>> lzc.lzc_release({b"tank/db@monday": [b"mine", b"yours"]})
    [b'tank/db@monday#yours']
    """
    wanted: dict[bytes, list[bytes]] = {}
    for snapshot, tags in holds.items():
        if not isinstance(tags, (list, tuple)):
            raise TypeError("the tags of a snapshot are a list")
        wanted[as_name(snapshot)] = [as_name(tag) for tag in tags]
    failed = Output()
    code = call("lzc_release", {snapshot: as_names(tags) for snapshot, tags in wanted.items()}, failed)
    if code:
        raise translate.several(
            code,
            failed.pairs,
            list(wanted),
            lzc_exc.HoldReleaseFailure,
            lambda number, name: translate.release(number, name, wanted),
        )
    return _absent(failed)


def lzc_get_holds(snapname: Name) -> dict[bytes, int]:
    """The tags under which a snapshot is held, each with its time in seconds since 1970.

    Raises SnapshotNotFound, SnapshotNameInvalid, NameTooLong, FeatureNotSupported.

    >>> lzc.lzc_hold({b"tank/db@monday": b"mine"})
    []
    >>> list(lzc.lzc_get_holds(b"tank/db@monday"))
    [b'mine']
    """
    snapshot, holds = as_name(snapname), Output()
    code = call("lzc_get_holds", snapshot, holds)
    if code:
        raise translate.get_holds(code, snapshot)
    return cast("dict[bytes, int]", holds.pairs)


def lzc_bookmark(bookmarks: ByName[Name]) -> None:
    """Make bookmarks. `bookmarks` maps new bookmarks to snapshots, or to bookmarks where the pool can copy them.

    Raises BookmarkFailure: BookmarkExists, SnapshotNotFound, BookmarkNotSupported, BookmarkMismatch,
    BookmarkSourceInvalid, BookmarkNameInvalid, NameTooLong, PoolsDiffer.

    >>> lzc.lzc_bookmark({b"tank/db#monday": b"tank/db@monday"})
    """
    wanted = {as_name(bookmark): as_name(source) for bookmark, source in bookmarks.items()}
    failed = Output()
    code = call("lzc_bookmark", dict(wanted), failed)
    if code:
        raise translate.several(
            code,
            failed.pairs,
            list(wanted),
            lzc_exc.BookmarkFailure,
            lambda number, name: translate.bookmark(number, name, wanted),
        )


def lzc_get_bookmarks(fsname: Name, props: Iterable[Name] | None = None) -> dict[bytes, BookmarkProperties]:
    """The bookmarks of a filesystem by their short names, each with the properties that were asked for.

    `props` are names: `guid`, `createtxg` and `creation` (seconds since 1970), on newer pools more. Each property is a
    dict with `value`.

    Raises FilesystemNotFound.

    >>> lzc.lzc_bookmark({b"tank/db#monday": b"tank/db@monday"})
    >>> list(lzc.lzc_get_bookmarks(b"tank/db", [b"guid"])[b"monday"])
    [b'guid']
    """
    filesystem, found = as_name(fsname), Output()
    code = call("lzc_get_bookmarks", filesystem, as_names(props or ()), found)
    if code:
        raise translate.one(code, filesystem, "list the bookmarks", {errno.ENOENT: lzc_exc.FilesystemNotFound})
    return cast("dict[bytes, BookmarkProperties]", found.pairs)


def lzc_get_bookmark_props(bookmark: Name) -> BookmarkProperties:
    """All properties of one bookmark, each a dict with `value`. OpenZFS 2.0 and later; not in pyzfs.

    Raises BookmarkNotFound, BookmarkNameInvalid, FunctionNotSupported.

    >>> lzc.lzc_bookmark({b"tank/db#monday": b"tank/db@monday"})
    >>> b"guid" in lzc.lzc_get_bookmark_props(b"tank/db#monday")
    True
    """
    name, found = as_name(bookmark), Output()
    code = call("lzc_get_bookmark_props", name, found)
    if code:
        raise translate.bookmark_properties(code, name)
    return cast("BookmarkProperties", found.pairs)


def lzc_destroy_bookmarks(bookmarks: Iterable[Name]) -> None:
    """Destroy bookmarks of one pool, all or none. Those that do not exist are passed over.

    Raises BookmarkDestructionFailure: NameInvalid.

    >>> lzc.lzc_destroy_bookmarks([b"tank/db#never"])
    """
    wanted, failed = as_names(bookmarks), Output()
    code = call("lzc_destroy_bookmarks", wanted, failed)
    if code:
        raise translate.several(
            code, failed.pairs, list(wanted), lzc_exc.BookmarkDestructionFailure, translate.destroy_bookmark
        )
