"""What a planned change of roles does next, for each state of a pair that matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snaprep.core.action import Feed, Hold, Refuse, Reopen, Roles, SetAside, Switchover, TakeOver, Verify
from snaprep.core.decide import decide_rebuild
from snaprep.core.decide_switchover import aim, decide_resume, decide_switchover
from snaprep.core.errors import ErrorInfo
from snaprep.core.estimate import SPREAD_FIRST, SWITCH_FIRST_MS, predict_switchover
from snaprep.core.model import CutoverTried, EngineState, Facts, History, HostFacts, Policy, Transactions
from snaprep.core.who import handing_over, who
from tests.core.facts import AB, NO_ROUTE, attached, both, point, replica, serving, with_engine, with_live
from tests.core.test_follow import fed, source
from tests.core.test_lane import FEEDING

POLICY = Policy()
NEW = History()


def tried(blocked_ms: float, *, ok: bool = True) -> CutoverTried:
    return CutoverTried(ok, 0.0, 0.0, blocked_ms, "" if ok else "attach-failed: why")


def error_of(facts: Facts, policy: Policy = POLICY, history: History = NEW, target: str | None = "b") -> str:
    action = decide_switchover(facts, policy, history, target)
    assert isinstance(action, Refuse), action
    return action.error.id


def stepped_down(*, marked: bool = False) -> HostFacts:
    """The former primary, shut down and nowhere to be found."""
    marks = {"serves": "replica" if marked else "primary", "generation": "2" if marked else "1"}
    away = with_live(serving("a", point(1)), mounted_at="/db.replica" if marked else None, properties=marks)
    return with_engine(away, state=EngineState.GATED if marked else EngineState.ABSENT, generation=None)


def opened_shut() -> HostFacts:
    """The new one: at the clients' path, with all of the log, its gate closed."""
    copy = with_live(replica("b", point(1)), mounted_at="/db")
    return with_engine(copy, state=EngineState.GATED, gate_saved=True, replicating=False)


def test_an_attached_pair_changes_places() -> None:
    """With the next generation, and a prediction."""
    action = decide_switchover(attached(), POLICY, NEW, "b")
    assert action == Switchover(roles=AB, generation=2, p50_ms=SWITCH_FIRST_MS, p90_ms=SWITCH_FIRST_MS * SPREAD_FIRST)
    assert aim(attached(), POLICY) == "b"


def test_a_fed_one_changes_places_when_it_has_caught_up() -> None:
    """It is fed first, by this very run; before it has said where it is, nobody is cut off."""
    behind = both(source(point(1)), fed(point(1)))
    action = decide_switchover(behind, POLICY, NEW, "b")
    assert isinstance(action, Feed)
    assert not action.replication
    action = decide_switchover(both(replace(source(point(1)), feed=FEEDING), fed(point(1))), POLICY, NEW, "b")
    assert isinstance(action, Switchover)
    assert action.fed


def test_what_serves_already_is_only_to_be_followed() -> None:
    """The rest of a switchover is that of a rebuild."""
    assert decide_switchover(attached(), POLICY, NEW, "a") == Verify(roles=AB)


@pytest.mark.parametrize(
    ("facts", "id"),
    [
        (both(serving("a", point(1)), replica("b", point(1))), "not-attached"),
        (both(serving("a"), serving("b")), "ambiguous-source"),
        (
            both(
                serving("a"),
                replace(replica("b", point(1)), error=NO_ROUTE),
            ),
            "host-unreachable",
        ),
    ],
)
def test_only_an_attached_pair_changes_places(facts: Facts, id: str) -> None:
    """What a rebuild has to do first is said, and nothing is touched."""
    assert error_of(facts) == id


def test_a_name_outside_the_pair_is_refused() -> None:
    """As a usage error; and where nobody can be aimed at, nobody is."""
    assert error_of(attached(), target="c") == "unknown-host"
    assert aim(both(serving("a"), serving("b")), POLICY) is None


def test_a_gate_that_was_left_closed_is_opened_first() -> None:
    """The run before it has died: things are put in order, then looked at anew."""
    gated = with_engine(serving("a", point(1)), state=EngineState.GATED)
    assert decide_switchover(both(gated, replica("b", point(1))), POLICY, NEW, "b") == Reopen(host="a")


def test_an_abort_ends_what_was_not_begun() -> None:
    """Before the roles have changed."""
    assert error_of(attached(), history=History(abort=True)) == "aborted"


