"""Soaks of a fed replica: two at once in bad conditions, one that was away for long, and cutovers from the feed."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from tests.rig import check, harm, measure
from tests.rig.derby import add_ballast, create_bank, rewrite_ballast
from tests.rig.host import DERBY_PORT
from tests.rig.measure import Lost
from tests.rig.node import RigError, signal_inner
from tests.rig.pair import PASSWORD, USER, Pair
from tests.rig.storm import ARCHIVE, feeds
from tests.rig.tally import BANK_MB, RATE, WRITERS, Tally, close_lap, rebuild, say
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from tests.rig.host import Host
    from tests.rig.pair import Running
    from tests.rig.workload import Workload

MIB = 1 << 20
TARGETS = (("bank", "db2"), ("report", "db3"))
NARROW_MBIT = 10.0
LEVEL_MS = 1000.0  # a replica that lacks no more than what was written since then has caught up
BACK_S = 300.0
LATE_S = 1800.0  # for a replica that was away
STOPS_S = 180.0
FEEDER_MOST_MIB = 64.0
GAP_MOST_S = 3.0
BALLAST_ROWS = 15_000  # 30 MB of log at once


def soak_cutover_log(runs: int, tally: Tally) -> None:
    """The replica is made stale again and again; its server starts anew, and it is fed from a new base."""
    with World.start(pool_mb=8192) as world:
        pair = Pair(world, create_bank(world["db1"], size_mb=BANK_MB))
        with pair.writers(rate=RATE, writers=WRITERS) as clients:
            clients.wait_for(int(RATE))
            for number in range(1, runs + 1):
                rebuild(pair, clients, tally, f"{number:3}", "--lane", "log", *ARCHIVE)
                if number < runs:
                    world["db2"].restart_derby()
            clients.stop()
        close_lap(pair, clients, tally, "db1", "db2", ())
    cut = tally.cutover_s
    tally.bound(f"lost: {tally.lost.document}", held=not (tally.lost.planned or tally.lost.unexplained))
    tally.bound(f"blocked at a cutover: P50 {measure.p50(cut):.2f} s <= 0.8 s", held=measure.p50(cut) <= 0.8)
    tally.bound(f"blocked at a cutover: worst {max(cut):.2f} s <= 1.5 s", held=max(cut) <= 1.5)


def soak_followers(runs: int, tally: Tally) -> None:
    """For so many seconds the server of one replica stands still, while the other has a narrow link."""
    with World.start(names=("db1", "db2", "db3"), pool_mb=8192) as world:
        bank = create_bank(world["db1"])
        world.link("db1", "db3", rate_mbit=NARROW_MBIT)
        pairs = [Pair(world, bank, name=name, names=("db1", target)) for name, target in TARGETS]
        with pairs[0].writers(rate=0, writers=WRITERS) as clients:
            clients.wait_for(100)
            fed = [pair.start("follow", *ARCHIVE) for pair in pairs]
            try:
                for running in fed:
                    level(running, time.time(), BACK_S)
                stand_still(world["db2"], runs)
                mended_s = time.time()
                back_s = [level(running, mended_s, BACK_S) - mended_s for running in fed]
                clients.stop()
                for running in fed:
                    stopped(running)
                behind = [max(told["lag_bytes"] for told in looks(running)) / MIB for running in fed]
                sent = [max(told["sent_bytes"] for told in looks(running)) / MIB for running in fed]
            finally:
                for running in fed:
                    running.kill()
        must_hold(pairs, clients, tally)
        gap_s = clients.gaps().worst_s
    tally.gaps_s.append(gap_s)
    for (_, name), late_s, most, fed_mib in zip(TARGETS, back_s, behind, sent, strict=True):
        tally.figures[name] = {
            "caught_up_s": round(late_s, 1),
            "most_behind_mib": round(most, 1),
            "fed_mib": round(fed_mib, 1),  # by the longest of its feeds
        }
    tally.bound(f"caught up {max(back_s):.0f} s after both could, at most {BACK_S:g} s", held=max(back_s) <= BACK_S)
    tally.bound(f"longest gap of a client {gap_s:.2f} s <= {GAP_MOST_S:g} s", held=gap_s <= GAP_MOST_S)


def stand_still(host: Host, seconds: float) -> None:
    """The database server of a host is stopped, as by a hypervisor that has other things to do."""
    server = host.daemons["derby"]
    signal_inner(server, signal.SIGSTOP)
    say(f"{host.name} stands still for {seconds:g} s")
    try:
        time.sleep(seconds)
    finally:
        server.send_signal(signal.SIGCONT)  # nsenter has stopped with it, and passes this on


def soak_catch_up(runs: int, tally: Tally) -> None:
    """So many MB (10^6 bytes) of log are written while nobody feeds the replica; then it is fed."""
    wanted_bytes = runs * 1_000_000
    with World.start(pool_mb=4096 + 6 * runs) as world:
        bank = create_bank(world["db1"])
        pair = Pair(world, bank)
        with pair.writers(rate=50) as clients:
            clients.wait_for(50)
            running = pair.start("follow", *ARCHIVE)
            level(running, time.time(), BACK_S)
            stopped(running)
            began_s = time.monotonic()
            written_bytes = write_log(world["db1"], pair, wanted_bytes)
            say(f"{written_bytes / MIB:.0f} MiB of log in {time.monotonic() - began_s:.0f} s")
            running = pair.start("follow", *ARCHIVE)
            try:
                figures = caught_up(pair, running)
                clients.stop()
                stopped(running)
            finally:
                running.kill()
        must_hold([pair], clients, tally)
    tally.figures |= {"written_mib": round(written_bytes / MIB, 1), **figures}
    fed, peak = figures["fed_mib"], figures["source_agent_peak_mib"]
    tally.bound(f"fed {fed:.0f} MiB of {written_bytes / MIB:.0f}", held=fed * MIB >= wanted_bytes)
    tally.bound(f"bases sent meanwhile: {figures['bases']}", held=not figures["bases"])
    tally.bound(f"the feeder's peak {peak:.1f} MiB < {FEEDER_MOST_MIB:g} MiB", held=peak < FEEDER_MOST_MIB)


def write_log(source: Host, pair: Pair, wanted_bytes: int) -> int:
    """Write this much log; returns how much it is by the sizes of the files."""
    url = f"jdbc:derby://127.0.0.1:{DERBY_PORT}/{pair.bank.path};user={USER};password={PASSWORD}"
    before = log_bytes(source, pair)
    add_ballast(source, url, BALLAST_ROWS)
    while (written := log_bytes(source, pair) - before) < wanted_bytes:
        rewrite_ballast(source, url, 2)
    return written


def log_bytes(source: Host, pair: Pair) -> int:
    return int(source.run(["sh", "-c", f"cat {pair.bank.path}/log/log*.dat | wc -c"]).stdout)


def caught_up(pair: Pair, running: Running) -> dict[str, Any]:
    """Wait for it; what it took, the boot of the replica counted in, and the most memory that either agent had."""
    first = running.wait_event(feeds, BACK_S)["feed"]
    level(running, time.time(), LATE_S)
    last = looks(running)[-1]
    took_s = measure.time_s(last["seen_at"]) - measure.time_s(first["since_at"])
    fed_mib = last["sent_bytes"] / MIB
    say(f"caught up with {fed_mib:.0f} MiB in {took_s:.0f} s")
    return {
        "fed_mib": round(fed_mib, 1),
        "took_s": round(took_s, 1),
        "mib_per_s": round(fed_mib / took_s, 2),
        "source_agent_peak_mib": peak_mib(pair.world["db1"]),
        "target_agent_peak_mib": peak_mib(pair.world["db2"]),
        "bases": sum(e["event"] == "round" for e in running.events()),
    }


def peak_mib(host: Host) -> float:
    """The most memory that the host's agent ever had, its VmHWM."""
    status = host.run(["cat", f"/proc/{harm.agent_pid(host)}/status"]).stdout
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(line.split()[1]) / 1024, 1)


