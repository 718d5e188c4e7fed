"""What is said before a take-over: what may be lost, and what becomes of the other side."""

from __future__ import annotations

from dataclasses import replace

from snaprep.act.takeover import question
from snaprep.core.action import TakeOver
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import EngineState
from tests.core.facts import both, replica, serving, with_engine

ACTION = TakeOver(target="b", generation=2, from_state="closed")


def test_a_host_that_answers_is_called_fenced() -> None:
    """Its database is taken away before the other one serves; it must not be told among what cannot be kept away."""
    closed = with_engine(serving("a"), state=EngineState.CLOSED)
    asked = question(both(closed, replica("b")), ACTION)
    assert [line.startswith("a answers") for line in asked.fenced] == [True]
    assert asked.not_fenced == ()


def test_a_host_out_of_sight_is_not() -> None:
    """Nobody can say whether clients still write there."""
    unseen = replace(serving("a"), error=ErrorInfo("host-unreachable", "no route to a"))
    asked = question(both(unseen, replica("b")), ACTION)
    assert asked.fenced == ()
    assert "clients may still write" in asked.not_fenced[0]


def test_a_copy_without_snapshots_has_no_common_one() -> None:
    """Of a replica that holds no snapshot none is named."""
    asked = question(both(serving("a"), with_engine(replica("b"), state=EngineState.CLOSED)), ACTION)
    assert asked.loss[0] == "everything since b lost its primary"
