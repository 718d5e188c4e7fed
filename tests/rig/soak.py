"""`scripts/soak NAME`: the long runs, with the bounds that must hold; the exit status is 1 when one is missed.
What was measured and which bounds held goes to stdout (with --json as one document), talk to stderr.

rebuild     rebuilds in a row, of a fresh, an outdated and a diverged target in turn, under load
takeover    a primary killed under load, a take-over, a fail-back; again and again
switchover  primary and replica change places under load, again and again
kills       kill -9 of each part of a run in each of its phases
cutover-log cutovers from a feed to Derby's own replication, under load
storm       a fed replica, of which one part is killed every few seconds; --runs is in minutes
followers   two replicas fed from one primary: one stands still for --runs seconds, the other has a narrow link
catch-up    --runs MB of log, written while the replica was away
power       two machines; one of them loses its power at each of several places of a run, and boots again
power-namespaces  the same with hosts in namespaces: in minutes, and without a kernel that dies
cuts        two machines; a held rebuild of --runs rounds, whose streams are cut at random places every few rounds
machines    everything that tests can do on two machines: hours where they are emulated
simulation  random histories against the decisions and recipes, in the model world
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from tests.machines.world import Machines
from tests.rig import aftermath, cuts, feeding, harm, measure, power, storm
from tests.rig.derby import create_bank
from tests.rig.measure import Lost, Window
from tests.rig.node import RigError
from tests.rig.pair import ROOT, Pair
from tests.rig.tally import BANK_MB, RATE, VERB_S, WRITERS, Tally, close_lap, rebuild, say
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.rig.workload import Workload

HISTORIES = "tests/core/test_histories.py"
ON_MACHINES = ("tests/machines", "tests/end_to_end")


def cutover_bounds(tally: Tally) -> None:
    cut, rounds = tally.cutover_s, tally.round_s
    kept = [real <= p90 for _, p90, real in tally.predicted]
    tight = [p90 <= 2 * p50 for p50, p90, _ in tally.predicted]
    needed = -(-len(kept) * 18 // 20)
    rate = min(tally.rates)
    tally.bound(f"load: {rate:.0f} commits/s >= 200", held=rate >= 200)
    tally.bound(f"blocked at a round: P50 {measure.p50(rounds):.3f} s <= 0.1 s", held=measure.p50(rounds) <= 0.1)
    tally.bound(f"blocked at a cutover: P50 {measure.p50(cut):.2f} s <= 0.9 s", held=measure.p50(cut) <= 0.9)
    tally.bound(f"blocked at a cutover: worst {max(cut):.2f} s <= 1.8 s", held=max(cut) <= 1.8)
    tally.bound(f"predicted P90 held in {sum(kept)} of {len(kept)}, at least {needed}", held=sum(kept) >= needed)
    tally.bound(f"predicted P90 at most twice the median in {sum(tight)} of {len(tight)}", held=all(tight))


def soak_rebuild(runs: int, tally: Tally) -> None:
    """20 rebuilds in a row; the roles stay until a take-over makes the target of the third a diverged one."""
    with World.start(pool_mb=8192) as world:
        pair = Pair(world, create_bank(world["db1"], size_mb=BANK_MB))
        source, target = "db1", "db2"
        number = 0
        while number < runs:
            # Each lap has clients of its own, so that what they were told of can be looked for at its end.
            with pair.writers(rate=RATE, writers=WRITERS) as clients:
                clients.wait_for(int(RATE))
                died: tuple[Window, ...] = ()
                attached_ms = 0.0
                for kind in ("fresh", "stale", "diverged")[: runs - number]:
                    if kind == "stale":
                        world[target].restart_derby()
                    if kind == "diverged":
                        died = (fail_over(pair, clients, attached_ms, source)[0],)
                        source, target = target, source
                    number += 1
                    attached_ms = rebuild(pair, clients, tally, f"{number:3} {kind:<8} {source} -> {target}")
                clients.stop()
            close_lap(pair, clients, tally, source, target, died)
            if number < runs:
                harm.forget_target(pair, target)
    tally.bound(f"lost: {tally.lost.document}", held=not (tally.lost.planned or tally.lost.unexplained))
    cutover_bounds(tally)


def fail_over(pair: Pair, clients: Workload, attached_ms: float, source: str) -> tuple[Window, int]:
    """The source dies under load, the other takes over, the dead host is repaired. Also returns a moment of the
    monotonic clock (ns) at which nobody served.
    """
    pair.world.power_off(source)
    died, dead_ns = Window(from_ms=attached_ms, to_ms=1000 * time.time()), time.monotonic_ns()
    pair.must("takeover", "--yes")
    clients.wait_for(100, 60)
    pair.world.boot(source)
    return died, dead_ns


def soak_takeover(runs: int, tally: Tally) -> None:
    """The primary is killed under load, the replica takes over, the dead one comes back as the replica."""
    with World.start(pool_mb=8192) as world:
        pair = Pair(world, create_bank(world["db1"], size_mb=BANK_MB))
        source, target = "db1", "db2"
        with pair.writers(rate=RATE, writers=WRITERS) as clients:
            clients.wait_for(int(RATE))
            attached_ms = rebuild(pair, clients, Tally(), "      first rebuild")
            clients.stop()
        for number in range(1, runs + 1):
            with pair.writers(rate=RATE, writers=WRITERS) as clients:
                clients.wait_for(int(RATE * 2))
                died, dead_ns = fail_over(pair, clients, attached_ms, source)
                gap_s = clients.gap_around(dead_ns).overall_s
                tally.takeover_s.append(gap_s)
                source, target = target, source
                say(f"{number:3} {source} took over: {gap_s:.1f} s from the last commit to the next")
                attached_ms = rebuild(pair, clients, tally, f"{number:3} fail-back {source} -> {target}")
                clients.stop()
            close_lap(pair, clients, tally, source, target, (died,))
    lost = tally.lost
    tally.bound(f"lost: {lost.document}; unexplained and planned 0", held=not (lost.planned or lost.unexplained))
    cutover_bounds(tally)


def soak_switchover(runs: int, tally: Tally) -> None:
    """The two sides change places again and again under load; at the end rows are compared."""
    with World.start(pool_mb=8192) as world:
        pair = Pair(world, create_bank(world["db1"], size_mb=BANK_MB))
        pair.must("rebuild", timeout_s=VERB_S)
        serves, follows = "db1", "db2"
        with pair.writers(rate=RATE, writers=WRITERS) as clients:
            clients.wait_for(int(RATE))
            for number in range(1, runs + 1):
                blocked_s = switch(pair, clients, tally, f"{number:3} {serves} -> {follows}")
                serves, follows = follows, serves
                tally.switchover_s.append(blocked_s)
            clients.stop()
        close_lap(pair, clients, tally, serves, follows, ())
    took = tally.switchover_s
    tally.bound(f"lost: {tally.lost.document}", held=not (tally.lost.planned or tally.lost.unexplained))
    tally.bound(f"blocked at a switchover: P50 {measure.p50(took):.2f} s <= 0.8 s", held=measure.p50(took) <= 0.8)
    tally.bound(f"switchovers: {len(took)} of {runs}, the worst {max(took):.2f} s", held=len(took) == runs)


def switch(pair: Pair, clients: Workload, tally: Tally, name: str) -> float:
    """One switchover, measured by the writers' records. Raises RigError."""
    running = pair.start("switchover", "--yes", "--budget", aftermath.SWITCH_BUDGET)
    result = running.wait(VERB_S)
    if result.code != 0:
        raise RigError(f"{name}: {result}")
    clients.wait_for(int(RATE), 60)
    events = running.events()
    begun_ms = next(measure.at_ms(e) for e in events if e["event"] == "steps" and "gate_close" in e["steps"])
    ended_ms = max(measure.at_ms(e) for e in events if e["event"] == "step" and e["step"] == "open")
    blocked_s = measure.blocked_s(clients.acked(), Window(from_ms=begun_ms, to_ms=ended_ms))
    shown = result.document["cutover"]
    tally.predicted.append((shown["p50_ms"] / 1000, shown["p90_ms"] / 1000, blocked_s))
    steps = " ".join(f"{e['step']}={e['ms']:.0f}" for e in events if e["event"] == "step" and e["ms"] >= 50)
    say(f"{name}: blocked {blocked_s:.2f} s (said {shown['blocked_ms'] / 1000:.2f}); {steps}")
    if result.document["rounds"]:
        tally.failures.append(f"{name}: the former primary did not follow at once")
    return blocked_s


