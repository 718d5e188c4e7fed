"""Kill anything before any step; then look, decide and act again: the rules hold all the way, and it ends well.

The idea is that of a resume test: a sequence that was cut off after any prefix and started anew must give the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from snaprep.core.model import EngineState, Policy
from snaprep.core.simulated.faults import Fault, Kill
from snaprep.core.simulated.look import bases, facts_of, violations
from snaprep.core.simulated.simulate import Trace, simulate_run
from snaprep.core.simulated.world import World, accepts, advance, kill_host
from tests.core.models import fresh_world, write

POLICY = Policy()
KILLS: tuple[tuple[Kill, str], ...] = (
    ("operator", ""),
    ("agent", "a"),
    ("agent", "b"),
    ("guard", "a"),
    ("guard", "b"),
    ("agent and guard", "a"),
    ("server", "a"),
    ("server", "b"),
    ("host", "a"),
    ("host", "b"),
    ("link", ""),
    ("silence", ""),
)


def replicated() -> World:
    """a serves, b replicates it."""
    world = fresh_world()
    assert simulate_run("rebuild", world, POLICY, write, name="r1").error is None
    advance(world, 5)
    return world


def switched() -> World:
    """b serves after a switchover, a replicates it."""
    world = replicated()
    assert simulate_run("switchover", world, POLICY, write, name="s1", target="b").error is None
    advance(world, 5)
    return world


def primary_dead() -> World:
    """b replicates, a is without power."""
    world = replicated()
    kill_host(world, world.hosts["a"])
    world.hosts["a"].back_at_s = None
    world.clients_at = "b"
    world.taken_over = True
    return world


def failed_over() -> World:
    """b has taken over, and a is back with its own tail."""
    world = primary_dead()
    assert simulate_run("takeover", world, POLICY, write, name="t1", target="b").error is None
    advance(world, 5)
    world.hosts["a"].back_at_s = world.now_s
    advance(world, 1)
    return world


def broken_replica() -> World:
    """a serves, b's replica ended with its host."""
    world = replicated()
    kill_host(world, world.hosts["b"])
    advance(world, 60)
    return world


def followed() -> World:
    """a serves, and fed b until somebody stopped that."""
    world = fresh_world()
    trace = simulate_run("follow", world, POLICY, write, name="w1", abort_after=10)
    assert trace.error is not None
    assert trace.error.id == "aborted"
    advance(world, 3)
    return world


START: dict[str, tuple[Callable[[], World], str]] = {
    "seed": (fresh_world, "rebuild"),
    "again": (broken_replica, "rebuild"),
    "fail-back": (failed_over, "rebuild"),
    "refresh": (replicated, "refresh"),
    "take-over": (primary_dead, "takeover"),
    "switchover": (replicated, "switchover"),
    "switch-back": (switched, "switchover"),
    "switch a fed one": (followed, "switchover"),
}


TARGETS = {"take-over": "b", "switchover": "b", "switch-back": "a", "switch a fed one": "b"}


def recover(world: World, goal: str) -> Trace:
    """What an operator does afterwards: repair, open what nobody serves from, run the goal again."""
    world.link_up, world.link_silent = True, False
    advance(world, 90)
    serving = world.clients_at
    if not any(accepts(h) for h in world.hosts.values()) and goal != "takeover":
        again = simulate_run("takeover", world, POLICY, write, name="o1", target=serving)
        assert again.broken == []
    if goal == "takeover":
        taken = simulate_run("takeover", world, POLICY, write, name="t2", target=serving)
        assert taken.broken == []
        world.hosts["a"].back_at_s = world.now_s
        advance(world, 5)
    return simulate_run("rebuild", world, POLICY, write, name="r9")


def count_steps(case: str) -> int:
    start, goal = START[case]
    target = TARGETS.get(case)
    trace = simulate_run(goal, start(), POLICY, write, name="c1", target=target)  # type: ignore[arg-type]
    assert trace.error is None
    assert trace.broken == []
    return len(trace.steps)


@pytest.mark.parametrize("kill", KILLS, ids="-".join)
@pytest.mark.parametrize("case", START)
def test_killed_before_any_step_it_ends_well(case: str, kill: tuple[Kill, str]) -> None:
    """Whatever dies before whatever step, no rule is broken, and a second run reaches the goal."""
    start, goal = START[case]
    if case == "take-over" and kill[1] == "a":
        pytest.skip("a is dead in this case")
    began = start()
    for at in range(1, count_steps(case) + 2):
        world = copy.deepcopy(began)
        target = TARGETS.get(case)
        first = simulate_run(goal, world, POLICY, write, (Fault(at, *kill),), name="f1", target=target)  # type: ignore[arg-type]
        assert first.broken == [], (at, first.steps[-3:])
        assert first.error is None or first.error.id != "endless", (at, first.steps[-3:])
        last = recover(world, goal)
        assert last.broken == [], (at, first.steps[-3:])
        assert last.error is None, (at, last.error, first.steps[-3:])
        assert violations(world) == []
        serving = world.hosts[world.clients_at]
        assert accepts(serving), at
        assert world.other(serving.name).server.mode == "replica", at
        facts = facts_of(world)
        assert facts.host(serving.name).engine.state is EngineState.PRIMARY
        assert set(bases(facts)) == {"a", "b"}, at
