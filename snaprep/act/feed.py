"""Feeding a replica: the source keeps its log, the replica stands on a clone of the base, log goes from host to host.

The feed itself runs in the two agents. This end begins it, looks how far it is, lets go of log that nobody needs any
more, and ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from snaprep.act.context import Context
from snaprep.act.cutover import former_plan, gated_ms, raise_if_closed, told
from snaprep.core.action import Feed, FeedCutover, KeepLog, Present, Roles
from snaprep.core.errors import HostUnreachable, SnaprepError, Stopped, from_info
from snaprep.core.follow import follower_mark, is_follower, needed_from, others_fed, taken_marks
from snaprep.core.model import CutoverTried, FeedFacts, RoundDone, recv_name
from snaprep.core.recipe import Arg, Recipe, Ref, Step
from snaprep.core.report import CutoverReport
from snaprep.engines.base import FeedCutoverPlan
from snaprep.host.base import Host

LOOK_S = 10.0  # how long one action of feeding takes, before everything is looked at anew
_ASK_S = 0.5
_STOP_S = 60.0
_TELL_S = 15.0
_AGAIN = "run it again: it goes on where the replica is; `snaprep follow` does so by itself"
_PARTED = frozenset({"log-gap", "log-differs", "log-damaged", "replica-out-of-step", "feed-base-old"})


# -- the log of the source, and the replica's image -------------------------------------------------------------------


def keep_log(context: Context, action: KeepLog) -> float:
    """Seconds for which the database was away."""
    source = action.roles.source
    step = Step(host=source, op="keep_log", args={"how": action.how}, deadline_s=24 * 3600)
    return float(context.interpreter.must((step,)).results["keep_log"])


def keep_no_log(context: Context, roles: Roles) -> None:
    """The source keeps no more log for this pair; only the mark goes while another pair's replica is fed from here.

    The replica comes first: once the source has forgotten, nothing tells that there was something to put back.
    """
    source = context.facts.host(roles.source)
    kept, keep = source.engine.kept_log, bool(others_fed(source, context.pair.name))
    if kept is not None and kept.ours and not keep:
        context.interpreter.must(forget_recipe(roles))
    give_up_log(context, roles.source, keep=keep)


def forget_recipe(roles: Roles) -> Recipe:
    """The mode stands in a file on either side, and switching it off reaches one."""
    before: Mapping[str, Arg] = {"before": Ref("log_mode_before")}
    return (
        Step(host=roles.source, op="log_mode_before"),
        Step(host=roles.target, op="forget_log_mode", args=before),
    )


def give_up_log(context: Context, name: str, *, keep: bool = False) -> None:
    """No log is kept any more, whoever else is fed; with `keep` only this pair's mark goes."""
    source = context.facts.host(name)
    kept = source.engine.kept_log
    steps: list[Step] = []
    if source.live is not None and is_follower(source, context.pair.name):
        steps.append(_mark(name, source.live_name, follower_mark(context.pair.name, None)))
    if kept is not None and kept.ours and not keep:
        steps.append(Step(host=name, op="keep_no_log", deadline_s=60))
    context.interpreter.must(tuple(steps))


def note_taken(context: Context, receiver: str, sender: str, done: RoundDone) -> None:
    """Remember on the receiving image in which life of the source its newest point was taken."""
    host = context.facts.host(receiver)
    marks = taken_marks(done.head_guid, context.facts.host(sender))
    context.interpreter.must((_mark(receiver, recv_name(host.live_name), marks),))


def _mark(host: str, image: str, marks: Mapping[str, str]) -> Step:
    args: Mapping[str, Arg] = {"image": image, "properties": marks}
    return Step(host=host, op="mark", args=args)


def present(context: Context, action: Present) -> None:
    """See that this server can be fed, then put a clone of the base in the place of a former replica."""
    result = context.interpreter.must(present_recipe(context, action)).results["present_fed"]
    source = context.facts.host(action.roles.source)
    marks = follower_mark(context.pair.name, int(result))
    context.interpreter.must((_mark(source.name, source.live_name, marks),))


def present_recipe(context: Context, action: Present) -> Recipe:
    source, target = context.facts.host(action.roles.source), context.facts.host(action.roles.target)
    assert source.volume is not None
    shown: dict[str, Arg] = {
        "image": action.base.target_image,
        "point": action.base.target_point,
        "to": target.live_name,
        "mountpoint": context.pair.host(target.name).replica_mountpoint,
        "owner": context.owner(source, target),
        "generation": action.roles.generation,
        "boot_id": source.boot_id,
        "import_id": source.volume.import_id,
    }
    return (
        Step(host=target.name, op="try_direct_boot", deadline_s=120),
        *context.engine.take_down(former_plan(source, target)),
        Step(host=target.name, op="present_fed", args=shown, deadline_s=300),
    )


# -- the feed ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Feeding:
    """The feed that this run has under way: its name, and the agents that run it."""

    stream: str
    source: Host
    target: Host
    told_s: float = 0.0  # when others were last told how far it is


def begin(context: Context, action: Feed) -> Feeding:
    """Start both loops. Raises what the check of the base, or the way between the hosts, says."""
    stream, roles = context.point_name(), action.roles
    try:
        context.interpreter.must(feed_recipe(context, action, stream))
    except SnaprepError as error:
        _parted(context, action, error)
        raise
    return Feeding(stream, context.session.host(roles.source), context.session.host(roles.target))


