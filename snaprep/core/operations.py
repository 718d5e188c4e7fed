# ruff: noqa: ARG001 (every operation takes the world, and the arguments that the real one takes)
"""What each operation of a recipe does to the model world. Each docstring says which real behaviour it stands for.

The names and arguments are those of the steps in the engines' recipes and of the actions. An operation raises
`SnaprepError` where the real one does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from snaprep.core.errors import SnaprepError, Stale, Stopped
from snaprep.core.guard import Begins, Guard, Returns, Wanted, Work
from snaprep.core.volume import ImageRole
from snaprep.core.world import (
    SLICE_S,
    Content,
    HostState,
    ImageState,
    PointState,
    Server,
    World,
    advance,
    guarded,
    open_gate,
    opened,
    put,
    quiescing,
)

DURATION_S: Mapping[str, float] = {
    "quiesce": 0.2, "snapshot": 0.04, "present": 0.1, "prove": 0.02, "arm_replica": 0.3, "attach": 0.2, "warm": 1.0,
    "promote": 0.3, "freeze": 0.06, "gate_close": 0.05, "gate_open": 0.025,
}  # fmt: skip
UNKNOWN_S = 0.02
ATTACH_HANGS_S = 30.0

Operation = Callable[..., object]


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


def _fail(id: str, what: str = "") -> SnaprepError:
    return Stopped(id, what or id)


def _image(host: HostState, name: str) -> ImageState:
    if name not in host.images:
        raise _fail("unknown-dataset", f"{host.name} has no {name}")
    return host.images[name]


def _point(image: ImageState, name: str) -> PointState:
    found = next((p for p in image.points if p.name == name), None)
    if found is None:
        raise _fail("unknown-point", f"{image.name}@{name} does not exist")
    return found


def _live(host: HostState) -> tuple[ImageState, Content]:
    """The database at the engine's path."""
    live = host.live
    if live is None or live.content is None or not live.mounted:
        raise _fail("no-database", f"nothing at the engine's path on {host.name}")
    return live, live.content


def _ready_server(host: HostState) -> Server:
    if not host.server.up or host.server.wedged:
        raise _fail("engine-down", f"the server on {host.name} does not answer")
    return host.server


# -- storage ---------------------------------------------------------------------------------------------------------


def snapshot(world: World, host: HostState, *, image: str, name: str) -> dict[str, object]:
    """`zfs snapshot` is atomic: what is in the files now, crash-consistent (derby.md 3)."""
    found = _image(host, image)
    assert found.content is not None
    if any(p.name == name for p in found.points):
        raise _fail("snapshot-exists")
    clean = found.content.clean and host.server.mode == "closed"
    point = PointState(name, world.new_id(), world.new_id(), replace(found.content, clean=clean))
    found.points.append(point)
    return {"name": name, "guids": (point.guid,)}


def hold(world: World, host: HostState, *, image: str, point: str) -> None:
    """`zfs hold`; held already is fine."""
    _set_hold(host, image, point, held=True)


def release(world: World, host: HostState, *, image: str, point: str) -> None:
    """`zfs release`; not held, or gone, is fine."""
    if image in host.images and any(p.name == point for p in host.images[image].points):
        _set_hold(host, image, point, held=False)


def _set_hold(host: HostState, image: str, point: str, *, held: bool) -> None:
    found = _image(host, image)
    kept = _point(found, point)
    found.points[found.points.index(kept)] = replace(kept, held=held)


def destroy_point(world: World, host: HostState, *, image: str, point: str) -> None:
    """`zfs destroy` of a snapshot: refused by the filesystem while it is held or a clone stands on it."""
    found = _image(host, image)
    gone = next((p for p in found.points if p.name == point), None)
    if gone is None:
        return
    if gone.held_by_others or any(i.origin_guid == gone.guid for i in host.images.values()):
        raise _fail("has-dependents", f"{image}@{point} is needed")
    if not gone.ours:
        world.broken.append(f"{image}@{point} was destroyed and no run of this pair made it")
    found.points.remove(gone)


def destroy_image(world: World, host: HostState, *, image: str) -> None:
    """`zfs destroy` of an image and its own snapshots: refused while a clone stands on one of them."""
    if image not in host.images:
        return
    found = host.images[image]
    if not found.ours:
        raise Stale("not-ours", f"{image} was not created by this pair")
    guids = {p.guid for p in found.points}
    if any(i.origin_guid in guids for i in host.images.values()):
        raise _fail("has-dependents", f"{image} is needed by a clone")
    if image == host.live_name and host.server.mode != "closed":
        raise _fail("dataset-busy", f"{image} is open")
    if found.role is ImageRole.ISOLATED and not image.startswith(f"{host.live_name}.old"):
        world.broken.append(f"{image} was isolated and destroyed")
    del host.images[image]


