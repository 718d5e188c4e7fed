"""What a take-over does next: which surviving copy serves, and when none may. Pure, like `decide`."""

from __future__ import annotations

from snaprep.core.action import Action, Done, Refuse, TakeOver
from snaprep.core.model import OPEN_STATES, REPLICA_STATES, EngineState, Facts, History, HostFacts, ImageRole, Policy
from snaprep.core.refusals import error, key_missing, primary_answers, unseen
from snaprep.core.who import closed_to_us, describe, stands_apart, unknown_host


def decide_takeover(
    facts: Facts,
    policy: Policy,  # noqa: ARG001 (all verbs decide from the same three)
    history: History,
    target: str | None = None,
) -> Action:
    """Make a surviving host serve. Refused while the primary answers; a take-over that died halfway is finished."""
    if target is not None and (unknown := unknown_host(facts, target)) is not None:
        return Refuse(error=unknown)
    reachable = [h for h in facts.hosts if not h.error]
    answering = [h for h in reachable if _answers(h) or _idle_primary(h)]
    answering += [h for h in facts.hosts if h.error and closed_to_us(h)]  # it was seen to be open, for others
    if history.taken_over and answering:
        return Done(serving=answering[0].name)
    halfway = [h for h in reachable if _promoted_halfway(h)]
    if any(h not in halfway for h in answering) or len(answering) > 1:
        return Refuse(error=primary_answers(facts, answering[0]))
    if history.abort and not halfway:
        return Refuse(error=error("aborted", 11, "the run was ended as asked; nothing was taken over", facts))
    candidates = halfway or [h for h in reachable if _could_serve(h) and target in (None, h.name)]
    if not candidates:
        if not reachable and (why := facts.hosts[0].error) is not None:
            return Refuse(error=unseen(why, facts))
        what = "no reachable host holds a copy of this pair that could serve"
        hint = "bring the host back that held the database; what it holds is not touched meanwhile"
        return Refuse(error=error("no-replica", 3, what, facts, hint, tuple(describe(h) for h in facts.hosts)))
    best = max(candidates, key=_standing)
    if not best.engine.server_up:
        return Refuse(
            error=error("engine-down", 3, f"the database server on {best.name} does not run", facts, "start it")
        )
    image = best.live or best.recv
    if image is not None and image.locked:
        what = f"{image.name} on {best.name} is encrypted, and its key is not loaded there: it cannot be started"
        return Refuse(error=key_missing(facts, best, image, what, 3, "`snaprep takeover`"))
    newest = max(h.claimed_generation for h in facts.hosts)
    was_primary = best.claims_primary and best.claimed_generation == newest
    return TakeOver(target=best.name, generation=newest + (not was_primary), from_state=str(best.engine.state))


def _answers(host: HostFacts) -> bool:
    """Open where clients look. What is open elsewhere serves nobody."""
    return host.engine.state in OPEN_STATES and not stands_apart(host)


def _promoted_halfway(host: HostFacts) -> bool:
    """A take-over died here: open, and not yet marked as the primary or not yet where clients look."""
    marked = host.live is not None and bool(host.live.properties.get("serves"))
    return marked and host.engine.state in OPEN_STATES and (not host.claims_primary or stands_apart(host))


def _idle_primary(host: HostFacts) -> bool:
    """Closed, but the first session that comes opens it: it serves."""
    waits = host.engine.state is EngineState.CLOSED and host.engine.server_up and host.claims_primary
    return waits and host.stands_at_path


def _could_serve(host: HostFacts) -> bool:
    """It has a live image of this pair, or a complete received point to make one from."""
    if host.live is not None:
        return bool(host.live.properties.get("serves"))
    return host.recv is not None and host.recv.role is ImageRole.RECV and host.recv.newest is not None


def _standing(host: HostFacts) -> tuple[int, int, int]:
    """The newest generation first; in it the last primary, then a running replica, then one that is shut down."""
    return (host.claimed_generation, int(host.claims_primary), int(host.engine.state in REPLICA_STATES))
