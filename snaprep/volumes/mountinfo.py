"""The mounts of this process' namespace, as the kernel tells them in /proc/self/mountinfo."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Row:
    mount_id: str
    device: str  # "major:minor"
    path: str
    options: tuple[str, ...]
    kind: str  # ext4, zfs, fuse.zfs, ...
    source: str


def rows() -> tuple[Row, ...]:
    """In the order in which the mounts were made: the last one at a path is the one that is seen there."""
    return parse(_MOUNTINFO.read_text(errors="surrogateescape"))


def parse(text: str) -> tuple[Row, ...]:
    return tuple(map(_row, text.splitlines()))


def _row(line: str) -> Row:
    left, _, right = line.partition(" - ")
    mount_id, _, device, _, path, options = left.split(" ")[:6]
    kind, source = right.split(" ")[:2]
    return Row(mount_id, device, unescape(path), tuple(options.split(",")), kind, unescape(source))


def unescape(field: str) -> str:
    r"""The kernel writes space, tab, newline and backslash as \040 and so on."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), field)
