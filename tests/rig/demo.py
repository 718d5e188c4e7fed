"""The main job, for real, on this machine: `scripts/demo`.

Two hosts with ZFS, sshd and Derby of their own, clients that never stop writing, and a third place where the operator
sits. Everything lives in namespaces and is gone afterwards.
"""

from __future__ import annotations

import sys
import textwrap
import time
from dataclasses import dataclass, field
from typing import Any

from tests.rig import measure
from tests.rig.derby import create_bank
from tests.rig.measure import Lost, Window
from tests.rig.pair import ROOT, Pair, Running
from tests.rig.workload import Workload
from tests.rig.world import World

BANK_MB = 100
RATE = 200
WRITERS = 4
LOOK_S = 3.0  # how long the clients are watched before and after each act
MIB = 1 << 20


class Failed(Exception):
    """Something that the demo promises did not hold."""


@dataclass(slots=True)
class Story:
    """What has been seen so far, for the summary."""

    began_s: float = field(default_factory=time.monotonic)
    held: list[tuple[str, bool]] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)

    def check(self, what: str, *, held: bool) -> None:
        self.held.append((what, held))

    def figure(self, name: str, text: str) -> None:
        self.figures.append((name, text))


def say(text: str = "") -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def act(title: str, text: str) -> None:
    line = f"== {title} =="
    say(f"\n\033[1m{line}\033[0m" if sys.stdout.isatty() else f"\n{line}")
    say(textwrap.fill(text, 100))


def run(pair: Pair, *words: str) -> tuple[dict[str, Any], list[dict[str, Any]], float]:
    """A verb that changes something, its talk shown as it comes; its document, its events and its seconds."""
    say(f"\n$ snaprep {' '.join(words)}")
    began_s = time.monotonic()
    running = pair.start(*words)
    follow(running)
    result = running.wait()
    took_s = time.monotonic() - began_s
    if result.code != 0:
        raise Failed(f"snaprep {' '.join(words)}: exit {result.code}")
    return result.document, running.events(), took_s


def follow(running: Running) -> None:
    """Copies a verb's talk to our own output while it runs."""
    shown = 0
    while True:
        over = not running.running
        text = running.talk()[shown:]
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                say(f"    {line.rstrip()}")
                shown += len(line)
        if over:
            return
        time.sleep(0.05)


def show(pair: Pair, *words: str) -> None:
    """A verb that only looks, with what it prints."""
    say(f"\n$ snaprep {' '.join(words)}")
    done = pair.world.operator.run(
        pair.argv("--no-color", "--no-progress", *words), check=False, timeout_s=60, cwd=ROOT
    )
    for line in (done.stdout + (done.stderr if done.returncode else "")).splitlines():
        say(f"    {line}")
    if done.returncode != 0:
        raise Failed(f"snaprep {' '.join(words)}: exit {done.returncode}")


def watch(clients: Workload, story: Story) -> None:
    before = len(clients.acked())
    time.sleep(LOOK_S)
    rate = (len(clients.acked()) - before) / LOOK_S
    say(f"\n    clients: {rate:.0f} commits/s")
    story.check("clients write", held=rate > 0)


def mib(count: float) -> str:
    return f"{count / MIB:.1f} MiB"


def rebuild(pair: Pair, clients: Workload, story: Story, name: str) -> float:
    """One rebuild under load; the time of day, in milliseconds, since which the replica is attached."""
    document, events, took_s = run(pair, "rebuild")
    clients.wait_for(100)
    acked = clients.acked()
    blocked_s = measure.cutover_blocked_s(acked, events)
    shipped = measure.shipped_bytes(document)
    kinds = [entry["kind"] for entry in document["rounds"]]
    story.figure(name, f"{mib(shipped)} in {took_s:.1f} s, of that a full copy: {'yes' if 'full' in kinds else 'no'}")
    promised_ms = (document["cutover"] or {}).get("p90_ms")
    promised = f", forecast P90 {promised_ms / 1000:.2f} s" if promised_ms else ""
    story.figure("", f"a client got no commit for {blocked_s:.2f} s at the worst{promised}")
    watch(clients, story)
    return measure.attached_ms(events)


def play(world: World, story: Story) -> None:
    bank = create_bank(world["db1"], size_mb=BANK_MB)
    pair = Pair(world, bank)
    with pair.writers(rate=RATE, writers=WRITERS) as clients:
        clients.wait_for(RATE)
        act(
            "1. A live database",
            f"db1 serves a Derby database of {BANK_MB} MB on ZFS to {WRITERS} clients that write all the time; db2 has "
            "an empty pool. The operator sits at a third machine and first asks what a rebuild would do.",
        )
        show(pair, "plan")
        act(
            "2. Make db2 a replica",
            "Snapshots of db1 go to db2, each smaller than the one before, while the clients write. For the last one "
            "they are cut off for a moment, and db2 comes up as Derby's replication slave.",
        )
        attached_ms = rebuild(pair, clients, story, "rebuild")

        act("3. The primary dies", "db1 loses its power in the middle of the load. db2 takes over.")
        world.power_off("db1")
        died = Window(from_ms=attached_ms, to_ms=1000 * time.time())
        off_ns = time.monotonic_ns()
        _, _, took_s = run(pair, "takeover", "--yes")
        clients.wait_for(100)
        gap_s = clients.gap_around(off_ns).overall_s
        story.figure("take-over", f"{took_s:.1f} s; {gap_s:.1f} s from the last commit on db1 to the first on db2")
        watch(clients, story)

        act(
            "4. Bring the repaired host back",
            "db1 boots again. Its database is not mounted, so nobody is served from it. It holds commits that db2 "
            "never got: they are kept aside, and db1 goes back to the newest snapshot that both hold and becomes the "
            "replica of db2. The same verb does it, without a copy.",
        )
        world.boot("db1")
        rebuild(pair, clients, story, "fail-back")
        clients.stop()
    sum_up(pair, clients, died, story)


def sum_up(pair: Pair, clients: Workload, died: Window, story: Story) -> None:
    """Looks for every acknowledged commit, and compares every row."""
    act("5. Was anything lost?", "The clients stop. Every commit that they were told of is looked for.")
    acked = clients.acked()
    lost, _ = measure.count_lost(pair, "db2", acked, died=(died,), failed="db1")
    differences = pair.replica_differences("db2", "db1")
    kept = ", ".join(f"db1:{name}" for name in pair.isolated("db1")) or "nothing"
    story.figure("commits", f"{len(acked)} acknowledged, longest gap of any client {clients.gaps().worst_s:.2f} s")
    story.figure("lost", f"planned {lost.planned}, unshipped {lost.unshipped}, unexplained {lost.unexplained}")
    story.figure("set aside", f"{kept} (holds every unshipped commit)")
    story.figure("rows", "equal on both hosts, every table, by digest" if not differences else "; ".join(differences))
    story.check("no commit is lost without an explanation", held=Lost(unshipped=lost.unshipped) == lost)
    story.check("both hosts hold the same rows", held=not differences)
    story.check("the old primary's own tail is kept", held=bool(pair.isolated("db1")))


def main() -> int:
    story = Story()
    say("Two database hosts and an operator are started in namespaces of this machine; all ends with this program.")
    try:
        with World.start() as world:
            play(world, story)
    except Failed as error:
        story.check(str(error), held=False)
    act("Summary", "")
    for name, text in story.figures:
        say(f"    {name:<10} {text}")
    for what, held in story.held:
        if not held:
            say(f"    FAILED     {what}")
    good = all(held for _, held in story.held)
    say(f"    {'all held' if good else 'NOT all held'}; {time.monotonic() - story.began_s:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
