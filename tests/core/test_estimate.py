"""What rounds say about link and load, against loads whose truth is known."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from snaprep.core.estimate import (
    FEED_FIRST_MS,
    FIXED_P50_MS,
    SPREAD_FIRST,
    Prediction,
    Rates,
    predict_cutover,
    predict_feed_cutover,
    rates,
    settled_bytes,
    trend,
    unique_bytes,
)
from snaprep.core.model import CutoverTried, RoundDone
from snaprep.core.simulated.world import Load

MIB = 1 << 20


@dataclass(frozen=True)
class Bench:
    """A load and a link; noise is the relative spread of each measurement."""

    link: float
    load: Load
    size: float
    noise: float = 0.0
    fixed_s: float = 0.15

    def rounds(self, count: int, seed: int = 1) -> tuple[RoundDone, ...]:
        """The full round and `count` increments, each as long as the one before took."""
        dice = random.Random(seed)  # noqa: S311 (dice)
        delta, dirty_s, found = self.size, None, list[RoundDone]()
        for number in range(count + 1):
            send_s = delta / self.link * (1 + dice.uniform(-self.noise, self.noise))
            total_s = send_s + self.fixed_s
            found.append(RoundDone(number, 1, 2, int(delta), send_s, total_s, dirty_s))
            delta = self.load.unique_bytes(total_s) * (1 + dice.uniform(-self.noise, self.noise))
            dirty_s = total_s
        return tuple(found)

    def true_ms(self, since_s: float) -> float:
        return FIXED_P50_MS + 1000 * self.load.unique_bytes(since_s) / self.link


def bench(link: float, rate: float, hot: float, size: float, noise: float = 0.0) -> Bench:
    """MiB and MiB/s, as in the measured table of rounds on real streams."""
    return Bench(link * MIB, Load(2, rate * MIB, hot * MIB), size * MIB, noise)


# The loads of that table: a mild one, a geometric one, one that no round helps, and a small hot set hit hard.
MILD, GEOMETRIC, HOPELESS, SMALL_HOT = (
    bench(40, 8, 256, 256),
    bench(30, 10, 192, 192),
    bench(20, 30, 256, 256),
    bench(40, 30, 24, 256),
)


@pytest.mark.parametrize("of", [MILD, GEOMETRIC, HOPELESS, SMALL_HOT], ids=["mild", "geometric", "hopeless", "small"])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
def test_predictions_hold_their_bounds(of: Bench, noise: float) -> None:
    """After two increments P90 covers the truth, P50 lies within 35 % of it; after one, P90 covers it already."""
    of = replace(of, noise=noise)
    for seed in range(30):
        for count in (1, 2, 3):
            rounds = of.rounds(count, seed)
            since_s = rounds[-1].total_s
            predicted = predict_cutover(rounds, (), since_s, None)
            assert predicted is not None
            assert predicted.p90_ms >= 0.98 * of.true_ms(since_s)
            if count > 1:
                assert predicted.p50_ms == pytest.approx(of.true_ms(since_s), rel=0.35)


@pytest.mark.parametrize("of", [MILD, GEOMETRIC, SMALL_HOT], ids=["mild", "geometric", "small"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_what_shrinks_is_not_called_a_plateau(of: Bench, noise: float) -> None:
    """Up to the round at which the cutover fits 2 s, no false alarm."""
    of = replace(of, noise=noise)
    for seed in range(30):
        for count in range(1, 8):
            rounds = of.rounds(count, seed)
            predicted = predict_cutover(rounds, (), rounds[-1].total_s, None)
            assert predicted is not None
            if predicted.p90_ms <= 2000:
                break
            assert trend(rounds, predicted, 2000).kind == "shrinking"
        else:
            pytest.fail("it never fits")


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_plateau_is_seen_early_with_a_number_that_works(noise: float) -> None:
    """30 MiB/s into 256 MiB over 20 MiB/s never fits 2 s: said by the fourth increment.

    Both numbers are true; that for the link within twice the noise of what was measured.
    """
    of = replace(HOPELESS, noise=noise)
    for seed in range(20):
        seen = 0
        for count in range(1, 6):
            rounds = of.rounds(count, seed)
            predicted = predict_cutover(rounds, (), rounds[-1].total_s, None)
            said = trend(rounds, predicted, 2000)
            if said.kind != "shrinking":
                seen = count
                break
        assert 3 <= seen <= 4
        assert said.needed_ms is not None
        assert said.needed_ms >= of.true_ms(rounds[-1].total_s)
        assert said.needed_bytes_per_s is not None
        link = said.needed_bytes_per_s * (1 + 2 * noise)
        faster = replace(of, link=link, noise=0.0).rounds(30)
        assert FIXED_P50_MS + 1000 * faster[-1].delta_bytes / link <= 2000


def test_growing_deltas_are_diverging() -> None:
    """Writers that touch new pages faster than the link carries them: said after four increments."""
    of = Bench(10e6, Load(2, 0.1, 1e9, cold_bytes_per_s=15e6), 100e6)
    rounds = of.rounds(4)
    said = trend(rounds, predict_cutover(rounds, (), rounds[-1].total_s, None), 2000)
    assert said.kind == "diverging"
    assert said.ratio == pytest.approx(1.5, rel=0.02)
    assert said.needed_bytes_per_s is not None
    assert said.needed_bytes_per_s > 15e6
    assert settled_bytes(rates(rounds)) is None


def test_a_plateau_of_fixed_costs_has_no_link_that_helps() -> None:
    """Tiny deltas that do not shrink: the cutover's own steps are what does not fit."""
    rounds = tuple(RoundDone(n, 1, 2, 100_000, 0.01, 0.2, 0.2) for n in range(5))
    said = trend(rounds, predict_cutover(rounds, (), 0.2, None), 500)
    assert (said.kind, said.needed_bytes_per_s) == ("plateau", None)
    assert trend(rounds, predict_cutover(rounds, (), 0.2, None)).needed_bytes_per_s is None


