"""The way of the bytes between two agents.

On the target a `Listener` waits in a private folder for the relay that sshd starts. On the source a `Dialer` starts
OpenSSH straight to the target, one connection ahead of what is needed, and keeps the connection of a stream that went
well for the next stream: neither a round nor the cutover pays for a handshake. When the hosts cannot see each other,
the operator starts one relay on either side and joins them (`snaprep.host.link`); then the source has a listener too.
Both sides see a `Link` in any case.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import queue
import select
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass

from snaprep.agent import keys, process
from snaprep.agent.pipe import ALIVE, GREETING, HEADER, Link, StreamHeader, greeted, remove_folder, run_folder, ssh_link
from snaprep.agent.relay import relay_argv
from snaprep.core.codec import decode
from snaprep.core.errors import SnaprepError

__all__ = ["CIPHERS", "Dialer", "Link", "Listener", "StreamHeader", "Way"]

_ALIAS = "snaprep-target"  # the target's only name in the run's known_hosts, whatever its address
CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"
_TICK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the source gets to the target. `host_keys` are as in known_hosts, as the operator verified them."""

    address: str
    port: int
    user: str
    host_keys: tuple[str, ...]


class Listener:
    """Takes the descriptors that relays hand over. Links wait here, open, until one is taken.

    With `greets` (the target) a link is ready when the peer has sent a stream's header; without (the source of a
    relayed pair) when the peer has greeted.
    """

    def __init__(self, run: str, user: str, *, greets: bool) -> None:
        self.run, self._greets = run, greets
        self.folder = run_folder(run, "link", user)
        path = self.folder / "socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)
        self._allowed = {0, os.geteuid(), entry.pw_uid}
        self._socket.listen(16)
        self.command = relay_argv(str(path))
        self._waiting: dict[int, Link] = {}
        self._added: queue.SimpleQueue[Link] = queue.SimpleQueue()  # to be watched for a first frame
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ready: list[Link] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True, name="listener")
        self._thread.start()

    def take(self, stream: str | None, *, deadline_s: float) -> Link:
        """The link on which this stream's header arrived, or any (None). Raises `link-lost` after the deadline,
        `link-closed` when the listener is closed meanwhile.
        """
        until = time.monotonic() + deadline_s
        with self._changed:
            while True:
                for link in self._ready:
                    if stream is None or (link.header is not None and link.header.stream == stream):
                        self._ready.remove(link)
                        if stream is not None or link.idle:
                            return link
                        link.close()
                        break
                else:
                    if self._closed:
                        raise SnaprepError("link-closed", "this side waits for no more connections")
                    if not self._changed.wait(max(0.0, until - time.monotonic())):
                        what = f"no connection came for {f'stream {stream}' if stream is not None else 'this run'}"
                        raise SnaprepError("link-lost", what, hint="see what the other side says")

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(5.0)
        self._socket.close()
        os.close(self._wake)
        while not self._added.empty():
            self._added.get().close()
        for link in [*self._waiting.values(), *self._ready]:
            link.close()
        remove_folder(self.folder)

    def _serve(self) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while not self._closed:
            for fd, _ in poller.poll(_TICK_S * 1000):
                try:
                    if fd == self._wake:
                        os.eventfd_read(fd)
                    elif fd == self._socket.fileno():
                        self._added.put(self._accept())
                    else:
                        poller.unregister(fd)
                        self._hear(self._waiting.pop(fd))
                except (SnaprepError, OSError):
                    continue  # that connection is of no use; whoever made it sees it end
            while not self._added.empty():
                link = self._added.get()
                self._waiting[link.read_fd] = link
                poller.register(link.read_fd, select.POLLIN)

    def _keep(self, link: Link) -> None:
        """Wait for the next stream on a link; from any thread."""
        with self._changed:
            if self._closed:
                link.close(well=True)
                return
            self._added.put(link)
            os.eventfd_write(self._wake, 1)

    def _accept(self) -> Link:
        connection, _ = self._socket.accept()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(connection.close)
            connection.settimeout(5.0)
            _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
            for fd in descriptors:
                on_failure.callback(os.close, fd)
            if uid not in self._allowed or len(descriptors) != 2:
                raise PermissionError(f"user {uid} may not bring descriptors here")
            on_failure.pop_all()
        link = Link(*descriptors, why=lambda: "", on_close=lambda well: _release(connection, well=well))
        if self._greets:
            link.keep = self._keep
            try:
                link.send(GREETING, json.dumps({"run": self.run}).encode())
            except SnaprepError:
                link.close()
                raise
        return link

    def _hear(self, link: Link) -> None:
        """The first frame of a waiting link makes it ready, or unfit."""
        try:
            kind, payload = link.receive(deadline_s=5)
            if kind == ALIVE and self._greets:  # said while the former stream's result was on its way
                self._added.put(link)
                return
            fit = kind == HEADER if self._greets else greeted(kind, payload, self.run)
            if self._greets and fit:
                link.header = decode(StreamHeader, json.loads(payload))
        except (SnaprepError, ValueError):
            fit = False
        if not fit:
            link.close()
            return
        with self._changed:
            self._ready.append(link)
            self._changed.notify_all()


