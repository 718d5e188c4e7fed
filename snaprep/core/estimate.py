"""How fast rounds shrink, and what a cutover would take: pure arithmetic over measured rounds.

The model of a delta is a working set: in `t` seconds `W * (1 - exp(-rate * t / W))` unique bytes get dirty, where W is
the hot set and `rate` the speed at which untouched pages are first written. For short times it is linear, for a small
hot set it saturates. Link speed is taken from rounds long enough to mean something: a few kilobytes measure latency.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from snaprep.core.model import CutoverTried, RoundDone

RATE_MIN_BYTES = 4 << 20  # shorter rounds measure latency, not the link
RATE_MIN_S = 0.25
FIXED_P50_MS = 800.0  # gate, shutdowns, snapshot, arm, attach, open: first guess, until this pair has its own
FIXED_SHARE = 0.25  # of a cutover at least, however long its delta would take on today's link
FEED_FIRST_MS = (700.0, 1500.0)  # P50 and P90 of a cutover from a feed: first guess, until this pair has its own
SWITCH_FIRST_MS = 700.0  # gate, shutdown, recovery, arm, attach, open: first guess, until this pair has its own
SPREAD_FIRST = 1.7  # P90 over P50 before anything is measured
SPREAD_MIN = 1.25
ROUND_FIXED_S = 0.15
PLATEAU_RATIO = 0.8
PLATEAU_ROUNDS = 3
GROWING_RATIO = 1.05
LONGER = 1.2  # how much longer an increment has to be before it says something about saturation
SATURATED = 0.9  # of the linear growth: less is taken for a hot set, more for noise
TELLING = 3  # cutovers that say more than the first guess
MATTERS = 0.1  # of a cutover's fixed cost: a delta that ships in less does not decide anything
HOT_OVER_SEEN = 1.1
LINK_MAX_FACTOR = 64.0


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
    fixed_ms: float = FIXED_P50_MS


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
    """Rate at short times and hot bytes, from the last increment and the last one that is clearly longer."""
    t, d = _span(increments[-1])
    linear = d / t
    longer = [(t_long, d_long) for t_long, d_long in map(_span, increments) if t_long >= LONGER * t]
    if not longer:
        return linear, None
    t_long, d_long = longer[-1]
    if d <= 0 or d_long / t_long > SATURATED * linear:
        return linear, None  # no saturation to be seen
    low, high = 1.000001 * max(d_long, d), 64.0 * max(d_long, d)
    for _ in range(50):  # the hot set at which both increments fit one curve
        hot = (low + high) / 2
        if _unique(_rate_at(hot, t, d), hot, t_long) > d_long:
            high = hot
        else:
            low = hot
    hot = (low + high) / 2
    return max(_rate_at(hot, t, d), linear), hot


def _span(done: RoundDone) -> tuple[float, float]:
    return max(done.dirty_s or 0.0, 1e-3), float(done.delta_bytes)


def _rate_at(hot_bytes: float, seconds: float, delta_bytes: float) -> float:
    """The rate at which this hot set gives this delta."""
    return -hot_bytes / seconds * math.log(1 - min(delta_bytes / hot_bytes, 0.999999))


def _unique(rate: float, hot_bytes: float, seconds: float) -> float:
    return hot_bytes * (1 - math.exp(-rate * seconds / hot_bytes))


def bytes_per_s(before: tuple[float, int] | None, now_s: float, count: int | None) -> float | None:
    """How fast a count has grown since `before`, a time and what it was; None when that cannot be said."""
    if before is None or count is None or now_s <= before[0] or count < before[1]:
        return None
    return (count - before[1]) / (now_s - before[0])


def written(rounds: tuple[RoundDone, ...]) -> tuple[float | None, float | None]:
    """Bytes a second of pages, and of log, as the newest rounds have measured them."""
    pages = [r.delta_bytes / max(r.dirty_s, 1e-3) for r in rounds if r.dirty_s]
    log = [r.log_bytes_per_s for r in rounds if r.log_bytes_per_s is not None]
    return (pages[-1] if pages else None), (log[-1] if log else None)


def written_words(rounds: tuple[RoundDone, ...]) -> str:
    """The same for people; empty when one of them is not known."""
    pages, log = written(rounds)
    if pages is None or log is None:
        return ""
    return f"increments {pages / 1e6:.1f} MB/s, log {log / 1e6:.1f} MB/s"


def unique_bytes(rates_: Rates, seconds: float) -> float:
    """Bytes that an increment over `seconds` would carry."""
    if rates_.dirty_bytes_per_s is None:
        return 0.0
    if not rates_.hot_bytes:
        return rates_.dirty_bytes_per_s * seconds
    return _unique(rates_.dirty_bytes_per_s, rates_.hot_bytes, seconds)


def settled_bytes(rates_: Rates) -> float | None:
    """The delta that rounds settle on: what gets dirty while that delta is shipped. None when they grow without end."""
    if rates_.dirty_bytes_per_s is None or not rates_.link_bytes_per_s:
        return None
    if not rates_.hot_bytes:
        ratio = rates_.dirty_bytes_per_s / rates_.link_bytes_per_s
        return rates_.dirty_bytes_per_s * rates_.round_fixed_s / (1 - ratio) if ratio < 1 else None
    delta = rates_.hot_bytes
    for _ in range(200):  # from above, so it ends on the largest one: shrinks towards it and never passes it
        delta = unique_bytes(rates_, delta / rates_.link_bytes_per_s + rates_.round_fixed_s)
    return delta


def predict_cutover(
    rounds: tuple[RoundDone, ...],
    cutovers: tuple[CutoverTried, ...],
    since_head_s: float,
    limit_bytes_per_s: int | None,
) -> Prediction | None:
    """What a cutover begun now would block, or None before one increment was measured.

    `since_head_s` is the time since the newest common point was taken. Fixed costs come from this pair's earlier
    cutovers, else from a first guess, and so does what they spread. One increment alone does
    not show whether it was linear or the whole of a hot set, so its full size is in P90 until another one says more.
    """
    measured = rates(rounds, limit_bytes_per_s)
    if measured.dirty_bytes_per_s is None or not measured.link_bytes_per_s:
        return None
    delta = unique_bytes(measured, since_head_s)
    ship_ms = 1000 * delta / measured.link_bytes_per_s
    fixed = [_fixed_ms(c, measured.link_bytes_per_s) for c in cutovers if c.ok and not c.fed]
    fixed_ms, spread = _learnt(fixed, FIXED_P50_MS, SPREAD_FIRST)
    p50 = fixed_ms + ship_ms
    p90 = p50 * spread
    increments = [r for r in rounds if r.dirty_s]
    if len(increments) == 1 and since_head_s <= _span(increments[0])[0]:
        p90 = max(p90, fixed_ms * spread + 1000 * increments[0].delta_bytes / measured.link_bytes_per_s)
    return Prediction(p50_ms=p50, p90_ms=p90, delta_bytes=delta, fixed_ms=fixed_ms)


def predict_feed_cutover(cutovers: tuple[CutoverTried, ...]) -> Prediction:
    """What a cutover from a feed begun now would block: there is no data to be shipped in it, so earlier ones tell."""
    first_ms, worst_ms = FEED_FIRST_MS
    p50_ms, spread = _learnt([c.blocked_ms for c in cutovers if c.ok and c.fed], first_ms, worst_ms / first_ms)
    return Prediction(p50_ms, p50_ms * spread, 0.0)


def _learnt(earlier_ms: list[float], first_ms: float, first_spread: float) -> tuple[float, float]:
    """The middle of what this pair's last cutovers took, and P90 over it; first guesses while they say too little."""
    recent = earlier_ms[-7:]
    if len(recent) < TELLING:  # one slow cutover alone must not forbid the next
        recent = [*recent, first_ms]
    recent = sorted(recent)
    middle_ms = recent[(len(recent) - 1) // 2]
    if len(earlier_ms) < TELLING:
        return middle_ms, first_spread
    return middle_ms, min(first_spread, max(SPREAD_MIN, 1.1 * recent[-1] / max(middle_ms, 1.0)))


def _fixed_ms(tried: CutoverTried, link_bytes_per_s: float) -> float:
    """What an earlier cutover took besides shipping its delta, which is predicted for itself."""
    ship_ms = 1000 * tried.delta_bytes / link_bytes_per_s
    return max(FIXED_SHARE * tried.blocked_ms, tried.blocked_ms - ship_ms)


@dataclass(frozen=True, slots=True)
class Trend:
    """`kind`: shrinking, plateau, or diverging.

    `needed_ms` is the cutover (P90) that would have to be allowed, `needed_bytes_per_s` the link that would do instead;
    None where it cannot be known.
    """

    kind: str
    ratio: float
    needed_ms: float | None
    needed_bytes_per_s: float | None = None


def trend(
    rounds: tuple[RoundDone, ...],
    prediction: Prediction | None,
    allowed_ms: float | None = None,
    limit_bytes_per_s: int | None = None,
) -> Trend:
    """Whether more rounds will help.

    Three steps that each keep more than `PLATEAU_RATIO` of the delta say no; two do when the curve through the rounds
    says that they settle above `allowed_ms`, and three that grow say DIVERGING: a database flushes in bursts.
    """
    deltas = [r.delta_bytes for r in rounds if r.dirty_s]
    needed = prediction.p90_ms if prediction else None
    steps = [b / max(a, 1) for a, b in itertools.pairwise(deltas)]
    if len(steps) < 2 or prediction is None:
        return Trend("shrinking", steps[-1] if steps else 0.0, needed)
    measured = rates(rounds, limit_bytes_per_s)
    ship_ms = 1000 * deltas[-1] / (measured.link_bytes_per_s or 1.0)
    growing = len(steps) >= PLATEAU_ROUNDS and all(s >= GROWING_RATIO for s in steps[-PLATEAU_ROUNDS:])
    if growing and ship_ms > MATTERS * prediction.fixed_ms:
        return Trend("diverging", steps[-1], needed, _needed_link(measured, prediction, allowed_ms))
    flat = all(s > PLATEAU_RATIO for s in steps[-2:])
    if flat and (_settles_above(measured, prediction, allowed_ms) or _is_flat_for_long(steps)):
        link = _needed_link(_saturated(measured, rounds), prediction, allowed_ms)
        return Trend("plateau", steps[-1], needed, link)
    return Trend("shrinking", steps[-1], needed)


def _saturated(measured: Rates, rounds: tuple[RoundDone, ...]) -> Rates:
    """The rates if the hot set is hardly larger than what was seen of it: the worst that flat deltas can mean."""
    t, d = _span([r for r in rounds if r.dirty_s][-1])
    hot = HOT_OVER_SEEN * max(r.delta_bytes for r in rounds if r.dirty_s)
    if measured.hot_bytes is not None and measured.hot_bytes <= hot:
        return measured
    return replace(measured, dirty_bytes_per_s=_rate_at(hot, t, d), hot_bytes=hot)


def _is_flat_for_long(steps: list[float]) -> bool:
    return len(steps) >= PLATEAU_ROUNDS and all(s > PLATEAU_RATIO for s in steps[-PLATEAU_ROUNDS:])


def _settles_above(measured: Rates, prediction: Prediction, allowed_ms: float | None) -> bool:
    """Even the middle estimate of where the rounds settle is too long. Needs a curve: a line alone proves nothing."""
    settled = settled_bytes(measured)
    if allowed_ms is None or measured.hot_bytes is None or settled is None or not measured.link_bytes_per_s:
        return False
    return prediction.fixed_ms + 1000 * settled / measured.link_bytes_per_s > allowed_ms


def _needed_link(measured: Rates, prediction: Prediction, allowed_ms: float | None) -> float | None:
    """The slowest link on which rounds settle where the cutover fits; None when no link would do."""
    if allowed_ms is None or not measured.link_bytes_per_s:
        return None
    spread = prediction.p90_ms / max(prediction.p50_ms, 1e-3)

    def fits(link: float) -> bool:
        settled = settled_bytes(replace(measured, link_bytes_per_s=link))
        return settled is not None and spread * (prediction.fixed_ms + 1000 * settled / link) <= allowed_ms

    low, high = measured.link_bytes_per_s, LINK_MAX_FACTOR * measured.link_bytes_per_s
    if fits(low) or not fits(high):
        return None
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def predict_switchover(switchovers: tuple[CutoverTried, ...]) -> Prediction:
    """What a switchover begun now would block: nothing is shipped in it, so earlier ones tell."""
    seen = sorted(s.blocked_ms for s in switchovers if s.ok)
    p50_ms = seen[(len(seen) - 1) // 2] if seen else SWITCH_FIRST_MS
    p90_ms = seen[math.ceil(0.9 * len(seen)) - 1] if len(seen) >= TELLING else 0.0
    return Prediction(p50_ms, max(p90_ms, p50_ms * (SPREAD_MIN if len(seen) >= TELLING else SPREAD_FIRST)), 0.0)
