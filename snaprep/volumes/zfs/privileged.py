"""The few things with datasets that Linux keeps for root, and that `zfs allow` cannot give.

Root uses `zfs` for them. Another user has lines of sudoers, which name what is mounted and where: `zfs mount` would
mount wherever a property says that this user can set, and files that make root of whoever runs them. The images that
are mounted are never read-only by their properties, which this way of mounting does not look at.
"""

from __future__ import annotations

import os

from snaprep.agent.process import as_root

_OPTIONS = "zfsutil,nosuid,nodev,X-mount.mkdir"


def mount(name: str, path: str) -> list[str]:
    return ["zfs", "mount", name] if os.geteuid() == 0 else as_root(mount_at(name, path))


def unmount(name: str, path: str) -> list[str]:
    return ["zfs", "unmount", name] if os.geteuid() == 0 else as_root(unmount_from(path))


def mount_at(name: str, path: str) -> list[str]:
    return ["mount", "-t", "zfs", "-o", _OPTIONS, name, path]


def unmount_from(path: str) -> list[str]:
    return ["umount", path]
