"""Which of the two ways of `ops` a host takes: tried, not guessed."""

from __future__ import annotations

from collections.abc import Callable

from snaprep.volumes.zfs import ops_library as zfs_ops_library
from snaprep.volumes.zfs.features import Features
from snaprep.volumes.zfs.ops import CommandOps, ZfsOps
from snaprep.volumes.zfs.ops_library import LibraryOps

Choose = Callable[[str, Features], ZfsOps]  # of a pool that is there, and of what the host can


def chosen(pool: str, features: Features) -> ZfsOps:
    """The library, when it answers for this pool; else the command."""
    why = "an old command line has no libzfs_core beside it" if features.legacy else zfs_ops_library.why_not(pool)
    return CommandOps(features.caps, why) if why else LibraryOps()
