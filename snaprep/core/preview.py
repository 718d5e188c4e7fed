"""What a rebuild would do, from facts and measured rates: `decide` itself, run against what its actions would lead to.

Nothing is touched. Each action changes the facts as it would on live hosts; sizes and times come from the working-set
curve of `estimate`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from snaprep.core import choose, decide, follow
from snaprep.core.action import (
    Action,
    Adopt,
    Choose,
    Cutover,
    Feed,
    FeedCutover,
    GiveUp,
    Hold,
    KeepLog,
    KeepNoLog,
    Prepare,
    Present,
    Refuse,
    Reopen,
    Roles,
    Round,
    Seed,
    SetAside,
    Settle,
    Verify,
)
from snaprep.core.errors import ErrorInfo
from snaprep.core.estimate import FIXED_P50_MS, ROUND_FIXED_S, SPREAD_FIRST, Rates, unique_bytes
from snaprep.core.history import after
from snaprep.core.lane import decide_lane
from snaprep.core.model import (
    CutoverTried,
    EngineState,
    Facts,
    FeedFacts,
    History,
    HostFacts,
    KeptLog,
    Policy,
    RoundDone,
    recv_name,
)
from snaprep.core.refusals import error
from snaprep.core.volume import Image, ImageRole, Point

STEPS_MAX = 100
STREAM_BYTES_MIN = 2048  # a stream with nothing in it: the header and the end of the smallest increment
PREPARE_S = 2.0  # booting a copy in the target's server, the first time


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured or is assumed. `full_bytes`: what a full stream carries; `first_delta_bytes`: what the first
    increment from the present base does.
    """

    link_bytes_per_s: float
    dirty_bytes_per_s: float
    hot_bytes: float | None = None
    log_bytes_per_s: float | None = None
    full_bytes: int | None = None
    first_delta_bytes: int | None = None
    freeze_ms: float = 60.0
    cutover_fixed_ms: float = FIXED_P50_MS
    cutovers: tuple[CutoverTried, ...] = ()  # of this pair, by which the next are predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One action, what it would ship, how long it would take, and how long writers would get no commit (P50, P90)."""

    action: Action
    step_bytes: int = 0
    seconds: float = 0.0
    blocked_p50_ms: float = 0.0
    blocked_p90_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """Where the plan has got to."""

    facts: Facts
    history: History
    since_base_s: float | None = None  # None: the base is older than this plan


def plan_steps(facts: Facts, policy: Policy, measured: Measured) -> tuple[PlannedStep, ...]:
    """The actions of `rebuild`, up to and with the final one. A run that is held is planned as if it were released."""
    policy = replace(policy, hold=False, refresh_s=None)  # that the base moves on beside a feed is not planned
    at, steps = _Point(facts=facts, history=History(cutovers=measured.cutovers)), list[PlannedStep]()
    while len(steps) < STEPS_MAX:
        action = decide_lane(at.facts, policy, at.history)
        step = _cost(action, at, measured)
        steps.append(step)
        if action.final:
            return tuple(steps)
        if not isinstance(action, _EXPECTED):  # it would wait for something that only time or people can change
            break
        at = _after(at, step, measured)
    return (*steps, PlannedStep(action=Refuse(error=_open(facts, steps))))


def _open(facts: Facts, steps: list[PlannedStep]) -> ErrorInfo:
    last = steps[-1].action
    why = last.reason if isinstance(last, Hold) else "; ".join(type(s.action).__name__ for s in steps[-3:])
    hint = "`snaprep rebuild --hold` ships what can be shipped, and waits before the cutover"
    return error("plan-open", 10, f"the plan does not come to an end: {why}", facts, hint)


_EXPECTED = (
    *(Reopen, Adopt, SetAside, Seed, Round, Prepare, Cutover, Verify, Settle, GiveUp),
    *(Choose, KeepLog, Present, Feed, FeedCutover, KeepNoLog),
)


