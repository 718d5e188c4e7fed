"""The model world shows the mistakes that it is there to show, and behaves as the measured hosts did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snaprep.act import ship
from snaprep.core import lineage
from snaprep.core.action import Action
from snaprep.core.errors import SnaprepError
from snaprep.core.guard import Guard, Work
from snaprep.core.model import EngineState, Facts, Policy
from snaprep.core.recipe import Recipe, Step
from snaprep.core.simulated.faults import Fault
from snaprep.core.simulated.look import bases, common_now, facts_of, violations
from snaprep.core.simulated.simulate import Trace, names_in, simulate_run
from snaprep.core.simulated.steps import perform
from snaprep.core.simulated.world import (
    Content,
    HostState,
    ImageState,
    PointState,
    World,
    accepts,
    advance,
    kill_agent,
    kill_guard,
    kill_server,
)
from snaprep.core.volume import ImageRole
from tests.core.models import fresh_world, write
from tests.core.test_interrupted import POLICY, broken_replica, failed_over, primary_dead, replicated


def do(world: World, host: str, op: str, **args: object) -> Any:  # noqa: ANN401 (what the operation gives)
    return perform(world, world.hosts[host], op, args, 30.0)


def fails(world: World, host: str, op: str, **args: object) -> str:
    with pytest.raises(SnaprepError) as caught:
        do(world, host, op, **args)
    return caught.value.id


def with_steps(keep: object) -> Trace:
    """A first rebuild whose cutover was written wrongly: `keep` filters or reorders its steps."""

    def wrong(action: Action, facts: Facts, policy: Policy, name: str) -> tuple[Recipe, ...]:
        recipes = write(action, facts, policy, name)
        return (recipes[0], keep(recipes[1]), *recipes[2:]) if type(action).__name__ == "Cutover" else recipes  # type: ignore[operator]

    return simulate_run("rebuild", fresh_world(), POLICY, wrong)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_opening_the_gate_during_attach_wedges_the_database() -> None:
    """Trap E: derby.md 15."""
    world = fresh_world()
    host = world.hosts["a"]
    host.server.attaching = True
    host.guard = Guard(gated=True, ending=True, lease_until_s=0.0)  # one that does not know of the attach
    advance(world, 1)
    assert host.server.wedged
    assert "startMaster" in violations(world)[0]
    assert facts_of(world).hosts[0].engine.state is EngineState.UNKNOWN


def test_arming_a_copy_that_is_not_clean_loses_rows() -> None:
    """Trap C: without the two shutdowns the copy holds open work. derby.md 6."""
    world = replicated()
    live = world.hosts["b"].live
    assert live is not None
    assert live.content is not None
    world.hosts["b"].server.mode = "closed"
    live.content = replace(live.content, clean=False)
    do(world, "b", "arm_replica")
    world.hosts["b"].server.mode = "replica"
    assert any("lost rows" in v for v in violations(world))


def test_a_cutover_that_neither_quiesces_nor_proves_loses_rows() -> None:
    """The positions agree and Derby attaches; what was open in the copy is gone without a word."""
    trace = with_steps(lambda r: tuple(s for s in r if s.op not in ("quiesce", "prove")))
    assert any("lost rows" in b for b in trace.broken)


def test_a_cutover_without_its_gate_is_refused() -> None:
    """Quiesce and attach ask for a gate that stands."""
    trace = with_steps(lambda r: tuple(s for s in r if s.op != "gate_close"))
    assert {c.error for c in trace.history.cutovers} == {"lease-passed"}


def test_a_cutover_that_leaves_the_gate_closed_is_noticed() -> None:
    """Rule 2: the guard opens it at its lease; without a guard it would be reported."""
    world = replicated()
    do(world, "a", "gate_prepare")
    do(world, "a", "gate_close", lease_ms=1000)
    world.hosts["a"].guard = None
    advance(world, 60)
    assert violations(world) == ["a is halted past its lease"]


def test_destroying_what_is_not_ours_is_noticed() -> None:
    """Rule 4: somebody's snapshot, and an isolated image."""
    world = failed_over()
    live = world.hosts["b"].live
    assert live is not None
    assert live.content is not None
    live.points.append(PointState("daily", 1, 1, live.content, ours=False))
    do(world, "b", "destroy_point", image="b/db", point="daily")
    do(world, "a", "set_aside", image="a/db", to="a/db.isolated-g1")
    world.hosts["a"].images["a/db.isolated-g1"].ours = True
    do(world, "a", "destroy_image", image="a/db.isolated-g1")
    assert len(violations(world)) >= 2


