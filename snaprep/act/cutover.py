"""The cutover: everything is looked up and made ready before the gate closes."""

from __future__ import annotations

from snaprep.act.context import Context
from snaprep.act.interpreter import Outcome
from snaprep.act.ship import send_flags, tuning
from snaprep.core.action import Cutover
from snaprep.core.errors import ErrorInfo, NobodyServes, from_info
from snaprep.core.model import CutoverTried, recv_name
from snaprep.core.recipe import Recipe, Step, undo_of
from snaprep.core.report import CutoverReport
from snaprep.engines.base import CutoverPlan


def cutover(context: Context, action: Cutover) -> tuple[CutoverTried, CutoverReport]:
    """Try it once. A failure undoes itself and is returned, not raised, unless the undo fails too.

    Raises NobodyServes when the source could not be opened again.
    """
    plan = cutover_plan(context, action)
    ready = context.engine.prepare(plan)
    context.interpreter.must(ready)
    outcome = context.interpreter.run(context.engine.cutover(plan))
    blocked_ms = outcome.took_ms("gate_close", "open") or outcome.took_ms("gate_close", "gate_open")
    error = outcome.error
    if error is None:
        # Apart from the cutover: a hold that fails must not tear the attached replica down; settling holds again.
        context.interpreter.run(holds(plan))
    else:
        context.interpreter.run(undo_of(ready))
        _raise_if_closed(context, action, outcome)
    tried = CutoverTried(
        ok=error is None,
        predicted_p50_ms=action.p50_ms,
        predicted_p90_ms=action.p90_ms,
        blocked_ms=blocked_ms,
        error=f"{error.id}: {error.what}" if error else "",
    )
    shown = CutoverReport(
        ok=tried.ok,
        blocked_ms=blocked_ms,
        p50_ms=action.p50_ms,
        p90_ms=action.p90_ms,
        position=str(outcome.results.get("quiesce", {}).get("position_text", "")),
        reason=tried.error,
    )
    return tried, shown


def holds(plan: CutoverPlan) -> Recipe:
    return (
        Step(host=plan.source, op="hold", args={"image": plan.source_live, "point": plan.point}),
        Step(host=plan.target, op="hold", args={"image": plan.target_recv, "point": plan.point}),
    )


def _raise_if_closed(context: Context, action: Cutover, outcome: Outcome) -> None:
    failed = [s for h, s in outcome.undone if h == action.roles.source and s.op == "gate_open" and s.error]
    if not failed or any(s.op == "gate_open" and s.error is None for _, s in outcome.undone):
        return
    last = context.interpreter.run((Step(host=action.roles.source, op="gate_open", deadline_s=90),))
    if last.error is None:
        return
    cause = outcome.error or ErrorInfo("cutover-failed", "the cutover failed")
    raise NobodyServes(
        "gate-left-closed",
        f"{cause.what}; opening {action.roles.source} again failed too: {last.error.what}",
        serving=f"nobody serves, as far as can be seen; the guard on {action.roles.source} goes on trying",
        hint=f"`snaprep abort` tries again; if that fails, restart the Derby server on {action.roles.source} first",
    ) from from_info(cause)


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
        warm_point=base.target_point,
        point=point,
        base_guid=base.point.guid,
        base_name=f"{base.source_image}@{base.point.name}",
        origin=None if base.continues else f"{base.target_image}@{base.target_point}",
        stream=point,
        send_flags=send_flags(context),
        tuning=tuning(context, source.name),
        mountpoint=context.pair.host(target.name).replica_mountpoint,
        owner=context.pair.host(target.name).owner or source.owner,
        generation=action.roles.generation,
        budget_ms=policy.budget_ms,
        undo_ms=policy.undo_ms,
        lease_ms=min(policy.gate_ms, policy.budget_ms - policy.undo_ms),  # then it undoes itself, inside the budget
        replace_live=target.live is not None,
        detach=target.live is not None or source.engine.replicating,
    )
