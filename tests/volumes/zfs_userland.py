"""OpenZFS's C libraries and pyzfs for tests, beside a system that must not have them installed.

    python -m tests.volumes.zfs_userland        downloads and unpacks Debian's packages, unless that was done

The packages come from `contrib`, by a list of sources of its own; nothing is installed and apt's own lists stay as they
are. SNAPREP_ZFS_USERLAND names another folder. Where neither is there, the libraries of the system are taken.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = (
    "libnvpair3linux",
    "libuutil3linux",
    "libzfs4linux",
    "libtirpc3",
    "python3-pyzfs",
    "python3-cffi",
    "python3-cffi-backend",
    "python3-pycparser",
    "python3-ply",
)
LIBRARIES = ("libtirpc.so.3", "libnvpair.so.3", "libzfs_core.so.3")
ROOT = Path(__file__).parents[2]
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def folder() -> Path:
    """Where the packages are unpacked, or would be."""
    named = os.environ.get("SNAPREP_ZFS_USERLAND")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "snaprep" / "zfs-userland"


def _found(pattern: str) -> Path | None:
    return next((path for top in ("lib", "usr/lib") for path in sorted((folder() / top).glob(pattern))), None)


@functools.cache
def why_not() -> str:
    """Loads the C libraries into this process. What is missing, or the empty string."""
    for name in LIBRARIES:
        path = _found(f"*-linux-gnu/{name}")
        try:
            # Once a library is loaded by its path, the loader finds it by its name, too.
            ctypes.CDLL(str(path or name))
        except OSError as problem:
            return f"no C libraries of OpenZFS ({problem}); python -m tests.volumes.zfs_userland fetches them"
    return ""


@functools.cache
def why_no_pyzfs() -> str:
    """What is missing to run pyzfs in a process of its own, or the empty string."""
    reason = why_not()
    if not reason:
        done = run_pyzfs("-c", "import tests.volumes.pyzfs_peer")
        reason = f"pyzfs does not start: {done.stderr.strip()[-300:]}" if done.returncode else ""
    return reason


def library(name: str) -> str:
    """The path of a library, or its name where the system has it."""
    return str(_found(f"*-linux-gnu/{name}") or name)


def run_pyzfs(
    *arguments: str, given: str | bytes | None = None, preload: Path | None = None, deadline_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """The system's Python, with pyzfs and this project to be imported, and its standard output."""
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{folder() / 'usr/lib/python3/dist-packages'}:{ROOT}",
        "SNAPREP_ZFS_USERLAND": str(folder()),
    }
    if preload is not None:
        environment["LD_PRELOAD"] = str(preload)
    text = given.decode() if isinstance(given, bytes) else given
    return subprocess.run(
        ["/usr/bin/python3", *arguments],
        input=text,
        capture_output=True,
        text=True,
        env=environment,
        timeout=deadline_s,
        check=False,
    )


def fetch() -> Path:
    """Downloads and unpacks the packages. Raises CalledProcessError when the archive cannot be reached."""
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch)
        for part in ("lists/partial", "cache/archives/partial", "debs"):
            (state / part).mkdir(parents=True)
        (state / "debs").chmod(0o755)
        sources = state / "sources.list"
        sources.write_text(f"deb [signed-by={KEYS}] http://deb.debian.org/debian bookworm main contrib\n")
        options = [
            f"Dir::Etc::sourcelist={sources}",
            "Dir::Etc::sourceparts=-",
            f"Dir::State::lists={state / 'lists'}",
            f"Dir::Cache={state / 'cache'}",
            "APT::Sandbox::User=root",
        ]
        apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
        subprocess.run([*apt, "update"], check=True, stdout=sys.stderr, timeout=300)
        subprocess.run([*apt, "download", *PACKAGES], check=True, stdout=sys.stderr, cwd=state / "debs", timeout=300)
        for package in sorted((state / "debs").glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(target)], check=True, timeout=60)
    return target


if __name__ == "__main__":
    sys.stdout.write(f"{fetch() if why_not() else folder()}\n")