def test_two_that_accept_are_noticed() -> None:
    """Rule 1: the old primary's image mounted where clients look."""
    world = failed_over()
    do(world, "a", "mount", image="a/db", mountpoint="/db")
    assert violations(world) == ["a and b accept writes"]


def test_a_lost_commit_is_noticed() -> None:
    """Rule 3: gone from every image, or missing on a primary that nobody has taken over from."""
    world = replicated()
    live, copy = world.hosts["a"].live, world.hosts["b"].live
    assert live is not None
    assert copy is not None
    copy.content, live.content = live.content, Content()
    assert violations(world) == ["a planned change lost an acknowledged commit"]
    world.hosts["b"].images.clear()
    assert "in no image" in violations(world)[0]


def test_starting_what_is_received_into_is_noticed() -> None:
    """Rule 5, before and after the next increment goes into it."""
    world = replicated()
    world.hosts["b"].images["b/db.recv"].started = True
    assert violations(world) == ["b/db.recv was started"]
    trace = simulate_run("refresh", world, POLICY, write, name="x")
    assert any("received into" in b for b in trace.broken)


def test_letting_go_of_the_newest_common_point_is_noticed() -> None:
    """Rule 6: a round whose undo destroys what the target has already received and built on."""

    def careless(action: Action, facts: Facts, policy: Policy, name: str) -> tuple[Recipe, ...]:
        recipes = write(action, facts, policy, name)
        if type(action).__name__ != "Round":
            return recipes
        drop = Step(host="a", op="destroy_point", args={"image": "a/db", "point": name})
        return (tuple(replace(s, undo=(drop,)) if s.op == "snapshot" else s for r in recipes[:2] for s in r),)

    for at in range(1, 12):
        trace = simulate_run("rebuild", broken_replica(), POLICY, careless, (Fault(at, "agent", "b"),), name="x")
        if trace.broken:
            assert "let go of" in trace.broken[0]
            return
    pytest.fail("not noticed")


# -- behaviour ---------------------------------------------------------------------------------------------------------


def test_the_whole_story() -> None:
    """Seed, rounds, cutover, refresh, take-over, fail-back from a refreshed base: the words of the design in order."""
    first = simulate_run("rebuild", fresh_world(), POLICY, write)
    story = ["Adopt", "Seed", "Round", "Choose", "Prepare", "Cutover", "Verify", "Settle", "Done"]
    assert list(dict.fromkeys(names_in(first))) == story
    assert names_in(first)[-6:-3] == ["Prepare", "Round", "Cutover"]
    back = simulate_run("rebuild", failed_over(), POLICY, write, name="back")
    assert names_in(back)[:2] == ["SetAside", "Round"]
    assert names_in(back)[-1] == "Done"


def test_a_lease_that_passes_during_a_slow_stream_undoes_the_cutover() -> None:
    """The guard opens while the last increment is on its way; the attach is then refused and all is taken back."""
    world = fresh_world()
    steps = [op for _, op, _ in simulate_run("rebuild", fresh_world(), POLICY, write).steps]
    slow = Fault(steps.index("gate_close") + 1, lambda w: setattr(w, "link_bytes_per_s", 600_000.0))
    trace = simulate_run("rebuild", world, POLICY, write, (slow,))
    assert trace.broken == []
    assert accepts(world.hosts["a"])
    assert trace.history.cutovers[0].error == "lease-passed"


