"""`startMaster` while the replica is not there: clients wait behind it, so it may take a moment and no more."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from snaprep.core.errors import Stopped
from snaprep.engines.derby import sockets
from snaprep.engines.derby.halt import Halt
from snaprep.engines.derby.replication import Replication
from snaprep.engines.derby.session import ADMIN, InFlight, Session
from tests.engines.derby.pairs import Two
from tests.engines.derby.server import free_port

pytestmark = pytest.mark.derby
DEADLINE_S = 100.0
HEADER_BYTES = 4  # of a stream of Java objects; each side waits for the other's before anything else


def test_clients_do_not_wait_for_a_replica_that_has_gone(pair: Two) -> None:
    """Nobody listens: it is given up long before the budget is over, and the database is open."""
    began_s = time.monotonic()
    with pytest.raises(Stopped, match="XRE04") as refused:
        pair.replication.attach(DEADLINE_S)
    assert refused.value.id == "attach-failed"
    assert time.monotonic() - began_s < DEADLINE_S / 4
    pair.at_source.connect(ADMIN, 20)
    pair.sql("INSERT INTO snaprep.t VALUES (1, 1, 'open')")


def test_a_replica_that_is_late_is_attached(pair: Two) -> None:
    """It listens only after the first attempt: the next finds it."""
    pair.halt.quiesce()
    pair.copy()
    replica = Replication(pair.at_target, Halt(pair.at_target))

    def arm() -> None:
        with contextlib.suppress(Stopped):  # a primary that connects between two looks ends its listening
            replica.arm()

    later = threading.Timer(0.3, arm)
    later.start()
    pair.replication.attach(DEADLINE_S)
    later.join()
    assert replica.connected


def test_an_attach_that_cannot_be_cut_is_still_in_flight(pair: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may forbid the cut: nobody may take a silent replica's `startMaster` for one that has returned."""

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(sockets, "cut", forbidden)
    with socket.create_server(("127.0.0.1", pair.at_source.spec.peer_port)), pytest.raises(InFlight) as late:
        pair.replication.attach(1)
    assert late.value.id == "attach-hangs"


@contextlib.contextmanager
def slow_answers(port: int, peer_port: int, asked: threading.Event) -> Iterator[None]:
    """One connection is handed on; the peer's first answer behind its header comes a quarter of a second late."""

    def hand_on(door: socket.socket) -> None:
        primary, _ = door.accept()
        with primary, socket.create_connection(("127.0.0.1", peer_port)) as peer, selectors.DefaultSelector() as ready:
            ready.register(primary, selectors.EVENT_READ)
            ready.register(peer, selectors.EVENT_READ)
            from_primary = from_peer = 0
            late = False
            while True:
                for key, _ in ready.select():
                    whose = primary if key.fileobj is primary else peer
                    data = whose.recv(65_536)
                    if not data:
                        return
                    if whose is primary:
                        from_primary += len(data)
                        if from_primary > HEADER_BYTES:
                            asked.set()
                        peer.sendall(data)
                    else:
                        from_peer += len(data)
                        if from_peer > HEADER_BYTES and not late:
                            late = True
                            time.sleep(0.25)
                        primary.sendall(data)

    def serve(door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            hand_on(door)

    with socket.create_server(("127.0.0.1", port)) as door:
        serving = threading.Thread(target=serve, args=(door,))
        serving.start()
        yield
    serving.join(20)


def test_a_handshake_that_is_under_way_ends_before_the_cut(pair: Two) -> None:
    """Cut before the replica has answered, `startMaster` would wait 30 s for the answer, and clients behind it."""
    pair.halt.quiesce()
    pair.copy()
    replica = Replication(pair.at_target, Halt(pair.at_target))
    replica.arm()
    asked, port = threading.Event(), free_port()
    session = Session(replace(pair.at_source.spec, peer_port=port))
    primary = Replication(session, Halt(session))
    ended: list[str] = []

    def attach() -> None:
        try:
            primary.attach(DEADLINE_S)
        except Stopped as error:
            ended.append(error.id)

    with slow_answers(port, pair.at_target.spec.listen_port, asked):
        attaching = threading.Thread(target=attach)
        attaching.start()
        assert asked.wait(20)
        primary.cut_until_attached_ends()
        attaching.join(20)
        assert ended == ["attach-failed"]
        assert not primary.connected
    session.close()
