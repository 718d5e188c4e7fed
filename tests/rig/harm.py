"""Killing one part of a run at one moment of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.rig.node import RigError

if TYPE_CHECKING:
    from tests.rig.host import Host
    from tests.rig.pair import Pair, Running

SOURCE, TARGET = "db1", "db2"
GUARD = "snaprep.agent.guard"
RELAY = "_socket as s"

# A phase begins with the order to a host to do these steps, and without those after the minus.
PHASES: dict[str, tuple[str, frozenset[str], frozenset[str]]] = {
    "seed": (SOURCE, frozenset({"freeze", "snapshot"}), frozenset()),
    "landing": (TARGET, frozenset({"receive_end"}), frozenset({"present"})),
    "round": (SOURCE, frozenset({"snapshot"}), frozenset({"freeze", "gate_close"})),
    "prepare": (TARGET, frozenset({"warm"}), frozenset()),
    "close": (SOURCE, frozenset({"gate_close"}), frozenset()),
    "arm": (TARGET, frozenset({"arm_replica"}), frozenset()),
    "attach": (SOURCE, frozenset({"attach"}), frozenset()),
}
# The same of a switchover, from db1 to db2.
SWITCH_PHASES: dict[str, tuple[str, frozenset[str], frozenset[str]]] = {
    "retire": (SOURCE, frozenset({"retire"}), frozenset()),
    "catch-up": (TARGET, frozenset({"log_append"}), frozenset({"arm_replica"})),
    "step-down": (SOURCE, frozenset({"step_down"}), frozenset()),
    "open-shut": (TARGET, frozenset({"open_shut"}), frozenset()),
    "follow": (SOURCE, frozenset({"arm_replica"}), frozenset()),
    "mark": (TARGET, frozenset({"mark", "gate_keep"}), frozenset()),
    "take-on": (TARGET, frozenset({"attach"}), frozenset()),
}
VICTIMS = (
    "operator", "source-agent", "target-agent", "guard", "source-derby", "target-derby", "source-sshd", "target-sshd",
)  # fmt: skip


def begins(phase: str) -> Callable[[dict[str, Any]], bool]:
    host, wanted, without = (PHASES | SWITCH_PHASES)[phase]

    def seen(event: dict[str, Any]) -> bool:
        steps = set(event.get("steps", ()))
        return event["event"] == "steps" and event["host"] == host and wanted <= steps and not without & steps

    return seen


def processes(host: Host) -> list[tuple[int, str, str]]:
    """(pid, the parent's command line, the own command line) of all that runs on a host, as pids are there."""
    lines = [line.split(None, 2) for line in host.run(["ps", "-eo", "pid=,ppid=,args="]).stdout.splitlines()]
    args = {words[0]: words[2] if len(words) > 2 else "" for words in lines}
    return [(int(pid), args.get(parent, ""), args[pid]) for pid, parent, *_ in lines]


def agent_pid(host: Host) -> int:
    """Raises RigError when no agent runs there."""
    found = [
        pid
        for pid, parent, own in processes(host)
        if parent.startswith(("sshd:", "sshd-session:")) and "python3" in own and RELAY not in own and GUARD not in own
    ]
    if not found:
        raise RigError(f"{host.name}: no agent; it runs {processes(host)}")
    return found[0]


def guard_pid(host: Host) -> int:
    """Raises RigError when no guard runs there."""
    for pid, _, own in processes(host):
        if GUARD in own:
            return pid
    raise RigError(f"{host.name}: no guard; it runs {processes(host)}")


def kill_inside(host: Host, pid: int) -> None:
    host.run(["kill", "-9", str(pid)], check=False)


def stand_still(host: Host, daemon: str, seconds: float) -> None:
    """A daemon does nothing for a while, as on a host that swaps."""
    os.kill(host.daemon_pid(daemon), signal.SIGSTOP)
    try:
        time.sleep(seconds)  # it is what is asked for
    finally:
        host.daemons[daemon].send_signal(signal.SIGCONT)  # nsenter stops when its program does, and continues it


def forget_target(pair: Pair, target: str) -> None:
    """The target becomes a fresh host: a new disk in it."""
    world = pair.world
    host = world[target]
    host.crash("derby")
    names = host.zfs("list", "-H", "-t", "all", "-o", "name").splitlines()
    for name in names:
        if "@" in name:
            host.zfs("release", "snaprep:bank", name, check=False)
    for name in host.zfs("list", "-H", "-o", "name").splitlines():
        if name.count("/") == 1:
            host.zfs("destroy", "-R", name, check=False)
    left = [name for name in host.zfs("list", "-H", "-o", "name").splitlines() if "/" in name]
    if left:
        raise RigError(f"{target} still has {left}")
    host.start_derby()


def strike(pair: Pair, running: Running, victim: str, phase: str, timeout_s: float = 60.0) -> None:
    """kill -9 of the victim when the phase begins. Database servers and sshd are started again at once, as an init
    system would do. Raises RigError when the phase does not come.
    """
    source, target = pair.world[SOURCE], pair.world[TARGET]
    moment = begins(phase)
    known: dict[str, int] = {}
    if victim.endswith("agent"):
        running.wait_event(lambda e: e["event"] == "steps", timeout_s)
        known[victim] = agent_pid(source if victim == "source-agent" else target)
    if victim == "guard" and phase in PHASES and phase != "seed":
        running.wait_event(begins("seed"), timeout_s)
        running.wait_event(begins("round"), timeout_s)
    running.wait_event(moment, timeout_s)
    match victim:
        case "operator":
            running.kill()
        case "source-agent":
            kill_inside(source, known[victim])
        case "target-agent":
            kill_inside(target, known[victim])
        case "guard":
            kill_inside(source, guard_pid(source))
        case "source-derby" | "target-derby":
            host = source if victim == "source-derby" else target
            host.crash("derby")
            host.start_derby()
        case "source-sshd" | "target-sshd":
            host = source if victim == "source-sshd" else target
            host.crash("sshd")
            host.start_sshd()
        case _:
            raise RigError(f"unknown victim {victim}")
