"""Files of others, written anew in one rename: a reader sees the old or the new one, never half."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def rewrite(path: Path, content: bytes, *, new_owner: tuple[int, int] = (-1, -1)) -> None:
    """Put this content in a file's place, with its owner, its mode and what SELinux calls it.

    A file that is not there yet is made private to `new_owner` (uid, gid), by default to who runs this. Raises OSError:
    nothing has changed then.
    """
    before = path.stat() if path.exists() else None
    uid, gid = (before.st_uid, before.st_gid) if before is not None else new_owner
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(fd, uid, gid)
            os.fchmod(fd, stat.S_IMODE(before.st_mode) if before is not None else 0o600)
            with contextlib.suppress(OSError):  # no SELinux here
                os.setxattr(fd, "security.selinux", os.getxattr(path, "security.selinux"))
            os.fsync(fd)
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
