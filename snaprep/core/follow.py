"""`follow`: what to do next for a replica that is fed the source's log, and never cut over to.

Invariant: the source's writers are never gated, and frozen at most for a base's snapshot. Only an image is fed whose
base was taken in the present life of the source's host and storage, and since the source logs everything: what was fed
before a crash may never have been on the source's disk. The fed image is never what an increment goes into.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from snaprep.core import lineage
from snaprep.core.action import (
    Action,
    Feed,
    FeedCutover,
    Hold,
    KeepLog,
    Present,
    Refresh,
    Refuse,
    Reopen,
    Roles,
    Round,
    Seed,
    SetAside,
    Settle,
    Switchover,
)
from snaprep.core.base import next_way
from snaprep.core.decide import cannot_follow, free_name, make_ready, make_room, put_away, seed_or_round, too_full
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import (
    OPEN_STATES,
    Facts,
    FeedFacts,
    History,
    HostFacts,
    ImageRole,
    Origin,
    Policy,
)
from snaprep.core.refusals import error, other_pair
from snaprep.core.volume import Image
from snaprep.core.who import who

# What a run that has begun waits for, because it passes or an operator mends it.
_PASSING = frozenset(
    {
        "host-unreachable",
        "engine-down",
        "engine-silent",
        "pool-unhealthy",
        "volume-unavailable",
        "source-closed",
        "no-database",  # its host is out of reach
    }
)
CAUGHT_UP_BYTES = 4 << 20  # what is fed well within a cutover
_PACE_S = 2.0
_TAKEN = "taken"
_FOLLOWER = "fed."


def decide_follow(facts: Facts, policy: Policy, history: History) -> Action:
    """Keep the other host a fed replica of the one that serves, for as long as nobody says stop."""
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        return _patient(Refuse(error=roles), history)
    source, target = facts.host(roles.source), facts.host(roles.target)
    if history.abort:
        return Refuse(error=error("aborted", 11, "the replica is no longer fed, as asked", facts))
    first = too_full(roles, source, policy) or put_away(facts, roles, policy) or cannot_follow(facts, source, target)
    if isinstance(first, Refuse):
        return _patient(first, history)
    if first is not None:
        return first
    if source.guarded:  # another pair's: its guard opens it
        return Hold(reason=f"waiting: {source.name} is {source.guarded} by another run", pace_s=_PACE_S)
    if source.engine.halted:
        return Reopen(host=source.name)
    return _feed(facts, roles, policy, history)


def _patient(refused: Refuse, history: History) -> Action:
    """What would end another run is waited for, once there is something to come back to."""
    if history.begun and not history.abort and refused.error.id in _PASSING:
        return Hold(reason=f"waiting: {refused.error.what}", pace_s=_PACE_S)
    return refused


def _feed(facts: Facts, roles: Roles, policy: Policy, history: History) -> Action:
    source, target = facts.host(roles.source), facts.host(roles.target)
    origin = feedable(source, target)
    if origin is not None and not history.settled:
        return Settle(roles=roles)
    if origin is not None:
        return _move_on(facts, roles, policy, history) or Feed(roles=roles, origin=origin)
    if (action := _ready(facts, roles, policy, history)) is not None:
        return action
    kept = source.engine.kept_log
    assert source.volume is not None
    # Where the base is a backup, it is also what switches the mode on.
    if (kept is None or kept.since is None) and not (source.volume.copies and _way(policy) == "backup"):
        if kept is not None and kept.wanted and not kept.due and _way(policy) == "restart":
            reason = f"waiting for the next restart of {source.name}'s database: from then on it keeps its log"
            return Hold(reason=reason, pace_s=_PACE_S)
        return KeepLog(roles=roles, how=_way(policy))
    base = lineage.base_between(source, target)
    if base is not None and _is_fresh(source, target) and not _stood_already(target):
        return Present(roles=roles, base=base)
    shipped = seed_or_round(facts, roles, policy, history)
    if isinstance(shipped, Round) and source.volume.copies:
        aside = free_name(target, f"{target.live_name}.old")
        why = "a copy from another life of the source is no base"
        return SetAside(roles=roles, image=shipped.base.target_image, to=aside, why=why)
    # A base taken at work is as good: what is open in it is in the log that follows.
    return replace(shipped, freeze=policy.freeze == "always") if isinstance(shipped, Seed) else shipped


def _move_on(facts: Facts, roles: Roles, policy: Policy, history: History) -> Action | None:
    """Move the common base on when it is time, beside the feed; what is in the way of that does not end the feed."""
    if not caught_up(facts.host(roles.source).feed) or not (history.refresh or _is_time(policy, history)):
        return None
    action = next_way(facts, roles, history)
    return Settle(roles=roles) if action is None or isinstance(action, Refuse) else action


def beside(action: Action, facts: Facts) -> bool:
    """A feed goes on while this is done, or is ended by it."""
    if isinstance(action, SetAside):
        return action.image not in [h.live_name for h in facts.hosts]
    ends_it = isinstance(action, Switchover) and action.fed
    return ends_it or isinstance(action, Feed | FeedCutover | Hold | Reopen | Refresh | Settle)


def _is_time(policy: Policy, history: History) -> bool:
    last_s = history.settled_s
    return policy.refresh_s is not None and last_s is not None and history.now_s - last_s >= policy.refresh_s


def _way(policy: Policy) -> str:
    return policy.archive or "restart"


def _ready(facts: Facts, roles: Roles, policy: Policy, history: History) -> Action | None:
    source = facts.host(roles.source)
    owner = _other_owner(source)
    if not owner:
        return make_ready(facts, roles, policy, history)
    if not source.claims_primary:
        return Refuse(error=other_pair(facts, source, owner))
    return make_room(facts, roles, policy)


def _other_owner(source: HostFacts) -> str:
    live = source.live
    return live.properties.get("pair", "") if live is not None and live.role is ImageRole.FOREIGN else ""


def feedable(source: HostFacts, target: HostFacts) -> Origin | None:
    """What the replica's base rests on, when the replica can go on from where it is."""
    origin, kept = origin_of(target.live), source.engine.kept_log
    if origin is None or source.volume is None or kept is None or kept.since is None:
        return None
    if (origin.boot_id, origin.import_id) != (source.boot_id, source.volume.import_id) or origin.position < kept.since:
        return None
    if target.engine.state in OPEN_STATES or target.claimed_generation != source.claimed_generation:
        return None
    at = target.engine.position
    return origin if at is None or at >= kept.first else None