@pytest.mark.parametrize("kill", [kill_agent, kill_guard, kill_server])
@pytest.mark.parametrize("after_s", [0.1, 3.0])
def test_a_hanging_attach_is_cut_first(kill: object, after_s: float) -> None:
    """The peer is silent: who or whatever dies meanwhile, the gate is opened only after startMaster has returned."""
    world = broken_replica()
    host = world.hosts["a"]
    do(world, "a", "gate_prepare")
    do(world, "a", "gate_close", lease_ms=4000)
    do(world, "a", "quiesce")
    world.link_silent = True
    world.due.append((world.now_s + after_s, lambda w: kill(w, host)))  # type: ignore[operator]
    assert fails(world, "a", "attach") in ("attach-cut", "attach-refused", "lease-passed")
    advance(world, 60)
    assert violations(world) == []
    assert accepts(host)


def test_replication_that_loses_its_link_drops_the_role() -> None:
    """After 5 s, with no more than a line in a log: derby.md 6."""
    world = replicated()
    world.link_up = False
    advance(world, 4)
    assert world.hosts["a"].server.replicating
    advance(world, 2)
    assert not world.hosts["a"].server.replicating


def test_a_full_take_over_from_a_received_point() -> None:
    """The live image was withdrawn when the primary died: the newest received point serves, and nothing is lost."""
    world = primary_dead()
    host = world.hosts["b"]
    host.server.mode = "closed"
    do(world, "b", "withdraw", image="b/db")
    trace = simulate_run("takeover", world, POLICY, write, name="t", target="b")
    assert trace.error is None
    assert accepts(host)
    assert violations(world) == []


def test_operations_refuse_as_the_real_ones_do() -> None:
    """Names that are not there, things in use, receives that do not fit."""
    world = replicated()
    assert fails(world, "a", "snapshot", image="a/none", name="x") == "unknown-dataset"
    do(world, "a", "snapshot", image="a/db", name="x")
    assert fails(world, "a", "snapshot", image="a/db", name="x") == "snapshot-exists"
    assert fails(world, "a", "hold", image="a/db", point="none") == "unknown-point"
    do(world, "a", "release", image="a/db", point="none")
    do(world, "a", "release", image="a/none", point="none")
    do(world, "a", "destroy_point", image="a/db", point="none")
    do(world, "a", "destroy_image", image="a/none")
    assert fails(world, "a", "destroy_image", image="a/db") == "not-ours"
    assert fails(world, "b", "destroy_image", image="b/db.recv") == "has-dependents"
    assert fails(world, "b", "destroy_image", image="b/db") == "dataset-busy"
    newest = world.hosts["b"].images["b/db.recv"].points[-1].name
    assert fails(world, "b", "destroy_point", image="b/db.recv", point=newest) == "has-dependents"
    assert fails(world, "b", "mount", image="b/db", mountpoint="/db") == "dataset-busy"
    assert fails(world, "b", "present", image="b/db.recv", point=newest, to="b/db", mountpoint="/", generation=1) == (
        "dataset-exists"
    )
    assert fails(world, "a", "withdraw", image="a/db") == "not-a-replica"
    do(world, "b", "withdraw", image="b/none")
    assert fails(world, "b", "arm_replica") == "already-open"
    assert fails(world, "b", "stamp", generation=3) == "not-primary"
    assert fails(world, "b", "gate_close", lease_ms=5) == "not-primary"
    assert fails(world, "b", "prove", position=-1) == "position-differs"
    world.hosts["b"].server.mode = "open"
    assert fails(world, "b", "withdraw", image="b/db") == "dataset-busy"
    assert fails(world, "b", "set_aside", image="b/db", to="b/db.x") == "dataset-busy"
    world.hosts["b"].live_name = "b/other"
    assert fails(world, "b", "prove", position=1) == "no-database"


