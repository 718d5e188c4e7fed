"""The guard's mind: nothing is opened while a step is in flight, and nothing stays closed past its lease."""

from __future__ import annotations

import random

import pytest

from snaprep.core.guard import (
    PATIENCE_S,
    RETRY_S,
    Answer,
    Begins,
    DidIt,
    Do,
    Event,
    Guard,
    Leaves,
    OwnerGone,
    Returns,
    Tick,
    Wanted,
    Work,
    step,
)


def after(*events: tuple[float, Event]) -> Answer:
    """The guard's last answer, when these events come at these times."""
    answer = Answer(Guard())
    for at_s, event in events:
        answer = step(answer.guard, event, at_s)
    return answer


FROZEN = ((0.0, Begins(Work.FREEZE, 10)), (0.1, Returns(Work.FREEZE)))
GATED = ((0.0, Begins(Work.CLOSE, 10)), (0.1, Returns(Work.CLOSE)))
ATTACHING = (*GATED, (0.2, Begins(Work.QUIESCE)), (0.3, Returns(Work.QUIESCE)), (0.4, Begins(Work.ATTACH)))


def test_a_planned_freeze_ends_when_it_is_wanted() -> None:
    """A freeze is thawed on demand, and then the guard is idle again."""
    asked = after(*FROZEN, (1, Wanted()))
    assert asked.do == (Do.THAW,)
    assert after(*FROZEN, (1, Wanted()), (1.1, DidIt(Do.THAW))).guard == Guard()


@pytest.mark.parametrize("event", [Tick(), Wanted(), OwnerGone()])
def test_a_passed_lease_opens_the_gate(event: Event) -> None:
    """Whatever is heard of first after the lease, the gate is opened."""
    assert after(*GATED, (10.0, event)).do == (Do.OPEN,)


@pytest.mark.parametrize("event", [OwnerGone(), Wanted()])
def test_trouble_ends_the_gate_before_its_lease(event: Event) -> None:
    """An owner who is gone or an engine in trouble is not waited for."""
    assert after(*GATED, (2.0, event)).do == (Do.OPEN,)


def test_nothing_happens_within_the_lease() -> None:
    """A tick before the end of the lease does nothing, and says when to come back."""
    answer = after(*GATED, (9.9, Tick()))
    assert answer.do == ()
    assert answer.guard.wake_at_s == 10.0
    assert answer.guard.phase == "gated"


def test_an_attach_in_flight_is_cut_and_waited_for() -> None:
    """The order that does not wedge Derby: cut, wait for the return, open."""
    gone = after(*ATTACHING, (1, OwnerGone()))
    assert gone.do == (Do.CUT,)
    assert gone.guard.phase == "ending"
    waits = after(*ATTACHING, (1, OwnerGone()), (1.1, DidIt(Do.CUT)), (2, Tick()))
    assert waits.do == ()
    assert waits.guard.wake_at_s == 1 + PATIENCE_S
    back = after(*ATTACHING, (1, OwnerGone()), (1.1, DidIt(Do.CUT)), (2, Returns(Work.ATTACH, ok=False)))
    assert back.do == (Do.OPEN,)


def test_a_quiesce_in_flight_is_waited_for() -> None:
    """There is nothing to cut in a shutdown; the gate opens when it is back."""
    events = (*GATED, (0.2, Begins(Work.QUIESCE)), (1, OwnerGone()))
    assert after(*events).do == ()
    assert after(*events, (2, Returns(Work.QUIESCE))).do == (Do.OPEN,)


def test_a_step_that_never_returns_restarts_the_server() -> None:
    """Patience is bounded: then the server is restarted and the gate opened."""
    stuck = (*ATTACHING, (1, OwnerGone()), (1.1, DidIt(Do.CUT)), (1 + PATIENCE_S, Tick()))
    assert after(*stuck).do == (Do.RESTART,)
    assert after(*stuck, (20, DidIt(Do.RESTART))).do == (Do.OPEN,)


def test_a_restart_ends_a_freeze() -> None:
    """A freeze lives in the server's memory only."""
    stuck = ((0, Begins(Work.FREEZE, 1)), (1, Tick()), (1 + PATIENCE_S, Tick()))
    assert after(*stuck).do == (Do.RESTART,)
    assert after(*stuck, (30, DidIt(Do.RESTART))).guard == Guard()


def test_a_restart_that_fails_leaves_the_step_in_flight() -> None:
    """Opening or thawing then would come in the middle of it; the guard waits and restarts again."""
    stuck = (*ATTACHING, (1, OwnerGone()), (1.1, DidIt(Do.CUT)), (1 + PATIENCE_S, Tick()))
    failed = (*stuck, (20, DidIt(Do.RESTART, ok=False)))
    assert after(*failed).do == (Do.CUT,)
    again = (*failed, (20.1, DidIt(Do.CUT)))
    assert after(*again).do == ()
    assert after(*again, (20 + PATIENCE_S, Tick())).do == (Do.RESTART,)


def test_a_thaw_that_fails_is_tried_again() -> None:
    """Nobody else is left to do it, so it goes on until it works."""
    failed = (*FROZEN, (1, OwnerGone()), (1.1, DidIt(Do.THAW, ok=False)))
    assert after(*failed).do == ()
    assert after(*failed).guard.wake_at_s == 1.1 + RETRY_S
    assert after(*failed, (1.1 + RETRY_S, Tick())).do == (Do.THAW,)


