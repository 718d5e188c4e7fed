"""`snaprep plan`: what a rebuild would do, by the same decisions, with rates measured now. Changes nothing."""

from __future__ import annotations

import time
from dataclasses import replace

from snaprep.control import Sink
from snaprep.core import lineage
from snaprep.core.action import (
    Action,
    Adopt,
    Choose,
    Cutover,
    Done,
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
    Round,
    Seed,
    SetAside,
    Verify,
)
from snaprep.core.errors import ErrorInfo
from snaprep.core.estimate import FIXED_P50_MS
from snaprep.core.lane import decide_lane
from snaprep.core.model import History, HostFacts, Policy, recv_name
from snaprep.core.preview import Measured, PlannedStep, plan_steps
from snaprep.core.report import Fact, Forecast, LaneReport, Plan, PlanStep, chosen_lane, named_lane
from snaprep.core.spec import Pair
from snaprep.core.who import serves, serving, who
from snaprep.core.words import size
from snaprep.journal import Journal, earlier
from snaprep.observe import observe, opened
from snaprep.verbs.measured import Seen, look

_LINK_GUESS = 50e6  # bytes/s, to order the steps when the link could not be measured; never shown
_DIRTY_PER_LOG = 4.0  # pages touched per log byte, likewise


def plan(pair: Pair, policy: Policy, sink: Sink) -> Plan:
    """What a rebuild would do. At most 64 MiB or 2 s of throw-away bytes are sent to measure the link."""
    with opened(pair) as session:
        facts = observe(session)
        roles = who(facts, policy.source)
        blank = Plan(pair=pair.name, engine=pair.hosts[0].engine, serves=serves(facts), serving=serving(facts))
        if isinstance(roles, ErrorInfo):
            return replace(blank, error=roles, hint=roles.hint)
        source, target = facts.host(roles.source), facts.host(roles.target)
        known = replace(
            blank,
            source=source.name,
            target=target.name,
            source_dataset=source.live_name,
            target_dataset=target.live_name,
        )
        history = earlier(Journal.of(pair.name).entries())
        first = decide_lane(facts, policy, replace(history, now_s=time.monotonic()))
        if isinstance(first, Refuse):
            return replace(known, error=first.error, hint=first.error.hint, facts=_facts(source, target, None))
        seen = look(session, sink, facts, roles)
    known_rates = seen.dirty_bytes_per_s is not None or isinstance(first, Choose)
    guided = policy if known_rates or policy.lane != "auto" else replace(policy, lane="pages")
    planned = plan_steps(facts, guided, _measured(seen, history))
    steps = tuple(shown for s in planned if (shown := _shown(s, seen)) is not None)
    cut = next((s for s in planned if isinstance(s.action, Cutover | FeedCutover)), None)
    forecast = Forecast(
        budget_ms=policy.budget_ms,
        undo_ms=policy.undo_ms,
        p50_ms=cut.blocked_p50_ms if cut is not None else None,
        p90_ms=cut.blocked_p90_ms if cut is not None else None,
    )
    last = planned[-1].action
    error = last.error if isinstance(last, Refuse) else None
    return replace(
        known,
        facts=_facts(source, target, seen),
        lane=_lane(policy, planned, known_rates=known_rates),
        steps=steps,
        forecast=forecast,
        warnings=_warnings(source, target, planned, steps),
        keeps=_keeps(source, target),
        error=error,
        hint="snaprep rebuild" if steps else "nothing to do: the replica is attached",
    )


def _lane(policy: Policy, planned: tuple[PlannedStep, ...], *, known_rates: bool) -> LaneReport | None:
    """The one that was named, or that would be chosen."""
    chosen = [s.action for s in planned if isinstance(s.action, Choose)]
    if chosen:
        return chosen_lane(chosen[-1])
    if policy.lane == "auto" and not known_rates:
        why = "at first; how fast an increment grows is not known yet, so rounds are measured"
        return LaneReport(name="pages", why=why)
    return named_lane(policy.lane)


