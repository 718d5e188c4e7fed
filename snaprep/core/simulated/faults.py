"""What may happen to the model world before any step of a run: something dies, a link is cut, the world changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from snaprep.core.simulated.world import HostState, World, kill_agent, kill_guard, kill_host, kill_server

Kill: TypeAlias = Literal["operator", "agent", "guard", "agent and guard", "server", "host", "link", "silence", "heal"]
Meanwhile: TypeAlias = Callable[[World], None]


class OperatorKilled(Exception):
    """The simulated operator's process is gone; nothing it would have undone is undone."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Before step number `at` of a run (counted over all its recipes, undo steps not counted)."""

    at: int
    kill: Kill | Meanwhile
    host: str = ""  # for agent, guard, server, host


def strike(world: World, fault: Fault, acting: HostState) -> bool:
    """One fault. Returns whether `acting` can no longer answer; raises OperatorKilled."""
    host = world.hosts[fault.host] if fault.host else acting
    if callable(fault.kill):
        fault.kill(world)
    elif fault.kill == "operator":
        raise OperatorKilled
    elif fault.kill in ("link", "silence", "heal"):
        _change_link(world, fault.kill)
    else:
        _kill(world, host, fault.kill)
    return not acting.agent if fault.kill in ("agent", "agent and guard", "host") and host is acting else False


def _change_link(world: World, how: str) -> None:
    world.link_up = how != "link"
    world.link_silent = how == "silence"


def _kill(world: World, host: HostState, what: str) -> None:
    if what == "host":
        kill_host(world, host)
    elif what == "server":
        kill_server(world, host)
    elif what == "guard":
        kill_guard(world, host)
    elif what == "agent":
        kill_agent(world, host)
    else:
        host.agent = False
        kill_guard(world, host)
