"""`snaprep verify` after a rebuild under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig


def test_deep(pair: Pair) -> None:
    """Every table of the common point is equal on both hosts, and the throw-away clones are gone afterwards."""
    with pair.writers(rate=100) as writers:
        writers.wait_for(50)
        pair.must("rebuild")
        writers.wait_for(50)
        proven = pair.must("verify", "--deep").document["verified"]
        assert any(line.startswith("2 tables are equal") for line in proven), proven
        checked = pair.snaprep("check").document
    assert [f for h in checked["hosts"] for f in h["findings"] if f["level"] == "fail"] == []
    for host in pair.world.hosts.values():
        assert "verify" not in host.zfs("list", "-H", "-o", "name")
