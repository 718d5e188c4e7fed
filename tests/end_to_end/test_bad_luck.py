"""What hosts and other people do to a pair: full disks, a second pair on the same database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig.aftermath import nothing_lost
from tests.rig.node import wait_until

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig


def test_target_fills_during_a_receive(pair: Pair) -> None:
    """When the target runs full in the middle of a copy, the error says so and the source serves; with room again
    `resume` makes the replica.
    """
    db2 = pair.world["db2"]
    free = int(db2.zfs("get", "-Hp", "-o", "value", "available", "tank"))
    with pair.writers(rate=20) as clients:
        clients.wait_for(20)
        running = pair.start("rebuild", "--limit", "2MB/s")
        running.wait_event(lambda e: e["event"] == "steps" and "send" in e["steps"], 60)
        db2.zfs("create", "-o", f"reservation={free - (6 << 20)}", "tank/ballast")
        result = running.wait()
        assert (result.code, result.error_id) == (10, "no-space"), result
        assert pair.must("status").document["serves"] == "db1"
        db2.zfs("destroy", "tank/ballast")
        pair.must("resume", "--limit", "none")
        clients.wait_for(20)
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")


def test_a_second_pair_on_one_source(pair: Pair) -> None:
    """The database of one pair is not taken by another: it is refused, and the first pair's replica stays attached."""
    first = pair.config.read_text()
    running = pair.start("rebuild", "--hold")
    running.wait_event(lambda e: e["event"] == "state" and e["state"] == "held")
    pair.config.write_text(first.replace('pair = "bank"', 'pair = "other"'))
    busy = pair.snaprep("rebuild")
    assert (busy.code, busy.error_id) == (75, "locked"), busy
    pair.config.write_text(first)
    pair.must("cutover")
    assert running.wait().code == 0
    pair.config.write_text(first.replace('pair = "bank"', 'pair = "other"'))
    refused = pair.snaprep("rebuild")
    assert (refused.code, refused.error_id) == (3, "other-pair"), refused
    pair.config.write_text(first)
    wait_until(lambda: pair.status()["hosts"][0]["replicating"], "the first pair's replica to be attached", 15)
