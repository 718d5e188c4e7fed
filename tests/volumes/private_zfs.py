"""A zfs-fuse daemon of one's own, in a mount namespace of one's own, for as long as a `with` block lasts.

The calling thread itself moves into the namespace and back, so the code under test runs in place and can be debugged.
The daemon dies with its parent, and the mounts with the namespace: a killed test leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

# Where zfs-fuse keeps state. Shared with another daemon, both would import the same pool and destroy it.
PRIVATE = ("/run/zfs", "/run/lock/zfs", "/etc/zfs", "/var/lib/zfs")
SOCKET = Path("/run/zfs/zfs_socket")
START_S = 10.0

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """Why zfs-fuse cannot be run here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/dev/fuse").exists():
        return "needs /dev/fuse"
    missing = [name for name in ("zfs-fuse", "zfs", "zpool", "setpriv") if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _tmpfs(path: str) -> None:
    Path(path).mkdir(parents=True, exist_ok=True)
    _checked(_libc.mount(b"tmpfs", path.encode(), b"tmpfs", 0, b"mode=755"))


@contextlib.contextmanager
def private_mounts() -> Iterator[None]:
    """What is mounted in the block is seen by nobody outside, and gone after it."""
    folder, root = Path.cwd(), os.open("/", os.O_RDONLY)
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    try:
        _checked(_libc.unshare(_CLONE_NEWNS))
        _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
        yield
    finally:
        _checked(_libc.setns(before, _CLONE_NEWNS))
        os.close(before)
        os.fchdir(root)  # entering a namespace ends a chroot: back into it
        os.chroot(".")
        os.close(root)
        os.chdir(folder)


@contextlib.contextmanager
def zfs_fuse(folder: Path) -> Iterator[None]:
    """A running daemon without pools. `folder` becomes an empty tmpfs: room for the pools' files and the mounts."""
    with private_mounts():
        for path in (*PRIVATE, str(folder)):
            _tmpfs(path)
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "zfs-fuse", "--no-daemon", "--no-kstat-mount"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            end = time.monotonic() + START_S
            while not SOCKET.exists():
                if time.monotonic() > end or daemon.poll() is not None:
                    raise RuntimeError("zfs-fuse did not come up")
                time.sleep(0.01)
            yield
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait(timeout=START_S)


# What OpenZFS keeps for itself of a small pool, so that a full one can still be emptied.
SLOP_MIB = 128


def in_kernel() -> bool:
    """Whether this machine's kernel has ZFS."""
    return Path("/sys/module/zfs").exists()


@contextlib.contextmanager
def kernel_zfs(folder: Path) -> Iterator[None]:
    """The kernel's own ZFS. Pools whose files lie in `folder` are destroyed at the end."""
    folder.mkdir()
    try:
        yield
    finally:
        for pool in sorted(vdev.stem for vdev in folder.glob("*.vdev")):
            subprocess.run(["zpool", "destroy", "-f", pool], check=False, capture_output=True, timeout=60)


def make_pool(name: str, folder: Path, size_mib: int) -> None:
    """A pool in one file, 4 KiB sectors, nothing of it mounted by itself. Most of `size_mib` can be written."""
    file = folder / f"{name}.vdev"
    with file.open("wb") as vdev:
        vdev.truncate((size_mib + (SLOP_MIB if in_kernel() else 0)) << 20)
    subprocess.run(["zpool", "create", "-m", "none", name, str(file)], check=True, capture_output=True, timeout=30)
