"""A rebuild in the log lane: the replica is fed after the base, and the feed is cut over to Derby's own replication."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig.aftermath import nothing_lost

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig


def test_a_rebuild_in_the_log_lane(pair: Pair) -> None:
    """Under writers the replica is fed and then attached, nothing is lost, and the source keeps its log no longer."""
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        report = pair.must("rebuild", "--lane", "log", "--archive", "bounce").document
        assert report["cutover"]["ok"], report
        assert report["cutover"]["blocked_ms"] < 4000, report["cutover"]
        clients.wait_for(100)
        clients.stop()
    assert pair.status()["hosts"][0]["replicating"]
    nothing_lost(pair, clients, "db1", "db2")
    properties = pair.world["db1"].run(["cat", f"{pair.bank.path}/service.properties"]).stdout
    assert "logArchiveMode=true" not in properties
