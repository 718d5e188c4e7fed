"""What `plan` says of bytes and seconds, against what the rebuild then ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.machines.world import Machines
from tests.rig.node import Pace

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig
BUDGET = ("--budget", "100s")  # so that nothing here depends on how busy the machine is
# Streams last longer than what an emulated machine needs to begin with them: half a minute, and ten seconds.
FULL_MBIT, INCREMENT_MBIT = 8.0, 2.0
TOLERANCE = 0.3


def planned(pair: Pair) -> dict[str, Any]:
    """The first stream, as `plan` has it."""
    steps = pair.must("plan", *BUDGET).document["steps"]
    step: dict[str, Any] = next(step for step in steps if step["name"] in {"seed", "round"})
    return step


def shipped(pair: Pair) -> dict[str, Any]:
    """The first stream, as it was sent."""
    report: dict[str, Any] = pair.must("rebuild", *BUDGET).document["rounds"][0]
    return report


def near(said: dict[str, Any], real: dict[str, Any]) -> bool:
    """Bytes and milliseconds are within 30 % of what they were; bytes alone where the hosts are emulated: how long they
    take depends on what else this machine does.
    """
    pairs = [(said["step_bytes"], real["sent_bytes"])]
    if Pace.slowness == 1.0:
        pairs.append((said["time_ms"], real["elapsed_ms"]))
    return all(a is not None and (1 - TOLERANCE) * b < a < (1 + TOLERANCE) * b for a, b in pairs)


def test_plan_tells_bytes_and_seconds(pair: Pair) -> None:
    """Where the filesystem can estimate, a full copy and an increment ship within 30 % of what the plan said, and take
    as long; where it cannot, an increment's size is unknown.
    """
    pair.world.link(rate_mbit=FULL_MBIT)
    pair.world["db1"].zfs("snapshot", f"{pair.bank.dataset}@somebodys")  # what was just written is counted from here on
    said, real = planned(pair), shipped(pair)
    assert near(said, real), f"said {said}, was {real}"
    with pair.writers() as clients:
        clients.wait_for(200)
        clients.stop()
    pair.world["db2"].restart_derby()
    pair.world.link(rate_mbit=INCREMENT_MBIT)
    said, real = planned(pair), shipped(pair)
    if isinstance(pair.world, Machines):
        assert near(said, real), f"said {said}, was {real}"
    else:
        assert said["step_bytes"] is None
        assert said["time_ms"] is None