def mark(world: World, host: HostState, *, image: str, properties: Mapping[str, str]) -> None:
    """User properties of the dataset: they travel with it."""
    _image(host, image).properties.update(properties)


def mark_takeover(world: World, host: HostState, *, image: str, position: int) -> None:
    """Where the promoted copy's history parts from the former primary's."""
    _image(host, image).properties["took-over-at"] = str(position)


def adopt(world: World, host: HostState, *, image: str, generation: int) -> None:
    """Marks, and canmount=noauto: a repaired old primary must not come up by itself (derby.md 15)."""
    found = _image(host, image)
    found.role, found.automounts = ImageRole.LIVE, False
    found.properties.update({"serves": "primary", "generation": str(generation)})


def set_aside(world: World, host: HostState, *, image: str, to: str) -> None:
    """Rename: origin and clones follow (zfs.md 10). A closed database is let go of first; an open one is busy."""
    found = _image(host, image)
    if image == host.live_name and host.server.mode != "closed":
        raise _fail("dataset-busy", f"{image} is open")
    found.partial, found.mounted, found.automounts = None, "", False
    found.name, found.role = to, ImageRole.ISOLATED
    host.images[to] = host.images.pop(image)


# -- streams ---------------------------------------------------------------------------------------------------------


def receive_begin(world: World, host: HostState, *, stream: str, image: str, origin: str | None) -> None:
    """The receiving end waits. What is left of an interrupted receive blocks a new one, so it goes first (zfs.md 9)."""
    found = host.images.get(image)
    if found is not None and found.partial is not None:
        found.partial = None
        if not found.points:
            del host.images[image]
    world.streams[stream] = (image, origin)


def send(
    world: World,
    host: HostState,
    *,
    stream: str,
    image: str,
    point: str,
    base_guid: int | None,
    deadline_s: float,
    guids: tuple[int, ...],
) -> dict[str, object]:
    """An incremental stream: unique pages since the base over the link's rate. Writers go on, unless gated."""
    sent = _point(_image(host, image), point)
    base = next((p for i in host.images.values() for p in i.points if p.guid == base_guid), None)
    if base_guid is not None and base is None:
        raise Stale("base-gone", f"{host.name} has no snapshot {base_guid} any more")
    if base is None:
        size = world.database_bytes
    else:
        size = 64_000 + world.load.unique_bytes(max(0.0, sent.content.work_s - base.content.work_s))
    began_s, left = world.now_s, float(size)
    while left > 0:
        if not world.link_up or stream not in world.streams:
            _leave_partial(world, stream, sent)
            raise _fail("link-lost", "the stream ended early")
        if not host.up or not world.other(host.name).up:
            raise _fail("link-lost", "a host is gone")
        if world.now_s - began_s >= deadline_s:
            raise _fail("deadline", f"the stream took longer than {deadline_s:.1f} s")
        slice_s = min(SLICE_S, left / world.link_bytes_per_s)
        advance(world, slice_s)
        left -= slice_s * world.link_bytes_per_s + 1e-3
    world.arrived[stream] = (sent, base_guid)
    return {"bytes": size, "send_s": world.now_s - began_s}


def _leave_partial(world: World, stream: str, sent: PointState) -> None:
    image, _ = world.streams.pop(stream, ("", None))
    for host in world.hosts.values():
        if image in host.images:
            host.images[image].partial = sent.guid
        elif image == f"{host.live_name}.recv":
            host.images[image] = ImageState(image, ImageRole.RECV, partial=sent.guid)


def receive_end(world: World, host: HostState, *, stream: str, image: str, guids: tuple[int, ...]) -> dict[str, object]:
    """`zfs receive` without -F: into an image that ends exactly at the base, or a new clone of it; GUID read back."""
    world_stream, arrived = world.streams.pop(stream, None), world.arrived.pop(stream, None)
    if world_stream is None or arrived is None:
        raise _fail("receive-incomplete", "the stream did not come through")
    _, origin = world_stream
    point, base_guid = arrived
    if point.guid != guids[0]:
        raise _fail("guid-differs")
    found = host.images.get(image)
    if found is None:
        found = _new_receiver(host, image, origin, base_guid)
    elif not found.points or found.points[-1].guid != base_guid:
        raise _fail("base-differs", f"{image} does not end at the base")
    if found.started:
        world.broken.append(f"{image} was started and is received into")
    found.points.append(replace(point, txg=world.new_id(), held=False))
    found.content = point.content
    return {"name": point.name}


