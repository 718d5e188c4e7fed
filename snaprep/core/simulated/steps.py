# ruff: noqa: ARG001 (every operation takes the world, and the arguments that the real one takes)
"""What each operation of a recipe does to the model world. Each docstring says which real behaviour it stands for.

The names and arguments are those of the steps in the engines' recipes and of the actions. An operation raises
`SnaprepError` where the real one does.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snaprep.core.errors import Stale, Stopped
from snaprep.core.guard import Returns, Wanted, Work
from snaprep.core.simulated.serving import begin_work, guard_of, live_of, ready_server
from snaprep.core.simulated.storage import STORAGE, Operation, fail, image_of, point_of
from snaprep.core.simulated.switch import SWITCH
from snaprep.core.simulated.world import (
    SLICE_S,
    HostState,
    World,
    accepts,
    advance,
    end_feed,
    guarded,
    open_gate,
    opened,
    put,
    quiescing,
)

DURATION_S: Mapping[str, float] = {
    "quiesce": 0.2, "snapshot": 0.04, "present": 0.1, "prove": 0.02, "arm_replica": 0.3, "attach": 0.2, "warm": 1.0,
    "promote": 0.3, "freeze": 0.06, "gate_close": 0.05, "gate_open": 0.025, "retire": 0.05, "move": 0.06,
    "open_shut": 0.2, "step_down": 0.05,
}  # fmt: skip
UNKNOWN_S = 0.02
ATTACH_HANGS_S = 30.0


def perform(world: World, host: HostState, op: str, args: Mapping[str, Any], deadline_s: float) -> object:
    """Run one operation; arguments that the model has no use for are left out.

    Raises when the host, its agent or the engine does not do it.
    """
    if not host.up or not host.reachable:
        raise Stopped("host-unreachable", f"{host.name} does not answer")
    host.agent = True
    advance(world, DURATION_S.get(op, UNKNOWN_S))
    known = _MODELLED[op]
    given = {**args, "deadline_s": deadline_s}
    return OPERATIONS[op](world, host, **{name: value for name, value in given.items() if name in known})


# -- the database ----------------------------------------------------------------------------------------------------


def freeze(world: World, host: HostState, *, lease_ms: int) -> None:
    """SYSCS_FREEZE_DATABASE: commits wait, connections may block; memory of the server only (derby.md 1)."""
    live_of(host)
    server = ready_server(host)
    if server.mode == "closed":
        opened(host)
    guard_of(host)
    begin_work(world, host, Work.FREEZE, lease_ms / 1000)
    server.frozen = True
    guarded(world, host, Returns(Work.FREEZE))


def thaw(world: World, host: HostState) -> None:
    """SYSCS_UNFREEZE_DATABASE by the guard, which outlives the agent (derby.md 15)."""
    guarded(world, host, Wanted())
    if host.guard is None:
        host.server.frozen = False


def gate_prepare(world: World, host: HostState) -> None:
    """The guard lives and has its connections before anything is gated."""
    live_of(host)
    ready_server(host)
    guard_of(host)


def guard_ready(world: World, host: HostState) -> None:
    """The guard lives and its thaw is prepared, before anything is frozen."""
    guard_of(host)


def checkpoint(world: World, host: HostState) -> None:
    """Dirty pages go to the files while writers go on, so that the shutdown has less to do."""
    live_of(host)
    ready_server(host)


def gate_close(world: World, host: HostState, *, lease_ms: int) -> None:
    """defaultConnectionMode=noAccess: new sessions are refused; kept in the database, so it travels (derby.md 6)."""
    _, content = live_of(host)
    server = ready_server(host)
    if server.mode == "closed":
        opened(host)
    if server.mode != "open":
        raise fail("not-primary", f"{host.name} is not open")
    guard_of(host)
    begin_work(world, host, Work.CLOSE, lease_ms / 1000)
    put(host, gate=True, position=content.position + 1)
    guarded(world, host, Returns(Work.CLOSE))


def quiesce(world: World, host: HostState) -> dict[str, object]:
    """Shut down, boot as admin (which rolls back), shut down again: after that the log's end stands (derby.md 0)."""
    begin_work(world, host, Work.QUIESCE)
    live, content = live_of(host)
    if not host.server.up:
        guarded(world, host, Returns(Work.QUIESCE, ok=False))
        raise fail("engine-down")
    put(host, position=content.position + content.open_work, open_work=0, clean=True)
    host.server = replace(host.server, mode="closed", was_master=False, replicating=False)
    guarded(world, host, Returns(Work.QUIESCE))
    assert live.content is not None
    return {"position": live.content.position}