def feed_recipe(context: Context, action: Feed, stream: str) -> Recipe:
    """The target expects the feed before the source begins it. After a reboot its image is not mounted."""
    origin, roles = action.origin, action.roles
    source_ends, target_ends = (Step(host=host, op="feed_end", deadline_s=30) for host in (roles.source, roles.target))
    played: Mapping[str, Arg] = {"stream": stream, "replication": action.replication}
    sent: Mapping[str, Arg] = {
        "stream": stream,
        "boot_id": origin.boot_id,
        "import_id": origin.import_id,
        "base": origin.position,
    }
    target = context.facts.host(roles.target)
    at = {"image": target.live_name, "mountpoint": context.pair.host(target.name).replica_mountpoint}
    unmounted = target.live is not None and target.live.mounted_at is None
    return (
        *((Step(host=target.name, op="mount", args=at, deadline_s=60),) if unmounted else ()),
        Step(host=target.name, op="feed_play", args=played, undo=(target_ends,)),
        Step(host=roles.source, op="feed_send", args=sent, deadline_s=60, undo=(source_ends,)),
    )


def watch(
    context: Context,
    action: Feed,
    feeding: Feeding,
    *,
    tell: Callable[[FeedFacts], None],
    over: Callable[[FeedFacts], bool],
) -> None:
    """Look how far it is, for a while or until `over`. Raises what ended the feed."""
    until_s = time.monotonic() + LOOK_S
    while time.monotonic() < until_s:
        facts = _ask(feeding.source, feeding)
        tell(facts)
        if facts.phase in ("failed", "finished"):
            error = (
                from_info(facts.error)
                if facts.error is not None
                else Stopped("feed-ended", "the feed ended", hint=_AGAIN)
            )
            _parted(context, action, error)
            raise error
        if not feeding.target.alive:
            raise _gone(feeding.target)
        _release(context, action.roles.source, feeding, facts)
        if over(facts):
            return
        time.sleep(_ASK_S)


def _gone(host: Host) -> SnaprepError:
    return HostUnreachable("agent-died", f"the agent on {host.name} is gone", hint=_AGAIN)


def _ask(host: Host, feeding: Feeding) -> FeedFacts:
    if not host.alive:
        raise _gone(host)
    facts = host.call("feed", {}, FeedFacts, deadline_s=20)
    if facts.stream != feeding.stream:
        raise Stopped("not-feeding", f"{host.name} knows nothing of {feeding.stream}", hint=_AGAIN)
    return facts


def _parted(context: Context, action: Feed, error: SnaprepError) -> None:
    """What the replica holds cannot be gone on with: its mark goes, so that looking asks for a new base."""
    if error.id not in _PARTED:
        return
    target = context.facts.host(action.roles.target)
    context.interpreter.run((_mark(target.name, target.live_name, {"fed-base": ""}),))


def _release(context: Context, name: str, feeding: Feeding, facts: FeedFacts) -> None:
    """Now and then tell other pairs how far this replica is, and let go of the log that none needs."""
    if not facts.stored or time.monotonic() - feeding.told_s < _TELL_S:
        return
    feeding.told_s = time.monotonic()
    source = context.facts.host(name)
    kept = source.engine.kept_log
    marks = follower_mark(context.pair.name, facts.stored)
    steps: tuple[Step, ...] = (_mark(source.name, source.live_name, marks),)
    others = [at for at in (needed_from(source, but=context.pair.name), facts.stored) if at is not None]
    if kept is not None and kept.ours:
        steps = (*steps, Step(host=source.name, op="release_log", args={"keep_from": min(others)}))
    context.interpreter.run(steps)


def cutover_plan(context: Context, action: FeedCutover) -> FeedCutoverPlan:
    policy = context.policy
    return FeedCutoverPlan(
        source=action.roles.source,
        target=action.roles.target,
        budget_ms=policy.budget_ms,
        lease_ms=policy.cutover_lease_ms,
    )


def cut_over(context: Context, action: FeedCutover) -> tuple[CutoverTried, CutoverReport]:
    """Try it once. A failure undoes itself and is returned. Raises NobodyServes when the source stays closed."""
    source = action.roles.source
    context.interpreter.must((Step(host=source, op="gate_prepare", deadline_s=60),))
    plan = cutover_plan(context, action)
    outcome = context.interpreter.run(context.engine.feed_cutover(plan))
    error = outcome.error
    if error is not None:
        raise_if_closed(context, source, outcome, plan.lease_ms / 1000)
    return told(action, outcome, "ship_mark", blocked_ms=gated_ms(outcome), error=error)


def finish(context: Context, feeding: Feeding) -> str:
    """Let the replica have everything, and shut it down. Why it could not have everything; empty when it has.

    The replica is then where the next run goes on.
    """
    source, target = feeding.source.name, feeding.target.name
    why = "an agent is gone"
    if feeding.source.alive and feeding.target.alive:
        recipe = (
            Step(host=source, op="feed_finish", args={"how": "stop"}, deadline_s=_STOP_S),
            Step(host=target, op="feed_wait", deadline_s=_STOP_S),
        )
        error = context.interpreter.run(recipe).error
        if error is None:
            return ""
        why = error.what
    for host in (feeding.source, feeding.target):
        if host.alive:
            context.interpreter.run((Step(host=host.name, op="feed_end", deadline_s=30),))
    if feeding.target.alive:
        context.interpreter.run((Step(host=target, op="stop_replica", deadline_s=60),))
    return why
