"""What the long runs measure, the bounds that must hold of it, and the laps that they are made of."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.rig import measure
from tests.rig.measure import Lost, Window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from tests.rig.pair import Pair
    from tests.rig.workload import Workload

WRITERS = 4
RATE = 220.0  # aimed at, so that at least 200 commits/s come out
BANK_MB = 60
VERB_S = 300.0


@dataclass(slots=True)
class Tally:
    """What was measured; every bound that was looked at, and whether it held."""

    round_s: list[float] = field(default_factory=list)
    cutover_s: list[float] = field(default_factory=list)
    predicted: list[tuple[float, float, float]] = field(default_factory=list)  # P50, P90, and what it was, in s
    takeover_s: list[float] = field(default_factory=list)
    switchover_s: list[float] = field(default_factory=list)
    resume_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # commits in the median second of each lap
    lost: Lost = field(default_factory=Lost)
    figures: dict[str, Any] = field(default_factory=dict)  # of this soak alone, units last in their names
    failures: list[str] = field(default_factory=list)
    bounds: list[tuple[str, bool]] = field(default_factory=list)

    def bound(self, what: str, *, held: bool) -> None:
        self.bounds.append((what, held))

    @property
    def held(self) -> bool:
        return not self.failures and all(held for _, held in self.bounds)

    @property
    def lines(self) -> list[str]:
        failed = [f"FAILED  {failure}\n" for failure in self.failures]
        return failed + [f"{'ok    ' if held else 'MISSED'}  {what}\n" for what, held in self.bounds]

    @property
    def document(self) -> dict[str, Any]:
        """`held`: nothing failed and no bound was missed. Times in seconds, as the unluckiest writer saw them, but
        `takeover_s` from the last commit of all to the next.
        """
        return {
            "held": self.held,
            "round_blocked_s": spread(self.round_s),
            "cutover_blocked_s": spread(self.cutover_s),
            "takeover_s": spread(self.takeover_s),
            "switchover_blocked_s": spread(self.switchover_s),
            "resume_s": spread(self.resume_s),
            "longest_gap_s": spread(self.gaps_s),
            "predictions": [
                {"p50_s": round(p50, 3), "p90_s": round(p90, 3), "blocked_s": round(real, 3), "held": real <= p90}
                for p50, p90, real in self.predicted
            ],
            "commits_per_s": [round(rate, 1) for rate in self.rates],
            "lost": self.lost.document,
            "figures": self.figures,
            "bounds": [{"what": what, "held": held} for what, held in self.bounds],
            "failures": self.failures,
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "count": len(values),
        "p50": round(measure.p50(values), 3),
        "worst": round(max(values, default=0.0), 3),
    }


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def rebuild(pair: Pair, clients: Workload, tally: Tally, name: str, *words: str) -> float:
    """One rebuild, measured by the writers' records. Returns since when the replica is attached. Raises RigError."""
    began_s = time.monotonic()
    result, events, refused = measure.rebuilds(pair, VERB_S, *words)
    tally.failures += [f"{name}: {why}" for why in refused]
    clients.wait_for(WRITERS * 10, 60)
    acked = clients.acked()
    rounds = [measure.blocked_s(acked, window) for window in measure.round_windows(events)]
    blocked_s = measure.cutover_blocked_s(acked, events)
    shown = result.document["cutover"]
    tally.round_s += rounds
    tally.cutover_s.append(blocked_s)
    p50, p90 = (float(shown[key] or 0) / 1000 for key in ("p50_ms", "p90_ms"))
    tally.predicted.append((p50, p90, blocked_s))
    say(
        f"{name}: {time.monotonic() - began_s:5.1f} s, {measure.shipped_bytes(result.document) / 1e6:.1f} MB, "
        f"blocked {blocked_s:.2f} s (said {shown['blocked_ms'] / 1000:.2f}, forecast {p50:.2f}, P90 {p90:.2f}), "
        f"at rounds {max(rounds, default=0):.3f} s"
    )
    return measure.attached_ms(events)


def close_lap(pair: Pair, clients: Workload, tally: Tally, source: str, target: str, died: tuple[Window, ...]) -> None:
    acked = clients.acked()
    rate = measure.p50(list(Counter(commit.wall_ms // 1000 for commit in acked).values()))
    tally.rates.append(rate)
    lost, _ = measure.count_lost(pair, source, acked, died=died, failed=target)
    tally.lost += lost
    tally.gaps_s.append(clients.gaps().worst_s)
    if differences := pair.replica_differences(source, target):
        tally.failures.append(f"rows differ: {differences}")
    say(f"    {len(acked)} commits, {rate:.0f} in the median second; lost {lost.document}; rows compared")
