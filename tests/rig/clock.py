"""A host whose clock is wrong. The kernel has one time of day for all, so each program of the host is told another."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.rig.host import Host

SHIM = Path(__file__).with_name("clock.c")
PLACE = "/var/lib/rig/clock.so"
DAY_S = 86_400


def can_be_set() -> bool:
    """It takes a C compiler."""
    return shutil.which("gcc") is not None


def set_wrong(host: Host, by_s: int) -> None:
    """From its next boot on the host's time of day is `by_s` later. To be called while it is off."""
    library = host.outside(PLACE)
    argv = ["gcc", "-shared", "-fPIC", "-O2", f"-DSHIFT_S={by_s}", "-o", str(library), str(SHIM)]
    subprocess.run(argv, check=True, timeout=60)
    host.outside("/etc/ld.so.preload").write_text(f"{PLACE}\n")
