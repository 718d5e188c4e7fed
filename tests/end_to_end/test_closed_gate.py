"""A gate that is left closed because everything that would open it died with the power, or was killed at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig import harm
from tests.rig.aftermath import nothing_lost
from tests.rig.node import wait_until

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig


def test_power_cut_in_a_cutover(pair: Pair) -> None:
    """The source loses its power with its gate closed. After its boot nobody serves and status says so; `takeover`
    opens it there, for clients too, and the next rebuild makes the replica.
    """
    with pair.writers(rate=100) as clients:
        clients.wait_for(50)
        running = pair.start("rebuild")
        running.wait_event(harm.begins("arm"))
        pair.world.power_off("db1")
        assert running.wait(240).code in (21, 30)
        down = pair.must("status", code=21).document
        assert down["error"]["id"] == "nobody-serves"
        pair.world.boot("db1")
        told = pair.must("status", code=21).document
        assert (told["serves"], told["error"]["id"]) == (None, "nobody-serves")
        pair.must("takeover", "db1", "--yes")
        clients.wait_for(50, 30)
        pair.must("rebuild")
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")


def test_everything_that_would_open_it_is_killed(pair: Pair) -> None:
    """The operator, the source's agent, its guard and its Derby are killed with the gate closed: clients are refused,
    status says that nobody serves and how to open it, and `abort` does.
    """
    db1 = pair.world["db1"]
    with pair.writers(rate=100) as clients:
        clients.wait_for(50)
        running = pair.start("rebuild")
        running.wait_event(harm.begins("prepare"))
        doomed = [str(pid) for pid in (harm.guard_pid(db1), harm.agent_pid(db1))]
        running.wait_event(harm.begins("arm"))
        db1.crash("derby")
        db1.run(["kill", "-9", *doomed])
        running.kill()
        db1.start_derby()
        wait_until(lambda: pair.status()["error"], "the gate to be seen", 30)  # the next client opens the database
        told = pair.must("status", code=21).document
        assert (told["serves"], told["error"]["id"]) == (None, "gate-left-closed")
        assert "snaprep abort" in told["error"]["hint"]
        pair.must("abort")
        clients.wait_for(50, 30)
        assert pair.must("status").document["serves"] == "db1"
        pair.must("rebuild")
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")


@pytest.mark.parametrize("away_s", [14, 32])
def test_a_server_that_takes_long_to_shut_down(pair: Pair, away_s: int) -> None:
    """The source's server stands still in the middle of the cutover, past every bound: it is waited for, the cutover
    is taken back, clients go on, and the same run or the next one ends with a replica.
    """
    with pair.writers(rate=100, stall_ms=120_000) as clients:
        clients.wait_for(50)
        running = pair.start("rebuild")
        running.wait_event(harm.begins("close"))
        harm.stand_still(pair.world["db1"], "derby", away_s)
        clients.wait_for(50, 60)
        result = running.wait()
        assert result.code in (0, 10, 20), result
        if result.code:
            pair.must("resume")
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
