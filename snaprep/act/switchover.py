"""A planned change of roles: the replica becomes the primary, and the primary its replica."""

from __future__ import annotations

import time

from snaprep.act.context import Context
from snaprep.act.cutover import raise_if_closed, told
from snaprep.act.interpreter import Outcome
from snaprep.core import lineage
from snaprep.core.action import Switchover
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import CutoverTried, HostFacts, Policy
from snaprep.core.report import CutoverReport, SwitchQuestion
from snaprep.engines.base import SwitchPlan


def question(action: Switchover, policy: Policy) -> SwitchQuestion:
    """What is said before anybody is asked."""
    return SwitchQuestion(
        source=action.roles.source,
        target=action.roles.target,
        p50_ms=action.p50_ms,
        p90_ms=action.p90_ms,
        budget_ms=policy.budget_ms,
    )


def switch_over(context: Context, action: Switchover) -> tuple[CutoverTried, CutoverReport, ErrorInfo | None]:
    """Try it once. A failure before the target is marked undoes itself and is returned as not ok.

    One after that is returned beside what is ok: the target serves or is about to, without a replica.
    Raises NobodyServes when the source could not be opened again.
    """
    plan = switch_plan(context, action)
    context.interpreter.must(context.engine.switch_prepare(plan))
    began_s = time.monotonic()
    over = context.interpreter.run(context.engine.hand_over(plan))
    if over.error is not None:
        raise_if_closed(context, plan.source, over, plan.lease_ms / 1000)
        blocked_ms = 1000 * (time.monotonic() - began_s)
        return *told(action, over, "retire", blocked_ms=blocked_ms, error=over.error), None
    position = over.results["retire"]["position"]
    taken = context.interpreter.run(context.engine.assume(plan, over.results["rolled_back"], position))
    blocked_ms = 1000 * (time.monotonic() - began_s) - _after_open_ms(taken, plan.target)
    return *told(action, over, "retire", blocked_ms=blocked_ms, error=None), taken.error


def _after_open_ms(taken: Outcome, target: str) -> float:
    """How long the target went on after it had opened, on its own clock: that nobody waits for."""
    done = [step for host, step in taken.done if host == target and step.error is None]
    opened = [step.ended_s for step in done if step.key == "open"]
    return 1000 * (done[-1].ended_s - opened[0]) if opened else 0.0


def switch_plan(context: Context, action: Switchover) -> SwitchPlan:
    """All names and bounds of one switchover."""
    source, target = context.facts.host(action.roles.source), context.facts.host(action.roles.target)
    here, there = context.pair.host(source.name), context.pair.host(target.name)
    policy = context.policy
    return SwitchPlan(
        source=source.name,
        target=target.name,
        source_live=source.live_name,
        target_live=target.live_name,
        source_path=here.mountpoint,
        source_replica_path=here.replica_mountpoint,
        target_path=there.mountpoint,
        target_replica_path=there.replica_mountpoint,
        warm=_common_point(source, target),
        owner=context.owner(source, target),
        generation=action.generation,
        fed=action.fed,
        budget_ms=policy.budget_ms,
        lease_ms=policy.cutover_lease_ms,
    )


def _common_point(source: HostFacts, target: HostFacts) -> tuple[str, str] | None:
    """Where the target has the newest point that both hold."""
    base = lineage.base_between(source, target)
    return (base.target_image, base.target_point) if base is not None else None