def looks(running: Running) -> list[dict[str, Any]]:
    """How far the feed was, each time somebody looked."""
    return [event["feed"] for event in running.events() if feeds(event)]


def level(running: Running, since_s: float, most_s: float) -> float:
    """Wait until the replica lacks next to nothing, seen later than that; the moment. Raises RigError."""
    until_s = time.monotonic() + most_s
    while time.monotonic() < until_s and running.running:
        for told in looks(running)[-1:]:
            seen_s = measure.time_s(told["seen_at"])
            if seen_s > since_s and told["lag_ms"] < LEVEL_MS:
                return seen_s
        time.sleep(0.2)
    how = f"not within {most_s:g} s" if running.running else f"it ended: {running.wait(5)}"
    raise RigError(f"the replica did not catch up: {how}; events: {running.events()[-5:]}")


def stopped(running: Running) -> None:
    running.interrupt()
    if (result := running.wait(STOPS_S)).code != 10:
        raise RigError(f"follow was asked to stop: {result}")


def must_hold(pairs: Sequence[Pair], clients: Workload, tally: Tally) -> None:
    """Nobody writes any more: every commit is on the source, and every row of it on the replicas."""
    served = pairs[0].served("db1")
    tally.lost += Lost(planned=len(check.missing(clients.acked(), served.journal)))
    tally.bound(f"lost: {tally.lost.document}", held=not tally.lost.planned)
    for pair in pairs:
        if differences := check.differences(served, pair.stored(pair.names[1])):
            tally.failures.append(f"rows differ on {pair.names[1]}: {differences}")