def caught_up(feed: FeedFacts | None) -> bool:
    """The replica has said where it is, and what it lacks is fed in no time."""
    return feed is not None and feed.phase == "feeding" and feed.stored > 0 and feed.lag_bytes <= CAUGHT_UP_BYTES


def origin_of(image: Image | None) -> Origin | None:
    """As its marks say; None for an image that was not made to be fed, or that is known to have parted."""
    if image is None or not (base := image.properties.get("fed-base", "")):
        return None
    return Origin(int(base), image.properties.get("fed-boot", ""), image.properties.get("fed-import", ""))


def taken_marks(head_guid: int, source: HostFacts) -> Mapping[str, str]:
    """What the receiving image has to remember of a point that was taken just now."""
    assert source.volume is not None
    return {_TAKEN: f"{head_guid} {source.boot_id} {source.volume.import_id}"}


def _is_fresh(source: HostFacts, target: HostFacts) -> bool:
    """The newest point received was taken in this life of the source."""
    recv = target.recv
    if recv is None or recv.newest is None or recv.partial is not None:
        return False
    return recv.properties.get(_TAKEN, "") == taken_marks(recv.newest.guid, source)[_TAKEN]


def _stood_already(target: HostFacts) -> bool:
    """The replica was made from the newest point, and has turned out to be of no use."""
    newest = target.recv.newest if target.recv else None
    return newest is not None and target.live is not None and target.live.origin_guid == newest.guid


# -- who is fed from a source: marks on its live image -----------------------------------------------------------


def follower_mark(pair: str, position: int | None) -> Mapping[str, str]:
    """What tells every pair that this one needs the log from a position on; None: no longer."""
    key = _FOLLOWER + hashlib.sha256(pair.encode()).hexdigest()[:12]
    return {key: "" if position is None else f"{pair} {position}"}


def needed_from(source: HostFacts, but: str) -> int | None:
    """From where on other pairs need the source's log; None when none does."""
    return min((at for pair, at in _followers(source).items() if pair != but), default=None)


def is_follower(source: HostFacts, pair: str) -> bool:
    """The source bears the mark of this pair."""
    return pair in _followers(source)


def others_fed(source: HostFacts, pair: str) -> tuple[str, ...]:
    """The other pairs whose replicas are fed from the source."""
    return tuple(sorted(name for name in _followers(source) if name != pair))


def _followers(source: HostFacts) -> Mapping[str, int]:
    marks = source.live.properties if source.live is not None else {}
    told = [value.rpartition(" ") for key, value in marks.items() if key.startswith(_FOLLOWER)]
    return {pair: int(position) for pair, _, position in told if position.isdigit()}
