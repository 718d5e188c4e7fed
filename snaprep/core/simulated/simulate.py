"""Runs the loop against the model world, for tests that kill anything after any step.

`write` turns an action into recipes, as the actions do on live hosts; so what is simulated is what runs.
A recipe is interpreted as on live hosts, too: one call for the steps of one host that follow each other; the host
undoes its own part of a failed call at once; then every host undoes what earlier calls did, newest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from snaprep.core.action import (
    Action,
    Cutover,
    Feed,
    FeedCutover,
    GiveUp,
    Hold,
    Refuse,
    Round,
    Seed,
    Switchover,
)
from snaprep.core.decide_switchover import aim, decide_resume, decide_switchover
from snaprep.core.decide_takeover import decide_takeover
from snaprep.core.errors import ErrorInfo, SnaprepError
from snaprep.core.estimate import bytes_per_s
from snaprep.core.follow import beside, decide_follow, taken_marks
from snaprep.core.history import after, attempted
from snaprep.core.lane import decide_lane
from snaprep.core.model import CutoverTried, Facts, History, Policy, RoundDone, recv_name
from snaprep.core.recipe import Arg, Recipe, Step, calls, resolve, undo_of
from snaprep.core.refresh import decide_refresh
from snaprep.core.simulated.faults import Fault, OperatorKilled, strike
from snaprep.core.simulated.look import common_now, facts_of, violations
from snaprep.core.simulated.steps import perform
from snaprep.core.simulated.world import HostState, World, advance, end_feed, kill_agent

ROUND_TRIP_S = 0.03
RETRIES = 5
ACTIONS_MAX = 400
FEED_LOOK_S = 10.0
_MOVES_POINTS = frozenset(
    {"destroy_point", "destroy_image", "withdraw", "set_aside", "receive_end", "present", "present_fed", "mark"}
)

Goal: TypeAlias = Literal["rebuild", "resume", "takeover", "refresh", "switchover", "follow"]
Write: TypeAlias = Callable[[Action, Facts, Policy, str], tuple[Recipe, ...]]

_GOALS: Mapping[Goal, Callable[[Facts, Policy, History], Action]] = {
    "rebuild": decide_lane,
    "resume": decide_resume,
    "refresh": decide_refresh,
    "follow": decide_follow,
}


@dataclass(slots=True)
class Trace:
    """What a run did. `steps` are (host, operation, error id or empty); `broken` are violations, and after what."""

    actions: list[Action] = field(default_factory=list)
    steps: list[tuple[str, str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    final: Action | None = None
    error: ErrorInfo | None = None
    killed: bool = False
    history: History = field(default_factory=History)


@dataclass(slots=True)
class _Run:
    goal: Goal
    world: World
    policy: Policy
    faults: dict[int, list[Fault]]
    write: Write
    name: str
    trace: Trace
    target: str | None = None
    count: int = 0
    taken_s: float | None = None
    logged: tuple[float, int] | None = None
    failures: int = 0
    newest: dict[str, tuple[int, int]] = field(default_factory=dict)  # host -> (its live image, newest common txg)


def simulate_run(
    goal: Goal,
    world: World,
    policy: Policy,
    write: Write,
    faults: Iterable[Fault] = (),
    *,
    target: str | None = None,
    name: str = "run",
    abort_after: int | None = None,
) -> Trace:
    """Observe, decide, act until an action is final, the operator is killed, or too much has failed.

    `target` is the host named for a take-over; `abort_after` says `abort` after so many actions.
    """
    by_step: dict[int, list[Fault]] = {}
    for fault in faults:
        by_step.setdefault(fault.at, []).append(fault)
    run = _Run(goal, world, policy, by_step, write, name, Trace(), target)
    try:
        _loop(run, abort_after)
    except OperatorKilled:
        run.trace.killed = True
    for host in world.hosts.values():
        if host.agent:
            kill_agent(world, host)
    end_feed(world)
    _check(run, "the end")
    return run.trace


def _loop(run: _Run, abort_after: int | None) -> None:
    trace, world = run.trace, run.world
    for number in range(ACTIONS_MAX):
        abort = abort_after is not None and number >= abort_after
        trace.history = replace(
            trace.history, now_s=world.now_s, abort=abort, begun=run.goal == "follow" and bool(trace.steps)
        )
        facts = facts_of(world)
        action = _decide(run, facts)
        if world.fed and not beside(action, facts):
            _stop_feeding(run)
        trace.actions.append(action)
        _check(run, type(action).__name__)
        if action.final:
            trace.final = action
            trace.error = action.error if isinstance(action, Refuse) else None
            return
        try:
            _act(run, facts, action)
            run.failures = 0
        except SnaprepError as error:
            run.failures += 1
            if isinstance(action, Seed | Round) and action.resume is not None:
                failed = (*trace.history.failed_tokens, action.resume.token)
                trace.history = replace(trace.history, failed_tokens=failed)
            if run.failures > RETRIES:
                trace.error = error.info
                return
            advance(world, float(run.failures))
    trace.error = ErrorInfo("endless", f"no final action after {ACTIONS_MAX}")


def _stop_feeding(run: _Run) -> None:
    """In order, or else broken off: something else is to be done, or the run ends."""
    target = run.world.fed
    source = run.world.other(target).name
    if _interpret(run, (Step(host=source, op="feed_finish", args={"how": "stop"}),), {}) is not None:
        for step in (Step(host=target, op="feed_end"), Step(host=target, op="stop_replica")):
            _interpret(run, (step,), {})


def _decide(run: _Run, facts: Facts) -> Action:
    if run.goal == "takeover":
        return decide_takeover(facts, run.policy, run.trace.history, run.target)
    if run.goal == "switchover":
        run.target = run.target or aim(facts, run.policy)
        return decide_switchover(facts, run.policy, run.trace.history, run.target)
    return _GOALS[run.goal](facts, run.policy, run.trace.history)


def _act(run: _Run, facts: Facts, action: Action) -> None:
    """Do one action, and note in the history what it taught."""
    trace, world = run.trace, run.world
    if isinstance(action, Hold):
        trace.history = after(action, trace.history, world.now_s)
        return advance(world, action.pace_s)
    if isinstance(action, Feed) and world.fed:
        return advance(world, FEED_LOOK_S)
    recipes = run.write(action, facts, run.policy, f"snaprep-model-{run.name}-{len(trace.actions):03d}")
    world.given_up = world.given_up or isinstance(action, GiveUp)
    if isinstance(action, Cutover | FeedCutover):
        return _cut_over(run, action, recipes)
    if isinstance(action, Switchover):
        return _switch_over(run, action, recipes)
    return _do(run, facts, action, recipes)


def _do(run: _Run, facts: Facts, action: Action, recipes: tuple[Recipe, ...]) -> None:
    trace, world = run.trace, run.world
    began_s = world.now_s
    results: dict[str, object] = {}
    for recipe in recipes:
        results |= _must(run, recipe)
    if isinstance(action, Seed | Round):
        _learn(run, facts, action, results, world.now_s - began_s)
        _note_taken(run, facts, action)
    else:
        trace.history = after(action, trace.history, world.now_s)


def _note_taken(run: _Run, facts: Facts, action: Seed | Round) -> None:
    feeds = run.goal == "follow" or "log" in (run.policy.lane, run.trace.history.lane)
    if not feeds or action.resume is not None:
        return
    source, target = facts.host(action.roles.source), facts.host(action.roles.target)
    marks = taken_marks(run.trace.history.rounds[-1].head_guid, source)
    args: Mapping[str, Arg] = {"image": recv_name(target.live_name), "properties": marks}
    _must(run, (Step(host=target.name, op="mark", args=args),))


def _learn(run: _Run, facts: Facts, action: Seed | Round, results: Mapping[str, object], total_s: float) -> None:
    if run.world.given_up:
        run.newest.clear()
    run.world.given_up = False
    sent, got, taken = results["send"], results["receive_end"], results.get("snapshot")
    assert isinstance(sent, Mapping)
    assert isinstance(got, Mapping)
    history = run.trace.history
    before, logged = run.logged, facts.host(action.roles.source).engine.logged_bytes
    run.logged = (history.now_s, logged) if logged is not None else None
    since_s, run.taken_s = run.taken_s, float(taken["at_s"]) if isinstance(taken, Mapping) else None
    done = RoundDone(
        number=len(history.rounds) + 1,
        base_guid=action.base.point.guid if isinstance(action, Round) else None,
        head_guid=got["guids"][0],
        delta_bytes=sent["bytes"],
        send_s=sent["send_s"],
        total_s=total_s,
        dirty_s=run.taken_s - since_s if run.taken_s and since_s and isinstance(action, Round) else None,
        log_bytes_per_s=bytes_per_s(before, history.now_s, logged),
        arrived_bytes=action.resume.received_bytes if action.resume is not None else None,
    )
    run.trace.history = replace(history, rounds=(*history.rounds, done), last_round_end_s=run.world.now_s)


def _cut_over(run: _Run, action: Cutover | FeedCutover, recipes: tuple[Recipe, ...]) -> None:
    """Make ready, then the dangerous part, then what may fail; a failure is noted, not raised."""
    ready, dangerous, holds = recipes
    _must(run, ready)
    began_s = run.world.now_s
    results: dict[str, object] = {}
    error = _interpret(run, dangerous, results)
    _interpret(run, undo_of(ready) if error is not None else holds, {})
    blocked_ms = 1000 * (run.world.now_s - began_s)
    sent = results.get("send")
    delta_bytes = sent["bytes"] if isinstance(sent, Mapping) else 0
    fed, why = isinstance(action, FeedCutover), error.id if error else ""
    tried = CutoverTried(error is None, action.p50_ms, action.p90_ms, blocked_ms, why, delta_bytes, fed)
    run.trace.history = attempted(action, after(action, run.trace.history, run.world.now_s), tried)


def _switch_over(run: _Run, action: Switchover, recipes: tuple[Recipe, ...]) -> None:
    """Make ready, what can be undone, and what cannot; a failure is noted, not raised."""
    ready, over, assume = recipes
    _must(run, ready)
    began_s = run.world.now_s
    results: dict[str, object] = {}
    error = _interpret(run, over, results)
    if error is None:
        _interpret(run, assume, results)
    blocked_ms = 1000 * (run.world.now_s - began_s)
    why = error.id if error else ""
    tried = CutoverTried(error is None, action.p50_ms, action.p90_ms, blocked_ms, why, fed=action.fed)
    run.trace.history = attempted(action, after(action, run.trace.history, run.world.now_s), tried)


# -- the interpreter ---------------------------------------------------------------------------------------------------


def _must(run: _Run, recipe: Recipe) -> dict[str, object]:
    results: dict[str, object] = {}
    error = _interpret(run, recipe, results)
    if error is not None:
        raise SnaprepError(error.id, error.what)
    return results


def _interpret(run: _Run, recipe: Recipe, results: dict[str, object]) -> ErrorInfo | None:
    finished: list[Step] = []
    for group in calls(recipe):
        error, done, told = _call(run, group, results)
        if error is not None:
            if told:
                _undo(run, undo_of(done))
                undo = undo_of(finished)
            else:  # unknown how far it got
                undo = undo_of([*finished, *group])
            for host in run.world.hosts:
                _undo(run, tuple(s for s in undo if s.host == host))
            return error
        finished += done
    return None


def _call(run: _Run, group: Recipe, results: dict[str, object]) -> tuple[ErrorInfo | None, list[Step], bool]:
    """One call to one host. Returns what went wrong, what was done, and whether the host could tell."""
    host = run.world.hosts[group[0].host]
    done: list[Step] = []
    advance(run.world, ROUND_TRIP_S)
    for step in group:
        lost = _strike(run, host)
        if lost:
            return ErrorInfo("agent-died", f"the agent on {host.name} is gone"), done, False
        error = _one(run, host, step, results)
        done.append(step)
        if error is not None:
            return error, done, True
    return None, done, True


def _one(run: _Run, host: HostState, step: Step, results: dict[str, object]) -> ErrorInfo | None:
    world = run.world
    error: ErrorInfo | None = None
    try:
        value = perform(world, host, step.op, resolve(step.args, results), step.deadline_s)
        results[step.key] = {**value, "at_s": world.now_s} if isinstance(value, Mapping) else value
    except SnaprepError as failure:
        error = failure.info
    run.trace.steps.append((host.name, step.op, error.id if error else ""))
    _check(run, f"{host.name}: {step.op}", moved=step.op in _MOVES_POINTS)
    return error


def _undo(run: _Run, steps: Recipe) -> None:
    """An undo step that fails does not keep the next from running."""
    for step in steps:
        _one(run, run.world.hosts[step.host], step, {})


def _check(run: _Run, after: str, *, moved: bool = True) -> None:
    found = [*violations(run.world), *(_released(run) if moved else ())]
    run.trace.broken += [f"after {after}: {what}" for what in found]


def _released(run: _Run) -> list[str]:
    """The newest common point of what a primary sends may only move on, unless it was given up. Where every base is a
    whole copy there is none to be kept.
    """
    world, found = run.world, []
    common = {} if world.copies else common_now(world)
    for host in world.hosts.values():
        live = host.live
        if live is None or live.properties.get("serves") != "primary":
            continue
        image, txg = run.newest.get(host.name, (id(live), 0))
        now_txg = common.get(host.name, 0)
        if image == id(live) and now_txg < txg and not world.given_up:
            found.append(f"the newest common point of {host.name} was let go of")
        run.newest[host.name] = (id(live), max(txg, now_txg) if image == id(live) else now_txg)
    return found


def _strike(run: _Run, acting: HostState) -> bool:
    """Let the faults of this step happen. True when the agent that is acting is lost with them."""
    run.count += 1
    lost = False
    for fault in run.faults.get(run.count, ()):
        lost = strike(run.world, fault, acting) or lost
    return lost


def names_in(trace: Trace) -> list[str]:
    """The actions' names, the final one included."""
    return [type(a).__name__ for a in trace.actions]


def rendered(trace: Trace) -> str:
    """All that a run has said, for tests that look for what must not be in it."""
    everything: tuple[Any, ...] = (trace.actions, trace.steps, trace.broken, trace.error, trace.history)
    return repr(everything)
