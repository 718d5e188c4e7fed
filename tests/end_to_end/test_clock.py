"""A host whose clock is wrong by a day. Nothing rests on the clocks of hosts being right, or equal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.rig import clock
from tests.rig.aftermath import nothing_lost
from tests.rig.derby import create_bank
from tests.rig.fixtures import BANK_MB
from tests.rig.node import patience_s
from tests.rig.pair import Pair
from tests.rig.world import World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.rig, pytest.mark.skipif(not clock.can_be_set(), reason="there is no C compiler")]

HOUR_S = 3600


def clock_s(world: World, name: str) -> float:
    return float(world[name].run(["date", "+%s"]).stdout)


@pytest.mark.parametrize(("name", "by_s"), [("db1", clock.DAY_S), ("db2", -clock.DAY_S), ("db2", clock.DAY_S)])
def test_a_clock_wrong_by_a_day(rig_tools: None, tmp_path: Path, name: str, by_s: int) -> None:
    """`check` warns; a rebuild, a refresh, a take-over and a fail-back go as ever, their keys are let in and gone
    afterwards, nothing is lost, and what is measured and told is in the operator's time.
    """
    with World.start(tmp_path) as world:
        world.power_off(name)
        clock.set_wrong(world[name], by_s)
        world.boot(name)
        assert abs(clock_s(world, name) - time.time() - by_s) < HOUR_S
        pair = Pair(world, create_bank(world["db1"], size_mb=BANK_MB))
        found = [f for told in pair.must("check").document["hosts"] for f in told["findings"]]
        assert [f["level"] for f in found if f["id"] == "clock-skew"] == ["warn"]
        with pair.writers() as clients:
            clients.wait_for(100)
            rebuilt(pair)
            pair.must("refresh")
            clients.wait_for(50)
            clients.stop()
        assert clients.gaps().worst_s < patience_s(5)
        nothing_lost(pair, clients, "db1", "db2")
        world.power_off("db1")
        pair.must("takeover", "--yes")
        world.boot("db1")
        with pair.writers() as clients:
            clients.wait_for(50)
            rebuilt(pair)
            clients.stop()
        nothing_lost(pair, clients, "db2", "db1")
        for host in world.hosts.values():
            assert "snaprep:" not in host.run(["cat", "/root/.ssh/authorized_keys"]).stdout


def rebuilt(pair: Pair) -> None:
    """A rebuild whose report tells plausible times."""
    running = pair.start("rebuild")
    result = running.wait()
    assert result.code == 0, result
    report = result.document
    assert 0 < report["cutover"]["blocked_ms"] < patience_s(4000)
    assert all(0 <= shown["elapsed_ms"] < HOUR_S * 1000 for shown in report["rounds"])
    forecasts = [e["forecast"]["p50_ms"] for e in running.events() if (e.get("forecast") or {}).get("p50_ms")]
    assert all(0 < p50_ms < patience_s(60_000) for p50_ms in forecasts)
