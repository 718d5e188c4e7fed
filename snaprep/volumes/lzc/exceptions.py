"""What the functions of libzfs_core raise, under pyzfs's names.

Every exception has `errno`, the number that its class stands for (pyzfs's meaning), `code`, the number that the C
function returned, `name`, the dataset, snapshot, bookmark or tag in question, where one is known, and `failures`: a
tuple of (name, code), one for each thing that failed.
"""

# ruff: noqa: PLC0414  # the roots are passed on under their own names
from __future__ import annotations

import errno as _errno

from snaprep.volumes.lzc.constants import ECHRNG, ECKSUM, ETIME, describe, zfs_errno
from snaprep.volumes.lzc.error import FunctionNotSupported as FunctionNotSupported
from snaprep.volumes.lzc.error import LibraryNotFound as LibraryNotFound
from snaprep.volumes.lzc.error import MultipleOperationsFailure as MultipleOperationsFailure
from snaprep.volumes.lzc.error import ZFSError as ZFSError
from snaprep.volumes.lzc.error import ZFSGenericError as ZFSGenericError
from snaprep.volumes.lzc.error import ZFSInitializationFailed as ZFSInitializationFailed


class DatasetNotFound(ZFSError):
    errno, message = _errno.ENOENT, "no such filesystem, volume or snapshot"


class FilesystemNotFound(DatasetNotFound):
    message = "no such filesystem or volume"


class SnapshotNotFound(DatasetNotFound):
    message = "no such snapshot"


class ParentNotFound(ZFSError):
    errno, message = _errno.ENOENT, "the parent does not exist"


class BookmarkNotFound(ZFSError):
    errno, message = _errno.ENOENT, "no such bookmark"


class HoldNotFound(ZFSError):
    errno, message = _errno.ENOENT, "the snapshot is not held under this tag"


class DatasetExists(ZFSError):
    errno, message = _errno.EEXIST, "the filesystem, volume or snapshot is there already"


class FilesystemExists(DatasetExists):
    message = "the filesystem or volume is there already"


class SnapshotExists(DatasetExists):
    message = "the snapshot is there already"


class BookmarkExists(ZFSError):
    errno, message = _errno.EEXIST, "the bookmark is there already"


class HoldExists(ZFSError):
    errno, message = _errno.EEXIST, "the snapshot is held under this tag already"


class SnapshotNotLatest(ZFSError):
    errno, message = _errno.EEXIST, "newer snapshots exist"


class SnapshotIsCloned(ZFSError):
    errno, message = _errno.EEXIST, "a clone depends on the snapshot"


class SnapshotIsHeld(ZFSError):
    errno, message = _errno.EBUSY, "the snapshot is held"


class DatasetBusy(ZFSError):
    errno, message = _errno.EBUSY, "in use"


class NotClone(ZFSError):
    errno, message = _errno.EINVAL, "no clone, so there is nothing to promote"


class WrongParent(ZFSError):
    errno, message = zfs_errno.ZFS_ERR_WRONG_PARENT, "the parent is no filesystem"


class DuplicateSnapshots(ZFSError):
    errno, message = _errno.EXDEV, "more than one snapshot of the same filesystem was asked for"


class SnapshotMismatch(ZFSError):
    errno, message = _errno.ENODEV, "the older snapshot is no ancestor of the newer one"


class StreamMismatch(ZFSError):
    errno, message = _errno.ENODEV, "the stream's base is not the newest snapshot of the destination"


class DestinationModified(ZFSError):
    errno, message = _errno.ETXTBSY, "the destination was written to since its newest snapshot"


class BookmarkMismatch(ZFSError):
    errno, message = _errno.EINVAL, "the bookmark's source is no ancestor of the dataset"


class BookmarkSourceInvalid(ZFSError):
    errno, message = _errno.EINVAL, "a bookmark is made from a snapshot or a bookmark, and this is neither"


class BookmarkNotSupported(ZFSError):
    errno, message = _errno.ENOTSUP, "the pool has no bookmarks, or none of bookmarks"


class SnapshotFailure(MultipleOperationsFailure):
    message = "no snapshot was made"


class SnapshotDestructionFailure(MultipleOperationsFailure):
    message = "snapshots were not destroyed"


class BookmarkFailure(MultipleOperationsFailure):
    message = "no bookmark was made"


class BookmarkDestructionFailure(MultipleOperationsFailure):
    message = "bookmarks were not destroyed"


class HoldFailure(MultipleOperationsFailure):
    message = "nothing was held"


class HoldReleaseFailure(MultipleOperationsFailure):
    message = "holds were not released"


class ReceivePropertyFailure(MultipleOperationsFailure):
    message = "the stream was received, properties of it were not set"


class BadHoldCleanupFD(ZFSError):
    errno, message = _errno.EBADF, "the descriptor to tie holds to is no open /dev/zfs"


class BadStream(ZFSError):
    errno, message = ECKSUM, "the stream is damaged, or is none that this call receives"


class StreamTruncated(ZFSError):
    errno, message = zfs_errno.ZFS_ERR_STREAM_TRUNCATED, "the stream ends early"


class StreamFeatureNotSupported(ZFSError):
    errno, message = _errno.ENOTSUP, "the stream has a feature that this pool or module does not know"