def prove(world: World, host: HostState, *, position: int) -> None:
    """The copy's log ends where the source's does, read from its files."""
    _, content = live_of(host)
    if content.position != position:
        raise Stopped("position-differs", f"the copy ends at {content.position}, the source at {position}")


def arm_replica(world: World, host: HostState) -> None:
    """startSlave: waits for its primary. On a copy that is not clean it loses rows without a word (trap C)."""
    live, content = live_of(host)
    server = ready_server(host)
    if server.mode != "closed":
        raise fail("already-open", "XRE09")
    server.mode, live.started = "waiting", True
    put(host, away=False)
    if not content.clean or content.open_work:
        put(host, damaged=True)


def attach(world: World, host: HostState, *, deadline_s: float) -> None:
    """startMaster boots the primary and connects. A silent peer keeps it for 30 s, unless it is cut (trap E)."""
    begin_work(world, host, Work.ATTACH)
    server = host.server
    server.attaching, server.cut = True, False
    error = _attach(world, host, deadline_s)
    server.attaching = False
    if not error:
        server.mode, server.replicating, server.was_master = "open", True, True
        world.other(host.name).server.mode = "replica"
    elif server is host.server and server.up and quiescing(host):
        server.mode = "closed"
    guarded(world, host, Returns(Work.ATTACH, ok=not error))
    if error:
        raise fail(error)


def _attach(world: World, host: HostState, deadline_s: float) -> str:
    began_s = world.now_s
    while world.link_silent:
        if world.now_s - began_s >= min(deadline_s, ATTACH_HANGS_S):
            guarded(world, host, Wanted())
        if host.server.cut or not host.server.attaching:
            return "attach-cut"
        advance(world, SLICE_S)
    replica = world.other(host.name)
    if not world.link_up or not replica.up or replica.server.mode != "waiting":
        return "nobody-listens"
    if not host.server.up or host.server.was_master or host.server.wedged:
        return "attach-refused"
    return "" if _same_end(host, replica) else "position-differs"


def _same_end(host: HostState, replica: HostState) -> bool:
    """Derby compares log positions, not contents (derby.md 5)."""
    _, mine = live_of(host)
    _, theirs = live_of(replica)
    return mine.position == theirs.position


def gate_open(world: World, host: HostState) -> None:
    """Through the guard, which first cuts and waits for what is in flight; without one the agent does the same."""
    guarded(world, host, Wanted())
    if host.server.frozen and host.guard is None:
        host.server.frozen = False
    if host.guard is None or not host.guard.halted:
        host.server.cut = host.server.attaching
        if not open_gate(world, host):
            raise fail("engine-down", "the gate could not be opened")
    else:
        raise fail("gate-opening", "the guard is opening it")


def detach(world: World, host: HostState) -> None:
    """stopMaster: the replica is told to stop and shuts its database down."""
    host.server.replicating = False
    replica = world.other(host.name)
    if world.link_up and replica.server.mode == "replica":
        replica.server.mode = "closed"


def stop_replica(world: World, host: HostState) -> None:
    """stopSlave, or cut and shut down; a copy that is open behind its gate, too, but nothing that takes sessions."""
    copied = host.live is not None and host.live.properties.get("serves") == "replica" and not accepts(host)
    if host.server.mode in ("waiting", "replica") or (copied and host.server.mode == "open"):
        host.server.mode = "closed"
        world.other(host.name).server.replicating = False


def promote(world: World, host: HostState, *, from_state: str) -> dict[str, object]:
    """failover=true, then shut down, so that it can be moved to where clients look. The position is where it parts."""
    _, content = live_of(host)
    server = ready_server(host)
    primary = world.other(host.name)
    if server.mode == "replica" and world.link_up and primary.up and primary.server.replicating:
        raise fail("primary-answers", "the primary has answered the replica's ping")
    if server.mode in ("waiting", "replica"):
        server.mode = "closed"
    return {"position": content.position}


def open_database(world: World, host: HostState) -> None:
    """The first connection opens it; recovery rolls open work back."""
    live_of(host)
    if ready_server(host).mode == "closed":
        opened(host)


def stamp(world: World, host: HostState, *, generation: int) -> None:
    """The generation as a database property: a commit, so it waits for a gate, a freeze, and the boot."""
    _, content = live_of(host)
    server = ready_server(host)
    if server.mode in ("waiting", "replica"):
        raise fail("not-primary")
    if server.mode == "closed":
        opened(host)
    put(host, generation=generation, position=content.position + 1)


def warm(world: World, host: HostState, *, image: str, point: str) -> None:
    """Boot and shut down a throwaway clone, so that the server's classes are loaded (derby.md 14)."""
    ready_server(host)
    point_of(image_of(host, image), point)


