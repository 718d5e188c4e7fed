"""Taking over from a primary that does not answer."""

from __future__ import annotations

from snaprep.act.context import Context
from snaprep.core.action import TakeOver
from snaprep.core.model import OPEN_STATES, EngineState, Facts, recv_name
from snaprep.core.report import TakeOverQuestion
from snaprep.engines.base import TakeOverPlan


def question(facts: Facts, action: TakeOver) -> TakeOverQuestion:
    """What is said before anybody is asked: the possible loss, and what cannot be kept from serving."""
    target, other = facts.host(action.target), facts.other(action.target)
    loss = []
    if target.claims_primary:
        loss.append(f"nothing: {target.name} was the primary itself, and is only opened again")
    elif target.engine.state in (EngineState.REPLICA, EngineState.WAITING):
        loss.append(
            "what the primary committed in its last moments and had not sent: replication is asynchronous, and the "
            "engine sends its log buffers at the latest every maxLogShippingInterval (5 s by default)"
        )
        loss.append(f"{target.name} holds everything up to {target.engine.position_text}")
    else:
        newest = target.recv.newest if target.recv else None
        shared = f"; its last common snapshot is {newest.name}" if newest else ""
        loss.append(f"everything since {target.name} lost its primary{shared}")
    if not target.claims_primary:
        loss.append(f"what is missing stays on {other.name}, is counted and set aside by the next rebuild")
    fenced, not_fenced = [], []
    if other.error:
        stays = target.volume is not None and "always_there" in target.volume.caps
        not_fenced.append(
            f"{other.name} could not be looked at ({other.error.what}): if it lives behind a broken network, its "
            "clients may still write there; "
            + (
                "and after its next boot its server opens the database for the first client that asks: keep it down"
                if stays
                else "its dataset is not mounted at its next boot"
            )
        )
    elif other.engine.state not in OPEN_STATES and other.engine.server_up:
        fenced.append(f"{other.name} answers; its database is unmounted before {target.name} is promoted")
    return TakeOverQuestion(target=target.name, loss=tuple(loss), fenced=tuple(fenced), not_fenced=tuple(not_fenced))


def take_over_plan(context: Context, action: TakeOver) -> TakeOverPlan:
    """All names that a take-over needs."""
    target, other = context.facts.host(action.target), context.facts.other(action.target)
    spec = context.pair.host(target.name)
    recv_point = None
    if target.live is None and target.recv is not None and target.recv.newest is not None:
        recv_point = (recv_name(target.live_name), target.recv.newest.name)
    return TakeOverPlan(
        target=target.name,
        live=target.live_name,
        mountpoint=spec.mountpoint,
        replica_mountpoint=spec.replica_mountpoint,
        owner=spec.owner or target.owner,
        recv_point=recv_point,
        from_state=str(target.engine.state),
        generation=action.generation,
        promotes=not target.claims_primary,
        fence=other.name if not other.error and other.live is not None else None,
        fence_live=other.live_name,
    )


def take_over(context: Context, action: TakeOver) -> tuple[str, ...]:
    """Promote, open, stamp. Returns what has to be known afterwards."""
    target, other = context.facts.host(action.target), context.facts.other(action.target)
    outcome = context.interpreter.must(context.engine.take_over(take_over_plan(context, action)))
    position = outcome.results["promote"]["position_text"]
    notes = [f"{target.name} serves as generation {action.generation}, from {position}"]
    if other.error:
        notes.append(f"{other.name} was not fenced: keep it away from its clients until `snaprep rebuild` has run")
    return tuple(notes)
