"""Which life of this host it is, and who logged in."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def boot_id() -> str:
    """Changes with every boot of this host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def login_user() -> str:
    """The user who logged in, also behind sudo."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
