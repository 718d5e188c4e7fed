"""libzfs_core's functions that work on a pool.

The examples need the kernel module. They are run with a pool `tank`, a filesystem `tank/db` and its snapshots
`tank/db@monday` and `tank/db@tuesday`, and `lzc` is this binding.
"""

from __future__ import annotations

import ctypes
import errno

from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.lzc import translate_pools as translate
from snaprep.volumes.lzc.constants import ZCP_DEFAULT_INSTRLIMIT, ZCP_DEFAULT_MEMLIMIT
from snaprep.volumes.lzc.library import Output, call
from snaprep.volumes.lzc.names import Name, as_name
from snaprep.volumes.lzc.translate import one


def lzc_sync(poolname: Name, force: bool = False) -> None:  # noqa: FBT001, FBT002  # pyzfs's signature
    """Wait until everything written so far is in the pool itself; with `force` even when nothing is dirty.

    Raises PoolNotFound.

    >>> lzc.lzc_sync(b"tank")
    """
    name = as_name(poolname)
    code = call("lzc_sync", name, {b"force": bool(force)}, Output())
    if code:
        raise translate.pool(code, name, "sync the pool")


def lzc_reopen(poolname: Name, restart: bool = True) -> None:  # noqa: FBT001, FBT002  # pyzfs's signature
    """Open a pool's devices anew; `restart` a scrub that runs.

    Raises PoolNotFound.

    >>> lzc.lzc_reopen(b"tank")
    """
    name = as_name(poolname)
    code = call("lzc_reopen", name, bool(restart))
    if code:
        raise translate.pool(code, name, "reopen the pool")


def lzc_pool_checkpoint(name: Name) -> None:
    """Make the pool's checkpoint.

    Raises CheckpointExists, CheckpointDiscarding, DeviceRemovalRunning, DeviceTooBig, RaidzExpansionRunning,
    PoolNotFound.

    >>> lzc.lzc_pool_checkpoint(b"tank")
    >>> lzc.lzc_pool_checkpoint_discard(b"tank")
    """
    pool = as_name(name)
    code = call("lzc_pool_checkpoint", pool)
    if code:
        raise translate.checkpoint(code, pool, "make the checkpoint")


def lzc_pool_checkpoint_discard(name: Name) -> None:
    """Give up the pool's checkpoint; its space is freed later.

    Raises CheckpointNotFound, CheckpointDiscarding, PoolNotFound.

    >>> lzc.lzc_pool_checkpoint(b"tank")
    >>> lzc.lzc_pool_checkpoint_discard(b"tank")
    """
    pool = as_name(name)
    code = call("lzc_pool_checkpoint_discard", pool)
    if code:
        raise translate.checkpoint(code, pool, "discard the checkpoint")


def lzc_channel_program(
    poolname: Name,
    program: Name,
    instrlimit: int = ZCP_DEFAULT_INSTRLIMIT,
    memlimit: int = ZCP_DEFAULT_MEMLIMIT,
    params: object = None,
) -> object:
    """Run a channel program (Lua) inside the kernel, in one transaction; root only. Returns what it returns.

    `instrlimit` counts Lua instructions, `memlimit` bytes, 100 MiB at most. `params` reach it as `argv`.

    Raises PoolNotFound, ZCPSyntaxError, ZCPRuntimeError (both with `details`), ZCPTimeout, ZCPSpaceError,
    ZCPMemoryError, ZCPLimitInvalid, ZCPPermissionError.

    >>> lzc.lzc_channel_program(b"tank", b"args = ... ; return args['argv'][1]", params=[b"hello"])
    b'hello'
    """
    return _program("lzc_channel_program", poolname, program, instrlimit, memlimit, params)


def lzc_channel_program_nosync(
    poolname: Name,
    program: Name,
    instrlimit: int = ZCP_DEFAULT_INSTRLIMIT,
    memlimit: int = ZCP_DEFAULT_MEMLIMIT,
    params: object = None,
) -> object:
    """`lzc_channel_program` for one that changes nothing: it waits for no transaction, so it is faster.

    Raises what `lzc_channel_program` raises.

    >>> lzc.lzc_channel_program_nosync(b"tank", b"args = ... ; return zfs.exists(args['argv'][1])", params=[b"tank/db"])
    True
    """
    return _program("lzc_channel_program_nosync", poolname, program, instrlimit, memlimit, params)


def _program(function: str, poolname: Name, program: Name, instrlimit: int, memlimit: int, params: object) -> object:
    name, output = as_name(poolname), Output()
    code = call(function, name, as_name(program), instrlimit, memlimit, {b"argv": params}, output)
    if code:
        details = output.pairs.get(b"error")
        raise translate.channel_program(code, name, details if isinstance(details, bytes) else None)
    return output.pairs.get(b"return")


# What `lzc_wait` and `lzc_wait_fs` wait for.
WAIT_ACTIVITIES = (
    "checkpoint_discard",
    "free",
    "initialize",
    "replace",
    "remove",
    "resilver",
    "scrub",
    "trim",
    "raidz_expand",
)
WAIT_FS_ACTIVITIES = ("deleteq",)


def lzc_wait(poolname: Name, activity: str) -> bool:
    """Wait, without limit, until an activity of a pool has ended: one of WAIT_ACTIVITIES. OpenZFS 2.0, for
    "raidz_expand" 2.3; not in pyzfs.

    Returns whether there was anything to wait for. Raises PoolNotFound, FunctionNotSupported, ValueError.

    >>> lzc.lzc_wait(b"tank", "scrub")
    False
    """
    name = as_name(poolname)
    code, waited = _wait("lzc_wait", name, activity, WAIT_ACTIVITIES)
    if code:
        raise translate.pool(code, name, f"wait for {activity}")
    return waited


def lzc_wait_fs(fsname: Name, activity: str = "deleteq") -> bool:
    """Wait, without limit, until the files that were removed from a mounted filesystem are freed. OpenZFS 2.0; not in
    pyzfs.

    Returns whether there was anything to wait for. Raises FilesystemNotFound, FunctionNotSupported, ValueError.

    >>> lzc.lzc_wait_fs(b"tank/db") in (True, False)
    True
    """
    name = as_name(fsname)
    code, waited = _wait("lzc_wait_fs", name, activity, WAIT_FS_ACTIVITIES)
    if code:
        raise one(code, name, f"wait for {activity}", {errno.ENOENT: lzc_exc.FilesystemNotFound})
    return waited


def _wait(function: str, name: bytes, activity: str, activities: tuple[str, ...]) -> tuple[int, bool]:
    if activity not in activities:
        raise ValueError(f"{activity!r} is none of {', '.join(activities)}")
    waited = ctypes.c_int()
    code = call(function, name, activities.index(activity), ctypes.byref(waited))
    return code, bool(waited.value)
