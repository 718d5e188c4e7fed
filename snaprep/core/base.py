"""Moving the common base on, one way after the other: from the source to the target, and back. Pure."""

from __future__ import annotations

from snaprep.core import lineage
from snaprep.core.action import Refresh, Refuse, Roles, SetAside
from snaprep.core.decide import clear_recv
from snaprep.core.model import Facts, History
from snaprep.core.refusals import error


def next_way(facts: Facts, roles: Roles, history: History) -> Refresh | Refuse | SetAside | None:
    """The way that this run has not gone yet, or what has to step aside for it; None when both are done."""
    for sender, receiver in ((roles.source, roles.target), (roles.target, roles.source)):
        if (sender, receiver) not in history.refreshed:
            return _refresh_one_way(facts, Roles(source=sender, target=receiver, generation=roles.generation))
    return None


def _refresh_one_way(facts: Facts, way: Roles) -> Refresh | Refuse | SetAside:
    """An increment from `way.source` to `way.target`, or what has to step aside for it first."""
    sender, receiver = facts.host(way.source), facts.host(way.target)
    assert sender.volume is not None
    base = lineage.base_between(sender, receiver)
    if base is None:
        what = f"{sender.name} and {receiver.name} share no snapshot"
        hint = "`snaprep rebuild` makes a new one"
        if sender.volume.copies:
            hint = "storage without snapshots keeps none: every new base is a whole copy"
        return Refuse(error=error("no-common-base", 3, what, facts, hint))
    why = "its history parts from what is sent now"
    first = clear_recv(facts, way, base, isolate_foreign=False, why=why)
    return first or Refresh(sender=sender.name, receiver=receiver.name, base=base)