def _measured(seen: Seen, history: History) -> Measured:
    """For `decide`, unknown rates become a guess; what was guessed is shown as unknown."""
    good = sorted(c.blocked_ms for c in history.cutovers if c.ok and not c.fed)
    return Measured(
        link_bytes_per_s=seen.link_bytes_per_s or _LINK_GUESS,
        dirty_bytes_per_s=seen.dirty_bytes_per_s or (seen.log_bytes_per_s or 0.0) * _DIRTY_PER_LOG,
        log_bytes_per_s=seen.log_bytes_per_s,
        full_bytes=seen.full_bytes,
        first_delta_bytes=seen.increment_bytes,
        cutover_fixed_ms=good[(len(good) - 1) // 2] if good else FIXED_P50_MS,
        cutovers=history.cutovers,
    )


_EFFECTS = {Seed: "commits wait", Round: "commits wait", Cutover: "clients are cut off"}


def _prepares(action: Action) -> tuple[str, str]:
    """Name and words of an action that ships nothing."""
    match action:
        case Reopen(host=host):
            return "open", f"open {host}, which an earlier run has left closed"
        case Adopt(roles=roles):
            return "mark", f"mark {roles.source} as the primary, generation {roles.generation}"
        case SetAside(image=image, to=to):
            return "set aside", f"{image} becomes {to}"
        case GiveUp():
            return "give up", "release the common base: the source runs out of space"
        case Prepare(roles=roles):
            return "prepare", f"warm the server on {roles.target}; clients go on"
        case Hold(reason=reason):
            return "hold", reason
        case Verify():
            return "verify", "both ends looked at, GUIDs compared"
        case KeepLog() | Present() | Feed() | KeepNoLog():
            return _feeds(action)
        case _:
            return "settle", "keep what a later run needs, let the rest go"


def _feeds(action: KeepLog | Present | Feed | KeepNoLog) -> tuple[str, str]:
    """The same, in the log lane."""
    match action:
        case KeepLog(roles=roles, how=how):
            return "keep log", f"{roles.source} keeps its log: {how}"
        case Present(roles=roles):
            return "present", f"the replica on {roles.target}, to be fed"
        case Feed():
            return "feed", "the log that was written since"
        case KeepNoLog(roles=roles):
            return "let go", f"{roles.source} keeps its log no longer"


def _full(seen: Seen) -> str:
    return "online backup, sent whole; clients go on" if seen.copies else "full send"


def _shown(step: PlannedStep, seen: Seen) -> PlanStep | None:
    """One line of the plan; None for what only ends it."""
    action = step.action
    if isinstance(action, Refuse | Done | Choose):
        return None
    if isinstance(action, FeedCutover):
        return PlanStep(
            name="cutover",
            what="gate, last of the log, replication on",
            step_bytes=None,
            time_ms=1000 * step.seconds,
            blocked_ms=step.blocked_p50_ms,
            effect=_EFFECTS[Cutover],
        )
    if isinstance(action, KeepLog) and step.blocked_p50_ms:
        name, what = _prepares(action)
        return PlanStep(name=name, what=what, time_ms=None, blocked_ms=step.blocked_p50_ms, effect=_EFFECTS[Cutover])
    if not isinstance(action, Seed | Round | Cutover):
        name, what = _prepares(action)
        return PlanStep(name=name, what=what, time_ms=None)
    known = seen.link_bytes_per_s is not None
    if isinstance(action, Seed):
        what, size_known = _full(seen), True
    elif isinstance(action, Round):
        what, size_known = f"round {action.number}: what was written since", seen.dirty_bytes_per_s is not None
        if action.number == 1 and seen.has_base:
            size_known = seen.increment_bytes is not None
    else:
        what, size_known = "gate, last increment, replication on", seen.dirty_bytes_per_s is not None
    kind = type(action)
    blocks = step.blocked_p50_ms > 0
    return PlanStep(
        name=kind.__name__.lower(),
        what=what,
        step_bytes=step.step_bytes if size_known else None,
        time_ms=1000 * step.seconds if known and size_known else None,
        blocked_ms=step.blocked_p50_ms if blocks else 0.0,
        effect=_EFFECTS.get(kind, "") if blocks else "",
    )


def _facts(source: HostFacts, target: HostFacts, seen: Seen | None) -> tuple[Fact, ...]:
    assert target.volume is not None
    live, base = source.live, lineage.base_between(source, target)
    said = [
        Fact(label="now", what=f"{size(live.referenced_bytes if live else 0)} in {source.live_name} on {source.name}"),
        Fact(label="target", what=f"{target.name}: {target.engine.state}, {size(target.volume.free_bytes)} free"),
        Fact(label="common", what=base.point.name if base else "none: the first send is full"),
    ]
    if seen is not None:
        link = f"{size(seen.link_bytes_per_s)}/s measured" if seen.link_bytes_per_s else "could not be measured"
        said.append(Fact(label="link", what=f"{source.name} -> {target.name} {link}"))
        if seen.log_bytes_per_s is not None:
            said.append(Fact(label="writes", what=f"{size(seen.log_bytes_per_s)}/s of log"))
    return tuple(said)


def _warnings(
    source: HostFacts, target: HostFacts, planned: tuple[PlannedStep, ...], steps: tuple[PlanStep, ...]
) -> tuple[str, ...]:
    assert source.volume is not None
    said = [
        f"there are no increments: the database makes a copy of itself while it works, so {source.name} needs "
        f"{size(s.step_bytes)} of room, and {target.name} as much; so it is whenever a replica is made anew"
        for s in planned
        if isinstance(s.action, Seed) and source.volume.copies
    ]
    unknown = [s.name for s in steps if s.step_bytes is None]
    if unknown and not source.volume.copies:
        said.append(f"{_untold(source)}: those bytes and times are unknown")
    if source.live is not None and source.live.encrypted and target.recv is None:
        said.append(
            f"it is encrypted and sent as it lies on disk: {target.name} holds it without the key, and starts it with "
            f"the key only; when the full copy has arrived, there: zfs load-key {recv_name(target.live_name)}"
        )
    if source.live is not None and source.live.automounts:
        said.append(f"{source.live_name} on {source.name} will no longer be mounted at boot before its role is known")
    if target.live is not None and target.live.properties.get("serves") != "replica":
        said.append(f"{target.live_name} on {target.name} will be set aside under another name, not destroyed")
    return tuple(said)


def _untold(source: HostFacts) -> str:
    """Why nobody knows how large an increment will be."""
    assert source.volume is not None
    if "written" not in source.volume.caps:
        return "this ZFS cannot say how large an increment will be"
    if source.live is None or source.live.newest is None:
        return "how large an increment will be shows when there is a snapshot to count from"
    return "how large an increment will be could not be measured now"


def _keeps(source: HostFacts, target: HostFacts) -> tuple[str, ...]:
    assert source.volume is not None
    if source.volume.copies:
        return (f"{source.name} goes on serving; nothing of it is changed but marks and our own database properties",)
    return (
        f"{source.name} goes on serving; nothing of it is changed but marks, snapshots and our own database properties",
        f"one common snapshot stays held on both hosts, {source.name} and {target.name}",
    )