def _new_receiver(host: HostState, image: str, origin: str | None, base_guid: int | None) -> ImageState:
    if base_guid is not None:
        name, _, at = (origin or "").partition("@")
        if _point(_image(host, name), at).guid != base_guid:
            raise _fail("base-differs", f"{origin} is not the base")
    found = ImageState(image, ImageRole.RECV, origin_guid=base_guid)
    host.images[image] = found
    return found


def receive_cancel(world: World, host: HostState, *, stream: str) -> None:
    """End the receiving end; what arrived of it is thrown away."""
    world.streams.pop(stream, None)
    world.arrived.pop(stream, None)


# -- the replica's image ---------------------------------------------------------------------------------------------


def present(
    world: World, host: HostState, *, image: str, point: str, to: str, mountpoint: str, generation: int
) -> None:
    """A clone of the received point at the engine's path; the received image itself is never started (derby.md 15)."""
    if to in host.images:
        raise _fail("dataset-exists", f"{to} exists")
    origin = _point(_image(host, image), point)
    properties = {"serves": "replica", "generation": str(generation)}
    clone = ImageState(to, ImageRole.LIVE, content=origin.content, origin_guid=origin.guid, properties=properties)
    clone.mounted = mountpoint
    host.images[to] = clone


def withdraw(world: World, host: HostState, *, image: str) -> None:
    """Remove a replica's live image; never one that was a primary."""
    found = host.images.get(image)
    if found is None:
        return
    if found.properties.get("serves") != "replica":
        raise Stale("not-a-replica", f"{image} is not a replica's image; it stays")
    if host.server.mode == "open":
        raise _fail("dataset-busy", f"{image} is open")
    destroy_image(world, host, image=image)


def warm(world: World, host: HostState, *, image: str, point: str) -> None:
    """Boot and shut down a throwaway clone, so that the server's classes are loaded (derby.md 14)."""
    _ready_server(host)
    _point(_image(host, image), point)


def mount(world: World, host: HostState, *, image: str, mountpoint: str) -> None:
    """Unmounted and mounted at the path that clients know; there already is fine."""
    found = _image(host, image)
    if found.mounted not in ("", mountpoint) and host.server.mode != "closed":
        raise _fail("dataset-busy", f"{image} is open")
    found.mounted = mountpoint


def fence(world: World, host: HostState, *, image: str) -> None:
    """Nobody opens this copy any more: shut down, unmounted, not mounted at boot."""
    found = _image(host, image)
    host.server = replace(host.server, mode="closed", replicating=False)
    found.mounted, found.automounts = "", False


# -- the database ----------------------------------------------------------------------------------------------------


def _guard(host: HostState) -> None:
    host.guard = host.guard or Guard()


def _begin(world: World, host: HostState, work: Work, lease_s: float = 0.0) -> None:
    refused = guarded(world, host, Begins(work, lease_s))
    if refused or host.guard is None:
        raise _fail("lease-passed", refused or "the guard is gone")


def freeze(world: World, host: HostState, *, lease_ms: int) -> None:
    """SYSCS_FREEZE_DATABASE: commits wait, connections may block; memory of the server only (derby.md 1)."""
    _live(host)
    server = _ready_server(host)
    if server.mode == "closed":
        opened(host)
    _guard(host)
    _begin(world, host, Work.FREEZE, lease_ms / 1000)
    server.frozen = True
    guarded(world, host, Returns(Work.FREEZE))


def thaw(world: World, host: HostState) -> None:
    """SYSCS_UNFREEZE_DATABASE by the guard, which outlives the agent (derby.md 15)."""
    guarded(world, host, Wanted())
    if host.guard is None:
        host.server.frozen = False


def gate_prepare(world: World, host: HostState) -> None:
    """The guard lives and has its connections before anything is gated."""
    _live(host)
    _ready_server(host)
    _guard(host)


def guard_ready(world: World, host: HostState) -> None:
    """The guard lives and its thaw is prepared, before anything is frozen."""
    _guard(host)


def checkpoint(world: World, host: HostState) -> None:
    """Dirty pages go to the files while writers go on, so that the shutdown has less to do."""
    _live(host)
    _ready_server(host)


