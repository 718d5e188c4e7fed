"""Whose the files are. A stream carries numbers; the same account may have another number on the other host."""

from __future__ import annotations

import grp
import os
import pwd

from snaprep.core.errors import CheckFailed


def chown_tree(path: str, user: str, group: str) -> int:
    """Give what the owner of `path` has to `user` and `group`; the number of files changed.

    Nothing is walked when the numbers are equal already. Raises `unknown-user`.
    """
    try:
        uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise CheckFailed("unknown-user", f"this host has no user {user} or no group {group}") from error
    top = os.lstat(path)
    if (top.st_uid, top.st_gid) == (uid, gid):
        return 0
    changed = 0
    for folder, folders, files in os.walk(path, topdown=False):
        for name in (*files, *folders):
            changed += _chown(f"{folder}/{name}", top, uid, gid)
    return changed + _chown(path, top, uid, gid)


def _chown(path: str, was: os.stat_result, uid: int, gid: int) -> int:
    """Only what belonged to the same owner or group: a file of somebody else keeps its owner. The top goes last."""
    now = os.lstat(path)
    wanted = (uid if now.st_uid == was.st_uid else now.st_uid, gid if now.st_gid == was.st_gid else now.st_gid)
    if wanted == (now.st_uid, now.st_gid):
        return 0
    os.chown(path, *wanted, follow_symlinks=False)
    return 1
