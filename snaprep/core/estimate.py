"""How fast rounds shrink, and what a cutover would take: pure arithmetic over measured rounds.

The model of a delta is a working set: in `t` seconds `W * (1 - exp(-rate * t / W))` unique bytes get dirty, where W is the
hot set and `rate` the speed at which untouched pages are first written. For short times it is linear, for a small hot set it
saturates. Link speed is taken from rounds long enough to mean something: a round of a few kilobytes measures latency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from snaprep.core.model import CutoverTried, RoundDone

RATE_MIN_BYTES = 4 << 20  # shorter rounds measure latency, not the link
RATE_MIN_S = 0.25
FIXED_P50_MS = (
    550.0  # gate, two shutdowns, snapshot, arm, attach, open: first guess, before this pair has measured its own
)
SPREAD_FIRST = 1.7  # P90 over P50 before anything is measured
SPREAD_MIN = 1.25
ROUND_FIXED_S = 0.15
PLATEAU_RATIO = 0.8
PLATEAU_ROUNDS = 3
DIVERGING_RATIO = 0.95


@dataclass(frozen=True, slots=True)
class Rates:
    link_bytes_per_s: float | None  # what a stream got through
    dirty_bytes_per_s: float | None  # at short times
    hot_bytes: float | None  # the working set, when deltas have shown it
    round_fixed_s: float


@dataclass(frozen=True, slots=True)
class Prediction:
    p50_ms: float
    p90_ms: float
    delta_bytes: float


def rates(rounds: tuple[RoundDone, ...], limit_bytes_per_s: int | None = None) -> Rates:
    """What the rounds so far say about link and load."""
    long = [r for r in rounds if r.delta_bytes >= RATE_MIN_BYTES and r.send_s >= RATE_MIN_S]
    link = None
    if long:
        link = sum(r.delta_bytes for r in long[-3:]) / sum(r.send_s for r in long[-3:])
    elif rounds:
        link = max(r.delta_bytes / max(r.send_s, 1e-3) for r in rounds)
    if limit_bytes_per_s is not None:
        link = min(link, limit_bytes_per_s) if link is not None else float(limit_bytes_per_s)
    increments = [r for r in rounds if r.dirty_s]
    fixed = [r.total_s - r.delta_bytes / link for r in rounds if link] or [ROUND_FIXED_S]
    fixed_s = max(0.02, sorted(fixed)[len(fixed) // 2])
    if not increments:
        return Rates(link, None, None, fixed_s)
    dirty, hot = _working_set(increments)
    return Rates(link, dirty, hot, fixed_s)


def _working_set(increments: list[RoundDone]) -> tuple[float, float | None]:
    """Rate at short times and hot bytes, from the last two increments of clearly different length."""
    last = increments[-1]
    speeds = [(r.dirty_s or 1e-3, r.delta_bytes) for r in increments]
    linear = last.delta_bytes / max(last.dirty_s or 1e-3, 1e-3)
    longer = [(t, d) for t, d in speeds if t >= 2 * (last.dirty_s or 1e-3)]
    if not longer:
        return linear, None
    t_long, d_long = longer[-1]
    if d_long <= 0 or d_long / t_long > 0.9 * linear:
        return linear, None  # no saturation to be seen
    low, high = float(max(d_long, last.delta_bytes)), 64.0 * max(d_long, last.delta_bytes, 1)
    for _ in range(40):  # the hot set at which both increments fit one curve
        hot = (low + high) / 2
        rate = -hot / (last.dirty_s or 1e-3) * math.log(max(1e-9, 1 - min(last.delta_bytes / hot, 0.999999)))
        if hot * (1 - math.exp(-rate * t_long / hot)) > d_long:
            high = hot
        else:
            low = hot
    hot = (low + high) / 2
    rate = -hot / (last.dirty_s or 1e-3) * math.log(max(1e-9, 1 - min(last.delta_bytes / hot, 0.999999)))
    return max(rate, linear), hot


def unique_bytes(rates_: Rates, seconds: float) -> float:
    """Bytes that an increment over `seconds` would carry."""
    if rates_.dirty_bytes_per_s is None:
        return 0.0
    if not rates_.hot_bytes:
        return rates_.dirty_bytes_per_s * seconds
    return rates_.hot_bytes * (1 - math.exp(-rates_.dirty_bytes_per_s * seconds / rates_.hot_bytes))


def predict_cutover(
    rounds: tuple[RoundDone, ...],
    cutovers: tuple[CutoverTried, ...],
    since_head_s: float,
    limit_bytes_per_s: int | None,
) -> Prediction | None:
    """What a cutover begun now would block, or None before one increment was measured.

    `since_head_s` is the time since the newest common point was taken. Fixed costs come from this pair's earlier cutovers,
    else from a first guess; what they spread is learnt from how predictions fared.
    """
    measured = rates(rounds, limit_bytes_per_s)
    if measured.dirty_bytes_per_s is None or not measured.link_bytes_per_s:
        return None
    delta = unique_bytes(measured, since_head_s)
    ship_ms = 1000 * delta / measured.link_bytes_per_s
    good = [c for c in cutovers if c.ok]
    fixed_ms = FIXED_P50_MS
    spread = SPREAD_FIRST
    if good:
        recent = sorted(c.blocked_ms for c in good[-7:])
        fixed_ms = recent[len(recent) // 2]
        if len(recent) >= 3:
            spread = min(SPREAD_FIRST, max(SPREAD_MIN, 1.1 * recent[-1] / fixed_ms))
    p50 = fixed_ms + ship_ms
    return Prediction(p50_ms=p50, p90_ms=p50 * spread, delta_bytes=delta)


@dataclass(frozen=True, slots=True)
class Trend:
    """`kind`: shrinking, plateau, or diverging. `needed_ms` is the budget that would do, as far as it can be known."""

    kind: str
    ratio: float
    needed_ms: float | None


def trend(rounds: tuple[RoundDone, ...], prediction: Prediction | None) -> Trend:
    """Whether more rounds will help."""
    deltas = [r.delta_bytes for r in rounds if r.dirty_s]
    needed = prediction.p90_ms if prediction else None
    if len(deltas) < 2:
        return Trend("shrinking", 0.0, needed)
    ratio = deltas[-1] / max(deltas[-2], 1)
    recent = deltas[-PLATEAU_ROUNDS - 1 :]
    if len(recent) <= PLATEAU_ROUNDS:
        return Trend("shrinking", ratio, needed)
    steps = [b / max(a, 1) for a, b in zip(recent, recent[1:], strict=False)]
    if all(s > PLATEAU_RATIO for s in steps):
        kind = "diverging" if all(s >= DIVERGING_RATIO for s in steps) and recent[-1] > 1.2 * recent[0] else "plateau"
        return Trend(kind, ratio, needed)
    return Trend("shrinking", ratio, needed)
