"""`startMaster` while the replica is not there: clients wait behind it, so it may take a moment and no more."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from snaprep.core.errors import Stopped
from snaprep.engines.derby import sockets
from snaprep.engines.derby.halt import Halt
from snaprep.engines.derby.replication import Replication
from snaprep.engines.derby.session import ADMIN, InFlight
from tests.engines.derby.pairs import Two

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.derby
DEADLINE_S = 100.0


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
