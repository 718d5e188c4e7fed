"""The two sides of a pair change places under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig.aftermath import nothing_lost, survive_switch

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig

BUDGET = "20s"  # busy hosts are slow; a prediction that does not fit is refused


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
    ("operator", "retire"),
    ("operator", "step-down"),
    ("operator", "mark"),
    ("operator", "take-on"),
    ("source-agent", "retire"),
    ("source-agent", "follow"),
    ("target-agent", "open-shut"),
    ("target-agent", "take-on"),
    ("source-derby", "retire"),
    ("source-derby", "follow"),
    ("target-derby", "open-shut"),
    ("target-derby", "take-on"),
]


@pytest.mark.parametrize(("victim", "phase"), SCENES)
def test_kill_and_resume(pair: Pair, victim: str, phase: str) -> None:
    """Somebody serves, status says who, `resume` ends it with a replica on the other side, and nothing is lost."""
    survive_switch(pair, victim, phase)


@pytest.mark.parametrize("ending", ["switchover", "abort", "takeover"])
@pytest.mark.parametrize("phase", ["step-down", "mark"])
def test_a_dead_operator_is_survived_by_any_verb(pair: Pair, phase: str, ending: str) -> None:
    """Whatever the next operator says, it ends well."""
    survive_switch(pair, "operator", phase, ending=ending)
