"""What another process of this host has open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def open_by(pid: int) -> Iterator[tuple[int, str]]:
    """(descriptor, what it stands for as the kernel names it); none of a process that is gone, or not ours to see."""
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for link in links:
        with contextlib.suppress(OSError):  # closed meanwhile
            yield int(link.name), str(link.readlink())