def _cost(action: Action, at: _Point, measured: Measured) -> PlannedStep:
    link = measured.link_bytes_per_s
    if isinstance(action, Seed):
        freeze_ms = measured.freeze_ms if action.freeze else 0.0
        size = action.expected_bytes if measured.full_bytes is None else measured.full_bytes
        return _shipped(action, size, link, freeze_ms)
    if isinstance(action, Round):
        freeze_ms = measured.freeze_ms if action.freeze else 0.0
        return _shipped(action, max(STREAM_BYTES_MIN, _delta_bytes(at, action, measured)), link, freeze_ms)
    if isinstance(action, Cutover):
        size = int(unique_bytes(_rates(measured), (at.since_base_s or 0.0) + decide.ARM_S))
        p50_ms = measured.cutover_fixed_ms + 1000 * size / link
        return PlannedStep(
            action=action,
            step_bytes=size,
            seconds=decide.ARM_S + p50_ms / 1000,
            blocked_p50_ms=p50_ms,
            blocked_p90_ms=max(action.p90_ms, SPREAD_FIRST * p50_ms),
        )
    if isinstance(action, FeedCutover):
        return PlannedStep(
            action=action,
            seconds=action.p50_ms / 1000,
            blocked_p50_ms=action.p50_ms,
            blocked_p90_ms=action.p90_ms,
        )
    if isinstance(action, Feed):
        size = int((measured.log_bytes_per_s or 0.0) * (at.since_base_s or 0.0))
        return PlannedStep(action=action, step_bytes=size, seconds=size / link + PREPARE_S)
    if isinstance(action, KeepLog):
        blocked_ms = choose.BOUNCE_MS if action.how == "bounce" else 0.0
        return PlannedStep(action=action, blocked_p50_ms=blocked_ms, blocked_p90_ms=SPREAD_FIRST * blocked_ms)
    return PlannedStep(action=action, seconds=PREPARE_S if isinstance(action, Prepare) else 0.0)


def _shipped(action: Action, size: int, link_bytes_per_s: float, freeze_ms: float) -> PlannedStep:
    return PlannedStep(
        action=action,
        step_bytes=size,
        seconds=size / link_bytes_per_s + ROUND_FIXED_S,
        blocked_p50_ms=freeze_ms,
        blocked_p90_ms=SPREAD_FIRST * freeze_ms,
    )


def _rates(measured: Measured) -> Rates:
    return Rates(measured.link_bytes_per_s, measured.dirty_bytes_per_s, measured.hot_bytes, ROUND_FIXED_S)


def _delta_bytes(at: _Point, action: Round, measured: Measured) -> int:
    if at.since_base_s is not None:
        return int(unique_bytes(_rates(measured), at.since_base_s))
    if measured.first_delta_bytes is not None:
        return measured.first_delta_bytes
    live = at.facts.host(action.roles.source).live
    return (live.written_bytes or 0) if live else 0


def _after(at: _Point, step: PlannedStep, measured: Measured) -> _Point:
    """The facts and the history as this step would leave them."""
    action, history = step.action, replace(at.history, now_s=at.history.now_s + step.seconds)
    if isinstance(action, Seed | Round):
        return _after_shipping(at, action, step, history, measured)
    at = replace(at, history=after(action, history, history.now_s))
    return _prepared(at, action) if isinstance(action, Prepare) else replace(at, facts=_changed(at.facts, action))


def _prepared(at: _Point, action: Prepare) -> _Point:
    source, target = at.facts.host(action.roles.source), at.facts.host(action.roles.target)
    assert target.volume is not None
    images = tuple(i for i in target.volume.images if i.name != target.live_name)
    facts = _with_host(at.facts, replace(source, engine=replace(source.engine, replicating=False)))
    facts = _with_host(facts, replace(target, volume=replace(target.volume, images=images)))
    return replace(at, facts=facts, since_base_s=(at.since_base_s or 0.0) + PREPARE_S)


def _after_shipping(
    at: _Point, action: Seed | Round, step: PlannedStep, history: History, measured: Measured
) -> _Point:
    number = len(history.rounds) + 1
    done = RoundDone(
        number=number,
        base_guid=action.base.point.guid if isinstance(action, Round) else None,
        head_guid=number,
        delta_bytes=step.step_bytes,
        send_s=step.seconds - ROUND_FIXED_S,
        total_s=step.seconds,
        dirty_s=at.since_base_s if isinstance(action, Round) else None,
        log_bytes_per_s=measured.log_bytes_per_s,
    )
    return _Point(
        facts=_shipped_facts(at.facts, action.roles, Point(f"planned-{number}", (number,), 1 << 62, held=True)),
        history=replace(history, rounds=(*history.rounds, done), last_round_end_s=history.now_s),
        since_base_s=step.seconds,
    )


def _shipped_facts(facts: Facts, roles: Roles, point: Point) -> Facts:
    source, target = facts.host(roles.source), facts.host(roles.target)
    live, recv = source.live, target.recv
    assert live is not None
    if recv is None:
        recv = Image(name=recv_name(target.live_name), role=ImageRole.RECV, ours=True)
    marks = {**recv.properties, **follow.taken_marks(point.guid, source)}
    received = replace(recv, points=(*recv.points, point), partial=None, properties=marks)
    facts = _with_image(facts, source, replace(live, points=(*live.points, point)))
    facts = _with_image(facts, target, received)
    assert source.volume is not None
    kept = source.engine.kept_log
    # The engine's own copy switches the mode on where it is off.
    return _logging(facts, source.name) if source.volume.copies and (kept is None or kept.since is None) else facts


