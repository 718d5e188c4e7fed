"""Two real Derby servers for tests of the feed: a bank that is written to, and a copy of it that follows."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from snaprep.agent.host import AgentHost
from snaprep.core.spec import DerbySpec, HostSpec
from snaprep.engines.derby import digest, files
from snaprep.engines.derby.client import ClientDied, ClientError, SqlError
from snaprep.engines.derby.feed.ends import FeedSource, FeedTarget
from snaprep.engines.derby.feed.link import Finish, Player, Sender, Wire
from snaprep.engines.derby.feed.replica import FedReplica
from snaprep.engines.derby.halt import Halt
from snaprep.engines.derby.replication import Replication
from snaprep.engines.derby.session import ADMIN, Session
from tests.engines.derby.server import Server, free_port

_INSERT = "INSERT INTO snaprep.t VALUES (?, ?, ?)"
_UPDATE = "UPDATE snaprep.c SET n = n + 1 WHERE w = ?"


class Writers:
    """Sessions that write until stopped; `acknowledged` is what each knows to be committed."""

    def __init__(self, session: Session, count: int = 3, pause_s: float = 0.002) -> None:
        self._session = session
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self.acknowledged = [0] * count
        self.last_ack_s = [0.0] * count
        self.longest_gap_s = 0.0
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        name, client = f"w{number}", self._session.client
        number_of_next = 0
        connected = False
        while not self._stopping.is_set():
            try:
                if not connected:
                    client.open(name, self._session.url(), "app", "x", 20)
                    connected = True
                text = "v" * (number_of_next * 977 % 3000)
                with client.transaction(name, 20):
                    client.execute(name, _INSERT, [str(number), str(number_of_next), text], deadline_s=20)
                    client.execute(name, _UPDATE, [str(number)], deadline_s=20)
            except SqlError:
                connected = False
                time.sleep(0.02)
                continue
            except (ClientDied, ClientError):
                return
            number_of_next += 1
            now = time.monotonic()
            if self.last_ack_s[number]:
                self.longest_gap_s = max(self.longest_gap_s, now - self.last_ack_s[number])
            self.last_ack_s[number] = now
            self.acknowledged[number] = number_of_next
            time.sleep(self._pause_s)

    def stop(self) -> int:
        """How many commits were acknowledged."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        return sum(self.acknowledged)


@dataclass(slots=True)
class Feed:
    """One run of both loops, as two agents would have it."""

    sender: Sender
    source: FeedSource
    target: FeedTarget
    errors: list[Exception] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _sockets: tuple[socket.socket, socket.socket] | None = None

    def until(self, condition: Callable[[], bool], deadline_s: float = 60) -> None:
        ends = time.monotonic() + deadline_s
        while not condition():
            assert not self.errors, self.errors
            assert time.monotonic() < ends
            time.sleep(0.01)

    def finish(self, how: Finish, at: int | None = None) -> None:
        self.sender.finish(how, at)
        self.join()
        assert self.errors == []

    def join(self, deadline_s: float = 60) -> None:
        for thread in self._threads:
            thread.join(deadline_s)
            assert not thread.is_alive()

    def cut(self) -> None:
        """Both agents lose each other."""
        assert self._sockets is not None
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.join()


