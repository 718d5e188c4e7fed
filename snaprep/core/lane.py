"""A rebuild in either lane. In the log lane, after the base the replica is fed, and the feed is cut over to the
engine's replication.

Invariant: up to the cutover nobody is kept out, as in `follow`; the cutover ends with the source open, as every other.
"""

from __future__ import annotations

from dataclasses import replace

from snaprep.core.action import Action, Feed, FeedCutover, Hold, Refuse
from snaprep.core.choose import choose
from snaprep.core.decide import attached, cannot_start, decide_rebuild, put_away
from snaprep.core.errors import ErrorInfo
from snaprep.core.estimate import predict_feed_cutover
from snaprep.core.follow import caught_up, decide_follow
from snaprep.core.model import Facts, History, Policy
from snaprep.core.refusals import PACE_S, held_up, undone, wait_for
from snaprep.core.who import who


def decide_lane(facts: Facts, policy: Policy, history: History) -> Action:
    """A rebuild in the lane that was named, or chosen; in rounds of pages where the replica cannot be fed."""
    if "log" in (policy.lane, history.lane) and not history.unfeedable:
        return _feed_and_cut(facts, policy, history)
    pages = decide_rebuild(facts, policy, history)
    return choose(facts, policy, history, pages) if policy.lane == "auto" else pages


def _feed_and_cut(facts: Facts, policy: Policy, history: History) -> Action:
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        return Refuse(error=roles)
    source, target = facts.host(roles.source), facts.host(roles.target)
    first = put_away(facts, roles, policy) or cannot_start(facts, source, target)
    if first is not None:
        return first
    if attached(source, target):
        return decide_rebuild(facts, policy, history)
    if (failed := undone(facts, policy, history)) is not None:
        return Refuse(error=failed)
    action = decide_follow(facts, policy, history)
    if not isinstance(action, Feed):
        return action
    if not caught_up(source.feed):
        return replace(action, replication=True)
    prediction = predict_feed_cutover(history.cutovers)
    p50_ms, p90_ms = prediction.p50_ms, prediction.p90_ms
    if policy.hold and not history.release:
        return Hold(reason="held: `snaprep cutover` goes on", pace_s=PACE_S, p50_ms=p50_ms, p90_ms=p90_ms)
    if reasons := held_up(facts, source.name, policy):
        hint = "end them, then `snaprep resume`"
        return wait_for(facts, policy, history, reasons, what="the cutover", hint=hint, expected_ms=(p50_ms, p90_ms))
    return FeedCutover(roles=roles, p50_ms=p50_ms, p90_ms=p90_ms)
