"""A full copy that breaks on its way: it goes on where it stopped, where both sides can."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.machines.world import Machines
from tests.rig import harm
from tests.rig.aftermath import nothing_lost
from tests.rig.node import wait_until

if TYPE_CHECKING:
    from tests.rig.host import Host
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig
BROKEN_AT = 8_000_000


def written(host: Host, pid: int) -> int:
    """Bytes that a process has written, to pipes too."""
    found = re.search(r"^wchar: (\d+)", host.run(["cat", f"/proc/{pid}/io"]).stdout, re.MULTILINE)
    return int(found.group(1)) if found else 0


def test_a_seed_that_broke_goes_on(pair: Pair) -> None:
    """When the target's agent is killed in the middle of a full copy, the same run sends what is missing on OpenZFS,
    and everything again on zfs-fuse, which keeps nothing of a stream in part.
    """
    with pair.writers(rate=20) as clients:
        clients.wait_for(20)
        running = pair.start("rebuild", "--limit", "4MB/s")
        running.wait_event(lambda e: e["event"] == "steps" and e["host"] == "db2", 60)
        agent = harm.agent_pid(pair.world["db2"])
        wait_until(lambda: written(pair.world["db2"], agent) > BROKEN_AT, "8 MB to arrive", 60)
        harm.kill_inside(pair.world["db2"], agent)
        result = running.wait()
        assert result.code == 0, result
        clients.wait_for(20)
        clients.stop()
    entries = [json.loads(line) for line in pair.journal().splitlines()]
    seeds = [e for e in entries if e["kind"] == "decision" and e["action"] == "Seed"]
    sent = next(e["delta_bytes"] for e in entries if e["kind"] == "round")
    goes_on = isinstance(pair.world, Machines)
    assert [seed["resume"] is not None for seed in seeds] == [False, goes_on]
    assert (sent < seeds[0]["expected_bytes"] - BROKEN_AT / 2) == goes_on
    assert (result.document["rounds"][0]["arrived_bytes"] is not None) == goes_on
    nothing_lost(pair, clients, "db1", "db2")
