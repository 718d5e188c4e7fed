"""`scripts/bench follow`: what a fed replica costs the primary's clients, and how fast it catches up."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.rig import check, measure
from tests.rig.cpu import pin
from tests.rig.measure import Lost, Window
from tests.rig.node import RigError
from tests.rig.storm import ARCHIVE, feeds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from tests.rig.pair import Pair, Running
    from tests.rig.workload import Commit

MIB = 1 << 20
VERB_S = 600.0
SETTLE_S = 2.0  # after a feed has begun or ended, before a leg is measured


@dataclass(slots=True)
class Legs:
    """Commit times in seconds, and the longest time without a commit in each leg."""

    commit_s: list[float] = field(default_factory=list)
    blocked_s: list[float] = field(default_factory=list)

    @property
    def p999_s(self) -> float:
        return statistics.quantiles(self.commit_s, n=1000)[-1]


def run(pair: Pair, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Legs without and with a fed replica in turn, then a replica that was away while clients wrote as fast as they
    could. Source and target have a core each, in every leg.
    """
    for core, name in enumerate(("db1", "db2")):
        pin(pair.world[name], core)
    legs = cost(pair, options, say)
    away = catch_up(pair, options, say)
    without, following = legs[False], legs[True]
    return {
        "p999_commit_ratio": round(following.p999_s / without.p999_s, 3),
        "p999_commit_ms": {"without": round(1000 * without.p999_s, 2), "with": round(1000 * following.p999_s, 2)},
        "p50_commit_ms": {
            "without": round(1000 * measure.p50(without.commit_s), 2),
            "with": round(1000 * measure.p50(following.commit_s), 2),
        },
        "blocked_s": {
            "without": [round(gap, 3) for gap in without.blocked_s],
            "with": [round(gap, 3) for gap in following.blocked_s],
        },
        **away,
        "commits": {"without": len(without.commit_s), "with": len(following.commit_s)},
        "commits_per_s": options.commits,
    }


def cost(pair: Pair, options: argparse.Namespace, say: Callable[[str], None]) -> dict[bool, Legs]:
    """The same clients at a fixed rate throughout; a base is shipped before the first leg."""
    legs = {False: Legs(), True: Legs()}
    with pair.writers(rate=options.commits) as clients:
        clients.wait_for(int(options.commits))
        stop(fed(pair))
        for follows in (False, True) * options.runs:
            running = fed(pair) if follows else None
            time.sleep(SETTLE_S)
            window = leg(options.seconds)
            note(legs[follows], clients.acked(), window)
            say(f"{'following' if follows else 'alone    '}: longest gap {legs[follows].blocked_s[-1]:.3f} s")
            if running is not None:
                stop(running)
        clients.stop()
    must_hold(pair, clients.acked())
    return legs


def leg(seconds: float) -> Window:
    began_ms = 1000 * time.time()
    time.sleep(seconds)
    return Window(from_ms=began_ms, to_ms=1000 * time.time())


def note(legs: Legs, acked: Sequence[Commit], window: Window) -> None:
    inside = [c for c in acked if window.from_ms <= c.wall_ms <= window.to_ms]
    legs.commit_s += [(c.ack_ns - c.start_ns) / 1e9 for c in inside]
    legs.blocked_s.append(measure.blocked_s(inside, window))


def catch_up(pair: Pair, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Clients write as fast as they can, at first without a replica, and go on while it catches up."""
    with pair.writers(rate=0) as clients:
        began_s = time.time()
        clients.wait_for(100)
        time.sleep(options.seconds)
        running = pair.start("follow", *ARCHIVE)
        first = running.wait_event(feeds, VERB_S)["feed"]
        last = running.wait_event(lambda e: feeds(e) and e["feed"]["lag_ms"] < 1000, VERB_S)["feed"]
        clients.stop()
    stop(running)
    must_hold(pair, clients.acked())
    took_s = measure.time_s(last["seen_at"]) - measure.time_s(last["since_at"])  # the replica's boot counted in
    sent = last["sent_bytes"]
    written_s = measure.time_s(first["seen_at"]) - began_s  # the replica had everything before
    replay, written = sent / took_s, first["lag_bytes"] / written_s
    say(f"caught up with {first['lag_bytes'] / MIB:.1f} MiB in {took_s:.1f} s")
    return {
        "replay_mib_s": round(replay / MIB, 2),
        "written_mib_s": round(written / MIB, 2),
        "replay_over_written": round(replay / written, 2),
        "behind_mib": round(first["lag_bytes"] / MIB, 1),
        "lost": Lost().document,
    }


def fed(pair: Pair) -> Running:
    running = pair.start("follow", *ARCHIVE)
    running.wait_event(lambda e: feeds(e) and e["feed"]["lag_ms"] < 1000, VERB_S)
    return running


def stop(running: Running) -> None:
    running.interrupt()
    if (result := running.wait(120)).code != 10:
        raise RigError(f"follow was asked to stop: {result}")


def must_hold(pair: Pair, acked: Sequence[Commit]) -> None:
    """Nobody writes any more: raises RigError when the source lost a commit, or the replica has other rows than it."""
    stop(fed(pair))
    served = pair.served("db1")
    missing, differences = check.missing(acked, served.journal), check.differences(served, pair.stored("db2"))
    if missing or differences:
        raise RigError(f"{len(missing)} commits missing; rows that differ: {differences}")
