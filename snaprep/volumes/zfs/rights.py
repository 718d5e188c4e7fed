"""Whether a user who is not root can handle a pair's datasets: by `zfs allow`, and by sudo what that cannot give."""

from __future__ import annotations

import grp
import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from snaprep.agent.process import in_full
from snaprep.core.model import Finding
from snaprep.volumes import owner, sudoers
from snaprep.volumes.base import Place
from snaprep.volumes.zfs import privileged
from snaprep.volumes.zfs.command import COMMAND_S, zfs
from snaprep.volumes.zfs.facts import TUNING
from snaprep.volumes.zfs.features import pool_properties, usage
from snaprep.volumes.zfs.look import Layout

_DEVICE = Path("/dev/zfs")
# What the sub-commands need, then the properties that are set on images. An image is created, and becomes another one
# by a rename, so the parent is where they are needed.
PERMISSIONS = (
    "snapshot", "hold", "release", "bookmark", "send", "receive", "create", "clone", "promote", "rename", "destroy",
    "mount", "userprop", "canmount", "mountpoint", "readonly",
)  # fmt: skip
_PROPERTY = re.compile(r"^(\S+)\s+property\b", re.MULTILINE)
_HEADING = re.compile(r"-+ Permissions on (.+?)(?: -+)?")
_HERE = frozenset({"Local permissions", "Local+Descendent permissions"})
_BELOW = frozenset({"Descendent permissions", "Local+Descendent permissions"})
_SETS = "Permission sets"


def can_delegate() -> bool:
    """zfs-fuse has no such device and serves root alone; where it is root's own, nobody else can do anything."""
    return os.access(_DEVICE, os.R_OK | os.W_OK)


def lacking(layout: Layout, places: Sequence[Place], user: str, group: str) -> list[Finding]:
    """See `Volume.lacking`."""
    return [*_delegation(layout), *_permissions(layout, user), *_lines(layout, places, user, group)]


# ---- by zfs allow


def _delegation(layout: Layout) -> Iterator[Finding]:
    pool = pool_properties(layout.pool, wanted="delegation", deadline_s=COMMAND_S)
    if pool.get("delegation") == "off":
        what = f"pool {layout.pool} does not heed `zfs allow`"
        yield Finding("delegation-off", "fail", what, f"as root: zpool set delegation=on {shlex.quote(layout.pool)}")


def _permissions(layout: Layout, user: str) -> Iterator[Finding]:
    known = frozenset(_PROPERTY.findall(usage(["zfs", "allow"], COMMAND_S)))
    wanted = (*PERMISSIONS, *sorted(TUNING & known))
    granted = permitted(zfs("allow", layout.parent), layout.parent, user, _groups(user))
    missing = [name for name in wanted if name not in granted]
    if missing:
        what = f"{user} has not every right on {layout.parent} and what is below it that a run needs"
        hint = f"as root: zfs allow {user} {','.join(missing)} {shlex.quote(layout.parent)}"
        yield Finding("zfs-allow", "fail", what, hint)


def _groups(user: str) -> frozenset[str]:
    """Of this process, and so of that user."""
    numbers = {os.getegid(), *os.getgroups()}
    return frozenset(entry.gr_name for entry in grp.getgrall() if entry.gr_gid in numbers or user in entry.gr_mem)


def permitted(text: str, dataset: str, user: str, groups: Collection[str]) -> frozenset[str]:
    """What `zfs allow DATASET` says that the user may do both on the dataset and on all below it."""
    here: set[str] = set()
    below: set[str] = set()
    sets: dict[str, set[str]] = {}
    on, part = "", ""
    for line in text.splitlines():
        words = line.split()
        if heading := _HEADING.fullmatch(line.strip()):
            on = heading[1]
        elif not line.startswith(("\t", " ")):
            part = line.rstrip(":")
        elif part == _SETS:
            sets.setdefault(words[0], set()).update(words[1].split(","))
        elif _means(words, user, groups):
            here |= _names(words) if part in (_HERE if on == dataset else _BELOW) else set()
            below |= _names(words) if part in _BELOW else set()
    return frozenset(_unfolded(here, sets) & _unfolded(below, sets))


def _means(words: Sequence[str], user: str, groups: Collection[str]) -> bool:
    match words:
        case ["everyone", _]:
            return True
        case ["user", name, _]:
            return name == user
        case ["group", name, _]:
            return name in groups
        case _:
            return False


def _names(words: Sequence[str]) -> set[str]:
    return set(words[-1].split(","))


def _unfolded(names: set[str], sets: dict[str, set[str]]) -> set[str]:
    """With the permissions of the named sets, and of sets in those."""
    found, ahead = set[str](), set(names)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead |= sets.get(name, set())
    return found


# ---- by sudo


def _lines(layout: Layout, places: Sequence[Place], user: str, group: str) -> Iterator[Finding]:
    """One line for each place at which something is mounted."""
    wanted = [(place, _commands(layout, place, user, group)) for place in places]
    refused = sudoers.refused([argv for _, commands in wanted for argv in commands])
    for place, commands in wanted:
        if any(argv in refused for argv in commands):
            gives = ", nor give its files to itself," if place.given else ","
            what = (
                f"{user} may not mount {place.images[0]} at {place.path}{gives} which zfs allow cannot allow on Linux"
            )
            yield Finding("sudoers", "fail", what, f"as root, into {sudoers.FILE}: {sudoers.line(user, commands)}")


def _commands(layout: Layout, place: Place, user: str, group: str) -> list[list[str]]:
    mounts = [privileged.mount_at(*at) for image in place.images for at in layout.paths(image, place.path).items()]
    unmounts = [privileged.unmount_from(path) for path in layout.paths("", place.path).values()]
    gives = [owner.give(place.path, user, group)] if place.given else []
    return [in_full(argv) for argv in (*mounts, *unmounts, *gives)]