def _release(connection: socket.socket, *, well: bool) -> None:
    with contextlib.suppress(OSError):
        if well:
            connection.send(b"0")
    connection.close()


class Dialer:
    """Connections from the source to the target, by OpenSSH with the run's key, opened one ahead, and kept for the next
    stream while they live.

    The key is made here and never leaves the folder; `public_key` travels to the target through the operator.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.folder = run_folder(run, "dial")
        self._key, self.public_key = keys.make_key(self.folder, run)
        self._way: Way | None = None
        self._ahead: _Dialled | None = None
        self._kept: Link | None = None
        self._closed = False

    def aim(self, way: Way) -> None:
        """Say where to. Pins the host keys, under a name that is independent of address and port."""
        known = "".join(f"{_ALIAS} {key}\n" for key in way.host_keys)
        (self.folder / "known_hosts").write_text(known, "ascii")
        self._way = way

    def argv(self) -> list[str]:
        assert self._way is not None, "aim first"
        connect_s = f"{process.patient_s(10):.0f}"
        options = {
            "BatchMode": "yes", "ControlPath": "none", "ControlMaster": "no", "Ciphers": CIPHERS,
            "Compression": "no", "IPQoS": "throughput", "ConnectTimeout": connect_s, "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3", "StrictHostKeyChecking": "yes", "HostKeyAlias": _ALIAS,
            "UserKnownHostsFile": f"{self.folder}/known_hosts", "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes", "IdentityAgent": "none", "PreferredAuthentications": "publickey",
            "LogLevel": "ERROR",
        }  # fmt: skip
        settings = [f"-o{name}={value}" for name, value in options.items()]
        way = self._way
        target = ["-p", str(way.port), "-l", way.user, "-i", str(self._key), "--", way.address]
        return ["ssh", "-F", "none", "-T", "-x", *settings, *target]

    def prepare(self) -> None:
        """Begin to open the next connection, unless one is under way or open."""
        if self._ahead is None and self._kept is None:
            self._ahead = _Dialled(self.argv(), self.run)

    def take(self, *, deadline_s: float = 20) -> Link:
        """An open link; at once when one was kept or prepared and still lives. Raises `link-lost` and its kin."""
        kept, self._kept = self._kept, None
        if kept is not None:
            if kept.idle:
                return kept
            kept.close()
        ahead, self._ahead = self._ahead, None
        link = None
        if ahead is not None:
            with contextlib.suppress(SnaprepError):  # it died meanwhile: the new one tells why, if that dies too
                link = ahead.result(deadline_s)
                if not link.idle:
                    link.close()
                    link = None
        if link is None:
            link = _Dialled(self.argv(), self.run).result(deadline_s)
        link.keep = self._keep
        return link

    def ensure(self) -> None:
        """See a connection open now, and keep it for the next stream. Raises what `take` raises."""
        self._keep(self.take())

    def _keep(self, link: Link) -> None:
        if self._closed or self._kept is not None:
            link.close(well=True)
        else:
            self._kept = link

    def close(self) -> None:
        self._closed = True
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close(well=True)
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.give_up()
        remove_folder(self.folder)


class _Dialled:
    """One ssh, with a thread that waits for the greeting from its far end."""

    def __init__(self, argv: list[str], run: str) -> None:
        self._run = run
        self._link = ssh_link(process.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        self._failure: SnaprepError | None = None
        self._thread = threading.Thread(target=self._wait, daemon=True, name="dialling")
        self._thread.start()

    def _wait(self) -> None:
        try:
            kind, payload = self._link.receive(deadline_s=20)
        except SnaprepError as error:
            self._failure = error
            return
        if not greeted(kind, payload, self._run):
            what = "what answers there is not this run's target"
            self._failure = SnaprepError("link-lost", what, hint="see where `address` and `data_port` lead")

    def result(self, deadline_s: float) -> Link:
        deadline_s = process.patient_s(deadline_s)
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            self.give_up()
            what = f"ssh to the target was not up after {deadline_s:g} s"
            raise SnaprepError("link-lost", what, hint="check the network between the hosts, and the target's sshd")
        if self._failure is not None:
            self._link.close()
            raise self._failure
        return self._link

    def give_up(self) -> None:
        self._link.close()
        self._thread.join(5.0)
