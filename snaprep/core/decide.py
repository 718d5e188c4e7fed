"""What to do next: from facts, policy and history to one action. Pure; `loop/loop.py` calls it until it is final.

Invariant: at every answer the source is open or the answer opens it, no image is started that an increment will
continue, and nothing is named for destruction here at all.
"""

from __future__ import annotations

from snaprep.core import lineage
from snaprep.core.action import (
    Action,
    Adopt,
    Cutover,
    Done,
    GiveUp,
    Hold,
    KeepNoLog,
    Prepare,
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
from snaprep.core.estimate import Prediction, predict_cutover, trend, written_words
from snaprep.core.model import (
    OPEN_STATES,
    REPLICA_STATES,
    EngineState,
    Facts,
    History,
    HostFacts,
    ImageRole,
    Policy,
)
from snaprep.core.refusals import error, foreign, held_up, not_converging, other_pair, overdue, sealed, undone, unseen
from snaprep.core.volume import Image
from snaprep.core.who import opened_copy, stepped_down, who
from snaprep.core.words import size

ARM_S = 0.3  # from deciding on a cutover to the closed gate; writers write meanwhile
EMPTY_BYTES = 1 << 20  # a dataset that somebody created for us holds less than this


def decide_rebuild(facts: Facts, policy: Policy, history: History) -> Action:
    """Make the other host a running replica of the one that serves."""
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        return Refuse(error=roles)
    source, target = facts.host(roles.source), facts.host(roles.target)
    first = too_full(roles, source, policy) or put_away(facts, roles, policy) or cannot_start(facts, source, target)
    if first is not None:
        return first
    if source.engine.halted:
        return Reopen(host=source.name)
    if history.abort:
        return Refuse(error=error("aborted", 11, "the run was ended as asked; nothing was cut over", facts))
    if attached(source, target) and _share(source, target):
        return _finish(roles, source, history)
    if source.volume is not None and source.volume.copies:
        what = f"{source.name} has no snapshots to ship increments of, and the replica cannot be fed its log"
        return Refuse(
            error=error(
                "no-increments",
                3,
                what,
                facts,
                "`no-direct-boot` in the journal says what was seen: such a pair needs a server that can be fed",
            )
        )
    if (action := make_ready(facts, roles, policy, history)) is not None:
        return action
    return _ship_or_cut(facts, roles, policy, history)


def too_full(roles: Roles, source: HostFacts, policy: Policy) -> GiveUp | None:
    """An open primary that runs out of room comes before everything else, a target that cannot be reached included."""
    volume, live = source.volume, source.live
    if volume is None or live is None or volume.free_bytes >= policy.floor_bytes:
        return None
    kept = source.engine.kept_log
    pins = any(p.held for p in live.points) or (kept is not None and kept.ours and kept.since is not None)
    if source.engine.state is not EngineState.PRIMARY or not pins:
        return None
    return GiveUp(roles=roles, free_bytes=volume.free_bytes, floor_bytes=policy.floor_bytes)


def put_away(facts: Facts, roles: Roles, policy: Policy) -> Action | None:
    """A former primary goes aside before its server runs, where it would open for the first client that asks."""
    source, target = facts.host(roles.source), facts.host(roles.target)
    volume = target.volume
    if volume is None or "always_there" not in volume.caps or target.engine.server_up:
        return None
    older = target.claims_primary and target.claimed_generation < source.claimed_generation
    return _clear_live(facts, roles, policy) if older else None


def attached(source: HostFacts, target: HostFacts) -> bool:
    """The replica replays what the source sends."""
    return source.engine.replicating and target.engine.state is EngineState.REPLICA


def _share(source: HostFacts, target: HostFacts) -> bool:
    """The running replica and its primary have a point in common, for an increment of either to the other; without one
    it is not finished, see `GiveUp`.

    Where every base is a whole copy they never have.
    """
    assert source.volume is not None
    return source.volume.copies or (
        lineage.snapshot_between(source, target) is not None and lineage.base_between(target, source) is not None
    )


def _finish(roles: Roles, source: HostFacts, history: History) -> Action:
    if not history.verified:
        return Verify(roles=roles)
    if not history.settled:
        return Settle(roles=roles)
    kept = source.engine.kept_log
    if kept is not None and kept.ours and (kept.wanted or kept.since is not None) and not history.log_let_go:
        return KeepNoLog(roles=roles)
    return Done(serving=roles.source, replica=roles.target)


def cannot_start(facts: Facts, source: HostFacts, target: HostFacts) -> Refuse | None:
    """What makes any rebuild impossible, in the order in which an operator would look."""
    for host in (source, target):
        if (unfit := _unfit(facts, host) or _claimed(facts, host)) is not None:
            return unfit
    return stand_wrong(facts, source, target) or _unlike(facts, source, target)


def cannot_follow(facts: Facts, source: HostFacts, target: HostFacts) -> Refuse | None:
    """The same for a replica that is only fed: what is done to the source does not get in another pair's way."""
    refused = _unfit(facts, source) or _unfit(facts, target) or _claimed(facts, target)
    return refused or stand_wrong(facts, source, target) or _unlike(facts, source, target)


def _unlike(facts: Facts, source: HostFacts, target: HostFacts) -> Refuse | None:
    """Neither a feed nor replication goes from one version of the engine to another."""
    mine, theirs = source.engine.server_version, target.engine.server_version
    if not mine or not theirs or mine == theirs:
        return None
    what = f"{source.name}'s server is of version {mine}, {target.name}'s of {theirs}"
    return Refuse(error=error("engine-versions-differ", 3, what, facts, "run the same version on both hosts"))


def _claimed(facts: Facts, host: HostFacts) -> Refuse | None:
    """By another pair."""
    if host.live is not None and host.live.role is ImageRole.FOREIGN and (owner := host.live.properties.get("pair")):
        return Refuse(error=other_pair(facts, host, owner))
    return None


def stand_wrong(facts: Facts, source: HostFacts, target: HostFacts) -> Refuse | None:
    """One of the databases is not where, or not what, it has to be."""
    if source.live is None:
        what = f"{source.live_name} does not exist on {source.name}"
        hint = f"compare snaprep.toml with what is on {source.name}"
        return Refuse(error=error("unknown-dataset", 3, what, facts, hint))
    if not source.stands_at_path and source.engine.state not in REPLICA_STATES:
        what = f"{source.live_name} on {source.name} is not mounted where clients look, so no client finds it"
        serves = target.engine.state in OPEN_STATES
        hint = f"leave out --source: {target.name} serves" if serves else f"`snaprep takeover {source.name}` opens it"
        return Refuse(error=error("source-closed", 3, what, facts, hint))
    if source.engine.state in REPLICA_STATES or _copy_never_promoted(source):
        what = f"{source.name} is a replica; it cannot be the source"
        return Refuse(error=error("source-is-replica", 3, what, facts, "leave out --source, or take over first"))
    if target.engine.state in OPEN_STATES and not (opened_copy(target) or stepped_down(target, source)):
        what = f"{target.name} has its database open for sessions; it will not be touched"
        hint = f"stop its clients and shut the database down there, if {source.name} is the right one"
        return Refuse(error=error("target-serves", 3, what, facts, hint))
    return None


def _unfit(facts: Facts, host: HostFacts) -> Refuse | None:
    """What a host lacks in either role."""
    if host.error:
        return Refuse(error=unseen(host.error, facts))
    if host.volume is None:
        what = f"{host.name} has no snapshot storage to use"
        return Refuse(error=error("volume-unavailable", 3, what, facts, "`snaprep check` says what is missing"))
    if host.volume.store_health not in ("ONLINE", "DEGRADED"):
        what = f"{host.volume.store} on {host.name} is {host.volume.store_health}"
        return Refuse(error=error("pool-unhealthy", 3, what, facts, f"mend it first; on {host.name}: zpool status -x"))
    if not host.engine.server_up:
        what = f"the database server on {host.name} does not run"
        hint = f"start it; a replica is served by it too. {host.engine.note}".strip()
        return Refuse(error=error("engine-down", 3, what, facts, hint))
    if host.engine.state is EngineState.UNKNOWN:
        what = f"the database on {host.name} is open in a process that does not answer"
        hint = f"{host.engine.note or 'look at its log'}; a server that hangs has to be restarted"
        return Refuse(error=error("engine-silent", 3, what, facts, hint))
    return None


def _copy_never_promoted(host: HostFacts) -> bool:
    """Marked as a replica and not open: nobody has made it a primary."""
    return host.claims_replica and host.engine.state not in OPEN_STATES


def make_ready(facts: Facts, roles: Roles, policy: Policy, history: History) -> Action | None:
    """Marks, room, and what stands in the way on the target; None when an increment can begin.

    What is refused is refused before the first mark.
    """
    source = facts.host(roles.source)
    live = source.live
    assert live is not None
    if (closed := sealed(facts, source, facts.host(roles.target))) is not None:
        return Refuse(error=closed)
    room = make_room(facts, roles, policy)
    first = room or seed_or_round(facts, roles, policy, history)
    if isinstance(first, Refuse):
        return first
    stamped = source.engine.generation in (None, roles.generation) and source.claimed_generation == roles.generation
    if not source.claims_primary or not stamped or live.automounts:
        return Adopt(roles=roles)
    return room


def make_room(facts: Facts, roles: Roles, policy: Policy) -> Action | None:
    """The same without the source's marks, which another pair may have set."""
    source, target = facts.host(roles.source), facts.host(roles.target)
    assert source.volume is not None
    if source.volume.free_bytes < policy.floor_bytes:
        free, floor = size(source.volume.free_bytes), size(policy.floor_bytes)
        what = f"{source.name} has {free} free, less than the floor of {floor}"
        return Refuse(error=error("no-space", 3, what, facts, "free space there, or lower rounds.floor"))
    if (action := _clear_live(facts, roles, policy)) is not None:
        return action
    base = lineage.base_between(source, target)
    why = "its history parts from the source's"
    return clear_recv(facts, roles, base, isolate_foreign=policy.isolate_foreign, why=why)


def clear_recv(
    facts: Facts, way: Roles, base: lineage.Base | None, *, isolate_foreign: bool, why: str
) -> Refuse | SetAside | None:
    """What stands where the target of this way receives, and cannot go on from the base; None when it can."""
    target = facts.host(way.target)
    recv = target.recv
    if recv is None or (base is not None and base.continues) or _half_received(recv):
        return None
    if recv.role is ImageRole.FOREIGN and not isolate_foreign:
        return Refuse(error=foreign(facts, target, recv))
    # Only what our own runs received is called .old, because settling removes that.
    suffix = "old" if recv.ours else "isolated-recv"
    aside = free_name(target, f"{target.live_name}.{suffix}")
    return SetAside(roles=way, image=recv.name, to=aside, why=why)


def _half_received(recv: Image) -> bool:
    """Its first stream ended early: it goes on from the token, or is thrown away with it, but never set aside."""
    return recv.partial is not None and not recv.points


def _clear_live(facts: Facts, roles: Roles, policy: Policy) -> Action | None:
    """A live image on the target that is no replica of ours is set aside before anything is received."""
    target = facts.host(roles.target)
    live = target.live
    follows = target.claims_replica or target.engine.state in REPLICA_STATES
    if live is None or (follows and live.ours and not live.points):
        return None
    if follows:
        # It was a primary until a switchover: not ours to destroy, or increments continue from what it holds.
        aside = free_name(target, f"{live.name}.{'old' if live.ours else f'isolated-g{target.claimed_generation}'}")
        return SetAside(roles=roles, image=live.name, to=aside, why="a primary once, it does not follow any more")
    if live.role is ImageRole.FOREIGN and not policy.isolate_foreign and not _looks_empty(target, live):
        return Refuse(error=foreign(facts, target, live))
    if live.in_use_by and not stepped_down(target, facts.host(roles.source)):
        what = f"{live.name} on {target.name} is in use by {', '.join(live.in_use_by)}"
        return Refuse(error=error("dataset-busy", 3, what, facts, "end those processes, then run this again"))
    diverged = live.properties.get("serves") == "primary"
    why = "it was a primary until it failed: its own tail stays in it" if diverged else "it is not of this pair"
    aside = free_name(target, f"{live.name}.isolated-g{target.claimed_generation}")
    return SetAside(roles=roles, image=live.name, to=aside, why=why, tail_from=_parting(facts, roles))


def _parting(facts: Facts, roles: Roles) -> int | None:
    """The engine position at which the serving side took over, stamped at its promotion."""
    live = facts.host(roles.source).live
    stamped = live.properties.get("took-over-at", "") if live else ""
    return int(stamped) if stamped else None


def _looks_empty(host: HostFacts, image: Image) -> bool:
    return host.engine.state is EngineState.ABSENT and image.referenced_bytes < EMPTY_BYTES and not image.points


def free_name(host: HostFacts, wanted: str) -> str:
    """`wanted`, or the first numbered variant of it that no image of the host has."""
    taken = {i.name for i in host.volume.images} if host.volume else set()
    names = [wanted, *(f"{wanted}-{n}" for n in range(2, len(taken) + 3))]
    return next(n for n in names if n not in taken)


def seed_or_round(facts: Facts, roles: Roles, policy: Policy, history: History) -> Refuse | Seed | Round:
    """What brings the target nearer: an increment where there is a base for it, else everything."""
    source, target = facts.host(roles.source), facts.host(roles.target)
    assert source.live is not None
    assert source.volume is not None
    assert target.volume is not None
    base = lineage.base_between(source, target)
    number = 1 + sum(r.base_guid is not None for r in history.rounds)  # the full send has none
    resume = lineage.resumable(source.volume, source.live, target.recv, base)
    if resume is not None and resume.token in history.failed_tokens:
        resume = None
    if base is None or (source.volume.copies and not base.continues):
        if (full := _no_room_for_copy(facts, source, policy)) is not None:
            return full
        needed = source.live.referenced_bytes - (resume.received_bytes if resume else 0)
        if needed > target.volume.free_bytes:
            what = f"a full copy needs {size(needed)}; {target.name} has {size(target.volume.free_bytes)} free"
            return Refuse(error=error("target-full", 3, what, facts, f"free space in {target.volume.store}"))
        return Seed(roles=roles, freeze=policy.freeze != "never", expected_bytes=needed, resume=resume)
    return Round(roles=roles, base=base, freeze=policy.freeze == "always", number=number, resume=resume)


def _no_room_for_copy(facts: Facts, source: HostFacts, policy: Policy) -> Refuse | None:
    """Where a base is a whole copy the source has to hold it for as long as it is sent. A former one makes room."""
    volume, live = source.volume, source.live
    assert volume is not None
    assert live is not None
    needed, free = live.referenced_bytes + policy.floor_bytes, volume.free_bytes + live.pinned_bytes
    if not volume.copies or free >= needed:
        return None
    what = f"a copy of the database and the floor need {size(needed)}; {source.name} has {size(free)} free"
    return Refuse(error=error("no-space", 3, what, facts, f"free space on {volume.store}, or lower rounds.floor"))


def _ship_or_cut(facts: Facts, roles: Roles, policy: Policy, history: History) -> Action:
    target, another = facts.host(roles.target), seed_or_round(facts, roles, policy, history)
    if not isinstance(another, Round):
        return another
    number = another.number
    if target.recv is not None and target.recv.partial is not None:
        return another  # which goes on with what is there in part, or clears it away
    if not any(r.dirty_s for r in history.rounds) or history.rounds[-1].arrived_bytes is not None:
        return another  # what a stream that was gone on with has brought may be old: what came since is not known
    if (refused := undone(facts, policy, history)) is not None:
        return Refuse(error=refused)
    prediction, allowed_ms = predict_now(policy, history), policy.budget_ms - policy.undo_ms
    direction = trend(history.rounds, prediction, allowed_ms, policy.limit_bytes_per_s)
    fits = prediction is not None and prediction.p90_ms <= allowed_ms
    if fits and prediction is not None:
        return _cut_or_wait(facts, another, policy, history, prediction)
    if policy.hold and not history.release:
        return _paced(another, policy, history, "held, and the delta does not fit the budget yet", prediction)
    if direction.kind != "shrinking" or number > policy.rounds_max:
        return Refuse(error=not_converging(facts, policy, direction, written_words(history.rounds)))
    return another


def predict_now(policy: Policy, history: History) -> Prediction | None:
    """What a cutover would block: begun now, or after the round that comes once the target is made ready."""
    since_s = history.since_round_s if history.fresh else 0.0
    last_s = history.rounds[-1].total_s if history.rounds else 0.0
    return predict_cutover(history.rounds, history.cutovers, since_s + last_s + ARM_S, policy.limit_bytes_per_s)


def _cut_or_wait(facts: Facts, another: Round, policy: Policy, history: History, prediction: Prediction) -> Action:
    """The delta fits. Old transactions and the operator's hold come before the cutover."""
    if policy.hold and not history.release:
        return _paced(another, policy, history, "held: `snaprep cutover` goes on", prediction)
    reasons = held_up(facts, another.roles.source, policy)
    if reasons:
        hint = "end them, then `snaprep resume`"
        if (late := overdue(facts, policy, history, reasons, what="the cutover", hint=hint)) is not None:
            return Refuse(error=late)
        return _paced(another, policy, history, "waiting: " + "; ".join(reasons), prediction, for_work=True)
    target, source = facts.host(another.roles.target), facts.host(another.roles.source)
    if history.prepared_s is None or target.live is not None or source.engine.replicating:
        return Prepare(roles=another.roles, base=another.base)
    if not history.fresh:
        return another  # what was written while the target was made ready need not wait for the gate
    return Cutover(roles=another.roles, base=another.base, p50_ms=prediction.p50_ms, p90_ms=prediction.p90_ms)


def _paced(
    another: Round,
    policy: Policy,
    history: History,
    reason: str,
    prediction: Prediction | None,
    *,
    for_work: bool = False,
) -> Action:
    """Rounds go on while the run waits, at a bounded pace, so that a release finds a small delta."""
    last = history.last_round_end_s
    if last is None or history.now_s - last >= policy.hold_pace_s:
        return another
    return Hold(
        reason=reason,
        pace_s=min(1.0, policy.hold_pace_s),
        for_work=for_work,
        p50_ms=prediction.p50_ms if prediction else None,
        p90_ms=prediction.p90_ms if prediction else None,
    )