class UnknownStreamFeature(ZFSError):
    errno, message = _errno.ENOTSUP, "no such flag for a stream"


class StreamFeatureInvalid(ZFSError):
    errno, message = _errno.EINVAL, "the kernel module is too old for this stream"


class StreamFeatureIncompatible(ZFSError):
    errno, message = _errno.EINVAL, "embedded blocks cannot be received into an encrypted dataset"


class StreamIOError(ZFSError):
    def __init__(self, errno: int, name: bytes | None = None) -> None:
        super().__init__(name)
        self.args = (errno, name)
        self.errno = errno
        self.message = f"the stream, or what it is made of, cannot be read or written: {describe(errno)}"


class ZIOError(ZFSError):
    errno, message = _errno.EIO, "input or output error"


class NoSpace(ZFSError):
    errno, message = _errno.ENOSPC, "no space left"


class QuotaExceeded(ZFSError):
    errno, message = _errno.EDQUOT, "the quota is used up"


class ReadOnlyPool(ZFSError):
    errno, message = _errno.EROFS, "the pool is read-only"


class SuspendedPool(ZFSError):
    errno, message = _errno.EAGAIN, "the pool is suspended"


class PoolNotFound(ZFSError):
    errno, message = _errno.EXDEV, "no such pool"


class PoolsDiffer(ZFSError):
    errno, message = _errno.EXDEV, "all names of one call belong to one pool"


class NameTooLong(ZFSError):
    errno, message = _errno.ENAMETOOLONG, "the name is too long"


class NameInvalid(ZFSError):
    errno, message = _errno.EINVAL, "no valid name"


class SnapshotNameInvalid(NameInvalid):
    message = "no valid name of a snapshot"


class FilesystemNameInvalid(NameInvalid):
    message = "no valid name of a filesystem or volume"


class BookmarkNameInvalid(NameInvalid):
    message = "no valid name of a bookmark"


class FeatureNotSupported(ZFSError):
    errno, message = _errno.ENOTSUP, "the pool's version does not have this"


class PropertyNotSupported(ZFSError):
    errno, message = _errno.ENOTSUP, "the property, or what it asks for, is unknown to this version"


class PropertyInvalid(ZFSError):
    errno, message = _errno.EINVAL, "a property or its value is not valid"


class DatasetTypeInvalid(ZFSError):
    errno, message = _errno.EINVAL, "no such type of dataset"


class UnknownCryptCommand(ZFSError):
    errno, message = _errno.EINVAL, "no such command for a key"


class EncryptionKeyNotLoaded(ZFSError):
    errno, message = _errno.EACCES, "the key is not loaded"


class EncryptionKeyAlreadyLoaded(ZFSError):
    errno, message = _errno.EEXIST, "the key is loaded already"


class EncryptionKeyInvalid(ZFSError):
    errno, message = _errno.EACCES, "this is not the key"


class ZCPError(ZFSError):
    """A channel program."""


class ZCPDetailed(ZCPError):
    """`details` is the message of the channel program's interpreter."""

    def __init__(self, details: bytes | None) -> None:
        super().__init__()
        self.args = (details,)
        self.details = details

    def __str__(self) -> str:
        said = (self.details or b"").decode(errors="backslashreplace")
        return f"{super().__str__()}: {said}" if said else super().__str__()


class ZCPSyntaxError(ZCPDetailed):
    errno, message = _errno.EINVAL, "the channel program is not well-formed"


class ZCPRuntimeError(ZCPDetailed):
    errno, message = ECHRNG, "the channel program failed"


class ZCPLimitInvalid(ZCPError):
    errno, message = _errno.EINVAL, "a limit for the channel program is out of range"


class ZCPTimeout(ZCPError):
    errno, message = ETIME, "the channel program took too many instructions"


class ZCPSpaceError(ZCPError):
    errno, message = _errno.ENOSPC, "the channel program took too much memory"


class ZCPMemoryError(ZCPError):
    errno, message = _errno.ENOMEM, "what the channel program returns is too large"


class ZCPPermissionError(ZCPError):
    errno, message = _errno.EPERM, "only root runs channel programs"


class CheckpointExists(ZFSError):
    errno, message = zfs_errno.ZFS_ERR_CHECKPOINT_EXISTS, "the pool has a checkpoint already"


class CheckpointNotFound(ZFSError):
    errno, message = zfs_errno.ZFS_ERR_NO_CHECKPOINT, "the pool has no checkpoint"


class CheckpointDiscarding(ZFSError):
    errno, message = zfs_errno.ZFS_ERR_DISCARDING_CHECKPOINT, "the pool's checkpoint is being discarded"


class DeviceRemovalRunning(ZFSError):
    errno, message = zfs_errno.ZFS_ERR_DEVRM_IN_PROGRESS, "a device is being removed from the pool"


class DeviceTooBig(ZFSError):
    errno, message = zfs_errno.ZFS_ERR_VDEV_TOO_BIG, "a device of the pool is too large for a checkpoint"


class RaidzExpansionRunning(ZFSError):
    errno, message = zfs_errno.ZFS_ERR_RAIDZ_EXPAND_IN_PROGRESS, "a raidz of the pool is being widened"
