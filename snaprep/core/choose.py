"""Which lane a rebuild takes when nobody has named one: pages, unless the log is measured to be clearly better.

Invariant: the source comes to keep its log only in a way that the operator has named. So a run that nobody watches
never cuts anybody off, or waits for a restart, that was not asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from snaprep.core.action import Action, Choose, Hold, Prepare, Refuse, Roles, Round
from snaprep.core.decide import decide_rebuild, predict_now
from snaprep.core.errors import ErrorInfo
from snaprep.core.estimate import predict_feed_cutover, rates, written, written_words
from snaprep.core.follow import feedable
from snaprep.core.model import Facts, History, HostFacts, Policy
from snaprep.core.who import who

CLEARLY = 1.5  # how much longer a cutover with pages has to be than one from a feed, where both would do
KEEPS_UP = 0.8  # of what the way carries: who logs more than this is hardly caught up with
BOUNCE_MS = 1000.0  # for which clients are away when the log is to be kept at once


def choose(facts: Facts, policy: Policy, history: History, pages: Action) -> Action:
    """What the lane of pages does next, or a choice first. Where neither lane would do, the error says so of both."""
    stuck = _stuck(facts, policy, history, pages)
    if stuck is None and not isinstance(pages, Round | Prepare | Hold):
        return pages
    roles = who(facts, policy.source)
    assert isinstance(roles, Roles)  # or there would be no such action
    source, target = facts.host(roles.source), facts.host(roles.target)
    if feedable(source, target) is not None and not (why_not := _cannot(target, policy, history)):
        return _chosen(roles, "log", f"{target.name} was fed already, and lacks only the last of the log", history)
    why_not = _against(source, target, policy, history)
    if stuck is not None and not why_not:
        return _chosen(roles, "log", f"rounds do not shrink enough; {written_words(history.rounds)}", history)
    if stuck is not None and isinstance(pages, Refuse):
        return Refuse(error=replace(stuck, what=f"{stuck.what}; not in the log lane: {why_not}"))
    if not isinstance(pages, Prepare) or history.lane == "pages":
        return pages
    return _compare(roles, source, policy, history, why_not)


def _stuck(facts: Facts, policy: Policy, history: History, pages: Action) -> ErrorInfo | None:
    """Why rounds of pages lead nowhere. One that is held goes on with them for a while, knowing it."""
    if policy.hold and not history.release:
        pages = decide_rebuild(facts, replace(policy, hold=False), history)
    return pages.error if isinstance(pages, Refuse) and pages.error.id == "not-converging" else None


def _compare(roles: Roles, source: HostFacts, policy: Policy, history: History, why_not: str) -> Choose:
    """Pages would do. What has to be done first for the log counts against it."""
    prediction = predict_now(policy, history)
    assert prediction is not None  # or nothing would be made ready
    extra_ms = 0.0 if _keeps(source) or policy.archive != "bounce" else BOUNCE_MS
    feed_ms = predict_feed_cutover(history.cutovers).p90_ms + extra_ms
    words = f"cutover P90 {prediction.p90_ms:.0f} ms, from a feed {feed_ms:.0f} ms"
    if measured := written_words(history.rounds):
        words = f"{measured}; {words}"
    if prediction.p90_ms <= CLEARLY * feed_ms:
        return _chosen(roles, "pages", words, history)
    if not why_not and not _keeps(source) and policy.archive == "restart":
        why_not = f"{source.name} keeps its log from its next restart on only, and pages will do"
    if why_not:
        return _chosen(roles, "pages", f"{words}; not the log: {why_not}", history)
    return _chosen(roles, "log", words, history)


def _chosen(roles: Roles, lane: Literal["pages", "log"], why: str, history: History) -> Choose:
    pages, log = written(history.rounds)
    return Choose(roles=roles, lane=lane, why=why, page_bytes_per_s=pages, log_bytes_per_s=log)


def _keeps(source: HostFacts) -> bool:
    kept = source.engine.kept_log
    return kept is not None and (kept.since is not None or kept.due)


def _against(source: HostFacts, target: HostFacts, policy: Policy, history: History) -> str:
    """Why the log cannot be taken; empty when it can."""
    if cannot := _cannot(target, policy, history):
        return cannot
    _, log = written(history.rounds)
    link = rates(history.rounds, policy.limit_bytes_per_s).link_bytes_per_s
    if log is None or link is None:
        return "how fast it is written is not known"
    if log > KEEPS_UP * link:
        return f"{log / 1e6:.1f} MB/s of it are written, and the way carries {link / 1e6:.1f} MB/s"
    if not _keeps(source) and policy.archive is None:
        return f"{source.name} keeps none, and nobody has said how it may come to (--archive)"
    return ""


def _cannot(target: HostFacts, policy: Policy, history: History) -> str:
    if history.unfeedable:
        return f"{target.name} cannot be fed"
    allowed_ms, p90_ms = policy.budget_ms - policy.undo_ms, predict_feed_cutover(history.cutovers).p90_ms
    if p90_ms > allowed_ms:
        return f"its cutover may take {p90_ms:.0f} ms, and {allowed_ms} ms are allowed"
    return ""
