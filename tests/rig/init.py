"""The first process of a node's namespaces: makes its private mounts, says `up`, and lives until its
standard input closes. The test process holds the other end, so a node never outlives it: when the
first process of a PID namespace ends, the kernel kills all the others.

Started as a program, with the node's name and its mounts as JSON; standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys

MS_BIND = 4096
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    answer = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def apply(step: list[str]) -> None:
    """One mount or directory: ["overlay", path, upper, work], ["bind", path, source], ["tmpfs", path, mode]
    or ["mkdir", path, mode].
    """
    match step:
        case ["overlay", path, upper, work]:
            layers = f"lowerdir={path},upperdir={upper},workdir={work}"
            mount("overlay", path, "overlay", options=layers)
        case ["bind", path, source]:
            mount(source, path, "none", MS_BIND)
        case ["tmpfs", path, mode]:
            mount("tmpfs", path, "tmpfs", options=f"mode={mode}")
        case ["mkdir", path, mode]:
            os.makedirs(path, exist_ok=True)  # noqa: PTH103 - pathlib costs 10 ms of a node's start
            os.chmod(path, int(mode, 8))  # noqa: PTH101
        case _:
            raise ValueError(step)


def main() -> None:
    name, steps = sys.argv[1], json.loads(sys.argv[2])
    # Orphans are handed to this process; ignoring their end lets the kernel reap them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    socket.sethostname(name)
    for step in steps:
        apply(step)
    os.chdir("/")
    os.write(1, b"up\n")
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    main()