# -- the feed --------------------------------------------------------------------------------------------------------


def keep_log(world: World, host: HostState, *, how: str) -> float:
    """Log archive mode, at once; everything is logged and kept from here on (derby.md 4)."""
    _, content = live_of(host)
    if ready_server(host).mode == "closed":
        opened(host)
    host.kept_since = content.position if host.kept_since is None else host.kept_since
    return 0.0


def keep_no_log(world: World, host: HostState) -> bool:
    """Off at once, and what was kept is gone."""
    live_of(host)
    ready_server(host)
    host.kept_since = None
    return True


def log_mode_before(world: World, host: HostState) -> str:
    """The former value of the property."""
    live_of(host)
    ready_server(host)
    return "false"


def forget_log_mode(world: World, host: HostState, *, before: str) -> None:
    """A line of service.properties, which a replica does not look at."""
    live_of(host)


def try_direct_boot(world: World, host: HostState) -> None:
    """A copy is booted without rolling back what is open in it, on a database made for that (derby.md 6, C)."""
    ready_server(host)


def feed_play(world: World, host: HostState) -> None:
    """The target expects the feed; a replica that runs is taken down first."""
    live_of(host)
    ready_server(host)
    if world.fed == host.name:
        end_feed(world)


def feed_send(world: World, host: HostState, *, boot_id: str, import_id: str, base: int) -> None:
    """The base is looked at, the two logs are compared, the replica is booted, and log goes (derby.md 5, 13)."""
    _, mine = live_of(host)
    target = world.other(host.name)
    if (str(host.boots), str(host.boots)) != (boot_id, import_id):
        raise Stale("feed-base-old", "the host was started anew")
    if host.kept_since is None or host.kept_since > base:
        raise Stale("feed-base-old", "not everything was logged since")
    if not world.link_up or not target.up or not target.server.up:
        raise fail("link-lost", "the target cannot be reached")
    _, theirs = live_of(target)
    if theirs.commits & ~mine.commits or theirs.position > mine.position:
        raise fail("log-differs", "the replica's log is not the beginning of the source's")
    target.server.mode, world.fed = "replica", target.name
    assert target.live is not None
    target.live.started = True


def ship_mark(world: World, host: HostState) -> dict[str, object]:
    """One shutdown, a boot that rolls back, one commit as the primary of a stand-in (derby.md 5)."""
    begin_work(world, host, Work.QUIESCE)
    _, content = live_of(host)
    if not host.server.up:
        guarded(world, host, Returns(Work.QUIESCE, ok=False))
        raise fail("engine-down")
    put(host, position=content.position + content.open_work + 1, open_work=0, clean=True)
    host.server = replace(host.server, mode="closed", was_master=False, replicating=False)
    guarded(world, host, Returns(Work.QUIESCE))
    return {"position": content.position + content.open_work + 1}


def must_end_at(world: World, host: HostState, *, position: int) -> None:
    """Nothing was logged since, read from the files."""
    _, content = live_of(host)
    if content.position != position:
        raise fail("log-ends-differ", f"{content.position} is not {position}")


def feed_finish(world: World, host: HostState, *, how: str, at: int | None = None) -> int:
    """All of the log is played; then the replica shuts down with it, or is left waiting for its primary."""
    _, mine = live_of(host)
    if not world.fed:
        raise fail("not-feeding", "no feed runs")
    if at is not None and at != mine.position:
        raise fail("log-ends-differ", f"{mine.position} is not {at}")
    target = world.hosts[world.fed]
    world.fed, target.server.mode = "", "waiting" if how == "leave" else "closed"
    assert target.live is not None
    assert target.live.content is not None
    target.live.content = replace(mine, clean=False, damaged=target.live.content.damaged, away=False)
    return mine.position


def feed_wait(world: World, host: HostState) -> None:
    """The target's end of a feed that the source has finished."""
    ready_server(host)


def feed_end(world: World, host: HostState) -> None:
    """Broken off: the replica waits."""
    end_feed(world)


OPERATIONS: Mapping[str, Operation] = {
    **STORAGE,
    **SWITCH,
    **{
        f.__name__: f
        for f in (
            arm_replica, attach, checkpoint, detach, feed_end, feed_finish, feed_play, feed_send, feed_wait,
            forget_log_mode, freeze, gate_close, gate_open, gate_prepare, guard_ready, keep_log, keep_no_log,
            log_mode_before, must_end_at, open_database, promote, prove, quiesce, ship_mark, stamp, stop_replica, thaw,
            try_direct_boot, warm,
        )
    },
}  # fmt: skip
_MODELLED = {name: frozenset(inspect.signature(f).parameters) for name, f in OPERATIONS.items()}