def test_the_steps_of_a_switchover_refuse_as_the_real_ones_do() -> None:
    """Without a gate that stands, on a copy of another history, on one that is open or not closed to clients."""
    world = replicated()
    a, b = world.hosts["a"], world.hosts["b"]
    do(world, "b", "guard_awake")
    do(world, "a", "gate_prepare")
    assert fails(world, "a", "retire") == "lease-passed"
    assert fails(world, "a", "step_down") == "lease-passed"
    assert fails(world, "b", "open_shut") == "gate-open"
    do(world, "a", "gate_close", lease_ms=60_000)
    world.link_up = False
    do(world, "a", "retire")
    tail = do(world, "a", "log_tail", since=None)
    assert fails(world, "b", "log_append", tail=tail) == "copy-opened"
    assert fails(world, "b", "move", image="b/db", mountpoint="/db") == "dataset-busy"
    do(world, "b", "replica_leaves")
    do(world, "b", "replica_leaves")
    older = do(world, "b", "log_tail", since=None)
    do(world, "b", "log_append", tail=tail)
    assert fails(world, "a", "log_append", tail=older) == "log-ends-differ"
    do(world, "b", "open_shut")
    do(world, "b", "open_shut")
    assert fails(world, "a", "step_up", image="a/db", mountpoint="/db") == "gate-opening"
    kill_server(world, a)
    assert fails(world, "a", "retire") == "engine-down"
    assert not accepts(b)


def test_what_was_taken_back_serves_again() -> None:
    """`step_up` after `step_down`: at the clients' path, and open, as soon as there is a server."""
    world = replicated()
    host = world.hosts["a"]
    do(world, "a", "gate_prepare")
    do(world, "a", "gate_close", lease_ms=60_000)
    do(world, "a", "retire")
    do(world, "a", "step_down")
    do(world, "a", "move", image="a/db", mountpoint="/db.replica")
    advance(world, 60)
    assert violations(world) == []
    kill_server(world, host)
    assert fails(world, "a", "step_up", image="a/db", mountpoint="/db") == "engine-down"
    advance(world, 30)
    do(world, "a", "step_up", image="a/db", mountpoint="/db")
    assert accepts(host)


def test_streams_refuse_what_does_not_fit() -> None:
    """A base that is gone, a stream that never came, another GUID, an image that ends elsewhere, a false origin."""
    world = replicated()
    point = world.hosts["a"].images["a/db"].points[-1]
    sent = {"stream": "s", "image": "a/db", "point": point.name, "guids": (point.guid,)}
    assert fails(world, "a", "send", **sent, base_guid=999) == "base-gone"
    end = {"stream": "s", "image": "b/db.recv"}
    assert fails(world, "b", "receive_end", **end, guids=(1,)) == "receive-incomplete"

    def shipped(image: str, origin: str | None, base: int | None) -> None:
        do(world, "b", "receive_begin", stream="s", image=image, origin=origin)
        do(world, "a", "send", **sent, base_guid=base)

    shipped("b/db.recv", None, point.guid)
    assert fails(world, "b", "receive_end", **end, guids=(1,)) == "guid-differs"
    shipped("b/db.recv", None, None)
    assert fails(world, "b", "receive_end", **end, guids=(point.guid,)) == "base-differs"
    older = PointState("older", 5, 5, point.content)
    world.hosts["b"].images["b/db.recv"].points.insert(0, older)
    shipped("b/db.new", "b/db.recv@older", point.guid)
    assert fails(world, "b", "receive_end", stream="s", image="b/db.new", guids=(point.guid,)) == "base-differs"
    do(world, "b", "receive_begin", stream="s", image="b/db.recv", origin=None)
    do(world, "b", "receive_cancel", stream="s")
    assert fails(world, "a", "send", **sent, base_guid=point.guid) == "link-lost"


def test_a_replica_of_a_living_primary_is_not_promoted() -> None:
    """Derby asks the primary before it promotes; when that is gone, or out of the replica's reach, it does."""
    world = replicated()
    assert fails(world, "b", "promote", from_state="replica") == "primary-answers"
    world.hosts["a"].up = False
    do(world, "b", "promote", from_state="replica")
    assert world.hosts["b"].server.mode == "closed"