def gate_close(world: World, host: HostState, *, lease_ms: int) -> None:
    """defaultConnectionMode=noAccess: new sessions are refused; kept in the database, so it travels (derby.md 6)."""
    _, content = _live(host)
    server = _ready_server(host)
    if server.mode == "closed":
        opened(host)
    if server.mode != "open":
        raise _fail("not-primary", f"{host.name} is not open")
    _guard(host)
    _begin(world, host, Work.CLOSE, lease_ms / 1000)
    put(host, gate=True, position=content.position + 1)
    guarded(world, host, Returns(Work.CLOSE))


def quiesce(world: World, host: HostState) -> dict[str, object]:
    """Shut down, boot as admin (which rolls back), shut down again: after that the log's end stands (derby.md 0)."""
    _begin(world, host, Work.QUIESCE)
    live, content = _live(host)
    if not host.server.up:
        guarded(world, host, Returns(Work.QUIESCE, ok=False))
        raise _fail("engine-down")
    put(host, position=content.position + content.open_work, open_work=0, clean=True)
    host.server = replace(host.server, mode="closed", was_master=False, replicating=False)
    guarded(world, host, Returns(Work.QUIESCE))
    assert live.content is not None
    return {"position": live.content.position}


def prove(world: World, host: HostState, *, position: int) -> None:
    """The copy's log ends where the source's does, read from its files."""
    _, content = _live(host)
    if content.position != position:
        raise Stopped("position-differs", f"the copy ends at {content.position}, the source at {position}")


def arm_replica(world: World, host: HostState) -> None:
    """startSlave: waits for its primary. On a copy that is not clean it loses rows without a word (trap C)."""
    live, content = _live(host)
    server = _ready_server(host)
    if server.mode != "closed":
        raise _fail("already-open", "XRE09")
    server.mode, live.started = "waiting", True
    if not content.clean or content.open_work:
        put(host, damaged=True)


def attach(world: World, host: HostState, *, deadline_s: float) -> None:
    """startMaster boots the primary and connects. A silent peer keeps it for 30 s, unless it is cut (trap E)."""
    _begin(world, host, Work.ATTACH)
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
        raise _fail(error)


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
    _, mine = _live(host)
    _, theirs = _live(replica)
    return mine.position == theirs.position


def gate_open(world: World, host: HostState) -> None:
    """Through the guard, which first cuts and waits for what is in flight; without one the agent does the same."""
    guarded(world, host, Wanted())
    if host.server.frozen and host.guard is None:
        host.server.frozen = False
    if host.guard is None or not host.guard.halted:
        host.server.cut = host.server.attaching
        if not open_gate(world, host):
            raise _fail("engine-down", "the gate could not be opened")
    else:
        raise _fail("gate-opening", "the guard is opening it")


def detach(world: World, host: HostState) -> None:
    """stopMaster: the replica is told to stop and shuts its database down."""
    host.server.replicating = False
    replica = world.other(host.name)
    if world.link_up and replica.server.mode == "replica":
        replica.server.mode = "closed"


def stop_replica(world: World, host: HostState) -> None:
    """stopSlave, or cut and shut down. Never touches a database that is open for sessions."""
    if host.server.mode in ("waiting", "replica"):
        host.server.mode = "closed"
        world.other(host.name).server.replicating = False


def promote(world: World, host: HostState, *, from_state: str) -> dict[str, object]:
    """failover=true, then shut down, so that it can be moved to where clients look. The position is where it parts."""
    _, content = _live(host)
    server = _ready_server(host)
    if server.mode in ("waiting", "replica"):
        server.mode = "closed"
    return {"position": content.position}


def open_database(world: World, host: HostState) -> None:
    """The first connection opens it; recovery rolls open work back."""
    _live(host)
    if _ready_server(host).mode == "closed":
        opened(host)


def stamp(world: World, host: HostState, *, generation: int) -> None:
    """The generation as a database property: a commit, so it waits for a gate, a freeze, and the boot."""
    _, content = _live(host)
    server = _ready_server(host)
    if server.mode in ("waiting", "replica"):
        raise _fail("not-primary")
    if server.mode == "closed":
        opened(host)
    put(host, generation=generation, position=content.position + 1)


OPERATIONS: Mapping[str, Operation] = {
    f.__name__: f
    for f in (
        adopt, arm_replica, attach, checkpoint, destroy_image, destroy_point, detach, fence, freeze, gate_close,
        gate_open, gate_prepare, guard_ready, hold, mark, mark_takeover, mount, open_database, present, promote, prove,
        quiesce, receive_begin, receive_cancel, receive_end, release, send, set_aside, snapshot, stamp, stop_replica,
        thaw, warm, withdraw,
    )
}  # fmt: skip
_MODELLED = {name: frozenset(inspect.signature(f).parameters) for name, f in OPERATIONS.items()}
