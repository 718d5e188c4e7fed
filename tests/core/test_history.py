"""What an action leaves in a run's history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snaprep.core.action import (
    Action,
    Adopt,
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
from snaprep.core.history import after, attempted
from snaprep.core.lineage import Base
from snaprep.core.model import CutoverTried, History
from snaprep.core.report import BaseReport, LaneReport, base_report, chosen_lane, named_lane
from tests.core.facts import AB, point

BEGUN = History(now_s=10.0, refresh=True, refreshed=(("b", "a"),))
BASE = Base(point(1), "a/db", "b/db.recv", point(1).name, continues=True)
WORK = Hold(reason="waiting: a transaction is open for 9 s", pace_s=1.0, for_work=True)


@pytest.mark.parametrize(
    ("action", "changed"),
    [
        (Adopt(roles=AB), {}),
        (Choose(roles=AB, lane="log", why="", page_bytes_per_s=1, log_bytes_per_s=1), {"lane": "log"}),
        (Prepare(roles=AB, base=BASE), {"prepared_s": 12.0}),
        (TakeOver(target="b", generation=2, from_state="replica"), {"taken_over": True}),
        (Present(roles=AB, base=BASE), {"settled": False}),
        (KeepNoLog(roles=AB), {"log_let_go": True}),
        (Refresh(sender="a", receiver="b", base=BASE), {"refreshed": (("b", "a"), ("a", "b"))}),
        (Verify(roles=AB), {"verified": True}),
        (Settle(roles=AB), {"settled": True, "settled_s": 12.0, "refreshed": (), "refresh": False}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_action_is_remembered(action: Action, changed: dict[str, Any]) -> None:
    """Each kind changes what later decisions read of it, and nothing else."""
    assert after(action, BEGUN, 12.0) == replace(BEGUN, **changed)


def test_a_wait_for_clients_begins_once() -> None:
    """It counts from the first hold that waits for their work; a hold for anything else begins none."""
    other = Hold(reason="waiting for the next restart of a's database", pace_s=1.0)
    assert after(other, BEGUN, 12.0).waiting_since_s is None
    waiting = after(WORK, BEGUN, 12.0)
    assert waiting.waiting_since_s == 10.0
    assert after(WORK, replace(waiting, now_s=30.0), 31.0) == replace(waiting, now_s=30.0)
    assert after(other, waiting, 12.0) == waiting


@pytest.mark.parametrize(
    "action",
    [
        Prepare(roles=AB, base=BASE),
        Cutover(roles=AB, base=BASE, p50_ms=1, p90_ms=1),
        FeedCutover(roles=AB, p50_ms=1, p90_ms=1),
        Switchover(roles=AB, generation=2, p50_ms=1, p90_ms=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_was_waited_for_ends_the_wait(action: Action) -> None:
    """The next one has the whole time that is allowed."""
    assert after(action, after(WORK, BEGUN, 12.0), 12.0).waiting_since_s is None


def test_attempts_are_kept_by_their_kind() -> None:
    """A switchover is predicted by switchovers, a cutover by cutovers of either lane."""
    tried = CutoverTried(ok=False, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=1)
    cut: FeedCutover | Cutover | Switchover
    for cut in (FeedCutover(roles=AB, p50_ms=1, p90_ms=1), Cutover(roles=AB, base=BASE, p50_ms=1, p90_ms=1)):
        assert attempted(cut, BEGUN, tried) == replace(BEGUN, cutovers=(tried,))
    cut = Switchover(roles=AB, generation=2, p50_ms=1, p90_ms=1)
    assert attempted(cut, BEGUN, tried) == replace(BEGUN, switchovers=(tried,))


def test_what_was_decided_is_shown() -> None:
    """A base by its name and GUID, a lane with its reason and rates."""
    assert base_report(None) is None
    assert base_report(BASE) == BaseReport(name=BASE.point.name, guid=1)
    choice = Choose(roles=AB, lane="log", why="better", page_bytes_per_s=2, log_bytes_per_s=1)
    assert chosen_lane(choice) == LaneReport(name="log", why="better", page_bytes_per_s=2, log_bytes_per_s=1)
    assert named_lane("auto") is None
    assert named_lane("pages") == LaneReport(name="pages", why="as asked")
