"""From a C function's number to the exception that says what it means there.

The kernel reuses few numbers for many causes, so the arguments are looked at again: EINVAL is a bad name when a name is
bad, else a bad property, and so on. Every function takes a number other than 0 and returns an exception.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.lzc.constants import ECKSUM, MAXNAMELEN, zfs_errno
from snaprep.volumes.lzc.exceptions import MultipleOperationsFailure, ZFSError
from snaprep.volumes.lzc.names import (
    Maker,
    bad_filesystem,
    bad_name,
    bad_snapshot,
    filesystem_of,
    is_bookmark,
    is_filesystem,
    is_snapshot,
    pool_of,
)

_GENERAL: dict[int, Maker] = {
    errno.EIO: lzc_exc.ZIOError,
    errno.ENOSPC: lzc_exc.NoSpace,
    errno.EDQUOT: lzc_exc.QuotaExceeded,
    errno.EBUSY: lzc_exc.DatasetBusy,
    errno.ENAMETOOLONG: lzc_exc.NameTooLong,
    errno.EROFS: lzc_exc.ReadOnlyPool,
    errno.EAGAIN: lzc_exc.SuspendedPool,
    errno.EXDEV: lzc_exc.PoolsDiffer,
    errno.ENOTSUP: lzc_exc.PropertyNotSupported,
}
# Numbers that tell of the descriptor rather than of ZFS, when a stream is written or read.
_STREAM_IO = {
    errno.EIO, errno.EPIPE, errno.EBADF, errno.EINTR, errno.EFBIG, errno.ECONNRESET, errno.ETIMEDOUT, errno.ESPIPE,
    errno.EFAULT, errno.ENXIO,
}  # fmt: skip


def coded(error: ZFSError, code: int) -> ZFSError:
    """The exception, knowing the number that it was made from."""
    error.code = code
    return error


def generic(code: int, name: bytes | None, doing: str) -> ZFSError:
    maker = _GENERAL.get(code)
    return lzc_exc.ZFSGenericError(code, name, f"cannot {doing}") if maker is None else coded(maker(name), code)


def one(code: int, name: bytes, doing: str, meanings: Mapping[int, Maker], *, invalid: Maker | None = None) -> ZFSError:
    """For a function that works on one filesystem: EINVAL is its name, else `invalid`."""
    error: ZFSError | None = None
    if code == errno.EINVAL:
        error = bad_filesystem(name) or (invalid(name) if invalid else None)
    elif code in meanings:
        error = meanings[code](name)
    return generic(code, name, doing) if error is None else coded(error, code)


def create(code: int, name: bytes) -> ZFSError:
    meanings: dict[int, Maker] = {
        errno.EEXIST: lzc_exc.FilesystemExists,
        errno.ENOENT: lzc_exc.ParentNotFound,
        zfs_errno.ZFS_ERR_WRONG_PARENT: lambda _: lzc_exc.WrongParent(filesystem_of(name)),
        zfs_errno.ZFS_ERR_BADPROP: lzc_exc.PropertyInvalid,
    }
    return one(code, name, "create", meanings, invalid=lzc_exc.PropertyInvalid)


def clone(code: int, name: bytes, origin: bytes) -> ZFSError:
    if code == errno.EINVAL:
        return coded(bad_filesystem(name) or bad_snapshot(origin) or lzc_exc.PropertyInvalid(name), code)
    if code == errno.ENOENT and not is_snapshot(origin):
        return coded(lzc_exc.SnapshotNameInvalid(origin), code)
    meanings: dict[int, Maker] = {
        errno.EEXIST: lzc_exc.FilesystemExists,
        errno.ENOENT: lzc_exc.DatasetNotFound,
        zfs_errno.ZFS_ERR_WRONG_PARENT: lzc_exc.WrongParent,
        zfs_errno.ZFS_ERR_BADPROP: lzc_exc.PropertyInvalid,
    }
    return one(code, name, "clone", meanings)


def rollback(code: int, name: bytes, snapshot: bytes | None = None) -> ZFSError:
    if code == errno.EEXIST and snapshot is not None:
        return coded(lzc_exc.SnapshotNotLatest(snapshot), code)
    if code == errno.ENOENT and not is_filesystem(name):
        return coded(lzc_exc.NameInvalid(name), code)
    meanings: dict[int, Maker] = {
        errno.ESRCH: lambda _: lzc_exc.SnapshotNotFound(snapshot or name),
        errno.ENOENT: lzc_exc.FilesystemNotFound,
    }
    return one(code, name, "roll back", meanings, invalid=lzc_exc.NameInvalid)


def promote(code: int, name: bytes, snapshot: bytes) -> ZFSError:
    """`snapshot` is the one that both sides have, as the kernel tells it with EEXIST."""
    meanings: dict[int, Maker] = {
        errno.ENOTSOCK: lzc_exc.NotClone,
        errno.ENOENT: lzc_exc.FilesystemNotFound,
        errno.EEXIST: lambda _: lzc_exc.SnapshotExists(name + b"@" + snapshot if snapshot else name),
        errno.EACCES: lzc_exc.EncryptionKeyNotLoaded,
    }
    return one(code, name, "promote", meanings, invalid=lzc_exc.NotClone)


def rename(code: int, source: bytes, target: bytes) -> ZFSError:
    if code == errno.EINVAL:
        error = bad_filesystem(source) or bad_filesystem(target)
        if error is None and pool_of(source) != pool_of(target):
            error = lzc_exc.PoolsDiffer(source)
        return generic(code, source, "rename") if error is None else coded(error, code)
    meanings: dict[int, Maker] = {
        errno.EEXIST: lambda _: lzc_exc.FilesystemExists(target),
        errno.ENOENT: lzc_exc.FilesystemNotFound,
        zfs_errno.ZFS_ERR_WRONG_PARENT: lambda _: lzc_exc.WrongParent(target),
    }
    return one(code, source, "rename", meanings)


def several(
    code: int,
    failed: Mapping[bytes, object],
    names: Sequence[bytes],
    compound: type[MultipleOperationsFailure],
    meaning: Callable[[int, bytes | None], ZFSError],
) -> MultipleOperationsFailure:
    """One exception for a call on several things, with an exception for each that the kernel names.

    Where it names none, the cause is known only when there was one thing.
    """
    listed = {name: int(number) for name, number in failed.items() if isinstance(number, int)}
    suppressed = listed.pop(b"N_MORE_ERRORS", 0)
    errors = [coded(meaning(number, name), number) for name, number in listed.items()]
    if not errors:
        errors = [coded(meaning(code, names[0] if len(names) == 1 else None), code)]
    error = compound(errors, suppressed)
    # A receive that only could not set properties returns 0: then the number is the first failure's.
    if code:
        error.code = code
    return error


def snapshot(code: int, name: bytes | None, names: Sequence[bytes]) -> ZFSError:
    if code == errno.EXDEV:
        one_pool = len({pool_of(each) for each in names}) == 1
        return lzc_exc.DuplicateSnapshots(name) if one_pool else lzc_exc.PoolsDiffer(name)
    if code == errno.EINVAL:
        if not all(is_snapshot(each) for each in names):
            return lzc_exc.NameInvalid(name)
        too_long = any(len(each) > MAXNAMELEN for each in names)
        return lzc_exc.NameTooLong(name) if too_long else lzc_exc.PropertyInvalid(name)
    if code == errno.EEXIST:
        return lzc_exc.SnapshotExists(name)
    if code == errno.ENOENT:
        return lzc_exc.FilesystemNotFound(name)
    return generic(code, name, "make the snapshot")


def destroy_snapshot(code: int, name: bytes | None) -> ZFSError:
    meanings: dict[int, Maker] = {
        errno.EEXIST: lzc_exc.SnapshotIsCloned,
        errno.ENOENT: lzc_exc.PoolNotFound,
        errno.EBUSY: lzc_exc.SnapshotIsHeld,
    }
    return meanings[code](name) if code in meanings else generic(code, name, "destroy the snapshot")


def bookmark(code: int, name: bytes | None, wanted: Mapping[bytes, bytes]) -> ZFSError:
    if code == errno.EINVAL:
        wrong = _bad_bookmark(name, wanted)
        if wrong is not None:
            return wrong
    source = wanted.get(name) if name is not None else None
    if code == zfs_errno.ZFS_ERR_BOOKMARK_SOURCE_NOT_ANCESTOR:
        return lzc_exc.BookmarkMismatch(source)
    meanings: dict[int, Maker] = {
        errno.EEXIST: lzc_exc.BookmarkExists,
        errno.ENOENT: lzc_exc.SnapshotNotFound,
        errno.ENOTSUP: lzc_exc.BookmarkNotSupported,
    }
    return meanings[code](name) if code in meanings else generic(code, name, "make the bookmark")


def _bad_bookmark(name: bytes | None, wanted: Mapping[bytes, bytes]) -> ZFSError | None:
    if name is None:
        invalid = next((each for each in wanted if not is_bookmark(each)), None)
        return None if invalid is None else lzc_exc.BookmarkNameInvalid(invalid)
    error = bad_name(name, is_bookmark, lzc_exc.BookmarkNameInvalid)
    if error is not None:
        return error
    source = wanted.get(name, b"")
    if len(source) > MAXNAMELEN or not (is_snapshot(source) or is_bookmark(source)):
        return lzc_exc.BookmarkSourceInvalid(source)
    return lzc_exc.PoolsDiffer(name) if len({pool_of(each) for each in wanted}) > 1 else None


def redact(code: int, snapshot: bytes, bookmark: bytes) -> ZFSError:
    if code == errno.EINVAL:
        wrong = bad_snapshot(snapshot) or bad_name(bookmark, is_bookmark, lzc_exc.BookmarkNameInvalid)
        return coded(wrong or lzc_exc.SnapshotMismatch(snapshot), code)
    meanings: dict[int, ZFSError] = {
        errno.ENOENT: lzc_exc.SnapshotNotFound(snapshot),
        errno.EEXIST: lzc_exc.BookmarkExists(bookmark),
        errno.ENAMETOOLONG: lzc_exc.NameTooLong(bookmark),
        errno.ENOTSUP: lzc_exc.BookmarkNotSupported(bookmark),
    }
    return coded(meanings[code], code) if code in meanings else generic(code, snapshot, "redact the snapshot")


def destroy_bookmark(code: int, name: bytes | None) -> ZFSError:
    return lzc_exc.NameInvalid(name) if code == errno.EINVAL else generic(code, name, "destroy the bookmark")


def bookmark_properties(code: int, name: bytes) -> ZFSError:
    error: ZFSError | None = None
    if code == errno.EINVAL:
        error = bad_name(name, is_bookmark, lzc_exc.BookmarkNameInvalid)
    elif code in {errno.ENOENT, errno.ESRCH}:
        error = lzc_exc.BookmarkNotFound(name)
    return generic(code, name, "read the bookmark") if error is None else coded(error, code)


def _bad_held(name: bytes | None, names: Iterable[bytes]) -> ZFSError | None:
    """What makes EINVAL of a hold or release: a name, or the pools."""
    names = list(names)
    if name is None:
        invalid = next((each for each in names if not is_snapshot(each)), None)
        return None if invalid is None else lzc_exc.NameInvalid(invalid)
    error = bad_name(name, is_snapshot, lzc_exc.NameInvalid)
    if error is None and len({pool_of(each) for each in names}) > 1:
        error = lzc_exc.PoolsDiffer(name)
    return error


def hold(code: int, name: bytes | None, holds: Mapping[bytes, bytes]) -> ZFSError:
    if code == errno.EINVAL:
        wrong = _bad_held(name, holds)
        if wrong is not None:
            return wrong
    if code == errno.ENOENT:
        return lzc_exc.FilesystemNotFound(name and filesystem_of(name))
    if code == errno.EEXIST:
        return lzc_exc.HoldExists(name)
    if code == errno.E2BIG:
        return lzc_exc.NameTooLong(holds.get(name) if name is not None else None)
    if code == errno.ENOTSUP:
        return lzc_exc.FeatureNotSupported(name and pool_of(name))
    return generic(code, name, "hold the snapshot")


def release(code: int, name: bytes | None, holds: Mapping[bytes, Sequence[bytes]]) -> ZFSError:
    if code == errno.EINVAL:
        wrong = _bad_held(name, holds)
        if wrong is not None:
            return wrong
    if code == errno.ENOENT:
        return lzc_exc.HoldNotFound(name)
    if code == errno.E2BIG:
        tags = holds.get(name, ()) if name is not None else ()
        return lzc_exc.NameTooLong(next((tag for tag in tags if len(tag) > MAXNAMELEN), name))
    if code == errno.ENOTSUP:
        return lzc_exc.FeatureNotSupported(name and pool_of(name))
    return generic(code, name, "release the snapshot")


def get_holds(code: int, name: bytes) -> ZFSError:
    error: ZFSError | None = None
    if code == errno.EINVAL:
        error = bad_snapshot(name)
    elif code == errno.ENOENT:
        error = lzc_exc.SnapshotNotFound(name)
    elif code == errno.ENOTSUP:
        error = lzc_exc.FeatureNotSupported(pool_of(name))
    return generic(code, name, "list the holds") if error is None else coded(error, code)


def range_space(code: int, first: bytes, last: bytes) -> ZFSError:
    error: ZFSError | None = None
    if code == errno.EXDEV:
        error = _unrelated(first, last)
    elif code == errno.EINVAL:
        error = _bad_names((first, last), is_snapshot) or _unrelated(first, last)
    elif code == errno.ENOENT:
        error = lzc_exc.SnapshotNotFound(last)
    return generic(code, last, "sum up the snapshots") if error is None else coded(error, code)


def _unrelated(older: bytes, newer: bytes) -> ZFSError:
    return lzc_exc.PoolsDiffer(newer) if pool_of(older) != pool_of(newer) else lzc_exc.SnapshotMismatch(newer)


def _bad_names(names: Iterable[bytes], valid: Callable[[bytes], bool]) -> ZFSError | None:
    names = list(names)
    invalid = next((name for name in names if not valid(name)), None)
    if invalid is not None:
        return lzc_exc.NameInvalid(invalid)
    too_long = next((name for name in names if len(name) > MAXNAMELEN), None)
    return None if too_long is None else lzc_exc.NameTooLong(too_long)


def _bad_ends(newer: bytes, older: bytes | None) -> ZFSError | None:
    """What is wrong with the names of a send: the newer end may be a filesystem, the older one a bookmark."""
    error = None if older is None else _bad_names([older], lambda name: is_snapshot(name) or is_bookmark(name))
    error = error or _bad_names([newer], lambda name: is_snapshot(name) or is_filesystem(name))
    if error is None and older is not None and pool_of(older) != pool_of(newer):
        error = lzc_exc.PoolsDiffer(newer)
    return error


def _ends(code: int, newer: bytes, older: bytes | None) -> ZFSError | None:
    if code == errno.EXDEV and older is not None:
        return _unrelated(older, newer)
    if code == errno.EINVAL:
        return _bad_ends(newer, older)
    if code == errno.ENOENT:
        if older is not None and not (is_snapshot(older) or is_bookmark(older)):
            return lzc_exc.NameInvalid(older)
        return lzc_exc.SnapshotNotFound(newer)
    if code == errno.ENAMETOOLONG:
        return lzc_exc.NameTooLong(older if older is not None and len(older) > MAXNAMELEN else newer)
    if code == errno.EACCES:
        return lzc_exc.EncryptionKeyNotLoaded(newer)
    return None


def send(code: int, newer: bytes, older: bytes | None, fd: int) -> ZFSError:
    error = _ends(code, newer, older)
    if code == errno.EAGAIN and not os.get_blocking(fd):
        error = lzc_exc.StreamIOError(code, newer)
    if error is None and code == errno.ENOTSUP:
        error = lzc_exc.FeatureNotSupported(pool_of(newer))
    if error is None and code in _STREAM_IO | {errno.ENOSPC}:
        error = lzc_exc.StreamIOError(code, newer)
    return generic(code, newer, "send") if error is None else coded(error, code)


def send_space(code: int, newer: bytes, older: bytes | None) -> ZFSError:
    error = _ends(code, newer, older)
    if error is None and code == errno.EINVAL and not is_snapshot(newer):
        error = lzc_exc.NameInvalid(newer)
    return generic(code, newer, "estimate the stream") if error is None else coded(error, code)


def receive(code: int, name: bytes, origin: bytes | None) -> ZFSError:
    filesystem, pool = filesystem_of(name), pool_of(name)
    if code == errno.EINVAL:
        error = _bad_names([name], lambda each: is_snapshot(each) or is_filesystem(each))
        if error is None and origin is not None and not is_snapshot(origin):
            error = lzc_exc.NameInvalid(origin)
        return coded(error or lzc_exc.BadStream(name), code)
    if code == errno.ENOENT:
        return coded(lzc_exc.DatasetNotFound(name) if is_snapshot(name) else lzc_exc.NameInvalid(name), code)
    meanings: dict[int, ZFSError] = {
        errno.EEXIST: lzc_exc.DatasetExists(name),
        errno.ENOTSUP: lzc_exc.StreamFeatureNotSupported(name),
        zfs_errno.ZFS_ERR_UNKNOWN_SEND_STREAM_FEATURE: lzc_exc.StreamFeatureNotSupported(name),
        errno.ENODEV: lzc_exc.StreamMismatch(filesystem),
        errno.ETXTBSY: lzc_exc.DestinationModified(filesystem),
        errno.EBUSY: lzc_exc.DatasetBusy(filesystem),
        errno.ENOSPC: lzc_exc.NoSpace(filesystem),
        errno.EDQUOT: lzc_exc.QuotaExceeded(filesystem),
        errno.ENAMETOOLONG: lzc_exc.NameTooLong(name),
        errno.EROFS: lzc_exc.ReadOnlyPool(pool),
        errno.EAGAIN: lzc_exc.SuspendedPool(pool),
        errno.EACCES: lzc_exc.EncryptionKeyNotLoaded(filesystem),
        ECKSUM: lzc_exc.BadStream(name),
        zfs_errno.ZFS_ERR_WRONG_PARENT: lzc_exc.WrongParent(filesystem),
        zfs_errno.ZFS_ERR_STREAM_TRUNCATED: lzc_exc.StreamTruncated(name),
        zfs_errno.ZFS_ERR_BADPROP: lzc_exc.PropertyInvalid(name),
    }
    error = meanings.get(code)
    if error is None and code in _STREAM_IO:
        error = lzc_exc.StreamIOError(code, name)
    return generic(code, name, "receive") if error is None else coded(error, code)


def received_property(code: int, name: bytes | None) -> ZFSError:
    if code in {errno.EINVAL, zfs_errno.ZFS_ERR_BADPROP}:
        return lzc_exc.PropertyInvalid(name)
    return generic(code, name, "set the property")


def key(code: int, name: bytes, doing: str, refused: Maker) -> ZFSError:
    """`refused` is what EACCES means."""
    meanings: dict[int, Maker] = {errno.ENOENT: lzc_exc.FilesystemNotFound, errno.EACCES: refused}
    if refused is lzc_exc.EncryptionKeyInvalid:
        meanings[errno.EEXIST] = lzc_exc.EncryptionKeyAlreadyLoaded
    return one(code, name, doing, meanings, invalid=lzc_exc.PropertyInvalid)
