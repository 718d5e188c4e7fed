"""Who listens and who talks to whom on this host, without disturbing either; and how to end a talk that is not ours.

Read is /proc/<pid>/net/tcp and tcp6, which show the network namespace of that process, and /proc/<pid>/fd.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import re
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from snaprep.engines.derby.descriptors import open_by

_ESTABLISHED, _CLOSE_WAIT, _LISTEN = 0x01, 0x08, 0x0A
_LOOK_S = 0.002
_PIDFD_GETFD = 438  # the same number on every architecture


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One line of the kernel's table. IPv4 addresses that travel in IPv6 sockets are shown as IPv4."""

    local: str
    local_port: int
    remote: str
    remote_port: int
    state: int
    inode: int

    def __str__(self) -> str:
        return f"{self.local}:{self.local_port} - {self.remote}:{self.remote_port}"


def listener(port: int, address: str | None = None) -> int | None:
    """The process that listens on a port, None when nobody does (or nobody whom this user may look at).

    With `address`, only a socket that takes connections to it counts: bound to it or to every address.
    """
    wanted = {found.inode for found in _listening(port, address)}
    if not wanted:
        return None
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return next((pid for pid in pids if any(inode in wanted for _, inode in _descriptors(pid))), None)


def listens(port: int, address: str | None = None) -> bool:
    """Whether anybody listens, asked of the kernel's table and never by connecting: a slave takes one peer only."""
    return any(True for _ in _listening(port, address))


def listening_addresses(port: int) -> tuple[str, ...]:
    """The local addresses of the sockets that listen on a port."""
    return tuple(found.local for found in _listening(port, None))


def _listening(port: int, address: str | None) -> Iterator[TcpSocket]:
    takes = {address, "0.0.0.0", "::"}  # noqa: S104 (looked for, not bound)
    for found in _sockets("self"):
        if found.state == _LISTEN and found.local_port == port and (address is None or found.local in takes):
            yield found


def connections(
    pid: int, *, remote_port: int | None = None, local_port: int | None = None, remote: str | None = None
) -> tuple[TcpSocket, ...]:
    """The established TCP connections of a process that fit every criterion given; none when it is gone."""
    return tuple(found for _, found in _connections(pid, remote_port, local_port, remote))


def connected(pid: int, *, remote_port: int | None = None, local_port: int | None = None) -> bool:
    """Whether a process has an established connection that fits."""
    return bool(connections(pid, remote_port=remote_port, local_port=local_port))


def orphans(pid: int, local_port: int) -> int:
    """How many sessions of a server have lost their client, but are still at work for it."""
    owned = {inode for _, inode in _descriptors(pid)}
    return sum(
        1
        for found in _sockets(str(pid))
        if found.state == _CLOSE_WAIT and found.local_port == local_port and found.inode in owned
    )


def cut(
    pid: int, *, remote_port: int | None = None, local_port: int | None = None, remote: str | None = None
) -> tuple[TcpSocket, ...]:
    """Shut down those connections of another process, both ways; its reads end at once. Returns what was cut.

    Works on a process of any user for root; otherwise on one's own, where ptrace is allowed. Raises PermissionError,
    ProcessLookupError, ValueError when nothing narrows the choice.
    """
    if remote_port is None and local_port is None:
        raise ValueError("cutting every connection of a process is never what is meant")
    return tuple(_shut(pid, socket.SHUT_RDWR, _connections(pid, remote_port, local_port, remote)))


def end_sessions(pid: int, local_port: int, deadline_s: float, *, but: Collection[int] = ()) -> int:
    """Let a server hear no more of its clients, and wait until it has closed them: their statements have ended then.

    Those that call from one of the ports `but` are left alone. What it says is still sent, so that a client learns of
    its commit. Returns how many take longer than the deadline, and are at work still. Raises as `cut` does.
    """
    clients = (each for each in _connections(pid, None, local_port, None) if each[1].remote_port not in but)
    deaf = {found.inode for found in _shut(pid, socket.SHUT_RD, clients)}
    ends = time.monotonic() + deadline_s
    while (at_work := sum(inode in deaf for _, inode in _descriptors(pid))) and time.monotonic() < ends:
        time.sleep(_LOOK_S)
    return at_work


