"""The loop's patience and its bounds, on hosts that stand in for what cannot be provoked on real ones in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from snaprep import session as sessions
from snaprep.act.interpreter import Interpreter, Outcome
from snaprep.control import Control
from snaprep.core.action import Action, Adopt, Done, Hold, Present, Refuse, Reopen
from snaprep.core.errors import CheckFailed, ErrorInfo, HostUnreachable, Locked, SnaprepError, Stale
from snaprep.core.lineage import Base
from snaprep.core.model import EngineState, Facts, History, HostFacts, Policy, RunInfo
from snaprep.core.perform import Performed, Rests, StepDone, rests
from snaprep.core.recipe import Step
from snaprep.core.report import Report, RoundReport, RunState
from snaprep.journal import Journal
from snaprep.loop import tell
from snaprep.loop.loop import loop
from snaprep.loop.patience import RETRIES_OF_A_KIND
from snaprep.loop.state import Run
from snaprep.session import Session
from snaprep.verbs.command import command
from tests.core.facts import AB, both, empty, host, point, serving, with_engine
from tests.core.models import PAIR
from tests.sinks import Notes

BEFORE = both(serving("a"), empty("b"))


class Agent:
    """An agent that answers from a table; `dies` makes it end at a call of `perform`."""

    def __init__(self, name: str, facts: HostFacts, *, dies: bool = False) -> None:
        self.name, self.facts, self.dies, self.alive = name, facts, dies, True
        self.performed: list[str] = []
        self.cancelled = 0
        self.rested_on: list[Rests | None] = []
        self.locked_by: RunInfo | None = None
        self.inbox: list[str] = []
        self.deaf = False
        self.limits: list[object] = []

    def call(self, op: str, args: Mapping[str, object], result_type: type, **_: object) -> Any:  # noqa: ANN401
        del result_type
        if not self.alive:
            raise HostUnreachable("agent-died", f"the agent on {self.name} is gone")
        if op == "observe":
            return replace(self.facts, held_by=self.locked_by)
        if op == "lock" and self.locked_by is not None:
            raise Locked("locked", "the pair is held")
        if op == "perform":
            self.rested_on.append(cast("Rests | None", args["rests"]))
            return self.perform(cast("list[Any]", args["steps"]))
        if op == "post":
            self.inbox.append(str(args["command"]))
            return True
        if op == "limit" and self.deaf:
            raise HostUnreachable("deadline", f"{self.name} did not finish limit")
        if op == "limit":
            self.limits.append(args["bytes_per_s"])
        if op == "commands":
            said, self.inbox[:] = list(self.inbox), []
            return said
        return None

    def perform(self, steps: list[Any]) -> Performed:
        if self.dies:
            self.alive = False
            raise HostUnreachable("agent-died", f"the agent on {self.name} is gone")
        self.performed += [s.op for s in steps]
        return Performed(done=tuple(StepDone(s.key, s.op, 0, 1) for s in steps))

    def begin(self, op: str, args: Mapping[str, object], result_type: type, **more: object) -> Any:  # noqa: ANN401
        if not self.alive:
            raise HostUnreachable("agent-died", f"the agent on {self.name} is gone")
        agent = self

        class Pending:
            def result(self) -> object:
                return agent.call(op, args, result_type, **more)

            def cancel(self) -> None:
                agent.cancelled += 1

        return Pending()

    def close(self) -> None:
        self.alive = False


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[Agent | SnaprepError]]:
    """For each host, what the next attempts to reach it find; the last one stays."""
    found: dict[str, list[Agent | SnaprepError]] = {}
    turn = threading.Lock()

    def start_agent(spec: Any, way: object) -> Any:  # noqa: ANN401
        del way
        with turn:
            queue = found[spec.name]
            agent = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(agent, SnaprepError):
            raise agent
        return agent

    monkeypatch.setattr(sessions, "start_agent", start_agent)
    monkeypatch.setattr(sessions, "_TRY_AGAIN_S", 0.0)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return found


GONE = HostUnreachable("host-unreachable", "no route")


def run_of(
    session: Session, decide: Callable[[Facts, Policy, History], Action], verb: str = "rebuild"
) -> tuple[Run, Report]:
    journal = Journal.open("model", run="r1")
    run = Run(session, Policy(), Notes(), Control(), journal, verb)
    try:
        return run, loop(run, decide)
    except SnaprepError as error:
        return run, tell.failed(run, error)


def kinds(run: Run) -> list[str]:
    return [e.kind for e in run.journal.entries()]


def opened(session: Session, recipe: tuple[Step, ...]) -> Outcome:
    return Interpreter(session, lambda _: None).run(recipe)


def test_both_hosts_work_at_the_same_time(reach: dict[str, list[Agent | SnaprepError]]) -> None:
    """Steps beside others are asked for before those are waited for; when one host fails, the other is told to give up,
    both undo, and nothing more runs.
    """
    first, second = Agent("a", BEFORE.hosts[0]), Agent("b", BEFORE.hosts[1])
    reach.update(a=[first], b=[second])
    order: list[str] = []
    for agent in (first, second):

        def noted(*words: Any, agent: Agent = agent, begin: Any = agent.begin, **more: Any) -> Any:  # noqa: ANN401
            order.append(f"begin {agent.name}")
            return begin(*words, **more)

        def performed(steps: list[Any], agent: Agent = agent, perform: Any = agent.perform) -> Any:  # noqa: ANN401
            order.append(f"end {agent.name}")
            return perform(steps)

        agent.begin, agent.perform = noted, performed  # type: ignore[method-assign, assignment]
    recipe = (
        Step(host="a", op="receive_begin", undo=(Step(host="a", op="receive_cancel"),)),
        Step(host="b", op="checkpoint", beside=True, undo=(Step(host="b", op="thaw"),)),
        Step(host="b", op="snapshot"),
    )
    with Session.open(PAIR) as session:
        assert opened(session, recipe).error is None
        assert order == ["begin a", "begin b", "end a", "end b", "begin b", "end b"]
        del first.performed[:], second.performed[:]

        def failing(steps: list[Any]) -> Performed:
            if steps[0].op == "receive_begin":
                error = ErrorInfo("stale", "not the base")
                return Performed(done=(StepDone("receive_begin", "receive_begin", 0, 1, None, error),))
            return Performed(done=tuple(StepDone(s.key, s.op, 0, 1) for s in steps))

        first.perform = failing  # type: ignore[method-assign]
        outcome = opened(session, recipe)
        assert outcome.error is not None
        assert outcome.error.id == "stale"
        assert second.performed == ["checkpoint", "thaw"]
        assert second.cancelled == 1


def test_a_recipe_never_goes_on_with_another_agent(reach: dict[str, list[Agent | SnaprepError]]) -> None:
    """A gate closed by one agent is open when it died, so what comes next must not run on a new one.

    The undo may, but for what the dead agent's guard does itself.
    """
    first, second = Agent("a", BEFORE.hosts[0]), Agent("a", BEFORE.hosts[0])
    other = Agent("b", BEFORE.hosts[1])
    reach.update(a=[first, second], b=[other])
    with Session.open(PAIR) as session:
        dying = first.perform

        def once(steps: list[Any]) -> Performed:
            answer = dying(steps)
            first.alive = False
            return answer

        first.perform = once  # type: ignore[method-assign]
        recipe = (
            Step(host="a", op="gate_close", undo=(Step(host="a", op="gate_open"), Step(host="a", op="withdraw"))),
            Step(host="b", op="receive_end"),
            Step(host="a", op="attach"),
        )
        outcome = opened(session, recipe)
    assert outcome.error is not None
    assert outcome.error.id == "agent-died"
    assert (first.performed, second.performed) == (["gate_close"], ["withdraw"])
    assert [(s.op, s.error is None) for _, s in outcome.undone] == [("gate_open", False), ("withdraw", True)]


def test_a_lost_host_is_waited_for_by_a_run_that_has_begun(
    reach: dict[str, list[Agent | SnaprepError]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tries fail, the third finds it again, and the run goes on."""
    monkeypatch.setattr("snaprep.loop.patience._UNSEEN_PAUSE_S", 0.01)
    monkeypatch.setattr("snaprep.loop.patience._RETRY_PAUSE_S", 0.01)
    reach.update(
        a=[Agent("a", BEFORE.hosts[0])],
        b=[Agent("b", BEFORE.hosts[1], dies=True), GONE, GONE, Agent("b", BEFORE.hosts[1])],
    )

    def decide(facts: Facts, _: Policy, history: History) -> Action:
        del history
        if facts.hosts[1].error:
            return Refuse(error=ErrorInfo("host-unreachable", "b", exit_code=30))
        return Reopen(host="b") if not session.acted or session.hosts["b"].dies else Done(serving="a")  # type: ignore[attr-defined]

    with Session.open(PAIR) as session:
        _, report = run_of(session, decide)
    assert report.state is RunState.DONE


