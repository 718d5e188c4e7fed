"""kill -9 of each part of a run in each of its phases: clients go on, nothing is lost, the run can be ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig.aftermath import survive

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig

# Each victim, and each phase; `scripts/soak kills` runs all pairings.
SCENES = [
    ("operator", "seed"),
    ("source-agent", "round"),
    ("target-agent", "prepare"),
    ("operator", "close"),
    ("operator", "arm"),
    ("operator", "attach"),
    ("source-agent", "close"),
    ("source-agent", "attach"),
    ("target-agent", "arm"),
    ("guard", "close"),
    ("guard", "attach"),
    ("source-derby", "close"),
    ("target-derby", "attach"),
    ("source-sshd", "close"),
    ("target-sshd", "arm"),
]


@pytest.mark.parametrize(("victim", "phase"), SCENES)
def test_kill_and_resume(pair: Pair, victim: str, phase: str) -> None:
    """Clients get commits again in time, status says who serves, and `resume` makes the replica."""
    survive(pair, victim, phase)


@pytest.mark.parametrize(("victim", "phase"), [("operator", "close"), ("target-agent", "landing")])
def test_kill_and_abort(pair: Pair, victim: str, phase: str) -> None:
    """`abort` puts back what a dead run left, and a new rebuild makes the replica."""
    survive(pair, victim, phase, ending="abort")
