"""`translate` for the functions that work on a pool."""

from __future__ import annotations

import errno

from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.lzc.constants import ECHRNG, ETIME, zfs_errno
from snaprep.volumes.lzc.exceptions import ZFSError
from snaprep.volumes.lzc.names import Maker
from snaprep.volumes.lzc.translate import coded, generic


def pool(code: int, name: bytes, doing: str) -> ZFSError:
    if code == errno.ENOENT:
        return coded(lzc_exc.PoolNotFound(name), code)
    return generic(code, name, doing)


def checkpoint(code: int, name: bytes, doing: str) -> ZFSError:
    meanings: dict[int, Maker] = {
        zfs_errno.ZFS_ERR_CHECKPOINT_EXISTS: lzc_exc.CheckpointExists,
        zfs_errno.ZFS_ERR_NO_CHECKPOINT: lzc_exc.CheckpointNotFound,
        zfs_errno.ZFS_ERR_DISCARDING_CHECKPOINT: lzc_exc.CheckpointDiscarding,
        zfs_errno.ZFS_ERR_DEVRM_IN_PROGRESS: lzc_exc.DeviceRemovalRunning,
        zfs_errno.ZFS_ERR_VDEV_TOO_BIG: lzc_exc.DeviceTooBig,
        zfs_errno.ZFS_ERR_RAIDZ_EXPAND_IN_PROGRESS: lzc_exc.RaidzExpansionRunning,
    }
    return coded(meanings[code](name), code) if code in meanings else pool(code, name, doing)


def channel_program(code: int, name: bytes, details: bytes | None) -> ZFSError:
    error: ZFSError | None = None
    if code == errno.EINVAL:
        error = lzc_exc.ZCPLimitInvalid(name) if details is None else lzc_exc.ZCPSyntaxError(details)
    elif code == ECHRNG:
        error = lzc_exc.ZCPRuntimeError(details)
    meanings: dict[int, Maker] = {
        ETIME: lzc_exc.ZCPTimeout,
        errno.ENOMEM: lzc_exc.ZCPMemoryError,
        errno.ENOSPC: lzc_exc.ZCPSpaceError,
        errno.EPERM: lzc_exc.ZCPPermissionError,
    }
    if error is None and code in meanings:
        error = meanings[code](name)
    return pool(code, name, "run the channel program") if error is None else coded(error, code)
