"""What `plan` says of bytes, against what the rebuild then ships."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machines.world import Machines

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig
BUDGET = ("--budget", "100s")  # so that nothing here depends on how busy the machine is


def planned(pair: Pair) -> int | None:
    """The bytes of the first stream."""
    steps = pair.must("plan", *BUDGET).document["steps"]
    size: int | None = next(step["step_bytes"] for step in steps if step["name"] in {"seed", "round"})
    return size


def test_plan_tells_bytes(pair: Pair) -> None:
    """Where the filesystem can estimate, a full copy and an increment ship within 30 % of what the plan said; where it
    cannot, an increment's size is unknown.
    """
    pair.world["db1"].zfs("snapshot", f"{pair.bank.dataset}@somebodys")  # what was just written is counted from here on
    full = planned(pair)
    shipped = pair.must("rebuild", *BUDGET).document["rounds"][0]["sent_bytes"]
    assert full is not None
    assert 0.7 * shipped < full < 1.3 * shipped
    with pair.writers() as clients:
        clients.wait_for(200)
        clients.stop()
    pair.world["db2"].restart_derby()
    increment = planned(pair)
    shipped = pair.must("rebuild", *BUDGET).document["rounds"][0]["sent_bytes"]
    if isinstance(pair.world, Machines):
        assert increment is not None
        assert 0.7 * shipped < increment < 1.3 * shipped
    else:
        assert increment is None