@dataclass(slots=True)
class Two:
    """A primary and the place of its replica."""

    source: Server
    target: Server
    at_source: Session
    at_target: Session
    halt: Halt
    replication: Replication
    fed: FedReplica

    def copy(self) -> None:
        """What an atomic snapshot would have caught."""
        if self.target.database().exists():
            shutil.rmtree(self.target.database())
        self.source.stop()
        shutil.copytree(self.source.database(), self.target.database())
        os.kill(self.source.pid, signal.SIGCONT)
        files.remove_lock_files(self.target.database())

    def feed(self) -> Feed:
        """Start both loops over a pair of sockets."""
        ours, theirs = socket.socketpair()
        source, target = FeedSource(self.source.database(), "10.14.2.0"), FeedTarget(self.fed, "10.14.2.0")
        sender = Sender(source, Wire(ours.fileno(), ours.fileno()))
        player = Player(target, Wire(theirs.fileno(), theirs.fileno()))
        feed = Feed(sender, source, target, _sockets=(ours, theirs))

        def run(loop: Callable[[], object], mine: socket.socket) -> None:
            try:
                loop()
            except Exception as error:  # noqa: BLE001 (looked at by the test)
                feed.errors.append(error)
            finally:
                mine.close()

        feed._threads = [
            threading.Thread(target=run, args=(sender.run, ours)),
            threading.Thread(target=run, args=(player.run, theirs)),
        ]
        for thread in feed._threads:
            thread.start()
        return feed

    def digests(self) -> tuple[dict[str, str], dict[str, str]]:
        """Every table on either side; opens what is closed."""
        found = []
        for session in (self.at_source, self.at_target):
            _when_open(session)
            found.append(digest.digest(session.client, ADMIN, 60))
        return found[0], found[1]

    def write(self, user: str) -> None:
        """One commit at the source in a session of its own."""
        self.at_source.client.open("writer", self.at_source.url(), user, "x", 10)
        self.at_source.client.execute("writer", "INSERT INTO snaprep.t VALUES (1, 1, 'on')", deadline_s=5)

    def lets_in(self) -> bool:
        """Whether a client of the source gets in and can commit."""
        try:
            self.write("app")
        except SqlError:
            return False
        return True

    def sql(self, statement: str, name: str = ADMIN) -> str | None:
        reply = self.at_source.client.execute(name, statement, deadline_s=20)
        return reply.value if reply.rows else None


def agent_of(session: Session, pair: str) -> AgentHost:
    """What an agent holds of a host, for steps that need a guard."""
    place = session.spec.database
    spec = HostSpec(name="a", pair=pair, volume="directory", dataset=place, mountpoint=place, derby=session.spec)
    return AgentHost(spec)


def _when_open(session: Session, deadline_s: float = 20) -> None:
    """A replica that takes over refuses sessions for a moment."""
    ends = time.monotonic() + deadline_s
    while True:
        try:
            session.connect(ADMIN, 20)
        except SqlError:
            assert time.monotonic() < ends
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def two(folder: Path, *, archived: bool = True, attributes: str = "") -> Iterator[Two]:
    """A small bank with log archive mode on, served, and a second server beside it."""
    source, target = Server(folder / "m", free_port()), Server(folder / "s", free_port())
    port = free_port()
    sessions = [_session(server, port) for server in (source, target)]
    try:
        for server in (source, target):
            server.start(options=("-Dderby.storage.indexStats.auto=false",))
        _make(sessions[0], source, archived=archived, attributes=attributes)
        halt = Halt(sessions[0])
        yield Two(
            source, target, sessions[0], sessions[1], halt, Replication(sessions[0], halt), FedReplica(sessions[1])
        )
    finally:
        source.kill()
        target.kill()
        for session in sessions:
            session.close()


def _session(server: Server, port: int) -> Session:
    place = str(server.database())
    spec = DerbySpec(
        database=place, port=server.port, user="snaprep", password="x", listen_address="127.0.0.1", listen_port=port,
        peer_address="127.0.0.1", peer_port=port,
    )  # fmt: skip
    return Session(spec)


def _make(session: Session, server: Server, *, archived: bool, attributes: str) -> None:
    client, url = session.client, server.url(attributes=f";create=true{attributes}")
    client.open(ADMIN, url, "snaprep", "x", 30)
    client.execute(ADMIN, "CREATE TABLE t (w INT, i INT, v VARCHAR(30000))", deadline_s=10)
    client.execute(ADMIN, "CREATE INDEX ti ON t (w, i)", deadline_s=10)
    client.execute(ADMIN, "CREATE TABLE c (w INT, n INT)", deadline_s=10)
    client.execute(ADMIN, "INSERT INTO c VALUES (0, 0), (1, 0), (2, 0), (3, 0)", deadline_s=10)
    settings = {"derby.storage.logSwitchInterval": "100000", "derby.database.defaultConnectionMode": "fullAccess"}
    if archived:
        settings["derby.storage.logArchiveMode"] = "true"
    for key, value in settings.items():
        client.execute(ADMIN, "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY(?, ?)", [key, value], deadline_s=10)
    with contextlib.suppress(SqlError):
        session.connect("down", 30, shutdown="true")
    if not attributes:
        session.connect(ADMIN, 30)
