"""The cutover: everything is looked up and made ready before the gate closes."""

from __future__ import annotations

import time

from snaprep.act.context import Context
from snaprep.act.interpreter import Outcome
from snaprep.act.ship import send_flags, tuning
from snaprep.core.action import Cutover, FeedCutover, Prepare, Switchover
from snaprep.core.errors import ErrorInfo, NobodyServes, SnaprepError, from_info
from snaprep.core.model import CutoverTried, HostFacts, ImageRole, recv_name
from snaprep.core.recipe import Recipe, Step, undo_of
from snaprep.core.report import CutoverReport
from snaprep.core.who import takes_sessions
from snaprep.engines.base import CutoverPlan, FormerPlan, PreparePlan

_GUARD_S = 8.0  # past the lease only its guard is waited for; then it is opened from here
_AFTER_LEASE_S = 20.0  # the guard opens when the lease is over; a boot that rolls work back takes its time
_LOOK_AGAIN_S = 1.0


def prepare(context: Context, action: Prepare) -> None:
    context.interpreter.must(context.engine.prepare(prepare_plan(context, action)))


def cutover(context: Context, action: Cutover) -> tuple[CutoverTried, CutoverReport]:
    """Try it once. A failure undoes itself and is returned, not raised, unless the undo fails too.

    Raises NobodyServes when the source could not be opened again.
    """
    plan = cutover_plan(context, action)
    ready = context.engine.arm(plan)
    context.interpreter.must(ready)
    outcome = context.interpreter.run(context.engine.cutover(plan))
    error = outcome.error
    if error is None:
        # Apart from the cutover: a hold that fails must not tear the attached replica down; settling holds again.
        context.interpreter.run(holds(plan))
    else:
        context.interpreter.run(undo_of(ready))
        raise_if_closed(context, plan.source, outcome, plan.lease_ms / 1000)
    return told(action, outcome, "quiesce", blocked_ms=gated_ms(outcome), error=error)


def gated_ms(outcome: Outcome) -> float:
    """How long the gate was closed: until the last step has opened it, or the undo."""
    return outcome.took_ms("gate_close", "open") or outcome.took_ms("gate_close", "gate_open")


def told(
    action: Cutover | FeedCutover | Switchover,
    outcome: Outcome,
    ended_by: str,
    *,
    blocked_ms: float,
    error: ErrorInfo | None,
) -> tuple[CutoverTried, CutoverReport]:
    """What an attempt teaches, and what is shown of it. The step `ended_by` says where the log ended."""
    why = f"{error.id}: {error.what}" if error else ""
    tried = CutoverTried(
        ok=error is None,
        predicted_p50_ms=action.p50_ms,
        predicted_p90_ms=action.p90_ms,
        blocked_ms=blocked_ms,
        error=why,
        delta_bytes=outcome.results.get("send", {}).get("bytes", 0),
        fed=isinstance(action, FeedCutover) or (isinstance(action, Switchover) and action.fed),
    )
    shown = CutoverReport(
        ok=error is None,
        blocked_ms=blocked_ms,
        p50_ms=action.p50_ms,
        p90_ms=action.p90_ms,
        position=str(outcome.results.get(ended_by, {}).get("position_text", "")),
        reason=why,
    )
    return tried, shown


def holds(plan: CutoverPlan) -> Recipe:
    return (
        Step(host=plan.source, op="hold", args={"image": plan.source_live, "point": plan.point}),
        Step(host=plan.target, op="hold", args={"image": plan.target_recv, "point": plan.point}),
    )


def raise_if_closed(context: Context, source: str, outcome: Outcome, lease_s: float) -> None:
    """Nothing to raise once the source is open: by the undo, by the guard when the lease was over, or by one more try.

    An agent or a link that was lost leaves the undo without an answer; the source is reached anew and looked at.
    """
    failed = [s.error for h, s in outcome.undone if h == source and s.op == "gate_open" and s.error]
    if not failed or any(s.op == "gate_open" and s.error is None for _, s in outcome.undone):
        return
    why, lease_until_s = failed[-1], time.monotonic() + lease_s
    while True:
        if _is_open(context, source):
            return
        if time.monotonic() < lease_until_s + _GUARD_S:
            time.sleep(_LOOK_AGAIN_S)
            continue
        tried = context.interpreter.run((Step(host=source, op="gate_open", deadline_s=30),))
        if tried.error is None:
            return
        why = tried.error
        if time.monotonic() > lease_until_s + _AFTER_LEASE_S:
            break
        time.sleep(_LOOK_AGAIN_S)
    cause = outcome.error or ErrorInfo("cutover-failed", "the cutover failed")
    raise NobodyServes(
        "gate-left-closed",
        f"{cause.what}; opening {source} again failed too: {why.what}",
        serving=f"nobody serves, as far as can be seen; {source} goes on trying by itself",
        hint=f"`snaprep abort` tries again; if that fails, restart the Derby server on {source} first",
    ) from from_info(cause)


def _is_open(context: Context, name: str) -> bool:
    try:
        return takes_sessions(context.session.host(name).call("observe", {}, HostFacts, deadline_s=40))
    except SnaprepError:
        return False


def prepare_plan(context: Context, action: Prepare) -> PreparePlan:
    source, target = context.facts.host(action.roles.source), context.facts.host(action.roles.target)
    return PreparePlan(
        source=source.name,
        target=target.name,
        former=former_plan(source, target),
        target_recv=recv_name(target.live_name),
        warm_point=action.base.target_point,
        owner=context.owner(source, target),
    )


def former_plan(source: HostFacts, target: HostFacts) -> FormerPlan:
    """The role of a primary belongs to the pair whose mark the image bears; another pair's is left alone."""
    assert source.live is not None
    ours = source.live.role is ImageRole.LIVE
    return FormerPlan(
        source=source.name,
        target=target.name,
        detach=ours and (target.live is not None or source.engine.replicating),
        live=target.live_name if target.live is not None else None,
    )


def cutover_plan(context: Context, action: Cutover) -> CutoverPlan:
    """All names, sizes and bounds of one cutover."""
    source, target = context.facts.host(action.roles.source), context.facts.host(action.roles.target)
    base, policy = action.base, context.policy
    point = context.point_name()
    return CutoverPlan(
        source=source.name,
        target=target.name,
        source_live=source.live_name,
        target_live=target.live_name,
        target_recv=recv_name(target.live_name),
        point=point,
        base_guid=base.point.guid,
        base_name=base.source_name,
        origin=None if base.continues else f"{base.target_image}@{base.target_point}",
        stream=point,
        send_flags=send_flags(context.facts, source.name, base),
        tuning=tuning(context, source.name),
        mountpoint=context.pair.host(target.name).replica_mountpoint,
        owner=context.owner(source, target),
        generation=action.roles.generation,
        budget_ms=policy.budget_ms,
        lease_ms=policy.cutover_lease_ms,
    )
