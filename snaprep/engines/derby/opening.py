"""Opening a file that Derby may have made this moment."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO

_NEW_S = 1.0
_PAUSE_S = 0.002


def opened(path: Path, *, buffering: int = -1) -> IO[bytes]:
    """The file, to be read. Raises what `open` raises.

    From a file that it has just made Derby first takes all rights, then gives its owner some. Root does not notice; the
    owner waits for it.
    """
    ends_s = time.monotonic() + _NEW_S
    while True:
        try:
            return path.open("rb", buffering=buffering)
        except PermissionError:
            if time.monotonic() > ends_s or path.stat().st_uid != os.geteuid():
                raise
            time.sleep(_PAUSE_S)


def content(path: Path) -> bytes:
    """All of the file; nothing when there is none."""
    try:
        with opened(path) as file:
            return file.read()
    except FileNotFoundError:
        return b""