def test_a_plateau_that_fits_is_none_for_the_link() -> None:
    """When the rounds settle where the cutover fits, no faster link is asked for."""
    rounds = tuple(RoundDone(n, 1, 2, 5_000_000, 0.5, 0.6, 0.6) for n in range(5))
    assert trend(rounds, predict_cutover(rounds, (), 0.6, None), 60_000).needed_bytes_per_s is None


def test_a_limit_that_was_lowered_counts_at_once() -> None:
    """Rounds that were measured before it say how fast the way could be, not how fast it is."""
    rounds = tuple(RoundDone(n, 1, 2, 5_000_000, 0.5, 0.6, 0.6) for n in range(5))
    limit = 500_000
    assert trend(rounds, predict_cutover(rounds, (), 0.6, None), 5000).needed_bytes_per_s is None
    needed = trend(rounds, predict_cutover(rounds, (), 0.6, limit), 5000, limit).needed_bytes_per_s
    assert needed is not None
    assert limit < needed < 10_000_000


def test_short_rounds_say_nothing_about_the_link() -> None:
    """A round of kilobytes measures latency; only when there is nothing else does the best of them count."""
    seed = RoundDone(1, None, 1, 100_000_000, 5.0, 5.2, None)
    tiny = RoundDone(2, 1, 2, 10_000, 0.1, 0.2, 5.0)
    assert rates((seed, tiny)).link_bytes_per_s == pytest.approx(20e6)
    assert rates((tiny,)).link_bytes_per_s == pytest.approx(1e5)
    assert rates((seed, tiny), limit_bytes_per_s=1_000_000).link_bytes_per_s == 1_000_000
    assert rates((), limit_bytes_per_s=5).link_bytes_per_s == 5.0


def test_nothing_measured_predicts_nothing() -> None:
    """Before the first increment there is no promise."""
    seed = RoundDone(1, None, 1, 100_000_000, 5.0, 5.2, None)
    assert predict_cutover((), (), 0.0, None) is None
    assert predict_cutover((seed,), (), 0.0, None) is None
    assert trend((seed,), None).kind == "shrinking"
    assert trend((seed, replace(seed, dirty_s=5.0), replace(seed, dirty_s=5.0)), None).needed_ms is None
    assert unique_bytes(rates((seed,)), 10) == 0.0
    assert settled_bytes(rates(())) is None
    assert settled_bytes(Rates(None, 1.0, None, 0.1)) is None


