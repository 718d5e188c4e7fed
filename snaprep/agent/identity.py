"""Which life of this host it is, who logged in, and where agents of one user meet."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

_FOR_ALL = ("/run/lock", "/tmp")  # noqa: S108 (who uses a folder there sees first whose it is)


def boot_id() -> str:
    """Changes with every boot of this host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def runtime_folder(name: str) -> Path:
    """A folder that a boot empties: of root, or of one user. The same for all agents of that user, so not the one of
    his session, which may have none, and which goes with his last login.
    """
    if os.geteuid() == 0:
        return Path("/run", name)
    place = next((p for p in _FOR_ALL if os.access(p, os.W_OK)), _FOR_ALL[-1])
    return Path(place, f"{name}-{os.geteuid()}")


def login_user() -> str:
    """The user who logged in, also behind sudo."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
