"""A rebuild in the log lane: the replica is fed after the base, and the feed is cut over to Derby's own replication."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig.aftermath import nothing_lost
from tests.rig.storm import feeds

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
    assert not archived(pair)
    pair.world.power_off("db1")
    assert pair.must("takeover", "--yes").document["serves"] == "db2"
    assert not archived(pair, "db2"), "a replica that was fed keeps its log for ever"


def archived(pair: Pair, name: str = "db1") -> bool:
    """Whether the database there keeps its log."""
    return "logArchiveMode=true" in pair.world[name].run(["cat", f"{pair.bank.path}/service.properties"]).stdout


def test_a_hot_set_is_left_to_the_log(pair: Pair) -> None:
    """Where rounds of pages do not shrink and much less log is written, the run goes over to the log by itself, as the
    operator has allowed, and says why.
    """
    pair.world.link(rate_mbit=8)
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        report = pair.must("rebuild", "--archive", "bounce", "--budget", "6s").document
        lane = report["lane"]
        assert lane["name"] == "log", lane
        assert lane["page_bytes_per_s"] > 3 * lane["log_bytes_per_s"], lane
        assert report["cutover"]["ok"], report
        pair.world.link(rate_mbit=None)
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
    assert '"action":"Choose"' in pair.journal()
    assert not archived(pair)


def test_a_hot_set_that_may_not_be_logged_is_refused(pair: Pair) -> None:
    """Nobody said how the log may come to be kept: the run ends, names the log lane, and has cut nobody off."""
    pair.world.link(rate_mbit=8)
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        refused = pair.snaprep("rebuild", "--budget", "6s")
        assert (refused.error_id, refused.code) == ("not-converging", 12), refused
        assert "log lane" in refused.document["error"]["what"], refused
        clients.stop()
    assert clients.gaps().worst_s < 3, clients.gaps()


def test_small_deltas_stay_with_pages(pair: Pair) -> None:
    """Where pages do, they are taken, although the log may be kept: nobody is cut off for it."""
    with pair.writers(rate=100, hot=50) as clients:
        clients.wait_for(100)
        report = pair.must("rebuild", "--archive", "bounce", "--budget", "20s").document
        assert (report["lane"]["name"], report["cutover"]["ok"]) == ("pages", True), report["lane"]
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
    assert not archived(pair)


def test_what_was_fed_is_cut_over(pair: Pair) -> None:
    """After a `follow` that was stopped, a rebuild ships no pages at all."""
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        running = pair.start("follow", "--archive", "bounce")
        running.wait_event(feeds, 90)
        running.interrupt()
        assert running.wait(90).code == 10
        report = pair.must("rebuild").document
        assert (report["lane"]["name"], report["rounds"], report["cutover"]["ok"]) == ("log", [], True), report
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
