"""A rebuild in the log lane: after the base the replica is fed, and the feed is cut over to the engine's replication.

Invariant: up to the cutover nobody is kept out, as in `follow`; the cutover ends with the source open, as every other.
"""

from __future__ import annotations

from snaprep.core.action import Action, Feed, FeedCutover, Hold, Refuse
from snaprep.core.decide import attached, cannot_start, decide_rebuild
from snaprep.core.errors import ErrorInfo
from snaprep.core.follow import decide_follow
from snaprep.core.model import Facts, FeedFacts, History, Policy
from snaprep.core.refusals import held_up, overdue, undone
from snaprep.core.who import who

CAUGHT_UP_BYTES = 4 << 20  # what is fed well within a cutover
USUAL_MS = (700.0, 1500.0)  # P50 and P90 of a cutover from a feed: there is no data to be shipped in it
_PACE_S = 1.0


def decide_lane(facts: Facts, policy: Policy, history: History) -> Action:
    """A rebuild in the lane that the policy names; in rounds of pages where the replica cannot be fed."""
    if policy.lane == "pages" or history.unfeedable:
        return decide_rebuild(facts, policy, history)
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        return Refuse(error=roles)
    source, target = facts.host(roles.source), facts.host(roles.target)
    refused = cannot_start(facts, source, target)
    if refused is not None:
        return refused
    if attached(source, target):
        return decide_rebuild(facts, policy, history)
    if (failed := undone(facts, policy, history)) is not None:
        return Refuse(error=failed)
    action = decide_follow(facts, policy, history)
    if not isinstance(action, Feed) or not caught_up(source.feed):
        return action
    if policy.hold and not history.release:
        return Hold(reason="held: `snaprep cutover` goes on", pace_s=_PACE_S, p50_ms=USUAL_MS[0], p90_ms=USUAL_MS[1])
    if reasons := held_up(facts, source.name, policy):
        return _wait(facts, policy, history, reasons)
    return FeedCutover(roles=roles, p50_ms=USUAL_MS[0], p90_ms=USUAL_MS[1])


def caught_up(feed: FeedFacts | None) -> bool:
    """A cutover from this feed would not have to wait for it."""
    return feed is not None and feed.phase == "feeding" and feed.stored > 0 and feed.lag_bytes <= CAUGHT_UP_BYTES


def _wait(facts: Facts, policy: Policy, history: History, reasons: list[str]) -> Action:
    hint = "end them, then `snaprep resume`"
    if (late := overdue(facts, policy, history, reasons, what="the cutover", hint=hint)) is not None:
        return Refuse(error=late)
    return Hold(reason="waiting: " + "; ".join(reasons), pace_s=_PACE_S, p50_ms=USUAL_MS[0], p90_ms=USUAL_MS[1])
