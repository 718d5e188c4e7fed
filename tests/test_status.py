"""What `status` raises an alarm for, and what it says of a host, as far as one look shows it."""

from __future__ import annotations

import pytest

from snaprep.core.model import EngineState, Facts, HostFacts
from snaprep.verbs.status import _alarm, _host_status, _replication
from tests.core.facts import NO_ROUTE, both, empty, point, replica, serving, with_engine

PRIMARY = serving("a", point(1))
IDLE = with_engine(PRIMARY, state=EngineState.CLOSED)
GATED = with_engine(PRIMARY, state=EngineState.GATED, gate_saved=True)


@pytest.mark.parametrize(
    ("facts", "id"),
    [
        (both(PRIMARY, replica("b", point(1))), ""),
        (both(IDLE, replica("b", point(1))), ""),
        (both(GATED, empty("b")), "gate-left-closed"),
        (both(PRIMARY, serving("b", point(1))), "two-primaries"),
        (both(IDLE, with_engine(serving("b", point(1)), state=EngineState.CLOSED)), "nobody-serves"),
        (both(empty("a"), empty("b")), "nobody-serves"),
    ],
    ids=["all is well", "idle", "gated", "two", "two idle", "none"],
)
def test_alarms(facts: Facts, id: str) -> None:
    """Somebody has to act when it is not one host that serves; one that waits for its first session does."""
    error = _alarm(facts)
    assert (error.id if error is not None else "") == id
    assert error is None or error.exit_code == 21


def test_nothing_is_said_of_a_host_that_told_nothing() -> None:
    """Of a host that cannot be reached only the reason is known: neither a database, nor that it is no replica."""
    lost = HostFacts(name="b", live_name="b/db", error=NO_ROUTE)
    told = _host_status(lost, newest=1)
    assert (told.role, told.engine_state, told.generation, told.free_bytes) == ("unknown", "", None, None)
    assert told.error == "host-unreachable: no route"
    assert _replication(PRIMARY, lost) == "not known: b could not be looked at"
