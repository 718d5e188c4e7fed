"""`refresh`: move the common base forward in both directions while the replica runs. Pure, as `decide` is."""

from __future__ import annotations

from snaprep.core import lineage
from snaprep.core.action import Action, Done, Refresh, Refuse, Roles, SetAside, Settle
from snaprep.core.decide import attached, cannot_start, free_name
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import Facts, History, ImageRole, Policy, recv_name
from snaprep.core.refusals import error, foreign
from snaprep.core.who import who


def decide_refresh(facts: Facts, policy: Policy, history: History) -> Action:
    """Move the common base forward in both directions while the replica runs."""
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        return Refuse(error=roles)
    source, target = facts.host(roles.source), facts.host(roles.target)
    if history.abort:
        return Refuse(error=error("aborted", 11, "the refresh was ended as asked", facts))
    if action := cannot_start(facts, source, target):
        return action
    if not attached(source, target):
        what = f"{target.name} is not a running replica of {source.name}"
        return Refuse(error=error("no-replica", 3, what, facts, "`snaprep rebuild` makes it one"))
    for sender, receiver in ((source, target), (target, source)):
        if (sender.name, receiver.name) not in history.refreshed:
            return _refresh_one_way(facts, Roles(source=sender.name, target=receiver.name, generation=roles.generation))
    if not history.settled:
        return Settle(roles=roles)
    return Done(serving=roles.source, replica=roles.target)


def _refresh_one_way(facts: Facts, way: Roles) -> Action:
    """An increment from `way.source` to `way.target`, or what has to step aside for it first."""
    sender, receiver = facts.host(way.source), facts.host(way.target)
    assert sender.volume is not None
    assert receiver.volume is not None
    assert sender.live is not None
    base = lineage.common_base(sender.volume, sender.live, receiver.volume, recv_name(receiver.live_name))
    if base is None:
        what = f"{sender.name} and {receiver.name} share no snapshot"
        hint = "`snaprep rebuild` makes a new one"
        if sender.volume.copies:
            hint = "storage without snapshots keeps none: every new base is a whole copy"
        return Refuse(error=error("no-common-base", 3, what, facts, hint))
    recv = receiver.recv
    if recv is None or base.continues:
        return Refresh(sender=sender.name, receiver=receiver.name, base=base)
    if recv.role is ImageRole.FOREIGN:
        return Refuse(error=foreign(facts, receiver, recv))
    aside = free_name(receiver, f"{receiver.live_name}.{'old' if recv.ours else 'isolated-recv'}")
    return SetAside(roles=way, image=recv.name, to=aside, why="its history parts from what is sent now")