def test_a_host_that_never_answered_ends_at_once(reach: dict[str, list[Agent | SnaprepError]]) -> None:
    """Nothing was begun, so nothing is waited for: exit 30."""
    reach.update(a=[Agent("a", BEFORE.hosts[0])], b=[GONE])
    began_s = time.monotonic()
    with Session.open(PAIR) as session:
        _, report = run_of(session, lambda f, _p, _h: Refuse(error=f.hosts[1].error or GONE.info))
    assert report.error is not None
    assert report.error.exit_code == 30
    assert time.monotonic() - began_s < 2


@pytest.mark.parametrize(
    ("state", "code"), [(EngineState.PRIMARY, 10), (EngineState.GATED, 21)], ids=["it serves", "nobody does"]
)
def test_an_action_that_changes_nothing_is_not_repeated_for_ever(
    reach: dict[str, list[Agent | SnaprepError]], state: EngineState, code: int
) -> None:
    """Three times, then the run stops and names it; its exit code is the safety state."""
    agent = Agent("a", with_engine(serving("a"), state=state))
    reach.update(a=[agent], b=[Agent("b", empty("b"))])
    with Session.open(PAIR) as session:
        _, report = run_of(session, lambda _f, _p, _h: Reopen(host="a"))
    assert report.error is not None
    assert (report.error.id, report.error.exit_code) == ("no-progress", code)
    assert report.serves == ("a" if code == 10 else None)
    assert agent.performed == ["gate_open"] * 3


