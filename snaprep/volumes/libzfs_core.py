"""libzfs_core, OpenZFS's small stable C interface, from Python: no command, no text to parse, many things at once.

In pyzfs's style: where pyzfs has a function, this module has one with its name, its arguments and its exceptions, so
code that was written for pyzfs runs with

    from snaprep.volumes import libzfs_core

Beyond pyzfs: names may be `str` as well as `bytes` (what comes back is bytes); every exception has the number that the
C function returned in `code` and a (name, code) for each thing that failed in `failures`; `decode_resume_token`,
`lzc_get_bookmark_props`, `lzc_wait`, `lzc_wait_fs`, `lzc_send_progress`, redacted streams and the flag "saved" of sends
are there.

Importing it is harmless anywhere. The first call opens the C library and /dev/zfs, and raises LibraryNotFound or
ZFSInitializationFailed when they are not there. OpenZFS 0.8 and 2.x are told apart by the functions that the library
has, not by its version: `is_supported` asks, and a call of one that is missing raises FunctionNotSupported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from snaprep.volumes.lzc import exceptions
from snaprep.volumes.lzc import integers as ctypes
from snaprep.volumes.lzc.constants import (
    MAXNAMELEN,
    WRAPPING_KEY_LEN,
    ZCP_DEFAULT_INSTRLIMIT,
    ZCP_DEFAULT_MEMLIMIT,
    zfs_errno,
    zfs_key_location,
    zfs_keyformat,
    zio_encrypt,
)
from snaprep.volumes.lzc.datasets import (
    lzc_change_key,
    lzc_clone,
    lzc_create,
    lzc_destroy,
    lzc_exists,
    lzc_load_key,
    lzc_promote,
    lzc_rename,
    lzc_rollback,
    lzc_rollback_to,
    lzc_unload_key,
)
from snaprep.volumes.lzc.header import BeginRecord, decode_resume_token, receive_header
from snaprep.volumes.lzc.library import has
from snaprep.volumes.lzc.missing import (
    lzc_get_props,
    lzc_inherit_prop,
    lzc_list_children,
    lzc_list_snaps,
    lzc_set_props,
)
from snaprep.volumes.lzc.pools import (
    WAIT_ACTIVITIES,
    WAIT_FS_ACTIVITIES,
    lzc_channel_program,
    lzc_channel_program_nosync,
    lzc_pool_checkpoint,
    lzc_pool_checkpoint_discard,
    lzc_reopen,
    lzc_sync,
    lzc_wait,
    lzc_wait_fs,
)
from snaprep.volumes.lzc.redacted import (
    lzc_redact,
    lzc_send_redacted,
    lzc_send_resume_redacted,
    lzc_send_space_resume_redacted,
)
from snaprep.volumes.lzc.snapshots import (
    lzc_bookmark,
    lzc_destroy_bookmarks,
    lzc_destroy_snaps,
    lzc_get_bookmark_props,
    lzc_get_bookmarks,
    lzc_get_holds,
    lzc_hold,
    lzc_release,
    lzc_snaprange_space,
    lzc_snapshot,
)
from snaprep.volumes.lzc.streams import (
    SEND_FLAGS,
    lzc_receive,
    lzc_receive_one,
    lzc_receive_resumable,
    lzc_receive_with_cmdprops,
    lzc_receive_with_header,
    lzc_receive_with_heal,
    lzc_send,
    lzc_send_progress,
    lzc_send_resume,
    lzc_send_space,
)

__all__ = [
    "MAXNAMELEN",
    "SEND_FLAGS",
    "WAIT_ACTIVITIES",
    "WAIT_FS_ACTIVITIES",
    "WRAPPING_KEY_LEN",
    "ZCP_DEFAULT_INSTRLIMIT",
    "ZCP_DEFAULT_MEMLIMIT",
    "BeginRecord",
    "ctypes",
    "decode_resume_token",
    "exceptions",
    "is_supported",
    "lzc_bookmark",
    "lzc_change_key",
    "lzc_channel_program",
    "lzc_channel_program_nosync",
    "lzc_clone",
    "lzc_create",
    "lzc_destroy",
    "lzc_destroy_bookmarks",
    "lzc_destroy_snaps",
    "lzc_exists",
    "lzc_get_bookmark_props",
    "lzc_get_bookmarks",
    "lzc_get_holds",
    "lzc_get_props",
    "lzc_hold",
    "lzc_inherit_prop",
    "lzc_list_children",
    "lzc_list_snaps",
    "lzc_load_key",
    "lzc_pool_checkpoint",
    "lzc_pool_checkpoint_discard",
    "lzc_promote",
    "lzc_receive",
    "lzc_receive_one",
    "lzc_receive_resumable",
    "lzc_receive_with_cmdprops",
    "lzc_receive_with_header",
    "lzc_receive_with_heal",
    "lzc_recv",
    "lzc_redact",
    "lzc_release",
    "lzc_rename",
    "lzc_reopen",
    "lzc_rollback",
    "lzc_rollback_to",
    "lzc_send",
    "lzc_send_progress",
    "lzc_send_redacted",
    "lzc_send_resume",
    "lzc_send_resume_redacted",
    "lzc_send_space",
    "lzc_send_space_resume_redacted",
    "lzc_set_props",
    "lzc_snap",
    "lzc_snaprange_space",
    "lzc_snapshot",
    "lzc_sync",
    "lzc_unload_key",
    "lzc_wait",
    "lzc_wait_fs",
    "receive_header",
    "zfs_errno",
    "zfs_key_location",
    "zfs_keyformat",
    "zio_encrypt",
]

lzc_snap: Final = lzc_snapshot
lzc_recv: Final = lzc_receive
lzc_set_prop: Final = lzc_set_props  # by this name pyzfs's own tests ask for it

# So that `from ...libzfs_core.exceptions import SnapshotFailure`, as pyzfs's users write it, finds them.
sys.modules[f"{__name__}.exceptions"] = exceptions
sys.modules[f"{__name__}.ctypes"] = ctypes


def is_supported(func: Callable[..., object]) -> bool:
    """Whether the installed C library has what a function of this module needs. False, too, where there is no library;
    the kernel module is not asked. Raises ValueError for anything but a function `lzc_*` of this module.

    >>> is_supported(lzc_snapshot) in (True, False)
    True
    >>> is_supported(len)
    Traceback (most recent call last):
    ...
    ValueError: len is no function of libzfs_core
    """
    name = getattr(func, "__name__", repr(func))
    if not name.startswith("lzc_") or globals().get(name) is not func:
        raise ValueError(f"{name} is no function of libzfs_core")
    return has(name)