def test_freeze_and_gate_are_taken_back_one_after_the_other() -> None:
    """Thaw first: a gate cannot be opened on a frozen database."""
    events = (*GATED, (0.2, Begins(Work.FREEZE, 10)), (0.3, Returns(Work.FREEZE)), (1, OwnerGone()))
    assert after(*events).do == (Do.THAW,)
    assert after(*events, (1.1, DidIt(Do.THAW))).do == (Do.OPEN,)
    assert after(*events, (1.1, DidIt(Do.THAW)), (1.2, DidIt(Do.OPEN))).do == (Do.EXIT,)


def test_a_second_halt_does_not_lengthen_the_first() -> None:
    """The earlier end counts."""
    assert after(*GATED, (5, Begins(Work.FREEZE, 100))).guard.lease_until_s == 10


def test_an_idle_guard_ends_with_its_owner() -> None:
    """Nothing to take back: it exits, and is not woken by a clock."""
    assert after((0, OwnerGone())).do == (Do.EXIT,)
    assert Guard().wake_at_s is None
    assert Guard().phase == "idle"


def test_phases_have_names() -> None:
    """What `status` shows."""
    assert after(*FROZEN).guard.phase == "frozen"
    assert after(*ATTACHING).guard.phase == "attaching"


@pytest.mark.parametrize(
    ("events", "work"),
    [
        ((), Work.ATTACH),
        ((*GATED, (0.2, Begins(Work.QUIESCE))), Work.ATTACH),
        ((*GATED, (1, Wanted())), Work.ATTACH),
        ((*GATED, (1, Wanted()), (1.1, DidIt(Do.OPEN, ok=False))), Work.ATTACH),
        ((*GATED, (1, Wanted()), (1.1, DidIt(Do.OPEN, ok=False))), Work.FREEZE),
        (((0, OwnerGone()),), Work.FREEZE),
        (GATED, Work.ATTACH),
    ],
)
def test_a_step_that_must_not_begin_is_refused(events: tuple[tuple[float, Event], ...], work: Work) -> None:
    """An attach needs a gate that stands; nothing begins beside another step or while things are taken back."""
    at_s = 11.0 if events == GATED else 1.2
    answer = after(*events, (at_s, Begins(work, 5)))
    assert answer.refused
    if events == GATED:
        assert answer.do == (Do.OPEN,)


def test_reports_that_nobody_asked_for_change_nothing() -> None:
    """A late return or a stray report does not confuse it; an action handed out is not handed out twice."""
    assert after(*GATED, (1, Returns(Work.ATTACH)), (1, DidIt(Do.THAW))) == after(*GATED)
    assert after(*GATED, (1, Wanted()), (1.1, Tick())).do == ()
    assert after(*GATED, (1, Wanted())).guard.wake_at_s is None


def test_random_lives_keep_the_invariant() -> None:
    """Over random events: never open or thaw in flight; and left alone with a working engine, all ends open in time."""
    dice = random.Random(1)  # noqa: S311 (dice)
    works = list(Work)
    for _ in range(3000):
        guard, now_s = Guard(), 0.0
        for _ in range(dice.randint(1, 12)):
            now_s += dice.choice([0.0, 0.3, 4.0, 20.0])
            events: list[Event] = [
                Begins(dice.choice(works), dice.choice([0.5, 5.0])),
                Returns(dice.choice(works), ok=dice.random() < 0.5),
                Wanted(),
                OwnerGone(),
                Tick(),
                DidIt(guard.doing, ok=dice.random() < 0.5) if guard.doing else Tick(),
            ]
            answer = step(guard, dice.choice(events), now_s)
            assert not (answer.guard.in_flight and {Do.OPEN, Do.THAW} & set(answer.do))
            assert len(answer.do) <= 1
            guard = answer.guard
        _ends_open(guard, now_s)


def _ends_open(guard: Guard, now_s: float) -> None:
    """Every action works, nothing that is in flight ever returns by itself."""
    began_s = max(now_s, guard.lease_until_s)
    for _ in range(30):
        if guard.doing is not None:
            guard = step(guard, DidIt(guard.doing), now_s).guard
        elif guard.halted:
            assert guard.wake_at_s is not None
            now_s = max(now_s, guard.wake_at_s)
            guard = step(guard, Tick(), now_s).guard
    assert not guard.halted
    assert now_s <= began_s + PATIENCE_S + RETRY_S


def test_what_is_taken_away_is_not_opened() -> None:
    """A gated database that the other host is to serve: nothing is left to open, whatever comes after."""
    left = after(*GATED, (1, Leaves()))
    assert (left.guard, left.refused) == (Guard(), "")
    for event in (Tick(), OwnerGone()):
        assert Do.OPEN not in step(left.guard, event, 20.0).do


@pytest.mark.parametrize(
    ("before", "at_s", "why", "do"),
    [
        (GATED, 10.0, "lease-passed", (Do.OPEN,)),
        ((*GATED, (1, Wanted())), 2.0, "open is under way", ()),
        ((*GATED, (1, Begins(Work.QUIESCE))), 2.0, "quiesce is under way", ()),
        (FROZEN, 1.0, "a freeze is under way", ()),
        ((), 1.0, "lease-passed", ()),
    ],
)
def test_what_is_being_put_back_is_not_taken_away(
    before: tuple[tuple[float, Event], ...], at_s: float, why: str, do: tuple[Do, ...]
) -> None:
    """Past the lease, or while a step or an opening is under way, it stays, and who asked is told."""
    answer = after(*before, (at_s, Leaves()))
    assert answer.refused.startswith(why)
    assert answer.do == do
