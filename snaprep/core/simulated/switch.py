# ruff: noqa: ARG001 (every operation takes the world, and the arguments that the real one takes)
"""What the steps of a switchover do to the model world. All were seen on two real servers under writers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from snaprep.core.guard import Leaves, Returns, Work
from snaprep.core.simulated.serving import begin_work, guard_of, live_of, ready_server
from snaprep.core.simulated.storage import Operation, fail, image_of
from snaprep.core.simulated.world import Content, HostState, World, guarded, open_gate, opened, put


def guard_awake(world: World, host: HostState) -> None:
    """The guard lives, and has not looked at the replica."""
    ready_server(host)
    guard_of(host)


def warm_up(world: World, host: HostState) -> None:
    """A throw-away clone is booted beside the replica."""
    ready_server(host)


def replica_ready(world: World, host: HostState) -> None:
    """The port is free."""
    ready_server(host)


def roll_log(world: World, host: HostState) -> int:
    """A checkpoint, and a new log file; the place is that of the checkpoint."""
    _, content = live_of(host)
    ready_server(host)
    return content.position


def replayed(world: World, host: HostState, *, position: int) -> bool:
    """The replica replays a file as soon as the next one has begun."""
    ready_server(host)
    return True


def retire(world: World, host: HostState) -> dict[str, object]:
    """One shutdown, out of sight: open work stays in the files. A primary that shuts down ships all of its log."""
    begin_work(world, host, Work.QUIESCE)
    _, content = live_of(host)
    replica, sends = world.other(host.name), host.server.replicating and world.link_up
    if not host.server.up:
        guarded(world, host, Returns(Work.QUIESCE, ok=False))
        raise fail("engine-down")
    put(host, away=True, clean=False)
    if sends and replica.up and replica.server.mode == "replica":
        put(
            replica, **{name: getattr(content, name) for name in ("commits", "position", "open_work", "gate", "work_s")}
        )
        replica.server.mode = "closed"
    host.server = replace(host.server, mode="closed", was_master=False, replicating=False)
    guarded(world, host, Returns(Work.QUIESCE))
    return {"position": content.position}


def replica_leaves(world: World, host: HostState) -> None:
    """A replica that was told to stop shuts down by itself; one that was not is pushed out."""
    ready_server(host)
    if host.server.mode in ("waiting", "replica"):
        host.server.mode = "closed"


def log_tail(world: World, host: HostState, *, since: int | None) -> dict[str, object]:
    """The end of the log: what it says of the database."""
    _, content = live_of(host)
    return {"end": content}


def log_append(world: World, host: HostState, *, tail: Mapping[str, Content]) -> None:
    """Bytes behind the copy's own log, once what both have is equal."""
    _, mine = live_of(host)
    end = tail["end"]
    if host.server.mode != "closed":
        raise fail("copy-opened")
    if mine.position > end.position or mine.commits & ~end.commits:
        raise fail("log-ends-differ")
    put(
        host,
        commits=end.commits,
        position=end.position,
        open_work=end.open_work,
        gate=end.gate,
        work_s=end.work_s,
        clean=not end.open_work,
    )


def move(world: World, host: HostState, *, image: str, mountpoint: str) -> None:
    """Unmounted and mounted elsewhere, when nobody has it open; there already is fine."""
    found = image_of(host, image)
    if found.mounted != mountpoint and host.server.mode != "closed":
        raise fail("dataset-busy", f"{image} is open")
    found.mounted = mountpoint


def open_shut(world: World, host: HostState) -> None:
    """The first session rolls back what is open; the gate that came in the log keeps everybody else out."""
    _, content = live_of(host)
    if not content.gate:
        raise fail("gate-open")
    guard_of(host)
    if ready_server(host).mode == "closed":
        opened(host)


def step_down(world: World, host: HostState) -> None:
    """The guard lets go."""
    refused = guarded(world, host, Leaves())
    if refused or host.guard is None:
        raise fail("lease-passed", refused or "the guard is gone")


def step_up(world: World, host: HostState, *, image: str, mountpoint: str) -> None:
    """Back to where clients look, and open."""
    move(world, host, image=image, mountpoint=mountpoint)
    if host.guard is not None and host.guard.halted:
        raise fail("gate-opening", "the guard is opening it")
    if not open_gate(world, host):
        raise fail("engine-down", "the gate could not be opened")


def gate_keep(world: World, host: HostState, *, lease_ms: int) -> None:
    """The lease on a gate that is closed already."""
    open_shut(world, host)
    begin_work(world, host, Work.CLOSE, lease_ms / 1000)
    guarded(world, host, Returns(Work.CLOSE))


SWITCH: Mapping[str, Operation] = {
    f.__name__: f
    for f in (
        gate_keep, guard_awake, log_append, log_tail, move, open_shut, replayed, replica_leaves, replica_ready, retire,
        roll_log, step_down, step_up, warm_up,
    )
}  # fmt: skip