def stop_listening(pid: int, port: int) -> int:
    """End the waiting of another process for connections to a port; its `accept` fails at once. Returns how many.

    Raises as `cut` does.
    """
    owned = {inode: descriptor for descriptor, inode in _descriptors(pid)}
    count = 0
    for found in _sockets(str(pid)):
        if found.state == _LISTEN and found.local_port == port and found.inode in owned:
            with _borrowed(pid, owned[found.inode], found.inode) as theirs:
                count += theirs is not None and _shut_down(theirs, socket.SHUT_RDWR)
    return count


def no_delay(pid: int, *, remote_port: int | None = None, local_port: int | None = None) -> int:
    """Set TCP_NODELAY on the sockets of another process that fit, listening ones included; returns how many.

    Connections taken from a listening socket inherit it. Derby's replication writes in small pieces and waits for
    answers, so that Nagle's algorithm and delayed acknowledgements cost `startMaster` 150 ms: set on the slave's
    listener before and on the master's connection as soon as it exists, they cost nothing. Raises as `cut` does.
    """
    if remote_port is None and local_port is None:
        raise ValueError("changing every connection of a process is never what is meant")
    owned = {inode: descriptor for descriptor, inode in _descriptors(pid)}
    count = 0
    for found in _sockets(str(pid)):
        fits = remote_port in (None, found.remote_port) and local_port in (None, found.local_port)
        if found.inode in owned and fits:
            with _borrowed(pid, owned[found.inode], found.inode) as theirs:
                if theirs is not None:
                    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    count += 1
    return count


def _shut(pid: int, ways: int, connections: Iterable[tuple[int, TcpSocket]]) -> Iterator[TcpSocket]:
    os.close(os.pidfd_open(pid))  # a process that is gone is an error, one without such a connection is not
    for descriptor, found in connections:
        with _borrowed(pid, descriptor, found.inode) as theirs:
            if theirs is not None and _shut_down(theirs, ways):
                yield found


def _shut_down(theirs: socket.socket, ways: int) -> bool:
    try:
        theirs.shutdown(ways)
    except OSError:  # the peer was quicker
        return False
    return True


@contextlib.contextmanager
def _borrowed(pid: int, descriptor: int, inode: int) -> Iterator[socket.socket | None]:
    """A duplicate of another process's socket; None when the descriptor stands for something else by now."""
    process = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        file = libc.syscall(_PIDFD_GETFD, process, descriptor, 0)
        number = ctypes.get_errno()
    finally:
        os.close(process)
    if file < 0 and number != errno.EBADF:
        raise OSError(number, os.strerror(number))
    if file < 0:
        yield None
        return
    try:
        if os.fstat(file).st_ino != inode:
            yield None
            return
        with socket.socket(fileno=os.dup(file)) as theirs:
            yield theirs
    finally:
        os.close(file)


def _connections(
    pid: int, remote_port: int | None, local_port: int | None, remote: str | None
) -> Iterator[tuple[int, TcpSocket]]:
    owned = {inode: descriptor for descriptor, inode in _descriptors(pid)}
    for found in _sockets(str(pid)):
        if (
            found.inode in owned
            and found.state == _ESTABLISHED
            and remote_port in (None, found.remote_port)
            and local_port in (None, found.local_port)
            and remote in (None, found.remote)
        ):
            yield owned[found.inode], found


def _descriptors(pid: int) -> Iterator[tuple[int, int]]:
    """(descriptor, inode) of every socket that a process has open."""
    for descriptor, what in open_by(pid):
        if match := re.fullmatch(r"socket:\[(\d+)\]", what):
            yield descriptor, int(match[1])


def _sockets(pid: str) -> Iterator[TcpSocket]:
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text("ascii").splitlines()[1:]
        except OSError:  # the process is gone, or the kernel has no IPv6
            continue
        for line in lines:
            words = line.split()
            local, local_port = _address(words[1])
            remote, remote_port = _address(words[2])
            yield TcpSocket(local, local_port, remote, remote_port, int(words[3], 16), int(words[9]))


def _address(text: str) -> tuple[str, int]:
    """The kernel prints addresses as 32-bit words in its own byte order, and ports as they are."""
    digits, port = text.split(":")
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port, 16)
