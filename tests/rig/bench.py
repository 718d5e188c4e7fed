"""`scripts/bench NAME`: figures side by side, measured in one run; one JSON document on stdout, talk on stderr.

blocked    how long a client gets no commit: snaprep against Derby's documented procedure, by database size
plane      a full send: snaprep against zfs send | ssh | zfs receive
round      a round with nothing written: snaprep against a shell with a held connection
failback   bytes of a fail-back against one increment and against a full send
rtt        how long a client gets no commit when the operator is far from both hosts, against when he is near
follow     what a fed replica costs the clients' commits, and how fast one that was away catches up
lzc        OpenZFS's C library against the zfs command and pyzfs, on a machine of its own under QEMU
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.machines import inside
from tests.machines.world import Machines
from tests.rig import bench_follow, byhand, measure
from tests.rig.cpu import Meter
from tests.rig.derby import create_bank
from tests.rig.figures import FIGURES
from tests.rig.measure import Lost, Window
from tests.rig.node import RigError
from tests.rig.pair import Pair
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1 << 20
GIB = 1 << 30
VERB_S = 3600.0
LZC_S = 120.0


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def start(size_mb: int, link_mbit: float | None) -> World:
    world = World.start(pool_mb=3 * size_mb + 2048)
    world.link(rate_mbit=link_mbit)
    return world


# ---------------------------------------------------------------------- blocked


def blocked(options: argparse.Namespace) -> dict[str, Any]:
    """The worst of the writers' gaps at a cutover, every attempt counted in."""
    lost = Lost()
    rows = []
    for size in options.sizes:
        with start(int(size * 1024), options.link) as world:
            row, size_lost = blocked_at(world, size, options)
        rows.append(row)
        lost += size_lost
    first, last = rows[0]["snaprep_blocked_s"], rows[-1]["snaprep_blocked_s"]
    return {
        "sizes": rows,
        "growth": round(last / first, 3),
        "lost": lost.document,
        "commits_per_s": options.commits,
        "link_mbit": options.link,
        "runs": options.runs,
    }


def blocked_at(world: World, size: float, options: argparse.Namespace) -> tuple[dict[str, Any], Lost]:
    pair = Pair(world, create_bank(world["db1"], size_mb=int(size * 1024)))
    gaps: list[float] = []
    refused: list[str] = []
    with pair.writers(rate=options.commits) as clients:
        clients.wait_for(int(options.commits))
        for number in range(options.runs):
            if number:
                world["db2"].restart_derby()  # the replica is gone, its data is outdated
            _, events, why = measure.rebuilds(pair, VERB_S)
            clients.wait_for(20, 60)
            gaps.append(measure.cutover_blocked_s(clients.acked(), events))
            refused += why
            again = "".join(f", begun again after {reason}" for reason in why)
            say(f"{size:g} GB: snaprep, run {number + 1}: blocked {gaps[-1]:.2f} s{again}")
        began_ms = 1000 * time.time()
        byhand.rebuild(pair)
        clients.wait_for(20, 60)
        documented_s = measure.blocked_s(clients.acked(), Window(from_ms=began_ms, to_ms=1000 * time.time()))
        say(f"{size:g} GB: documented procedure: blocked {documented_s:.2f} s")
        clients.stop()
    lost, _ = measure.count_lost(pair, "db1", clients.acked())
    snaprep_s = measure.p50(gaps)
    row = {
        "size_gb": size,
        "snaprep_blocked_s": round(snaprep_s, 3),
        "snaprep_blocked_max_s": round(max(gaps), 3),
        "documented_blocked_s": round(documented_s, 3),
        "ratio": round(documented_s / snaprep_s, 1),
        "refused": refused,
    }
    return row, lost


# ---------------------------------------------------------------------- plane


