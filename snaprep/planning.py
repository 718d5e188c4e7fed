"""`snaprep plan`: what a rebuild would do, by the same decisions, with sizes and rates measured now. Changes nothing."""

from __future__ import annotations

import time
from dataclasses import replace

from snaprep.act.interpreter import Interpreter
from snaprep.control import Sink
from snaprep.core import decide, lineage
from snaprep.core.action import Refuse
from snaprep.core.errors import ErrorInfo, SnaprepError
from snaprep.core.model import Facts, History, HostFacts, Policy, recv_name
from snaprep.core.plan import Measured, plan_steps
from snaprep.core.recipe import Step
from snaprep.core.report import Fact, Forecast, Plan, PlanStep
from snaprep.core.spec import Pair
from snaprep.core.who import serving, who
from snaprep.journal import Journal, earlier
from snaprep.observe import observe
from snaprep.session import Session

_LOOK_S = 1.0  # between the two looks that tell how fast the database writes


def plan(pair: Pair, policy: Policy, sink: Sink) -> Plan:
    """What a rebuild would do. At most 64 MiB or 2 s of throw-away bytes are sent to measure the link."""
    with Session.open(pair) as session:
        facts = observe(session)
        roles = who(facts, policy.source)
        blank = Plan(pair=pair.name, engine=pair.hosts[0].engine, serving=serving(facts))
        if isinstance(roles, ErrorInfo):
            return replace(blank, error=roles, hint=roles.hint)
        source, target = facts.host(roles.source), facts.host(roles.target)
        known = replace(
            blank,
            source=source.name,
            target=target.name,
            source_dataset=source.live_name,
            target_dataset=target.live_name,
            serves=source.name if source.engine.server_up else None,
        )
        history = earlier(Journal.open(pair.name).entries())
        first = decide.decide_rebuild(facts, policy, replace(history, now_s=time.monotonic()))
        if isinstance(first, Refuse):
            return replace(known, error=first.error, hint=first.error.hint, facts=_facts(facts, source, target, None))
        measured = _measure(session, sink, facts, source, target)
    steps = plan_steps(facts, policy, history, measured)
    cut = next((s for s in steps if s.name == "cutover"), None)
    forecast = Forecast(
        budget_ms=policy.budget_ms, undo_ms=policy.undo_ms, p50_ms=cut.blocked_ms if cut is not None else None
    )
    return replace(
        known,
        facts=_facts(facts, source, target, measured),
        steps=steps,
        forecast=forecast,
        warnings=_warnings(source, target, steps),
        keeps=_keeps(source, target),
        hint="snaprep rebuild" if steps else "nothing to do: the replica is attached",
    )


def _measure(session: Session, sink: Sink, facts: Facts, source: HostFacts, target: HostFacts) -> Measured:
    """Link, write rate and increment, each None when it could not be learnt."""
    return Measured(
        link_bytes_per_s=_link_rate(session, sink, source.name, target.name),
        log_bytes_per_s=_log_rate(session, source),
        increment_bytes=_increment(source, target),
    )


def _link_rate(session: Session, sink: Sink, source: str, target: str) -> float | None:
    stream = "probe"
    try:
        session.lock("plan", "plan", ())
        session.link(source, target, f"plan-{time.time_ns()}", None)
        outcome = Interpreter(session.hosts, sink.event).must(
            (
                Step(host=target, op="probe_begin", args={"stream": stream}),
                Step(host=source, op="probe_send", args={"stream": stream}, deadline_s=120),
            )
        )
    except SnaprepError as error:
        sink.note(f"the link could not be measured: {error.info.what}")
        return None
    sent = outcome.results["probe_send"]
    return float(sent["bytes"]) / max(float(sent["seconds"]), 1e-3)


def _log_rate(session: Session, source: HostFacts) -> float | None:
    """How fast the database writes its log, from two looks a second apart."""
    began_s = time.monotonic()
    time.sleep(_LOOK_S)
    again = session.host(source.name).call("observe", {}, HostFacts, deadline_s=40)
    if source.engine.position is None or again.engine.position is None:
        return None
    files, bytes_ = divmod(again.engine.position - source.engine.position, 1 << 32)
    if files != 0:  # the log moved on to another file; how long the former one was is not known here
        return None
    return bytes_ / (time.monotonic() - began_s)


def _increment(source: HostFacts, target: HostFacts) -> int | None:
    """What was written since the newest common point, where the filesystem can say."""
    if source.volume is None or target.volume is None or source.live is None:
        return None
    base = lineage.common_base(source.volume, source.live, target.volume, recv_name(target.live_name))
    newest = source.live.newest
    if base is None or newest is None or newest.guid != base.point.guid:
        return None
    return source.live.written_bytes


def _facts(facts: Facts, source: HostFacts, target: HostFacts, measured: Measured | None) -> tuple[Fact, ...]:
    assert source.volume is not None
    assert target.volume is not None
    live = source.live
    base = None
    if live is not None:
        base = lineage.common_base(source.volume, live, target.volume, recv_name(target.live_name))
    said = [
        Fact(label="now", what=f"{_size(live.referenced_bytes if live else 0)} in {source.live_name} on {source.name}"),
        Fact(label="target", what=f"{target.name}: {target.engine.state}, {_size(target.volume.free_bytes)} free"),
        Fact(label="common", what=base.point.name if base else "none: the first send is full"),
    ]
    if measured is not None:
        link = f"{_size(measured.link_bytes_per_s)}/s measured" if measured.link_bytes_per_s else "could not be measured"
        said.append(Fact(label="link", what=f"{source.name} -> {target.name} {link}"))
        if measured.log_bytes_per_s is not None:
            said.append(Fact(label="writes", what=f"{_size(measured.log_bytes_per_s)}/s of log"))
    return tuple(said)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _warnings(source: HostFacts, target: HostFacts, steps: tuple[PlanStep, ...]) -> tuple[str, ...]:
    said = []
    unknown = [s.name for s in steps if s.step_bytes is None]
    if unknown:
        said.append("this ZFS cannot say how large an increment will be: those bytes and times are unknown")
    if source.live is not None and source.live.automounts:
        said.append(f"{source.live_name} on {source.name} will no longer be mounted at boot before its role is known")
    if target.live is not None and target.live.properties.get("serves") != "replica":
        said.append(f"{target.live_name} on {target.name} will be set aside under another name, not destroyed")
    return tuple(said)


def _keeps(source: HostFacts, target: HostFacts) -> tuple[str, ...]:
    return (
        f"{source.name} goes on serving; nothing of it is changed but marks, snapshots and our own database properties",
        f"one common snapshot stays held on both hosts, {source.name} and {target.name}",
    )