def test_one_that_was_undone_is_not_tried_again() -> None:
    """The operator reads why, and decides."""
    assert error_of(attached(), history=History(switchovers=(tried(900, ok=False),))) == "switchover-undone"


def test_a_budget_that_would_not_do_is_said_before() -> None:
    """What this pair has needed counts."""
    assert error_of(attached(), replace(POLICY, budget_ms=2000)) == "over-budget"
    assert error_of(attached(), history=History(switchovers=(tried(2500),))) == "over-budget"


def test_the_prediction_learns() -> None:
    """The median and the ninetieth percentile of what was measured, once that says something."""
    assert predict_switchover((tried(500),)).p90_ms == pytest.approx(500 * SPREAD_FIRST)
    seen = predict_switchover((tried(500), tried(600), tried(1500), tried(9000, ok=False)))
    assert (seen.p50_ms, seen.p90_ms) == (600, 1500)
    assert predict_switchover((tried(500),) * 3).p90_ms == pytest.approx(625)


def test_old_transactions_are_waited_for() -> None:
    """Shutting down would roll them back; in the end that is said."""
    open_work = Transactions(open=1, oldest_s=60)
    facts = both(with_engine(attached().hosts[0], transactions=open_work), replica("b", point(1)))
    action = decide_switchover(facts, POLICY, NEW, "b")
    assert isinstance(action, Hold)
    assert action.reason.startswith("waiting: a transaction is open")
    assert error_of(facts, history=History(now_s=100.0, waiting_since_s=1.0)) == "old-transactions"


@pytest.mark.parametrize(("marked", "generation"), [(False, 2), (True, 2)])
def test_one_that_died_is_finished(generation: int, *, marked: bool) -> None:
    """The target has all that there is, and nobody finds the former primary: it is made to serve, by `resume` too."""
    facts = both(stepped_down(marked=marked), opened_shut())
    wanted = TakeOver(target="b", generation=generation, from_state="gated")
    assert decide_switchover(facts, POLICY, NEW, None) == wanted
    assert decide_resume(facts, POLICY, NEW) == wanted
    assert aim(facts, POLICY) == "b"


def test_one_that_died_early_is_not_finished() -> None:
    """While the former primary stands where clients look, or cannot be seen, it is not handed over."""
    assert handing_over(both(serving("a", point(1)), opened_shut())) is None
    assert handing_over(both(replace(stepped_down(), error=NO_ROUTE), opened_shut())) is None
    resumed = decide_resume(both(serving("a", point(1)), opened_shut()), POLICY, NEW)
    assert not isinstance(resumed, Refuse | TakeOver)


def test_an_opened_copy_is_no_candidate() -> None:
    """Its gate has let nobody in: the other one is right."""
    roles = who(both(serving("a", point(1)), opened_shut()))
    assert isinstance(roles, Roles)
    assert roles.source == "a"


def test_two_replicas_are_said() -> None:
    """A change of roles died between the two marks, and then the power went."""
    down = {"state": EngineState.CLOSED, "replicating": False}
    answer = who(both(with_engine(replica("a", point(1)), **down), with_engine(replica("b", point(1)), **down)))
    assert isinstance(answer, ErrorInfo)
    assert answer.id == "two-replicas"


@pytest.mark.parametrize("state", [EngineState.WAITING, EngineState.GATED])
def test_a_former_primary_that_waits_to_follow_is_set_aside(state: EngineState) -> None:
    """Its server has it open, as a replica that nobody has marked yet, or as what a look made of one: it is let go of
    by itself.
    """
    waits = with_engine(stepped_down(), state=state)
    former = with_live(waits, mounted_at="/db.replica", in_use_by=("7 java",), ours=False)
    action = decide_rebuild(both(former, serving("b", point(1), generation=2)), POLICY, NEW)
    assert isinstance(action, SetAside)
    assert action.to == "a/db.isolated-g1"


@pytest.mark.parametrize(("ours", "to"), [(True, "b/db.old"), (False, "b/db.isolated-g1")])
def test_a_former_primary_that_no_longer_follows_is_set_aside(to: str, *, ours: bool) -> None:
    """It holds the common point, or was made by somebody else: it is not destroyed like a clone."""
    former = with_live(replica("b", point(1)), points=(point(1),), ours=ours)
    stopped = with_engine(former, state=EngineState.CLOSED, replicating=False)
    action = decide_rebuild(both(serving("a", point(1)), stopped), POLICY, NEW)
    assert isinstance(action, SetAside)
    assert (action.image, action.to) == ("b/db", to)