def soak_kills(runs: int, tally: Tally) -> None:
    """Every part in every phase, `runs` times over."""
    for victim in harm.VICTIMS * runs:
        for phase in (*harm.PHASES, *harm.SWITCH_PHASES):
            if victim == "guard" and phase == "seed":
                continue  # it comes with the first freeze, so there is none to be killed yet
            survive = aftermath.survive if phase in harm.PHASES else aftermath.survive_switch
            try:
                with World.start() as world:
                    struck = survive(Pair(world, create_bank(world["db1"])), victim, phase)
            except RigError as error:
                tally.failures.append(f"{victim} in {phase}: {error}")
                say(f"{victim:>12} in {phase:<9} FAILED: {str(error)[:300]}")
            else:
                if phase in harm.PHASES:  # a switchover that has died may wait for the next command
                    tally.gaps_s.append(struck.gap_s)
                say(f"{victim:>12} in {phase:<9} longest gap {struck.gap_s:4.1f} s")
    say(f"longest gap {max(tally.gaps_s, default=0.0):.1f} s; what is longer than its phase allows has failed above")


def soak_power(tier: type[World], runs: int, tally: Tally) -> None:
    """Both sides at every place, `runs` times over; hosts that came through one cut have the next."""
    left = list(power.SCENES * runs)
    while left:
        with tier.start() as world:
            pair = Pair(world, create_bank(world["db1"]))
            while left:
                side, place = left.pop(0)
                try:
                    cut = power.survive(pair, side, place)
                except RigError as error:
                    tally.failures.append(f"{side} in {place}: {error}")
                    say(f"{side} in {place:<8} FAILED: {str(error)[:1000]}")
                    break
                tally.gaps_s.append(cut.gap_s)
                tally.resume_s.append(cut.resume_s)
                say(f"{side} in {place:<8} {cut.ended}; resumed in {cut.resume_s:.0f} s; gap {cut.gap_s:.0f} s")
    tally.bound(f"{len(tally.resume_s)} cuts, nothing lost", held=not tally.failures)


