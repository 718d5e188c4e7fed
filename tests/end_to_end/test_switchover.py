"""The two sides of a pair change places under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig import check
from tests.rig.aftermath import nothing_lost, survive_switch
from tests.rig.storm import ARCHIVE, feeds

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig

BUDGET = "20s"  # busy hosts are slow; a prediction that does not fit is refused
FEEDS_S = 120.0


def test_there_and_back(pair: Pair) -> None:
    """Each time the replica serves and the former primary follows at once, nothing is copied and nothing is lost."""
    pair.must("rebuild")
    with pair.writers() as clients:
        clients.wait_for(100)
        for number, (serves, follows) in enumerate([("db2", "db1"), ("db1", "db2")] * 2):
            done = pair.must("switchover", "--yes", "--budget", BUDGET).document
            assert (done["serves"], done["rounds"], done["cutover"]["ok"]) == (serves, [], True), done
            clients.wait_for(50)
            status = pair.must("status").document
            roles = {host["name"]: (host["role"], host["generation"], host["replicating"]) for host in status["hosts"]}
            assert roles == {serves: ("primary", number + 2, True), follows: ("replica", number + 2, True)}
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")


# Each victim, and each phase; `scripts/soak kills` runs all pairings.
SCENES = [
    ("operator", "mark"),
    ("source-agent", "follow"),
    ("target-agent", "open-shut"),
    ("source-derby", "retire"),
    ("target-derby", "take-on"),
]


@pytest.mark.parametrize(("victim", "phase"), SCENES)
def test_kill_and_resume(pair: Pair, victim: str, phase: str) -> None:
    """Somebody serves, status says who, `resume` ends it with a replica on the other side, and nothing is lost."""
    survive_switch(pair, victim, phase)


@pytest.mark.parametrize(("phase", "ending"), [("step-down", "switchover"), ("mark", "abort"), ("mark", "takeover")])
def test_a_dead_operator_is_survived_by_any_verb(pair: Pair, phase: str, ending: str) -> None:
    """Whatever the next operator says, it ends well."""
    survive_switch(pair, "operator", phase, ending=ending)


def test_it_is_rebuilt_and_taken_over_as_ever(pair: Pair) -> None:
    """After a switchover a replica that broke comes back by an increment, twice, and takes over from a dead primary."""
    pair.must("rebuild")
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        pair.must("switchover", "--yes", "--budget", BUDGET)
        for _ in range(2):
            clients.wait_for(50)
            pair.world["db1"].restart_derby()
            rebuilt = pair.must("rebuild").document
            assert (rebuilt["serves"], "full" in [entry["kind"] for entry in rebuilt["rounds"]]) == ("db2", False)
        clients.stop()
    nothing_lost(pair, clients, "db2", "db1")
    pair.world.power_off("db2")
    assert pair.must("takeover", "--yes").document["serves"] == "db1"


def test_what_cannot_change_places_is_refused(pair: Pair) -> None:
    """No replica, another name, a budget that will not do: nothing is touched, and the primary serves."""
    assert pair.snaprep("switchover", "--yes").error_id == "not-attached"
    pair.must("rebuild")
    assert pair.snaprep("switchover", "db7", "--yes").error_id == "unknown-host"
    assert pair.snaprep("switchover", "--yes", "--budget", "1500ms").error_id == "over-budget"
    pair.world["db2"].restart_derby()
    refused = pair.snaprep("switchover", "db2", "--yes")
    assert (refused.error_id, refused.code) == ("not-attached", 3)
    assert pair.must("switchover", "db1", "--yes").document["serves"] == "db1"  # it does: what is left is a rebuild
    assert pair.must("status").document["serves"] == "db1"


def test_a_fed_replica_changes_places(pair: Pair) -> None:
    """The run that follows ends, the replica serves with all there is, and the former primary follows at once. Followed
    from there, it gets an increment, no copy, and the log that was kept on.
    """
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        follower = pair.start("follow", *ARCHIVE)
        follower.wait_event(feeds, FEEDS_S)
        clients.wait_for(50)
        assert pair.snaprep("switchover", "--yes", "--budget", "1500ms").error_id == "over-budget"
        assert follower.running, "who is refused has taken nothing from the replica"
        done = pair.must("switchover", "--yes", "--budget", BUDGET).document
        assert (done["serves"], done["rounds"], done["cutover"]["ok"]) == ("db2", [], True), done
        assert follower.wait(FEEDS_S).error_id == "aborted"
        clients.wait_for(50)
        roles = {host["name"]: (host["role"], host["replicating"]) for host in pair.status()["hosts"]}
        assert roles == {"db2": ("primary", True), "db1": ("replica", True)}
        again = pair.start("follow")
        again.wait_event(feeds, FEEDS_S)
        rounds = [e["kind"] for e in again.events() if e["event"] == "round" and e["state"] == "done"]
        assert rounds == ["delta"], rounds
        clients.stop()
        again.interrupt()
        assert again.wait(FEEDS_S).code == 10
    served = pair.served("db2")
    assert check.missing(clients.acked(), served.journal) == []
    assert check.differences(served, pair.stored("db1")) == []
    assert (
        pair.must("switchover", "--yes", "--budget", BUDGET).document["serves"] == "db1"
    )  # a fed one that was stopped
    assert check.missing(clients.acked(), pair.served("db1").journal) == []
