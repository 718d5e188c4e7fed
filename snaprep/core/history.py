"""What an action leaves in a run's history: the same on live hosts, in the model world, and in a plan."""

from __future__ import annotations

from dataclasses import replace

from snaprep.core.action import (
    Action,
    Choose,
    Cutover,
    FeedCutover,
    Hold,
    KeepNoLog,
    Prepare,
    Present,
    Refresh,
    Settle,
    Switchover,
    TakeOver,
    Verify,
)
from snaprep.core.model import CutoverTried, History


def after(action: Action, history: History, now_s: float) -> History:
    """The history once this action went well. What it has measured (a round, a cutover) is for its doer to add."""
    history = replace(history, waiting_since_s=_waiting_since_s(action, history))
    match action:
        case Choose(lane=lane):
            return replace(history, lane=lane)
        case Prepare():
            return replace(history, prepared_s=now_s)
        case TakeOver():
            return replace(history, taken_over=True)
        case Present():
            return replace(history, settled=False)
        case KeepNoLog():
            return replace(history, log_let_go=True)
        case Refresh(sender=sender, receiver=receiver):
            return replace(history, refreshed=(*history.refreshed, (sender, receiver)))
        case Verify():
            return replace(history, verified=True)
        case Settle():
            return replace(history, settled=True, settled_s=now_s, refreshed=(), refresh=False)
        case _:
            return history


def attempted(action: Cutover | FeedCutover | Switchover, history: History, tried: CutoverTried) -> History:
    """The history with what an attempt has measured, well or not: the next one is predicted by it."""
    if isinstance(action, Switchover):
        return replace(history, switchovers=(*history.switchovers, tried))
    return replace(history, cutovers=(*history.cutovers, tried))


def _waiting_since_s(action: Action, history: History) -> float | None:
    """Each wait for the work of clients has the whole time that is allowed, and ends with what had to wait."""
    if isinstance(action, Prepare | Cutover | FeedCutover | Switchover):
        return None
    if isinstance(action, Hold) and action.for_work and history.waiting_since_s is None:
        return history.now_s
    return history.waiting_since_s