def soak_storm(runs: int, tally: Tally) -> None:
    """So many minutes of it."""
    with World.start(pool_mb=8192) as world:
        pair = Pair(world, create_bank(world["db1"]))
        with pair.writers(rate=RATE, writers=WRITERS) as clients:
            clients.wait_for(int(RATE))
            done = storm.blow(pair, clients, 60.0 * runs, say)
    say(f"killed {done.strikes}; {done.bases} bases sent; ended by itself: {done.ended or 'never'}")
    tally.lost += Lost(planned=done.missing)
    tally.bound(f"{sum(done.strikes.values())} strikes, {done.missing} commits missing", held=not done.missing)
    tally.bound(f"caught up {done.caught_up_s:.0f} s after the last", held=done.caught_up_s <= storm.CALM_S)
    files = f"{done.log_files} log files kept at the end <= {storm.LOG_FILES_MOST}"
    tally.bound(files, held=done.log_files <= storm.LOG_FILES_MOST)


def soak_cuts(runs: int, tally: Tally) -> None:
    """So many rounds in one run."""
    seed = time.time_ns() % 1_000_000
    say(f"seed {seed}")
    with Machines.start(pool_mb=cuts.POOL_MB) as world:
        bank = create_bank(world["db1"], size_mb=cuts.BANK_MB, properties={"recordsize": cuts.RECORD})
        pair = Pair(world, bank, changes=cuts.CHANGES)
        with pair.writers(rate=cuts.RATE) as clients:
            clients.wait_for(5)
            sent = cuts.cut_and_end(pair, clients, runs, random.Random(seed), say)  # noqa: S311 (dice)
            clients.wait_for(5)
            clients.stop()
        aftermath.nothing_lost(pair, clients, "db1", "db2")
        tally.gaps_s.append(clients.gaps().worst_s)
        commits = len(clients.acked())
    tally.figures.update(asdict(sent), seed=seed)
    tally.bound(f"{sent.rounds} rounds, {commits} commits, nothing lost", held=sent.rounds >= runs)
    tally.bound(f"{sent.breaks} streams broke, at most {sent.most_in_one} times each", held=sent.breaks > 0)
    twice = f"{sent.twice_bytes / 1e6:.2f} of {sent.sent_bytes / 1e6:.1f} MB were sent twice"
    tally.bound(f"{twice}: {100 * sent.twice:.1f} % < 5 %", held=sent.twice < cuts.TWICE_MOST)


def soak_simulation(runs: int, tally: Tally) -> None:
    """More of the histories that the ordinary tests run too."""
    held = _pytest("--timeout=0", HISTORIES, env={"SNAPREP_HISTORIES": str(runs)})
    tally.bound(f"{runs} random histories", held=held)


def soak_machines(runs: int, tally: Tally) -> None:
    """What ends in reasonable time is in the ordinary tests; this is all of it."""
    for number in range(1, runs + 1):
        tally.bound(f"{number}: every test on machines", held=_pytest("--machines", *ON_MACHINES))


def _pytest(*words: str, env: Mapping[str, str] | None = None) -> bool:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=sys.stderr, check=False)
    return done.returncode == 0


SOAKS: dict[str, tuple[Callable[[int, Tally], None], int]] = {
    "rebuild": (soak_rebuild, 20),
    "takeover": (soak_takeover, 10),
    "switchover": (soak_switchover, 20),
    "kills": (soak_kills, 1),
    "power": (partial(soak_power, Machines), 1),
    "power-namespaces": (partial(soak_power, World), 1),
    "cutover-log": (feeding.soak_cutover_log, 20),
    "storm": (soak_storm, 10),
    "followers": (feeding.soak_followers, 60),
    "catch-up": (feeding.soak_catch_up, 2000),
    "cuts": (soak_cuts, 200),
    "machines": (soak_machines, 1),
    "simulation": (soak_simulation, 20_000),
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=SOAKS)
    parser.add_argument("--runs", type=int, help="how often, how long or how much, as above")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args(words)
    soak, runs = SOAKS[options.name]
    runs = options.runs or runs
    tally = Tally()
    try:
        soak(runs, tally)
    except (RigError, KeyboardInterrupt) as error:  # what was measured until then is still told
        tally.failures.append(str(error) or "interrupted")
    if options.json:
        sys.stdout.write(json.dumps({"soak": options.name, "runs": runs, **tally.document}, indent=2) + "\n")
    else:
        sys.stdout.writelines(tally.lines)
    return int(not tally.held)


if __name__ == "__main__":
    sys.exit(main())
