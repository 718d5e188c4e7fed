"""The operator's hold on both hosts: agents, locks, and the way on which data goes."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from snaprep.agent.link import Way
from snaprep.core.errors import Locked, SnaprepError
from snaprep.core.model import HostFacts, RunInfo
from snaprep.core.spec import HostSpec, Pair, Reach
from snaprep.host.base import Host
from snaprep.host.link import Joint
from snaprep.host.reach import Login
from snaprep.host.ssh import SshHost

_CONFIGURE_S = 20.0
_LOCK_S = 20.0
_LOCK_AGAIN_S = 95.0  # an agent behind a dead link lives for 60 s of silence, and then 30 s to put things back
_WAY_LIFE_S = 24 * 3600  # the key that opens a way lives for thirty days; what breaks later gets a new one
_TRY_AGAIN_S = 2.0  # between two tries to reach a host that was lost
_JOURNAL_COPY_CHARS = 4 << 20


class Session:
    """Agents on the hosts that can be reached. `lost` tells of the others.

    A host that was reached once and is lost is tried again whenever it is asked for; one that never was, is not: then
    nothing was begun there, and who waits should hear of it at once.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.hosts: dict[str, Host] = {}
        self.lost: dict[str, SnaprepError] = {}
        self._joint: Joint | None = None
        self._held: RunInfo | None = None
        self._databases: frozenset[str] = frozenset()
        self.acted = False  # something was asked to change
        self._ways: dict[tuple[str, str], tuple[Host, Host, float]] = {}  # and when it was opened
        self._reaching = {spec.name: threading.RLock() for spec in pair.hosts}
        self._tried_s: dict[str, float] = {}  # when a host was last tried to be reached
        self._met: set[str] = set()

    @classmethod
    def open(cls, pair: Pair) -> Self:
        """Start an agent on each host, at the same time."""
        session = cls(pair)
        session.connect(spec.name for spec in pair.hosts)
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, names: Iterable[str]) -> None:
        """Start agents on these hosts; those that cannot be reached are remembered with the reason."""
        wanted = list(names)
        with ThreadPoolExecutor(2) as pool:
            for name, host in zip(wanted, pool.map(self._try, wanted), strict=True):
                self._tried_s[name] = time.monotonic()
                if isinstance(host, SnaprepError):
                    self.lost[name] = host
                    self.hosts.pop(name, None)
                else:
                    self.lost.pop(name, None)
                    self.hosts[name] = host
                    self._met.add(name)

    def _try(self, name: str) -> Host | SnaprepError:
        spec, way = self.pair.host(name), self.pair.reach_of(name)
        try:
            host = start_agent(spec, way)
        except SnaprepError as error:
            return error
        return host

    def host(self, name: str) -> Host:
        """The agent there; a new one, with the run's locks, where it was lost. Raises why there is none."""
        with self._reaching[name]:
            host = self.hosts.get(name)
            if host is not None and not host.alive:
                _close(host)  # what is left of it would keep the lock
                self._reach_again(name)
            elif host is None and self.has_met(name) and time.monotonic() - self._tried_s[name] > _TRY_AGAIN_S:
                self._reach_again(name)
            if name in self.lost:
                raise self.lost[name]
            return self.hosts[name]

    def has_met(self, name: str) -> bool:
        """Whether this host was ever reached in this session."""
        return name in self._met

    def live(self, name: str) -> Host | None:
        """The agent there if it lives, without reaching for it: for who must not wait."""
        host = self.hosts.get(name)
        return host if host is not None and host.alive else None

    def _reach_again(self, name: str) -> None:
        """A host whose lock is not to be had is no use: it counts as lost."""
        self.connect([name])
        try:
            self._lock_again(name)
        except SnaprepError as error:
            if (host := self.hosts.pop(name, None)) is not None:
                _close(host)
            self.lost[name] = error

    def need_all(self) -> None:
        """Raises HostUnreachable for the first host that cannot be reached."""
        for spec in self.pair.hosts:
            self.host(spec.name)

    def lock(self, run: str, verb: str, databases: Iterable[str]) -> None:
        """Take the pair's lock on every host reached, and the database's lock on those named. Raises `locked`."""
        operator = f"{getpass.getuser()}@{socket.gethostname()}"
        self._held = RunInfo(run=run, verb=verb, operator=operator, pid=os.getpid())
        self._databases = frozenset(databases)
        for name, host in self.hosts.items():
            self._lock(name, host)

    def _lock(self, name: str, host: Host) -> None:
        host.call("lock", {"info": self._held, "database": name in self._databases}, type(None), deadline_s=_LOCK_S)

    def _lock_again(self, name: str) -> None:
        """A new agent takes the locks of the one that died, which may need a moment to let go of them."""
        if self._held is None or name not in self.hosts:
            return None
        ends_s = time.monotonic() + _LOCK_AGAIN_S
        while True:
            try:
                return self._lock(name, self.hosts[name])
            except Locked:
                if time.monotonic() > ends_s or self._held_by_others(name):
                    raise
                time.sleep(0.5)

    def _held_by_others(self, name: str) -> bool:
        """Another run took the pair while this one's agent was gone; no name is told while a lock changes hands."""
        by = self.hosts[name].call("observe", {}, HostFacts, deadline_s=40).held_by
        return by is not None and self._held is not None and by.run not in ("", self._held.run)

    def link(self, sender: str, receiver: str, run: str, limit_bytes_per_s: int | None) -> None:
        """Open the way for streams from sender to receiver, once a session and direction."""
        source, target = self.host(sender), self.host(receiver)
        source.call("limit", {"bytes_per_s": limit_bytes_per_s}, type(None), deadline_s=10)
        if self.pair.relay:
            self._join(sender, receiver, run)
            return
        known = self._ways.get((sender, receiver))
        if known is None or known[:2] != (source, target) or time.monotonic() - known[2] > _WAY_LIFE_S:
            public = source.call("link_key", {"run": run}, str, deadline_s=30)
            user = target.call("link_listen", {"run": run, "public_key": public}, str, deadline_s=30)
            reach = self.pair.reach_of(receiver)
            assert isinstance(target, SshHost)
            aim = Way(
                address=reach.data_address,
                port=reach.data_port or 22,
                user=reach.data_user or user,
                host_keys=(target.host_key,),
            )
            source.call("link_aim", {"way": aim}, type(None), deadline_s=30)
            self._ways[sender, receiver] = (source, target, time.monotonic())

    def _join(self, sender: str, receiver: str, run: str) -> None:
        """Join the two hosts through here, for one stream."""
        if self._joint is not None:
            self._joint.close()
        ends = [
            self.host(name).call("link_relay", {"run": run, "sends": name == sender}, list[str], deadline_s=30)
            for name in (sender, receiver)
        ]
        logins = [login(name, self.pair.reach_of(name)) for name in (sender, receiver)]
        self._joint = Joint(logins[0], ends[0], logins[1], ends[1])

    def keep_journal(self, name: str, journal: Path) -> None:
        """Leave a copy of the journal on a host, so that another operator can read what happened. Best effort."""
        host = self.hosts.get(name)
        if host is None or not host.alive:
            return
        with contextlib.suppress(SnaprepError, OSError):
            lines = journal.read_text("utf-8")[-_JOURNAL_COPY_CHARS:]
            host.call("keep_journal", {"text": lines}, type(None), deadline_s=20)

    def close(self) -> None:
        if self._joint is not None:
            self._joint.close()
        with ThreadPoolExecutor(2) as pool:
            for host in list(self.hosts.values()):
                pool.submit(_close, host)
        self.hosts = {}


def start_agent(spec: HostSpec, way: Reach) -> Host:
    """An agent on one host, told its pair. Raises HostUnreachable."""
    host = SshHost(login(spec.name, way))
    host.call("configure", {"spec": spec}, type(None), deadline_s=_CONFIGURE_S)
    return host


def login(name: str, way: Reach) -> Login:
    """`[user@]host[:port]` or an alias, as configured."""
    user, _, rest = way.ssh.rpartition("@")
    address, _, port = rest.partition(":") if rest.count(":") == 1 else (rest, "", "")
    return Login(
        name=name,
        address=address,
        user=user or None,
        port=int(port) if port else None,
        become=way.become,
        python=way.python,
    )


def _close(host: Host) -> None:
    with contextlib.suppress(SnaprepError):
        host.close()
