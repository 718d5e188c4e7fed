"""What a run cost its clients, from the clients' own records; and what was lost, sorted by who has to answer for it."""

from __future__ import annotations

import datetime as dt
import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.rig import check
from tests.rig.node import RigError
from tests.rig.pair import Pair, Result
from tests.rig.workload import Commit

Event = dict[str, Any]
TRIES = 3
GAVE_UP = (12, 20)  # exit codes: rounds do not converge, cutovers were undone
SETTLE_MS = 50  # an event is written this much later than what it tells of, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of the time of day, in milliseconds since 1970."""

    from_ms: float
    to_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Acknowledged commits that the serving side does not hold.

    `unshipped`: of a primary that died, since its replica was attached, and found in what was set aside. `planned`:
    acknowledged before that, so a planned change lost them. `unexplained`: neither here nor set aside.
    """

    planned: int = 0
    unshipped: int = 0
    unexplained: int = 0

    def __add__(self, other: Lost) -> Lost:
        return Lost(
            planned=self.planned + other.planned,
            unshipped=self.unshipped + other.unshipped,
            unexplained=self.unexplained + other.unexplained,
        )

    @property
    def document(self) -> dict[str, int]:
        return {"planned": self.planned, "unshipped": self.unshipped, "unexplained": self.unexplained}


def rebuilds(pair: Pair, timeout_s: float, *words: str) -> tuple[Result, list[Event], list[str]]:
    """A rebuild, begun again when it gives up: its report, the events of all tries, and why the earlier ones ended.

    Giving up leaves the source open, so an operator would do the same; what the tries cost is in the events. Raises
    RigError when the last one fails too.
    """
    events: list[Event] = []
    refused: list[str] = []
    while True:
        running = pair.start("rebuild", *words)
        result = running.wait(timeout_s)
        events += running.events()
        if result.code == 0:
            return result, events, refused
        refused.append(f"exit {result.code}: {result.error_id}: {(result.document.get('error') or {}).get('what', '')}")
        if len(refused) == TRIES or result.code not in GAVE_UP:
            raise RigError(f"rebuild: {'; '.join(refused)}\n{result.stderr[-2000:]}")


def at_ms(event: Event) -> float:
    return 1000 * time_s(event["at"])


def time_s(told: str) -> float:
    """A moment as snaprep prints it, in seconds since 1970."""
    return dt.datetime.fromisoformat(told).timestamp()


def blocked_s(commits: Iterable[Commit], window: Window) -> float:
    """The longest time without a commit that any one writer had and that touches the window."""
    by_writer: defaultdict[int, list[Commit]] = defaultdict(list)
    for commit in sorted(commits, key=lambda c: c.ack_ns):
        by_writer[commit.writer].append(commit)
    gaps = [
        (after.ack_ns - before.ack_ns) / 1e9
        for own in by_writer.values()
        for before, after in itertools.pairwise(own)
        if before.wall_ms <= window.to_ms and after.wall_ms >= window.from_ms
    ]
    return max(gaps, default=0.0)


def round_windows(events: Sequence[Event]) -> list[Window]:
    """Around the snapshot of each round but the first full one, with its freeze if there was one."""
    windows = []
    for index, event in enumerate(events):
        steps = event.get("steps", []) if event["event"] == "steps" else []
        if "snapshot" not in steps or "gate_close" in steps or "freeze" in steps:
            continue
        took_ms = next((e["ms"] for e in events[index:] if e["event"] == "step" and e["step"] == "snapshot"), None)
        if took_ms is not None:
            windows.append(Window(from_ms=at_ms(event), to_ms=at_ms(event) + took_ms + SETTLE_MS))
    return windows


def cutover_windows(events: Sequence[Event]) -> list[Window]:
    """Each attempt at a cutover, from the order to close the gate until the run goes on to something else."""
    windows = []
    for index, event in enumerate(events):
        if event["event"] == "steps" and "gate_close" in event["steps"]:
            after = next((e for e in events[index:] if e["event"] == "state"), events[-1])
            windows.append(Window(from_ms=at_ms(event), to_ms=at_ms(after)))
    return windows


def attached_ms(events: Sequence[Event]) -> float:
    """When the last cutover reached the point from which commits are the new replication's business: nobody is served
    at that moment.
    """
    return max(at_ms(e) for e in events if e["event"] == "steps" and "attach" in e["steps"])


def cutover_blocked_s(commits: Sequence[Commit], events: Sequence[Event]) -> float:
    """What the unluckiest writer waited at the cutover, attempts that were undone counted in."""
    return sum(blocked_s(commits, window) for window in cutover_windows(events))


def shipped_bytes(document: dict[str, Any]) -> int:
    return sum(entry["sent_bytes"] for entry in document["rounds"])


def count_lost(
    pair: Pair, serves: str, acked: Sequence[Commit], *, died: tuple[Window, ...] = (), failed: str = ""
) -> tuple[Lost, list[Commit]]:
    """Looks for every acknowledged commit on the host that serves, and for those missing in what was set aside on
    `failed`. `died`: for each death of a primary the time since its replica was attached. Also returns the missing
    commits.
    """
    there = check.journal_of_url(pair.world.operator, pair.urls(serves)[0], user="app", password="app")
    missing = check.missing(acked, there)
    last_moments = [c for c in missing if any(w.from_ms <= c.wall_ms <= w.to_ms for w in died)]
    kept = set(pair.isolated_holds(failed, last_moments)) if last_moments and failed else set()
    lost = Lost(
        planned=len(missing) - len(last_moments),
        unshipped=len(kept),
        unexplained=len(last_moments) - len(kept),
    )
    return lost, missing


def p50(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0