def _changed(facts: Facts, action: Action) -> Facts:
    if isinstance(action, Reopen):
        host = facts.host(action.host)
        engine = replace(host.engine, state=EngineState.PRIMARY, gate_saved=False)
        return _with_host(facts, replace(host, engine=engine))
    if isinstance(action, Adopt):
        return _adopted(facts, action)
    if isinstance(action, SetAside):
        return _set_aside(facts, action)
    if isinstance(action, GiveUp):
        return _given_up(facts, action)
    if isinstance(action, KeepLog):
        return _logging(facts, action.roles.source)
    if isinstance(action, Present):
        return _standing(facts, action)
    if isinstance(action, Feed):
        fed = FeedFacts(stream="planned", phase="feeding", since_s=0.0, at_s=0.0, stored=1)
        return _with_host(facts, replace(facts.host(action.roles.source), feed=fed))
    if not isinstance(action, Cutover | FeedCutover):  # it touches neither host
        return facts
    source, target = facts.host(action.roles.source), facts.host(action.roles.target)
    recv = target.recv
    assert recv is not None
    live = Image(
        name=target.live_name,
        role=ImageRole.LIVE,
        ours=True,
        origin=recv.name,
        origin_guid=recv.points[-1].guid,
        properties={"serves": "replica", "generation": str(action.roles.generation)},
    )
    facts = _with_host(facts, replace(source, engine=replace(source.engine, replicating=True)))
    attached = replace(target, engine=replace(target.engine, state=EngineState.REPLICA, replicating=True))
    return _with_image(_with_host(facts, attached), attached, live)


def _logging(facts: Facts, name: str) -> Facts:
    """As if the next restart, where that is waited for, came at once."""
    source = facts.host(name)
    kept = KeptLog(wanted=True, since=source.engine.position or 0, ours=True)
    return _with_host(facts, replace(source, engine=replace(source.engine, kept_log=kept)))


def _standing(facts: Facts, action: Present) -> Facts:
    source, target = facts.host(action.roles.source), facts.host(action.roles.target)
    assert source.volume is not None
    marks = {
        "serves": "replica",
        "generation": str(action.roles.generation),
        "fed-base": str(source.engine.position or 0),
        "fed-boot": source.boot_id,
        "fed-import": source.volume.import_id,
    }
    live = Image(
        name=target.live_name,
        role=ImageRole.LIVE,
        ours=True,
        origin=action.base.target_image,
        origin_guid=action.base.point.guid,
        properties=marks,
    )
    closed = replace(target.engine, state=EngineState.CLOSED, position=source.engine.position)
    return _with_image(_with_host(facts, replace(target, engine=closed)), replace(target, engine=closed), live)


def _adopted(facts: Facts, action: Adopt) -> Facts:
    source = facts.host(action.roles.source)
    live = source.live
    assert live is not None
    marks = {**live.properties, "serves": "primary", "generation": str(action.roles.generation)}
    marked = replace(live, role=ImageRole.LIVE, automounts=False, properties=marks)
    stamped = replace(source, engine=replace(source.engine, generation=action.roles.generation))
    return _with_image(_with_host(facts, stamped), stamped, marked)


def _set_aside(facts: Facts, action: SetAside) -> Facts:
    """Clones of it follow the rename. The engine's path is empty when it was the live image."""
    host = facts.host(action.roles.target)
    assert host.volume is not None
    images = tuple(
        replace(i, name=action.to, role=ImageRole.ISOLATED, mounted_at=None)
        if i.name == action.image
        else replace(i, origin=action.to if i.origin == action.image else i.origin)
        for i in host.volume.images
    )
    engine = host.engine
    if action.image == host.live_name:
        engine = replace(engine, state=EngineState.ABSENT, generation=None)
    return _with_host(facts, replace(host, engine=engine, volume=replace(host.volume, images=images)))


def _given_up(facts: Facts, action: GiveUp) -> Facts:
    """The points go; how much room that makes is not known before, so none is counted."""
    source = facts.host(action.roles.source)
    live = source.live
    assert live is not None
    return _with_image(facts, source, replace(live, points=tuple(p for p in live.points if not p.held)))


def _with_host(facts: Facts, host: HostFacts) -> Facts:
    first, second = (host if h.name == host.name else h for h in facts.hosts)
    return Facts((first, second))


def _with_image(facts: Facts, host: HostFacts, image: Image) -> Facts:
    volume = host.volume
    assert volume is not None
    others = tuple(i for i in volume.images if i.name != image.name)
    return _with_host(facts, replace(host, volume=replace(volume, images=(*others, image))))
