"""A storm over a fed replica: again and again one part of it is killed while clients write, and nobody helps but an
init system that starts again what ended.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.rig import check, harm, measure
from tests.rig.node import RigError, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tests.rig.host import Host
    from tests.rig.pair import Pair, Running
    from tests.rig.workload import Workload

VICTIMS = ("target-derby", "feeder", "connection", "source-derby", "operator")
PAUSE_S = (2.0, 8.0)
NOTICED_S = 10.0  # until every part has noticed that another one died
CALM_S = 180.0  # to catch up in, after the last strike
LOG_FILES_MOST = 4  # of 1 MiB: the one in use, that of the last checkpoint, and those that were not told of yet
ARCHIVE = ("--archive", "bounce")


@dataclass(slots=True)
class Storm:
    """What happened. `ended`: how the program ended when nobody had killed it."""

    strikes: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    caught_up_s: float = 0.0  # after the last strike
    log_files: int = 0
    bases: int = 0  # how often a base was sent
    missing: int = 0


def feeds(event: dict[str, Any]) -> bool:
    return event["event"] == "progress" and bool(event.get("feed")) and event["feed"]["lag_bytes"] is not None


def blow(pair: Pair, clients: Workload, seconds: float, say: Callable[[str], None], *, seed: int = 1) -> Storm:
    """Strike for so long, then see that everything comes right by itself. Ends the clients. Raises RigError."""
    dice, storm = random.Random(seed), Storm()  # noqa: S311 (dice)
    running = pair.start("follow", *ARCHIVE)
    running.wait_event(feeds, 120)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        time.sleep(dice.uniform(*PAUSE_S))
        victim = dice.choice(VICTIMS)
        if strike(pair, running, victim):
            storm.strikes[victim] = storm.strikes.get(victim, 0) + 1
            say(f"{until_s - time.monotonic():4.0f} s left: {victim} killed")
        running = kept_up(pair, running, storm)
    struck_s = time.monotonic()
    running = calm(pair, clients, running, storm)
    storm.caught_up_s = time.monotonic() - struck_s
    storm.log_files = log_files(pair)
    finish(pair, clients, running, storm)
    return storm


def strike(pair: Pair, running: Running, victim: str) -> bool:
    """False when there is nothing to kill in this moment: what was killed before is not back yet."""
    source, target = pair.world[harm.SOURCE], pair.world[harm.TARGET]
    match victim:
        case "operator":
            running.kill()
        case "source-derby" | "target-derby":
            host = source if victim == "source-derby" else target
            host.crash("derby")
            host.start_derby()
        case "feeder":
            try:
                harm.kill_inside(source, harm.agent_pid(source))
            except RigError:
                return False
        case "connection":
            return kill_ssh(source)
        case _:
            raise RigError(f"unknown victim {victim}")
    return True


def kill_ssh(source: Host) -> bool:
    """The connection that the source's agent has to the target, if there is one."""
    found = [pid for pid, _, own in harm.processes(source) if own.startswith("ssh ")]
    for pid in found:
        harm.kill_inside(source, pid)
    return bool(found)


def kept_up(pair: Pair, running: Running, storm: Storm) -> Running:
    """The program, started again when it has ended: what a unit with Restart=always does."""
    if running.running:
        return running
    storm.bases += bases(running)
    result = running.wait(5)
    if result.code >= 0:
        storm.ended.append(f"exit {result.code}: {result.error_id}")
    return pair.start("follow", *ARCHIVE)


def calm(pair: Pair, clients: Workload, running: Running, storm: Storm) -> Running:
    """Wait until the replica is fed again, and nearly everything that clients write now is there at once."""
    struck_s = time.time()
    clients.wait_for(50, 60)
    until_s = time.monotonic() + CALM_S
    while time.monotonic() < until_s:
        running = kept_up(pair, running, storm)
        told = [event["feed"] for event in running.events()[-3:] if feeds(event)]
        if told and measure.time_s(told[-1]["seen_at"]) > struck_s + NOTICED_S and told[-1]["lag_ms"] < 1000:
            return running
        time.sleep(0.5)
    raise RigError(f"not caught up within {CALM_S:g} s; events: {running.events()[-5:]}")


def log_files(pair: Pair) -> int:
    """How many files of log the source keeps, when there was time to let go of some."""
    logs = f"{pair.bank.path}/log"

    def count() -> int:
        names = pair.world[harm.SOURCE].run(["ls", logs]).stdout.split()
        return sum(name.startswith("log") and name.endswith(".dat") for name in names)

    try:
        wait_until(lambda: count() <= LOG_FILES_MOST, "the log to be released", 90)
    except RigError:
        return count()
    return count()


def finish(pair: Pair, clients: Workload, running: Running, storm: Storm) -> None:
    """Stop in order, and compare. Raises RigError when rows differ."""
    clients.stop()
    running.interrupt()
    storm.bases += bases(running)
    result = running.wait(120)
    if result.code != 10:
        raise RigError(f"follow was asked to stop: {result}")
    served = pair.served(harm.SOURCE)
    storm.missing = len(check.missing(clients.acked(), served.journal))
    if differences := check.differences(served, pair.stored(harm.TARGET)):
        raise RigError(f"rows differ: {differences}")


def bases(running: Running) -> int:
    return sum(e["event"] == "round" and e["state"] == "done" for e in running.events())
