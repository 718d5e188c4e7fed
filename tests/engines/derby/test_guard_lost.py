"""A guard that is killed while it holds a database: what it held is put back, by its client or by its agent."""

from __future__ import annotations

import os
import signal

import pytest

from snaprep.agent.guarded import GuardProcess
from snaprep.core.errors import SnaprepError
from tests.engines.derby.pairs import Two, agent_of
from tests.rig.node import wait_until

pytestmark = pytest.mark.derby
_LEASE_MS = 60_000


def test_the_client_of_a_killed_guard_says_its_last_words(pair: Two) -> None:
    """It thaws on a connection that was open before, and is not ended in the middle of that."""
    guard = GuardProcess(pair.at_source.spec, lambda: None)
    guard.ready()
    guard.call("freeze", {"lease_ms": _LEASE_MS}, deadline_s=20)
    os.kill(guard.pid, signal.SIGKILL)
    guard.end_client()
    pair.write("snaprep")
    guard.close()


def test_an_agent_goes_on_until_it_has_opened(pair: Two) -> None:
    """The server is away when the guard is killed: the agent says why there is no new one, and opens it later."""
    host = agent_of(pair.at_source, "lost")
    host.guard.ready()
    host.guard.call("gate_close", {"lease_ms": _LEASE_MS}, deadline_s=20)
    assert not pair.lets_in()
    pair.source.kill()
    os.kill(host.guard.pid, signal.SIGKILL)
    wait_until(lambda: not host.has_guard, "the guard to be missed", 20)
    with pytest.raises(SnaprepError):
        _ = host.guard
    pair.source.start()
    wait_until(pair.lets_in, "the gate to be open", 30)
    host.guard.ready()
    host.close()