def test_a_partial_receive_is_in_the_way() -> None:
    """A stream in part blocks a new one until it is discarded: with an image that holds nothing else."""
    world = fresh_world()
    world.hosts["b"].images["b/db.recv"] = ImageState("b/db.recv", ImageRole.RECV, partial=(1, None))
    begin: dict[str, Any] = {"stream": "s", "image": "b/db.recv", "origin": None}
    assert fails(world, "b", "receive_begin", **begin) == "partial-receive"
    do(world, "b", "receive_begin", **begin, partial="discard")
    assert "b/db.recv" not in world.hosts["b"].images
    world = replicated()
    world.hosts["b"].images["b/db.recv"].partial = (1, None)
    do(world, "b", "receive_begin", **begin, partial="discard")
    assert world.hosts["b"].images["b/db.recv"].partial is None


def test_a_stream_that_broke_is_gone_on_with() -> None:
    """What is missing is sent, and the image then ends at the point."""
    world = replicated()
    point = do(world, "a", "snapshot", image="a/db", name="snaprep-model-x-777")
    recv = world.hosts["b"].images["b/db.recv"]
    base = recv.points[-1]
    recv.partial = (point["guids"][0], base.guid)
    do(world, "b", "receive_begin", stream="s", image="b/db.recv", origin=None, partial="resume")
    sent = {"stream": "s", "image": "a/db", "point": "snaprep-model-x-777", "guids": point["guids"]}
    rest = do(world, "a", "send", **sent, base_guid=base.guid, base_name="", flags=(), token="t")
    do(world, "b", "receive_end", stream="s", image="b/db.recv", guids=point["guids"])
    assert recv.partial is None
    assert recv.points[-1].guid == point["guids"][0]
    assert rest["bytes"] > 0


def test_a_server_that_is_down_does_nothing() -> None:
    """Each operation on the engine says so; the guard goes on trying."""
    world = replicated()
    do(world, "a", "gate_prepare")
    do(world, "a", "gate_close", lease_ms=100)
    kill_server(world, world.hosts["a"])
    assert fails(world, "a", "gate_prepare") == "engine-down"
    advance(world, 30)
    assert accepts(world.hosts["a"])


def test_a_guard_that_is_killed_is_survived() -> None:
    """By the agent, which takes its work over; with both gone, the next run finds it."""
    world = replicated()
    host = world.hosts["a"]
    kill_guard(world, host)
    do(world, "a", "gate_prepare")
    do(world, "a", "gate_close", lease_ms=100_000)
    kill_guard(world, host)
    assert accepts(host)
    do(world, "a", "gate_close", lease_ms=100_000)
    host.agent = False
    kill_guard(world, host)
    assert host.unguarded
    advance(world, 60)
    assert violations(world) == []
    assert names_in(simulate_run("rebuild", world, POLICY, write, name="x"))[0] == "Reopen"


def test_without_a_guard_the_agent_thaws_and_opens() -> None:
    """What the guard would have done."""
    world = replicated()
    host = world.hosts["a"]
    host.server.frozen = True
    do(world, "a", "thaw")
    assert not host.server.frozen
    host.server.frozen = True
    do(world, "a", "gate_open")
    assert accepts(host)


def test_a_run_that_nobody_can_help_ends() -> None:
    """Failures in a row end it; so does a run that never comes to a final action."""
    world = replicated()
    world.hosts["b"].images["b/db.recv"].points.clear()

    def nothing(action: Action, facts: Facts, policy: Policy, name: str) -> tuple[Recipe, ...]:
        return ((),) * 2

    endless = simulate_run("rebuild", fresh_world(), POLICY, nothing)
    assert endless.error is not None
    assert endless.error.id == "endless"
    host: HostState = world.hosts["b"]
    host.transactions = 1
    assert facts_of(world).hosts[1].engine.transactions.open == 1


def test_a_held_run_goes_on_at_its_pace() -> None:
    """Time passes in Hold, and rounds go on."""
    trace = simulate_run("rebuild", fresh_world(), replace(POLICY, hold=True), write, abort_after=30)
    assert names_in(trace).count("Hold") > 5
    assert names_in(trace).count("Round") > 1