def plane(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes per second of a full send, in turn by snaprep and by hand, on an idle database."""
    size_mb = int(options.sizes[0] * 1024)
    ratios, cpu = [], {"snaprep": [0.0, 0.0], "by_hand": [0.0, 0.0]}
    with start(size_mb, options.link) as world, Meter(world) as meter:
        pair = Pair(world, create_bank(world["db1"], size_mb=size_mb))
        byhand.trust(world, "db1", "db2")
        for number in range(options.runs):
            snaprep = full_by_snaprep(pair, meter, cpu["snaprep"])
            by_hand = full_by_hand(pair, meter, cpu["by_hand"], number)
            ratios.append(snaprep / by_hand)
            say(f"pair {number + 1}: snaprep {snaprep / MIB:.1f} MiB/s, by hand {by_hand / MIB:.1f} MiB/s")
    return {
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "cpu_s_per_gib": {name: round(seconds / (count / GIB), 3) for name, (seconds, count) in cpu.items()},
        "link_mbit": options.link,
        "pairs": options.runs,
        "size_gb": options.sizes[0],
        "lost": Lost().document,
    }


def full_by_snaprep(pair: Pair, meter: Meter, cpu: list[float]) -> float:
    """Bytes per second of the first round of a rebuild on an empty host, from the start of the send to the end of the
    receive, on a connection that was opened ahead.
    """
    running = pair.start("rebuild", "--hold", "--freeze", "never")
    running.wait_event(lambda e: e["event"] == "steps" and "send" in e["steps"])
    before = meter.mark()
    done = running.wait_event(lambda e: e["event"] == "round" and e["kind"] == "full" and e["state"] == "done", VERB_S)
    cpu[0] += meter.mark() - before
    cpu[1] += done["sent_bytes"]
    pair.must("abort")
    running.wait(VERB_S)
    steps = {e["step"]: e["ms"] for e in reversed(running.events()) if e["event"] == "step"}
    for dataset in pair.world["db2"].zfs("list", "-H", "-o", "name").splitlines():
        if dataset.startswith(pair.bank.dataset):
            wipe(pair, "db2", dataset)
    took_s: float = (steps["send"] + steps["receive_end"]) / 1000
    return float(done["sent_bytes"]) / took_s


def full_by_hand(pair: Pair, meter: Meter, cpu: list[float], number: int) -> float:
    db1, db2 = pair.world["db1"], pair.world["db2"]
    snapshot = f"{pair.bank.dataset}@plane-{number}"
    db1.zfs("snapshot", snapshot)
    before = meter.mark()
    took_s = byhand.send_s(pair.world, snapshot, "tank/plane")
    cpu[0] += meter.mark() - before
    size = int(db1.run(["bash", "-c", f"zfs send {snapshot} | wc -c"], timeout_s=600).stdout)
    cpu[1] += size
    db2.zfs("destroy", "-r", "tank/plane")
    db1.zfs("destroy", snapshot)
    return size / took_s


def wipe(pair: Pair, name: str, dataset: str) -> None:
    """Removes a dataset with the pair's holds on its snapshots, as if it had never been."""
    host = pair.world[name]
    for snapshot in host.zfs("list", "-H", "-t", "snapshot", "-o", "name", "-r", dataset, check=False).splitlines():
        host.zfs("release", "snaprep:bank", snapshot, check=False)  # `zfs holds` does not work on zfs-fuse
    host.zfs("destroy", "-r", dataset)


# ---------------------------------------------------------------------- round


def round_(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a round with nothing written."""
    with start(64, options.link) as world:
        pair = Pair(world, create_bank(world["db1"]), changes={"rounds": {"hold_pace": "100ms"}})
        byhand.trust(world, "db1", "db2")
        running = pair.start("rebuild", "--hold")
        done: list[float] = []
        while len(done) < options.runs:
            time.sleep(0.2)
            found = [e for e in running.events() if e["event"] == "round" and e["state"] == "done"]
            done = [e["elapsed_ms"] / 1000 for e in found if e["kind"] == "delta"][1:]
            if not running.running:
                raise RigError(f"the held run has ended: {running.wait()}")
        pair.must("abort")
        running.wait()
        steps = steps_ms(running.events())
        hand = byhand.rounds_s(world, pair.bank.dataset, options.runs)
    return {
        "snaprep_s": round(measure.p50(done), 4),
        "by_hand_s": round(measure.p50(hand), 4),
        "steps_ms": steps,
        "rounds": options.runs,
        "link_mbit": options.link,
        "lost": Lost().document,
    }


def steps_ms(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What each step of a round takes on its host."""
    by_step: dict[str, list[float]] = {}
    for event in events:
        if event["event"] == "step":
            by_step.setdefault(event["step"], []).append(event["ms"])
    return {name: round(measure.p50(times), 1) for name, times in by_step.items() if len(times) > 2}


# ---------------------------------------------------------------------- failback


def failback(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes that a fail-back ships, over those of the one increment that would do if nobody wrote meanwhile."""
    size_mb = int(options.sizes[0] * 1024)
    with start(size_mb, options.link) as world:
        pair = Pair(world, create_bank(world["db1"], size_mb=size_mb))
        with pair.writers(rate=options.commits) as clients:
            clients.wait_for(50)
            _, events, _ = measure.rebuilds(pair, VERB_S)
            clients.wait_for(50)
            world.power_off("db1")
            died = Window(from_ms=measure.attached_ms(events), to_ms=1000 * time.time())
            pair.must("takeover", "--yes")
            clients.wait_for(int(options.commits * options.seconds), options.seconds * 3 + 60)
            world.boot("db1")
            sizes = Sizes(pair)
            shipped = rebuild_bytes(pair, "db2", "db1")
            final = sizes.measure()
            clients.stop()
        lost, _ = measure.count_lost(pair, "db2", clients.acked(), died=(died,), failed="db1")
    return {
        "ratio": round(shipped / final["increment"], 3),
        "full_ratio": round(shipped / final["full"], 4),
        "shipped_bytes": shipped,
        **{f"{name}_bytes": count for name, count in final.items()},
        "commits_per_s": options.commits,
        "seconds": options.seconds,
        "lost": lost.document,
    }


def rebuild_bytes(pair: Pair, source: str, target: str) -> int:
    """Bytes on the wire of one rebuild, to the moment at which Derby's own replication begins."""
    before = sent_bytes(pair, source, target)
    running = pair.start("rebuild")
    running.wait_event(lambda e: e["event"] == "steps" and "attach" in e["steps"], VERB_S)
    shipped = sent_bytes(pair, source, target) - before
    if (result := running.wait(VERB_S)).code != 0:
        raise RigError(f"rebuild: {result}")
    return shipped


def sent_bytes(pair: Pair, source: str, target: str) -> int:
    """What a host's interface to the other has sent since it is up."""
    for line in pair.world[source].run(["cat", "/proc/net/dev"]).stdout.splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == f"to-{target}":
            return int(counters.split()[8])
    raise RigError(f"{source} has no interface to {target}")


class Sizes:
    """What one increment, and one full send, of the serving side would have been. The common snapshot is kept from
    being destroyed by a clone that is there before the fail-back begins.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.db2 = pair.world["db2"]
        names = self.db2.zfs("list", "-H", "-t", "snapshot", "-o", "name", "-s", "creation").splitlines()
        self.base = [name for name in names if name.startswith(f"{pair.bank.dataset}.recv@")][-1]
        self.db2.zfs("clone", "-o", "mountpoint=none", self.base, "tank/keeps-base")

    def measure(self) -> dict[str, int]:
        names = self.db2.zfs("list", "-H", "-t", "snapshot", "-o", "name", "-s", "creation").splitlines()
        final = [name for name in names if name.startswith(f"{self.pair.bank.dataset}@")][-1]
        # The base may have moved to another dataset by a promotion; it keeps its own name.
        point = self.base.partition("@")[2]
        base = next(name for name in names if name.endswith(f"@{point}"))
        return {"increment": self._count("-i", base, final), "full": self._count(final)}

    def _count(self, *words: str) -> int:
        pipe = f"zfs send {' '.join(words)} | wc -c"
        return int(self.db2.run(["bash", "-o", "pipefail", "-c", pipe], timeout_s=600).stdout)


# ---------------------------------------------------------------------- rtt


def rtt(options: argparse.Namespace) -> dict[str, Any]:
    """What the operator's distance adds to what clients wait at a cutover: near and far in turn, on one pair."""
    gaps: dict[bool, list[float]] = {False: [], True: []}
    with start(64, options.link) as world:
        pair = Pair(world, create_bank(world["db1"]))
        with pair.writers(rate=options.commits) as clients:
            clients.wait_for(int(options.commits))
            measure.rebuilds(pair, VERB_S)
            for far in (False, True) * options.runs:
                world.operator_rtt(options.rtt if far else None)
                world["db2"].restart_derby()
                _, events, _ = measure.rebuilds(pair, VERB_S)
                clients.wait_for(20, 60)
                gaps[far].append(measure.cutover_blocked_s(clients.acked(), events))
                say(f"{'far ' if far else 'near'}: blocked {gaps[far][-1]:.2f} s")
            clients.stop()
        lost, _ = measure.count_lost(pair, "db1", clients.acked())
    near, far_away = gaps[False], gaps[True]
    return {
        "growth_s": round(measure.p50(far_away) - measure.p50(near), 3),
        "near_blocked_s": [round(gap, 3) for gap in near],
        "far_blocked_s": [round(gap, 3) for gap in far_away],
        "rtt_ms": options.rtt,
        "commits_per_s": options.commits,
        "lost": lost.document,
    }


# ---------------------------------------------------------------------- follow


def follow(options: argparse.Namespace) -> dict[str, Any]:
    """A fixed rate of commits with and without a fed replica, in turn; then one that has to catch up."""
    size_mb = int(options.sizes[0] * 1024)
    with start(size_mb, options.link) as world:
        return bench_follow.run(Pair(world, create_bank(world["db1"], size_mb=size_mb)), options, say)


# ---------------------------------------------------------------------- lzc


def lzc(options: argparse.Namespace) -> dict[str, Any]:
    """Measured by the machine's own Python, where the kernel is."""
    del options
    with Machines.start(names=("db1",), derby=False) as world:
        done = inside.run(world["db1"], "tests.volumes.bench_lzc", "--json", timeout_s=LZC_S)
    if done.returncode:
        raise RigError(done.stderr)
    return {**json.loads(done.stdout), "lost": Lost().document}


# ---------------------------------------------------------------------- the command


BENCHES: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], dict[str, Any]]] = {
    "blocked": (blocked, {"sizes": [0.25, 1.0, 4.0], "commits": 100.0, "link": 100.0, "runs": 5}),
    "plane": (plane, {"sizes": [0.5], "commits": 0.0, "link": 1000.0, "runs": 5}),
    "round": (round_, {"sizes": [0.02], "commits": 0.0, "link": None, "runs": 20}),
    "failback": (failback, {"sizes": [0.25], "commits": 50.0, "link": None, "runs": 1}),
    "rtt": (rtt, {"sizes": [0.06], "commits": 100.0, "link": None, "runs": 5}),
    "follow": (follow, {"sizes": [0.06], "commits": 100.0, "link": None, "runs": 4}),
    "lzc": (lzc, {"sizes": [0.0], "commits": 0.0, "link": None, "runs": 1}),
}


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, epilog=FIGURES, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument(
        "--json", action="store_true", help="one JSON document on stdout (otherwise a line for each key)"
    )
    parser.add_argument("--sizes", type=lambda text: [float(word) for word in text.split(",")], help="in GB: 0.25,1,4")
    parser.add_argument("--commits", type=float, help="per second, all clients together")
    parser.add_argument("--link", type=float, help="Mbit/s between the hosts; 0: not limited")
    parser.add_argument("--runs", type=int, help="rebuilds, pairs or rounds")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="failback: how long the replica serves alone; follow: one leg"
    )
    parser.add_argument("--rtt", type=float, default=100.0, help="rtt: ms that each round trip takes more")
    options = parser.parse_args(words)
    for key, value in BENCHES[options.name][1].items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    options.link = options.link or None
    return options


def main(words: Sequence[str] | None = None) -> int:
    options = parse(words)
    document = {"bench": options.name, **BENCHES[options.name][0](options)}
    if options.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{key}: {json.dumps(value)}\n" for key, value in document.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