def test_an_idle_database_predicts_the_fixed_cost() -> None:
    """Nothing dirty: the cutover is its own steps."""
    rounds = (RoundDone(1, None, 1, 100_000_000, 5.0, 5.2, None),) + (RoundDone(2, 1, 2, 0, 0.0, 0.1, 5.0),) * 2
    assert predict_cutover(rounds, (), 1.0, None) == Prediction(FIXED_P50_MS, SPREAD_FIRST * FIXED_P50_MS, 0.0)


def test_earlier_cutovers_replace_the_first_guess() -> None:
    """The middle of this pair's own cutovers, and their spread once there are three; undone ones do not count."""
    rounds = (*MILD.rounds(2)[:1], RoundDone(2, 1, 2, 0, 0.0, 0.1, 5.0))
    tried = [CutoverTried(ok=True, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=ms) for ms in (400, 420, 440)]
    bad = CutoverTried(ok=False, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=9000)
    one = predict_cutover(rounds, (tried[0], bad), 1.0, None)
    three = predict_cutover(rounds, (*tried, bad), 1.0, None)
    assert one is not None
    assert three is not None
    assert one.p50_ms == 400
    assert one.p90_ms == pytest.approx(SPREAD_FIRST * 400)
    assert three.p50_ms == 420
    assert three.p90_ms == pytest.approx(1.25 * 420)


def test_cutovers_from_a_feed_are_predicted_for_themselves() -> None:
    """By the same rule from those of this pair that were from a feed, and those with pages from the others."""
    pages, feeds = (
        [
            CutoverTried(ok=True, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=ms, fed=fed)
            for ms in (400, 420, 440, 430)
        ]
        for fed in (False, True)
    )
    bad = CutoverTried(ok=False, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=9000, fed=True)
    first = predict_feed_cutover((*pages, bad))
    assert (first.p50_ms, first.p90_ms) == FEED_FIRST_MS
    one = predict_feed_cutover((feeds[0], *pages))
    assert one.p50_ms == 400
    assert one.p90_ms == pytest.approx(400 * FEED_FIRST_MS[1] / FEED_FIRST_MS[0])
    slow = replace(feeds[0], blocked_ms=3000)
    assert predict_feed_cutover((slow,)).p50_ms == FEED_FIRST_MS[0]
    all_of_them = predict_feed_cutover((*feeds, bad, *pages))
    assert all_of_them.p50_ms == 420
    assert all_of_them.p90_ms == pytest.approx(1.25 * 420)
    rounds = (*MILD.rounds(2)[:1], RoundDone(2, 1, 2, 0, 0.0, 0.1, 5.0))
    assert predict_cutover(rounds, tuple(feeds), 1.0, None) == predict_cutover(rounds, (), 1.0, None)


def test_what_earlier_cutovers_shipped_is_not_counted_twice() -> None:
    """A delta that filled the link during an earlier cutover is no part of the fixed cost of the next one."""
    rounds = (RoundDone(1, None, 1, 100 * MIB, 10.0, 10.1, None), RoundDone(2, 1, 2, 5 * MIB, 0.5, 0.6, 5.0))
    idle, busy = (
        [
            CutoverTried(ok=True, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=ms, delta_bytes=shipped)
            for ms in (600.0 + 100 * shipped / MIB,) * 3
        ]
        for shipped in (0, 8 * MIB)
    )
    without = predict_cutover(rounds, tuple(idle), 1.0, None)
    shipped = predict_cutover(rounds, tuple(busy), 1.0, None)
    assert without is not None
    assert shipped is not None
    assert without.fixed_ms == 600
    assert shipped.fixed_ms == pytest.approx(without.fixed_ms)


def test_the_curve_settles_where_the_model_does() -> None:
    """The fixed point of a hot set is what endless rounds arrive at."""
    settled = settled_bytes(Rates(HOPELESS.link, HOPELESS.load.dirty_bytes_per_s, HOPELESS.load.hot_bytes, 0.15))
    assert settled == pytest.approx(HOPELESS.rounds(40)[-1].delta_bytes, rel=0.01)
