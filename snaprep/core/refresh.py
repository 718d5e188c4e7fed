"""`refresh`: move the common base forward in both directions while the replica runs. Pure, as `decide` is.

Nothing of it touches an image that is started: snapshots of what is served go into images that nobody starts. So it is
the same for a replica that is attached, one that is fed meanwhile, and one that was fed and is stopped.
"""

from __future__ import annotations

from snaprep.core.action import Action, Done, Refuse, Settle
from snaprep.core.base import next_way
from snaprep.core.decide import attached, cannot_start
from snaprep.core.errors import ErrorInfo
from snaprep.core.follow import feedable
from snaprep.core.model import Facts, History, Policy
from snaprep.core.refusals import error
from snaprep.core.who import who


def decide_refresh(facts: Facts, policy: Policy, history: History) -> Action:
    """Move the common base forward in both directions while the replica runs."""
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        return Refuse(error=roles)
    source, target = facts.host(roles.source), facts.host(roles.target)
    if history.abort:
        return Refuse(error=error("aborted", 11, "the refresh was ended as asked", facts))
    if refused := cannot_start(facts, source, target):
        return refused
    if not attached(source, target) and feedable(source, target) is None:
        what = f"{target.name} is not a running replica of {source.name}"
        return Refuse(error=error("no-replica", 3, what, facts, "`snaprep rebuild` makes it one"))
    if history.settled:
        return Done(serving=roles.source, replica=roles.target)
    return next_way(facts, roles, history) or Settle(roles=roles)
