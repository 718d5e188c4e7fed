"""Thousands of random histories in the model world: the rules of DESIGN.md hold in every state, and each ends well.

`SNAPREP_HISTORIES` says how many; a failing seed is in the test's id, and runs alone with `-k`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeAlias

import pytest

from snaprep.core.model import Policy
from snaprep.core.simulated.faults import Fault, Kill
from snaprep.core.simulated.look import common_now, used_bytes, violations
from snaprep.core.simulated.simulate import Goal, Trace, rendered, simulate_run
from snaprep.core.simulated.world import (
    Load,
    PointState,
    World,
    accepts,
    advance,
    kill_agent,
    kill_guard,
    kill_host,
    kill_server,
    open_gate,
)
from tests.core.models import SECRET, fresh_world, write

HISTORIES = int(os.environ.get("SNAPREP_HISTORIES", "2000"))
CHUNK = 50
Lane: TypeAlias = Literal["auto", "log"]
KILLS: tuple[Kill, ...] = ("operator", "agent", "guard", "agent and guard", "server", "host", "link", "silence", "heal")


class History:
    """One random life of a pair, and the operator's promise: nobody takes over while the other side's clients live."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 (dice)
        dice = self.random
        load = Load(
            commits_per_s=dice.choice([0.0, 1.0, 3.0]),
            dirty_bytes_per_s=dice.choice([1e5, 2e6, 3e7]),
            hot_bytes=dice.choice([4e6, 64e6, 5e8]),
            cold_bytes_per_s=dice.choice([0.0, 0.0, 1e6]),
            log_bytes_per_s=dice.choice([1e4, 1e6, 5e7]),
        )
        self.world = fresh_world(load)
        self.world.bookmarks = dice.choice([True, False])
        self.world.link_bytes_per_s = dice.choice([2e6, 2e7, 1e8])
        self.policy = Policy(
            budget_ms=dice.choice([1500, 3000, 10_000]),
            freeze=dice.choice(["base", "always", "never"]),
            freeze_lease_ms=dice.choice([30, 10_000]),
            hold=False,
            rounds_max=8,
            archive=dice.choice([None, None, "restart", "bounce", "backup"]),
            refresh_s=dice.choice([None, 5.0, 3600.0]),
        )
        self.runs = 0
        self.log: list[str] = []

    def run(
        self, goal: Goal, faults: tuple[Fault, ...] = (), lane: Literal["auto", "log"] = "auto", **more: object
    ) -> Trace:
        self.runs += 1
        policy = replace(self.policy, lane=lane)
        trace = simulate_run(goal, self.world, policy, write, faults, name=f"h{self.runs}", **more)  # type: ignore[arg-type]
        ended = type(trace.final).__name__ if trace.final else trace.error.id if trace.error else "killed"
        self.log.append(f"{goal} {[(f.at, f.kill, f.host) for f in faults]} {more} -> {ended}")
        assert trace.broken == [], (self.log, trace.steps[-6:], trace.broken[:3])
        assert SECRET not in rendered(trace)
        assert ended != "endless", self.log
        return trace

    def faults(self) -> tuple[Fault, ...]:
        dice = self.random
        return tuple(
            Fault(dice.randint(1, 60), dice.choice(KILLS), dice.choice(["", "a", "b"]))
            for _ in range(dice.choice([0, 1, 1, 2, 3]))
        )

    def happen(self) -> None:
        """One thing that befalls the pair."""
        dice, world = self.random, self.world
        befalls: list[Callable[[], object]] = [
            lambda: self.run("rebuild", self.faults()),
            lambda: self.run("rebuild", self.faults()),
            lambda: self.run("rebuild", self.faults(), abort_after=dice.randint(1, 8)),
            lambda: self.run("refresh", self.faults()),
            lambda: self.run("switchover", self.faults()),
            lambda: self.run("resume", self.faults()),
            lambda: self.run("rebuild", self.faults(), lane="log"),
            lambda: self.run("follow", self.faults(), abort_after=dice.randint(3, 25)),
            lambda: self.run("follow", self.faults(), abort_after=dice.randint(3, 25)),
            lambda: advance(world, dice.choice([0.5, 7.0, 60.0])),
            self.later,
            self.someone_elses,
            self.space,
            self.give_up,
            self.fail_over,
            self.stale,
        ]
        dice.choice(befalls)()
        assert violations(world) == [], self.log

    def later(self) -> None:
        """Something dies in the middle of a step, not between two."""
        dice, world = self.random, self.world
        kill = dice.choice([kill_agent, kill_guard, kill_server, kill_host])
        host = world.hosts[dice.choice("ab")]
        at_s = world.now_s + dice.uniform(0, 30)
        self.log.append(f"{kill.__name__} {host.name} at {at_s:.2f}")
        world.due.append((at_s, lambda w: kill(w, host)))
        self.run("rebuild", self.faults())

    def someone_elses(self) -> None:
        """A snapshot of somebody else's appears, or somebody holds one of ours, so that it cannot be let go of."""
        host = self.world.hosts[self.random.choice("ab")]
        if host.live is None or host.live.content is None:
            return
        if host.live.points and self.random.random() < 0.5:
            at = self.random.randrange(len(host.live.points))
            host.live.points[at] = replace(host.live.points[at], held_by_others=True)
            self.log.append(f"{host.live.points[at].name} on {host.name} is held by others")
            return
        name = f"daily-{self.world.counter}"
        point = PointState(name, self.world.new_id(), self.world.new_id(), host.live.content, ours=False)
        host.live.points.append(point)
        self.log.append(f"{name} on {host.name}")

    def space(self) -> None:
        """A pool fills up, or is emptied."""
        host = self.world.hosts[self.random.choice("ab")]
        host.other_bytes = 0 if host.other_bytes else host.size_bytes - self.random.choice([10**8, 10**9, 10**10])
        self.log.append(f"{host.name} others use {host.other_bytes}")

    def stale(self) -> None:
        """The world changes between looking and acting: a point is lost, a host boots, a server ends."""
        dice = self.random
        host = self.world.hosts[dice.choice("ab")]

        def meanwhile(world: World) -> None:
            dice.choice([kill_server, kill_host])(world, host)
            advance(world, 30)

        self.run("rebuild", (Fault(dice.randint(1, 40), meanwhile),))

    def give_up(self) -> None:
        """For the while of a run others fill the source's pool until the replica is given up, which may make room."""
        host = self.world.hosts[self.world.clients_at]
        host.other_bytes = 0
        short_bytes = self.random.choice([1, 10**9])
        left_bytes = host.size_bytes - used_bytes(self.world, host)
        host.other_bytes = left_bytes - self.policy.floor_bytes + short_bytes
        self.log.append(f"{host.name} lacks {short_bytes}")
        self.run(self.random.choice(["rebuild", "follow"]), self.faults(), abort_after=self.random.randint(3, 8))
        host.other_bytes = 0

    def fail_over(self) -> None:
        """The primary's host dies for good; somebody takes over, perhaps interrupted; the host comes back."""
        world, dice = self.world, self.random
        old = world.hosts[world.clients_at]
        new = world.other(old.name)
        if not self.could_take_over(new.name):
            return
        self.wait_for(new.name)
        kill_host(world, old)
        old.back_at_s = None
        faults = tuple(Fault(dice.randint(1, 8), "operator") for _ in range(dice.choice([0, 1])))
        world.clients_at, world.taken_over = new.name, True
        for tries in range(4):
            trace = self.run("takeover", faults if tries == 0 else (), target=new.name)
            if trace.error is None and not trace.killed:
                break
            advance(world, 30)
        if trace.error is not None and trace.error.id == "primary-answers":
            open_gate(world, new)  # `snaprep abort`, as the error says: only the gate was not open yet
        assert accepts(new), (self.log, trace.error)
        advance(world, dice.choice([0.0, 5.0]))
        old.back_at_s = world.now_s

    def could_take_over(self, name: str) -> bool:
        """A replica that was complete: an operator would not promote what was never attached."""
        host = self.world.hosts[name]
        live = host.live
        return live is not None and live.properties.get("serves") == "replica" and live.content is not None

    def wait_for(self, name: str) -> None:
        while not (self.world.hosts[name].up and self.world.hosts[name].server.up):
            advance(self.world, 5)

    def end(self) -> None:
        """Repaired and left alone, the pair gets back to a primary with a replica."""
        world = self.world
        world.link_up, world.link_silent, world.link_bytes_per_s = True, False, 2e8
        world.due.clear()
        for host in world.hosts.values():
            host.other_bytes = 0
        advance(world, 90)
        serving = world.hosts[world.clients_at]
        if not accepts(serving):
            self.run("takeover", target=serving.name)
        self.policy = Policy(budget_ms=30_000)
        trace = self.run("rebuild")
        assert trace.error is None, (self.log, trace.error)
        serving = world.hosts[world.clients_at]
        assert accepts(serving), self.log
        assert world.other(serving.name).server.mode == "replica", self.log
        assert set(common_now(world)) == {"a", "b"}, self.log
        assert all(p.ours for h in world.hosts.values() for i in h.images.values() for p in i.points if p.held), (
            self.log
        )


@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_no_history_breaks_a_rule(first: int) -> None:
    """In every state of every history the rules hold, and the pair can be brought back to a primary with a replica."""
    for seed in range(first, min(first + CHUNK, HISTORIES)):
        history = History(seed)
        for _ in range(history.random.randint(1, 8)):
            history.happen()
        history.end()
