"""What a planned change of roles does next. Pure, like `decide`.

Invariant: the source is only shut down while its replica is attached or fed, so that it has all but the last of the
log; once the target is marked as the primary, nothing opens the former one.
"""

from __future__ import annotations

from dataclasses import replace

from snaprep.core.action import Action, Feed, Refuse, Reopen, Roles, Switchover, TakeOver
from snaprep.core.decide import attached, cannot_start, decide_rebuild
from snaprep.core.errors import ErrorInfo
from snaprep.core.estimate import predict_switchover
from snaprep.core.follow import caught_up, feedable
from snaprep.core.lane import decide_lane
from snaprep.core.model import Facts, History, HostFacts, Policy
from snaprep.core.refusals import error, held_up, wait_for
from snaprep.core.who import handing_over, unknown_host, who


def aim(facts: Facts, policy: Policy) -> str | None:
    """The host that a switchover begun now makes the primary, when none is named; None when that cannot be seen."""
    if (half := handing_over(facts)) is not None:
        return half.name
    roles = who(facts, policy.source)
    return None if isinstance(roles, ErrorInfo) else roles.target


def decide_switchover(facts: Facts, policy: Policy, history: History, target: str | None = None) -> Action:
    """Make `target` the primary and the other host its replica. One that died halfway is finished."""
    if target is not None and (unknown := unknown_host(facts, target)) is not None:
        return Refuse(error=unknown)
    if (half := handing_over(facts)) is not None:
        return finish(facts, half)
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        return Refuse(error=roles)
    if roles.source == target:
        # It serves; what is left is that the other follows. Whether the log is kept is not a switchover's to change.
        return decide_rebuild(facts, policy, replace(history, log_let_go=True))
    source, other = facts.host(roles.source), facts.host(roles.target)
    if (refused := cannot_start(facts, source, other)) is not None:
        return refused
    if source.engine.halted:
        return Reopen(host=source.name)
    if history.abort:
        return Refuse(error=error("aborted", 11, "the run was ended as asked; the roles are as they were", facts))
    if history.switchovers and not history.switchovers[-1].ok:
        what = f"the switchover was begun and undone, because: {history.switchovers[-1].error}"
        hint = f"see the cause above; `snaprep resume` makes {other.name} a replica again"
        return Refuse(error=error("switchover-undone", 20, what, facts, hint))
    return _by_its_replica(facts, policy, history, roles)


def _by_its_replica(facts: Facts, policy: Policy, history: History, roles: Roles) -> Action:
    """Attached, or fed: then it is fed to the end of the log first."""
    source, other = facts.host(roles.source), facts.host(roles.target)
    if attached(source, other):
        return _switch_or_wait(facts, policy, history, roles)
    if (origin := feedable(source, other)) is None:
        what = f"{other.name} does not follow {source.name}: {other.engine.state}"
        return Refuse(error=error("not-attached", 3, what, facts, "`snaprep rebuild` makes it a replica first"))
    if not caught_up(source.feed):
        return Feed(roles=roles, origin=origin)
    return _switch_or_wait(facts, policy, history, roles, fed=True)


def decide_resume(facts: Facts, policy: Policy, history: History) -> Action:
    """Go on with what died: a switchover on its way is finished, and then it is a rebuild."""
    half = handing_over(facts)
    return finish(facts, half) if half is not None else decide_lane(facts, policy, history)


def finish(facts: Facts, half: HostFacts) -> TakeOver:
    """It has all that its former primary has, and that one is out of its clients' reach."""
    generation = max(h.claimed_generation for h in facts.hosts)
    stepped_down = facts.other(half.name).claims_replica
    return TakeOver(
        target=half.name,
        generation=generation if stepped_down else generation + 1,
        from_state=str(half.engine.state),
    )


def _switch_or_wait(facts: Facts, policy: Policy, history: History, roles: Roles, *, fed: bool = False) -> Action:
    prediction = predict_switchover(history.switchovers)
    if prediction.p90_ms > policy.budget_ms - policy.undo_ms:
        what = (
            f"a switchover takes {prediction.p90_ms:.0f} ms (P90) and an undo {policy.undo_ms} ms; "
            f"the budget is {policy.budget_ms} ms"
        )
        return Refuse(error=error("over-budget", 12, what, facts, "a larger --budget, or a quieter hour"))
    if reasons := held_up(facts, roles.source, policy):
        hint = "end them, then say it again"
        expected_ms = (prediction.p50_ms, prediction.p90_ms)
        return wait_for(facts, policy, history, reasons, what="the switchover", hint=hint, expected_ms=expected_ms)
    return Switchover(
        roles=roles,
        generation=roles.generation + 1,
        fed=fed,
        p50_ms=prediction.p50_ms,
        p90_ms=prediction.p90_ms,
    )
