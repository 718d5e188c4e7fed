"""A held run, and what a second terminal can say to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.aftermath import nothing_lost
from tests.rig.node import wait_until

if TYPE_CHECKING:
    from tests.rig.pair import Pair, Running

pytestmark = pytest.mark.rig


def held(pair: Pair, *words: str) -> Running:
    """A run that has reached its hold."""
    running = pair.start("rebuild", "--hold", *words)
    running.wait_event(lambda e: e["event"] == "state" and e["state"] == "held")
    return running


def done_rounds(running: Running) -> list[dict[str, Any]]:
    return [e for e in running.events() if e["event"] == "round" and e["state"] == "done"]


def test_cutover_from_a_second_terminal(pair: Pair) -> None:
    """`cutover` lets a held run go on to its end; until then nobody is cut off."""
    with pair.writers() as clients:
        clients.wait_for(100)
        running = held(pair)
        assert pair.must("status").document["hosts"][0]["held_by"]["verb"] == "rebuild"
        assert clients.gaps().worst_s < 2
        pair.must("cutover")
        result = running.wait(60)
        assert (result.code, result.document["state"]) == (0, "done")
        clients.wait_for(50)
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")


def test_abort_from_a_second_terminal(pair: Pair) -> None:
    """`abort` ends a held run with exit code 11; the source serves and was never cut off."""
    with pair.writers() as clients:
        clients.wait_for(100)
        running = held(pair)
        pair.must("abort")
        result = running.wait(60)
        assert result.code == 11, result
        clients.wait_for(50)
        clients.stop()
    assert clients.gaps().worst_s < 2
    assert pair.must("status").document["serves"] == "db1"


def test_limit_from_a_second_terminal(pair: Pair) -> None:
    """`limit` reaches a run on its way, and the run shows it."""
    running = held(pair)
    pair.must("limit", "5MB/s")
    wait_until(lambda: "limit 5000000" in pair.journal(), "the run to hear of the limit", 15)
    pair.must("abort")
    result = running.wait(60)
    assert result.document["limit_bytes_per_s"] == 5_000_000


def test_second_run_is_locked_out(pair: Pair) -> None:
    """While a run lives, another one ends with exit code 75 and names it."""
    running = held(pair)
    second = pair.snaprep("rebuild")
    assert (second.code, second.error_id) == (75, "locked")
    pair.must("abort")
    assert running.wait(60).code == 11


@pytest.mark.parametrize("times", [1, 2])
def test_signal_stops_in_order(pair: Pair, times: int) -> None:
    """SIGINT once stops a run so that it can be resumed, twice aborts it; the source serves in both cases."""
    running = held(pair)
    running.interrupt(times)
    result = running.wait(60)
    assert result.code == {1: 10, 2: 11}[times], result
    assert pair.must("resume", "--no-hold").document["state"] == "done"