def test_a_closed_database_is_opened_by_what_needs_it_open() -> None:
    """Freezing, gating and stamping open it first, as any session would."""
    for op, args in (("freeze", {"lease_ms": 900}), ("gate_close", {"lease_ms": 900}), ("stamp", {"generation": 4})):
        world = fresh_world()
        host = world.hosts["a"]
        host.server.mode, world.clients_at = "closed", "b"
        do(world, "a", "guard_ready")
        do(world, "a", op, **args)
        assert host.server.mode == "open"
        do(world, "a", "checkpoint")
        advance(world, 3)
        assert accepts(host)


def test_a_replica_that_nobody_reaches_is_not_told_to_stop() -> None:
    """stopMaster without a link leaves the replica in its role."""
    world = replicated()
    world.link_up = False
    do(world, "a", "detach")
    assert world.hosts["b"].server.mode == "replica"
    do(world, "b", "stop_replica")
    do(world, "b", "stop_replica")
    assert world.hosts["b"].server.mode == "closed"


def test_a_step_that_never_returns_costs_the_server() -> None:
    """The guard's last means: it restarts the server, and the gate is opened after."""
    world = replicated()
    host = world.hosts["a"]
    do(world, "a", "gate_prepare")
    do(world, "a", "gate_close", lease_ms=1000)
    assert host.guard is not None
    host.guard = replace(host.guard, in_flight=Work.QUIESCE)
    advance(world, 60)
    assert accepts(host)
    assert violations(world) == []


def test_a_pair_with_one_empty_side_has_no_common_point() -> None:
    """Nothing to send from there, nothing in common yet."""
    assert common_now(fresh_world()) == {}
    assert bases(facts_of(fresh_world())) == {}
    world = replicated()
    world.hosts["b"].reachable = False
    assert bases(facts_of(world)) == {}
    world.hosts["b"].images.pop("b/db.recv")
    world.hosts["b"].reachable = True
    assert bases(facts_of(world)) == {}


def test_an_attach_that_nobody_answers_ends_at_its_deadline() -> None:
    """startMaster hangs; the agent's patience ends before the lease does, and the source is open again."""
    world = broken_replica()
    do(world, "a", "gate_prepare")
    do(world, "a", "gate_close", lease_ms=900_000)
    do(world, "a", "quiesce")
    world.link_silent = True
    assert fails(world, "a", "attach") == "attach-cut"
    advance(world, 1)
    assert accepts(world.hosts["a"])
    assert violations(world) == []


def test_a_position_that_differs_is_refused_at_attach() -> None:
    """Derby compares log ends: XRE05."""
    world = broken_replica()
    do(world, "a", "gate_prepare")
    do(world, "a", "gate_close", lease_ms=9000)
    do(world, "a", "quiesce")
    do(world, "b", "mount", image="b/db", mountpoint="/db.replica")
    do(world, "b", "arm_replica")
    assert fails(world, "a", "attach") == "position-differs"
    do(world, "a", "gate_open")
    assert accepts(world.hosts["a"])


def test_streams_are_sent_alike_for_the_life_of_a_pair() -> None:
    """The first stream was sent plainly; hosts that have learnt more since send no other, back and forth, and every
    image that sent or received is marked once.
    """
    world = failed_over()
    assert simulate_run("rebuild", world, POLICY, write, name="r2").error is None
    advance(world, 5)
    seen = facts_of(world)
    able = frozenset({"large_blocks", "compressed", "embedded"})
    a, b = (replace(h, volume=replace(h.volume, caps=h.volume.caps | able)) for h in seen.hosts if h.volume)
    upgraded = replace(seen, hosts=(a, b))
    assert {name: ship.send_flags(upgraded, name, base) for name, base in bases(upgraded).items()} == {"a": (), "b": ()}
    assert ship.send_flags(upgraded, "b", None) == ("-L", "-c", "-e")
    before = {i.name: i.properties.get(lineage.FLAGS) for h in world.hosts.values() for i in h.images.values()}
    assert {before[name] for name in ("b/db", "a/db.recv")} == {"plain"}
    kill_server(world, world.hosts["a"])
    advance(world, 60)
    again = simulate_run("rebuild", world, POLICY, write, name="r3")
    assert again.error is None
    assert ("b", "send", "") in again.steps
    assert not any(op == "mark" for _, op, _ in again.steps)
