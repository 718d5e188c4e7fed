"""Hosts without a snapshot filesystem: the base is an online backup, and then the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.test_follow import BACK_S, STOPS_S, following, lag, stopped_equal
from tests.rig import check, harm
from tests.rig.aftermath import nothing_lost
from tests.rig.fixtures import BANK_MB
from tests.rig.node import wait_until
from tests.rig.plain import PlainPair, create_plain_bank
from tests.rig.storm import feeds
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.rig

BACKUP = ("--archive", "backup")


def sending(event: dict[str, Any]) -> bool:
    """Some of the base is on its way."""
    return event["event"] == "progress" and ((event.get("round") or {}).get("sent_bytes") or 0) > 1 << 20


@pytest.fixture
def plain(rig_tools: None, tmp_path: Path) -> Iterator[PlainPair]:
    """db1 serves a bank from a plain directory, db2 has nothing."""
    with World.start(tmp_path) as world:
        yield PlainPair(world, create_plain_bank(world, "db1", size_mb=BANK_MB))


def test_a_replica_without_snapshots(plain: PlainPair) -> None:
    """No writer waits while the base is copied, sent and fed on; stopped, the replica has every row; nothing of the
    base is left; `follow` goes on without a new one; `clean` puts the source back as it was.
    """
    with plain.writers(rate=150) as clients:
        clients.wait_for(100)
        running = plain.start("follow", *BACKUP)
        running.wait_event(feeds, BACK_S)
        clients.wait_for(200)
        assert lag(plain) is not None
        assert plain.names_in("db1") == ["bank"]
        assert plain.names_in("db2") == ["bank.replica"]
        running.interrupt()
        assert running.wait(STOPS_S).code == 10
        with following(plain, *BACKUP) as again:
            assert not [e for e in again.events() if e["event"] == "round"], "a new base was made"
            stopped_equal(plain, again, clients)
    assert clients.gaps().worst_s < 3, clients.gaps()
    plain.must("clean")
    properties = plain.world["db1"].run(["cat", f"{plain.bank.path}/service.properties"]).stdout
    assert "logArchiveMode=true" not in properties


def test_the_operator_dies_while_the_base_is_sent(plain: PlainPair) -> None:
    """kill -9 in the middle of the base: the source serves, `check` sees what was left, the next run goes on with a
    base of its own, and nothing of the first is left.
    """
    with plain.writers(rate=100) as clients:
        clients.wait_for(50)
        running = plain.start("follow", *BACKUP, "--limit", "4 MB/s")
        running.wait_event(sending, BACK_S)
        running.kill()
        clients.wait_for(50)
        wait_until(lambda: plain.status()["hosts"][0]["held_by"] is None, "the agents to be gone", 30)
        assert any(n.startswith("bank.point-") for n in plain.names_in("db1"))
        found = plain.snaprep("check").document
        left = [f["id"] for host in found["hosts"] for f in host["findings"]]
        assert left.count("leftover-copy") == 2, found
        with following(plain, *BACKUP) as again:
            assert plain.names_in("db1") == ["bank"]
            assert plain.names_in("db2") == ["bank.replica"]
            clients.wait_for(50)
            stopped_equal(plain, again, clients)


def test_take_over_and_back(plain: PlainPair) -> None:
    """The primary's host dies: the replica serves. When it comes back, it is set aside before its server is started;
    what it had not sent is counted, found there, and its host follows from a whole copy.
    """
    with plain.writers(rate=100) as clients:
        clients.wait_for(50)
        with following(plain, *BACKUP):
            clients.wait_for(100)
            plain.world.power_off("db1")
            result = plain.must("takeover", "db2", "--yes")
            assert result.document["serves"] == "db2", result
            assert plain.names_in("db2") == ["bank"]
            clients.wait_for(50, 60)
            clients.stop()
        missing = check.missing(clients.acked(), plain.served("db2").journal)
        assert len(missing) < 100, len(missing)
        plain.world["db1"].derby_autostart = False
        plain.world.boot("db1")
        again = plain.start("follow", *BACKUP)
        try:
            wait_until(lambda: plain.isolated("db1") == ["bank.isolated-g1"], "the former primary to be set aside", 30)
            plain.world["db1"].start_derby()
            again.wait_event(feeds, BACK_S)
            assert plain.isolated_holds("db1", missing) == missing
            again.interrupt()
            report = again.wait(STOPS_S).document
        finally:
            again.kill()
        assert sum(lost["commits"] for lost in report["lost"]) >= len(missing), report["lost"]
        assert check.differences(plain.served("db2"), plain.stored("db1")) == []


def test_a_rebuild_takes_the_log_lane(plain: PlainPair) -> None:
    """Without a word the lane is the log's; what `plan` says is what is sent; the replica is attached, the two change
    places, nothing is lost, nothing is left.
    """
    with plain.writers(rate=100) as clients:
        clients.wait_for(50)
        found = plain.snaprep("check").document
        assert [f for host in found["hosts"] for f in host["findings"] if f["level"] == "fail"] == []
        plan = plain.must("plan").document
        names = [step["name"] for step in plan["steps"]]
        assert names.index("seed") < names.index("feed") < names.index("cutover"), plan
        report = plain.must("rebuild").document
        assert report["cutover"]["ok"], report
        planned, sent = plan["steps"][names.index("seed")]["step_bytes"], report["rounds"][0]["sent_bytes"]
        assert abs(planned - sent) < 0.3 * sent, (planned, sent)
        clients.wait_for(50)
        assert plain.must("switchover", "--yes", "--budget", "20s").document["serves"] == "db2"
        clients.wait_for(50)
        assert (plain.names_in("db1"), plain.names_in("db2")) == (["bank.replica"], ["bank"])
        clients.stop()
    nothing_lost(plain, clients, "db2", "db1")
    properties = plain.world["db2"].run(["cat", f"{plain.bank.path}/service.properties"]).stdout
    assert "logArchiveMode=true" not in properties


@pytest.mark.parametrize("victim", ["db1", "db2"])
def test_an_agent_dies_while_the_base_is_sent(plain: PlainPair, victim: str) -> None:
    """Whichever agent is killed in the middle of the base, the same run begins it anew, and ends with every row."""
    with plain.writers(rate=100) as clients:
        clients.wait_for(50)
        running = plain.start("follow", *BACKUP, "--limit", "8 MB/s")
        try:
            running.wait_event(sending, BACK_S)
            host = plain.world[victim]
            harm.kill_inside(host, harm.agent_pid(host))
            running.wait_event(feeds, BACK_S)
            assert plain.names_in("db1") == ["bank"]
            assert plain.names_in("db2") == ["bank.replica"]
            clients.wait_for(50)
            stopped_equal(plain, running, clients)
        finally:
            running.kill()


def test_a_fed_directory_changes_places(plain: PlainPair) -> None:
    """A switchover needs no snapshots: the fed replica serves, the former primary follows, and nothing is lost."""
    with plain.writers(rate=50) as clients:
        clients.wait_for(50)
        with following(plain, *BACKUP):
            clients.wait_for(50)
            assert plain.must("switchover", "--yes", "--budget", "20s").document["serves"] == "db2"
        clients.wait_for(50)
        clients.stop()
    assert check.missing(clients.acked(), plain.served("db2").journal) == []
    roles = {host["name"]: (host["role"], host["replicating"]) for host in plain.status()["hosts"]}
    assert roles == {"db2": ("primary", True), "db1": ("replica", True)}
