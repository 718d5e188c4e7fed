"""Numbers of OpenZFS's interface, under pyzfs's names."""

from __future__ import annotations

import errno
import os
from enum import IntEnum

MAXNAMELEN = 255
ZCP_DEFAULT_INSTRLIMIT = 10_000_000
ZCP_DEFAULT_MEMLIMIT = 10 * 2**20
WRAPPING_KEY_LEN = 32
# ZFS's own errors borrow numbers of the system's. Not every system has those of Linux; FreeBSD's ZFS borrows others.
ECKSUM: int = getattr(errno, "EBADE", 97)
ECHRNG: int = getattr(errno, "ECHRNG", errno.ENXIO)
ETIME: int = getattr(errno, "ETIME", errno.ETIMEDOUT)


class zfs_errno(IntEnum):  # noqa: N801  # pyzfs's name
    """What ZFS returns beyond the system's numbers."""

    ZFS_ERR_CHECKPOINT_EXISTS = 1024
    ZFS_ERR_DISCARDING_CHECKPOINT = 1025
    ZFS_ERR_NO_CHECKPOINT = 1026
    ZFS_ERR_DEVRM_IN_PROGRESS = 1027
    ZFS_ERR_VDEV_TOO_BIG = 1028
    ZFS_ERR_IOC_CMD_UNAVAIL = 1029
    ZFS_ERR_IOC_ARG_UNAVAIL = 1030
    ZFS_ERR_IOC_ARG_REQUIRED = 1031
    ZFS_ERR_IOC_ARG_BADTYPE = 1032
    ZFS_ERR_WRONG_PARENT = 1033
    ZFS_ERR_FROM_IVSET_GUID_MISSING = 1034
    ZFS_ERR_FROM_IVSET_GUID_MISMATCH = 1035
    ZFS_ERR_SPILL_BLOCK_FLAG_MISSING = 1036
    ZFS_ERR_UNKNOWN_SEND_STREAM_FEATURE = 1037
    ZFS_ERR_EXPORT_IN_PROGRESS = 1038
    ZFS_ERR_BOOKMARK_SOURCE_NOT_ANCESTOR = 1039
    ZFS_ERR_STREAM_TRUNCATED = 1040
    ZFS_ERR_STREAM_LARGE_BLOCK_MISMATCH = 1041
    ZFS_ERR_RESILVER_IN_PROGRESS = 1042
    ZFS_ERR_REBUILD_IN_PROGRESS = 1043
    ZFS_ERR_BADPROP = 1044
    ZFS_ERR_VDEV_NOTSUP = 1045
    ZFS_ERR_NOT_USER_NAMESPACE = 1046
    ZFS_ERR_RESUME_EXISTS = 1047
    ZFS_ERR_CRYPTO_NOTSUP = 1048
    ZFS_ERR_RAIDZ_EXPAND_IN_PROGRESS = 1049
    ZFS_ERR_ASHIFT_MISMATCH = 1050
    ZFS_ERR_STREAM_LARGE_MICROZAP = 1051
    ZFS_ERR_TOO_MANY_SITOUTS = 1052
    ZFS_ERR_NO_USER_NS_SUPPORT = 1053


_SAID = {
    zfs_errno.ZFS_ERR_IOC_CMD_UNAVAIL: "the kernel module is older than the library and does not know the call",
    zfs_errno.ZFS_ERR_IOC_ARG_UNAVAIL: "the kernel module is older than the library and does not know an argument",
    zfs_errno.ZFS_ERR_IOC_ARG_REQUIRED: "the kernel module is newer than the library and wants one argument more",
    zfs_errno.ZFS_ERR_IOC_ARG_BADTYPE: "the kernel module wants an argument of another type",
    zfs_errno.ZFS_ERR_FROM_IVSET_GUID_MISSING: "the base of a raw increment was not received raw",
    zfs_errno.ZFS_ERR_FROM_IVSET_GUID_MISMATCH: "the base of a raw increment is encrypted otherwise than the sender's",
    zfs_errno.ZFS_ERR_SPILL_BLOCK_FLAG_MISSING: "the raw stream comes from a release whose streams lack a flag",
    zfs_errno.ZFS_ERR_UNKNOWN_SEND_STREAM_FEATURE: "the stream has a feature that the module does not know",
    zfs_errno.ZFS_ERR_EXPORT_IN_PROGRESS: "the pool is being exported",
    zfs_errno.ZFS_ERR_STREAM_LARGE_BLOCK_MISMATCH: "the base was received with large blocks, the increment has none",
    zfs_errno.ZFS_ERR_RESUME_EXISTS: "an interrupted receive is kept there: resume it or abort it first",
    zfs_errno.ZFS_ERR_CRYPTO_NOTSUP: "the stream's kind of encryption is unknown to the module",
    zfs_errno.ZFS_ERR_STREAM_LARGE_MICROZAP: "the stream has directories larger than the receiving pool allows",
}


def describe(code: int) -> str:
    """A number in words."""
    if code in _SAID:
        return _SAID[zfs_errno(code)]
    if code in zfs_errno.__members__.values():
        return zfs_errno(code).name
    return os.strerror(code)


class zfs_key_location:  # noqa: N801  # pyzfs's name
    ZFS_KEYLOCATION_NONE = 0
    ZFS_KEYLOCATION_PROMPT = 1
    ZFS_KEYLOCATION_URI = 2


class zfs_keyformat:  # noqa: N801  # pyzfs's name
    ZFS_KEYFORMAT_NONE = 0
    ZFS_KEYFORMAT_RAW = 1
    ZFS_KEYFORMAT_HEX = 2
    ZFS_KEYFORMAT_PASSPHRASE = 3


class zio_encrypt:  # noqa: N801  # pyzfs's name
    ZIO_CRYPT_INHERIT = 0
    ZIO_CRYPT_ON = 1
    ZIO_CRYPT_OFF = 2
    ZIO_CRYPT_AES_128_CCM = 3
    ZIO_CRYPT_AES_192_CCM = 4
    ZIO_CRYPT_AES_256_CCM = 5
    ZIO_CRYPT_AES_128_GCM = 6
    ZIO_CRYPT_AES_192_GCM = 7
    ZIO_CRYPT_AES_256_GCM = 8
