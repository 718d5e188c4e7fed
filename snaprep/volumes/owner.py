"""Whose the files are. A stream carries numbers; the same account may have another number on the other host."""

from __future__ import annotations

import grp
import os
import pwd

from snaprep.agent.process import CommandFailed, as_root, run
from snaprep.core.errors import CheckFailed, SnaprepError

_GIVE_S = 120.0


def chown_tree(path: str, user: str, group: str) -> int:
    """Give what the owner of `path` has to `user` and `group`; the number of files changed.

    Nothing is walked when the numbers are equal already. Raises `unknown-user`.
    """
    try:
        uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        what = f"this host has no user {user} or no group {group}"
        raise CheckFailed("unknown-user", what, hint="add it there, with any number, or set `owner`") from error
    top = os.lstat(path)
    if (top.st_uid, top.st_gid) == (uid, gid):
        return 0
    if os.geteuid() != 0:
        return _by_sudo(path, user, group)
    changed = 0
    for folder, folders, files in os.walk(path, topdown=False):
        for name in (*files, *folders):
            changed += _chown(f"{folder}/{name}", top, uid, gid)
    return changed + _chown(path, top, uid, gid)


def give(path: str, user: str, group: str) -> list[str]:
    """The program that gives a tree away. It follows no link, and says a line for each file that it changes."""
    return ["chown", "-Rhc", f"{user}:{group}", path]


def _by_sudo(path: str, user: str, group: str) -> int:
    """Linux lets nobody else give files away. Raises `not-permitted`."""
    try:
        return len(run(as_root(give(path, user, group)), deadline_s=_GIVE_S).text.splitlines())
    except CommandFailed as error:
        what = f"the files in {path} cannot be given to {user}:{group}: {error}"
        raise SnaprepError("not-permitted", what, hint="`snaprep check` names the line that sudo needs") from error


def _chown(path: str, was: os.stat_result, uid: int, gid: int) -> int:
    """Only what belonged to the same owner or group: a file of somebody else keeps its owner. The top goes last."""
    now = os.lstat(path)
    wanted = (uid if now.st_uid == was.st_uid else now.st_uid, gid if now.st_gid == was.st_gid else now.st_gid)
    if wanted == (now.st_uid, now.st_gid):
        return 0
    os.chown(path, *wanted, follow_symlinks=False)
    return 1