def test_an_action_rests_on_what_was_seen(
    reach: dict[str, list[Agent | SnaprepError]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call of an action to each host says what it was decided on; `stale` means: look and decide again."""
    monkeypatch.setattr("snaprep.loop.patience._RETRY_PAUSE_S", 0.01)
    agent = Agent("a", serving("a"))
    reach.update(a=[agent], b=[Agent("b", empty("b"))])
    perform, answers = agent.perform, [Stale("stale", "the host was booted since")]

    def refusing(steps: list[Any]) -> Performed:
        if answers:
            raise answers.pop()
        return perform(steps)

    agent.perform = refusing  # type: ignore[method-assign]
    actions: list[Action] = [Reopen(host="a"), Adopt(roles=AB), Done(serving="a")]
    with Session.open(PAIR) as session:
        run, report = run_of(session, lambda *_: actions.pop(0))
    assert report.state is RunState.DONE
    assert "failure" in kinds(run)
    assert agent.performed == ["adopt", "stamp"]
    assert agent.rested_on == [rests(agent.facts)] * 2


@pytest.mark.parametrize("mends", [True, False])
def test_breaks_are_counted_since_the_same_last_went_well(
    reach: dict[str, list[Agent | SnaprepError]],
    monkeypatch: pytest.MonkeyPatch,
    mends: bool,  # noqa: FBT001
) -> None:
    """A run bears any number of breaks when what broke goes well the next time; one that only other actions come
    between ends the run.
    """
    monkeypatch.setattr("snaprep.loop.patience._RETRY_PAUSE_S", 0.0)
    agent = Agent("a", serving("a"))
    reach.update(a=[agent], b=[Agent("b", empty("b"))])
    perform, breaks = agent.perform, [True, False] * (RETRIES_OF_A_KIND + 1)

    def breaking(steps: list[Any]) -> Performed:
        if steps[0].op == "gate_open" and (breaks.pop(0) or not mends):
            raise Stale("stale", "the host was booted since")
        return perform(steps)

    agent.perform = breaking  # type: ignore[method-assign]
    turn: list[Action] = [Reopen(host="a"), *([Reopen(host="a")] if mends else []), Hold(reason="held", pace_s=0.0)]
    actions = [*turn * (RETRIES_OF_A_KIND + 1), Done(serving="a")]
    with Session.open(PAIR) as session:
        run, report = run_of(session, lambda *_: actions.pop(0))
    assert kinds(run).count("failure") == RETRIES_OF_A_KIND + 1
    assert report.state is (RunState.DONE if mends else RunState.STOPPED)


@pytest.mark.parametrize("verb", ["rebuild", "follow"])
def test_a_server_that_cannot_be_fed(reach: dict[str, list[Agent | SnaprepError]], verb: str) -> None:
    """A rebuild says so and goes on without a feed; a run that is nothing but a feed ends."""
    target = Agent("b", empty("b"))
    reach.update(a=[Agent("a", serving("a"))], b=[target])

    def refusing(steps: list[Any]) -> Performed:
        del steps
        raise CheckFailed("no-direct-boot", "the copy was rolled back")

    target.perform = refusing  # type: ignore[method-assign]

    def decide(_facts: Facts, _policy: Policy, history: History) -> Action:
        base = Base(point(1), "a/db", "b/db.recv", point(1).name, continues=True)
        return Done(serving="a") if history.unfeedable else Present(roles=AB, base=base)

    with Session.open(PAIR) as session:
        run, report = run_of(session, decide, verb)
    if verb == "rebuild":
        assert report.state is RunState.DONE
        assert "failure" in kinds(run)
    else:
        assert report.error is not None
        assert report.error.id == "no-direct-boot"


@pytest.mark.parametrize("id", ["link-stalled", "stream-damaged"])
@pytest.mark.parametrize("verb", ["rebuild", "follow"])
def test_what_may_pass_is_tried_again(reach: dict[str, list[Agent | SnaprepError]], verb: str, id: str) -> None:
    """A stream that stalled or came damaged is sent again, by a run that follows as by one that has an end."""
    agent = Agent("a", host("a"))
    reach.update(a=[agent], b=[Agent("b", host("b"))])
    fails, perform = [SnaprepError(id, "the stream broke")], agent.perform

    def once(steps: list[Any]) -> Performed:
        if fails:
            raise fails.pop()
        return perform(steps)

    agent.perform = once  # type: ignore[method-assign]
    actions: list[Action] = [Reopen(host="a"), Reopen(host="a"), Done(serving="a")]
    with Session.open(PAIR) as session:
        run, report = run_of(session, lambda *_: actions.pop(0), verb)
    assert report.state is RunState.DONE, report.error
    assert kinds(run).count("failure") == 1


def test_a_hold_is_told_once(reach: dict[str, list[Agent | SnaprepError]]) -> None:
    """Seconds that pass are no new reason; another reason is."""
    reach.update(a=[Agent("a", host("a"))], b=[Agent("b", host("b"))])
    reasons = [*(f"waiting: open for {n} s" for n in range(5)), "held", "held"]

    def decide(*_: object) -> Action:
        return Hold(reason=reasons.pop(0), pace_s=0.0) if reasons else Done(serving="a")

    with Session.open(PAIR) as session:
        run, _ = run_of(session, decide)
    assert kinds(run) == ["decision", "outcome", "decision", "outcome", "decision"]


def test_a_journal_that_breaks_is_told(reach: dict[str, list[Agent | SnaprepError]]) -> None:
    """A run goes on without it, and its report says once why there is no more of it."""
    reach.update(a=[Agent("a", host("a"))], b=[Agent("b", host("b"))])
    path = Journal.of("model").path
    actions: list[Action] = [*(Hold(reason=f"{word}", pace_s=0.0) for word in ("one", "two")), Done(serving="a")]

    def decide(*_: object) -> Action:
        if path.is_file():
            path.unlink()
            path.mkdir()
        return actions.pop(0)

    with Session.open(PAIR) as session:
        _, report = run_of(session, decide)
    assert report.state is RunState.DONE
    assert [note for note in report.notes if "cannot be written" in note] == [*report.notes]
    assert len(report.notes) == 1


@pytest.mark.parametrize("for_work", [True, False])
def test_only_a_wait_for_clients_is_measured(
    reach: dict[str, list[Agent | SnaprepError]],
    for_work: bool,  # noqa: FBT001
) -> None:
    """A run that has waited long for a restart, or another run, gives old transactions their whole time after it."""
    reach.update(a=[Agent("a", host("a"))], b=[Agent("b", host("b"))])
    actions: list[Action] = [Hold(reason="waiting: for it", pace_s=0.0, for_work=for_work), Done(serving="a")]
    with Session.open(PAIR) as session:
        run, _ = run_of(session, lambda *_: actions.pop(0))
    assert (run.history.waiting_since_s is not None) is for_work


@pytest.mark.parametrize(("holder", "waits"), [("r1", True), ("other", False)])
def test_only_our_own_lock_is_waited_for(
    reach: dict[str, list[Agent | SnaprepError]],
    monkeypatch: pytest.MonkeyPatch,
    holder: str,
    waits: bool,  # noqa: FBT001
) -> None:
    """The agent that died may need a moment to let go; another run will not let go at all."""
    monkeypatch.setattr(sessions, "_LOCK_AGAIN_S", 1.0)
    first, second = Agent("a", BEFORE.hosts[0]), Agent("a", BEFORE.hosts[0])
    second.locked_by = RunInfo(run=holder, verb="rebuild", operator="x", pid=1)
    reach.update(a=[first, second], b=[Agent("b", BEFORE.hosts[1])])
    with Session.open(PAIR) as session:
        session.lock("r1", "rebuild", ["a"])
        first.alive = False
        began_s = time.monotonic()
        with pytest.raises(Locked):
            session.host("a")
        assert (time.monotonic() - began_s > 1) is waits


@pytest.mark.parametrize("bytes_per_s", [None, 5_000_000])
def test_a_limit_is_changed_from_a_second_terminal(
    reach: dict[str, list[Agent | SnaprepError]], bytes_per_s: int | None
) -> None:
    """A run takes over a rate, and that there is none; a host that does not answer then costs no word said after it."""
    terminal, source, target = (Agent(name, BEFORE.hosts[name == "b"]) for name in ("a", "a", "b"))
    terminal.locked_by = RunInfo(run="r1", verb="rebuild", operator="x", pid=1)
    source.inbox = terminal.inbox
    target.deaf = True
    reach.update(a=[terminal, source], b=[Agent("b", BEFORE.hosts[1]), target])
    assert command(PAIR, Policy(), Notes(), "limit", bytes_per_s).notes
    source.inbox.append("cutover")
    with Session.open(PAIR) as session:
        run, report = run_of(session, lambda *_: Done(serving="a"))
    assert (report.limit_bytes_per_s, source.limits) == (bytes_per_s, [bytes_per_s])
    assert run.policy.limit_bytes_per_s == bytes_per_s
    assert run.history.release


def test_waiting_is_waiting_again_once_a_word_was_heard() -> None:
    """A command wakes the loop once; a stop keeps it awake."""
    control = Control()
    control.changed.set()
    assert control.wait(0)
    assert not control.wait(0)
    control.ask_stop()
    assert control.wait(0)
    assert control.wait(0)


def test_a_step_that_failed_has_no_duration() -> None:
    """Its end may never have been told."""
    failed = StepDone("open", "gate_open", 5, 0, None, ErrorInfo("x", "y"))
    outcome = Outcome(done=[("a", StepDone("gate_close", "gate_close", 1, 2)), ("a", failed)])
    assert outcome.took_ms("gate_close", "open") == 0
    outcome.undone.append(("a", StepDone("gate_open", "gate_open", 3, 4)))
    assert outcome.took_ms("gate_close", "gate_open") == 3000


@pytest.mark.parametrize(("shipped", "code", "state"), [(False, 3, RunState.FAILED), (True, 10, RunState.STOPPED)])
def test_after_bytes_were_shipped_nothing_was_touched_is_not_said(
    reach: dict[str, list[Agent | SnaprepError]],
    shipped: bool,  # noqa: FBT001
    code: int,
    state: RunState,
) -> None:
    """A refusal has code 3 while marks are all that was made, and 10 when there is something to go on with."""
    reach.update(a=[Agent("a", BEFORE.hosts[0])], b=[Agent("b", BEFORE.hosts[1])])
    refused = ErrorInfo("engine-down", "b: no server", exit_code=3)
    with Session.open(PAIR) as session:
        session.acted = True
        run = Run(session, Policy(), Notes(), Control(), Journal.open("model", run="r1"), "rebuild")
        run.report = replace(run.report, rounds=(RoundReport(number=0, kind="full"),) * shipped)
        report = loop(run, lambda _f, _p, _h: Refuse(error=refused))
    assert report.error is not None
    assert (report.error.exit_code, report.state) == (code, state)
