# ruff: noqa: ARG001 (every operation takes the world, and the arguments that the real one takes)
"""What the steps on snapshot storage and on streams do to the model world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from snaprep.core.errors import SnaprepError, Stale, Stopped
from snaprep.core.simulated.world import (
    SLICE_S,
    HostState,
    ImageState,
    PointState,
    World,
    advance,
)
from snaprep.core.volume import ImageRole

Operation = Callable[..., object]


def fail(id: str, what: str = "") -> SnaprepError:
    return Stopped(id, what or id)


def image_of(host: HostState, name: str) -> ImageState:
    if name not in host.images:
        raise fail("unknown-dataset", f"{host.name} has no {name}")
    return host.images[name]


def point_of(image: ImageState, name: str) -> PointState:
    found = next((p for p in image.points if p.name == name), None)
    if found is None:
        raise fail("unknown-point", f"{image.name}@{name} does not exist")
    return found


# -- storage ---------------------------------------------------------------------------------------------------------


def snapshot(world: World, host: HostState, *, image: str, name: str) -> dict[str, object]:
    """`zfs snapshot` is atomic: what is in the files now, crash-consistent (derby.md 3).

    Without snapshots it is a backup, which takes the place of a former one, and has the log kept (derby.md 4, 8).
    """
    found = image_of(host, image)
    assert found.content is not None
    if world.copies:
        found.points.clear()
        host.kept_since = found.content.position if host.kept_since is None else host.kept_since
    if any(p.name == name for p in found.points):
        raise fail("snapshot-exists")
    clean = found.content.clean and host.server.mode == "closed"
    point = PointState(name, world.new_id(), world.new_id(), replace(found.content, clean=clean))
    found.points.append(point)
    return {"name": name, "guids": (point.guid,)}


def hold(world: World, host: HostState, *, image: str, point: str) -> None:
    """`zfs hold`; held already is fine. A live image's point is bookmarked, and older bookmarks of what is gone go."""
    _set_hold(host, image, point, held=True)
    if world.bookmarks and image == host.live_name:
        found = image_of(host, image)
        there = {p.guid for p in found.points}
        kept = point_of(found, point)
        found.bookmarks = [*(b for b in found.bookmarks if b.guid in there and b.guid != kept.guid), kept]


def release(world: World, host: HostState, *, image: str, point: str) -> None:
    """`zfs release`; not held, or gone, is fine."""
    if image in host.images and any(p.name == point for p in host.images[image].points):
        _set_hold(host, image, point, held=False)


def _set_hold(host: HostState, image: str, point: str, *, held: bool) -> None:
    found = image_of(host, image)
    kept = point_of(found, point)
    found.points[found.points.index(kept)] = replace(kept, held=held)


def destroy_point(world: World, host: HostState, *, image: str, point: str) -> None:
    """`zfs destroy` of a snapshot: refused by the filesystem while it is held or a clone stands on it."""
    found = image_of(host, image)
    gone = next((p for p in found.points if p.name == point), None)
    if gone is None:
        return
    if gone.held_by_others or any(i.origin_guid == gone.guid for i in host.images.values()):
        raise fail("has-dependents", f"{image}@{point} is needed")
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
        raise fail("has-dependents", f"{image} is needed by a clone")
    if image == host.live_name and host.server.mode != "closed":
        raise fail("dataset-busy", f"{image} is open")
    if found.role is ImageRole.ISOLATED and not image.startswith(f"{host.live_name}.old"):
        world.broken.append(f"{image} was isolated and destroyed")
    del host.images[image]


def mark(world: World, host: HostState, *, image: str, properties: Mapping[str, str]) -> None:
    """User properties of the dataset: they travel with it."""
    image_of(host, image).properties.update(properties)


def mark_takeover(world: World, host: HostState, *, image: str, position: int) -> None:
    """Where the promoted copy's history parts from the former primary's."""
    image_of(host, image).properties["took-over-at"] = str(position)


def adopt(world: World, host: HostState, *, image: str, generation: int) -> None:
    """Marks, and canmount=noauto: a repaired old primary must not come up by itself (derby.md 15)."""
    found = image_of(host, image)
    found.role, found.automounts = ImageRole.LIVE, False
    found.properties.update({"serves": "primary", "generation": str(generation)})


def set_aside(world: World, host: HostState, *, image: str, to: str) -> None:
    """Rename: origin and clones follow (zfs.md 10). A closed database is let go of first; an open one is busy."""
    found = image_of(host, image)
    if image == host.live_name and host.server.mode == "open" and not (found.content and found.content.gate):
        raise fail("dataset-busy", f"{image} is open")
    if image == host.live_name:
        host.server = replace(host.server, mode="closed", replicating=False)
    found.partial, found.mounted, found.automounts = None, "", False
    found.name, found.role = to, ImageRole.ISOLATED
    host.images[to] = host.images.pop(image)


# -- streams ---------------------------------------------------------------------------------------------------------


def link_ready(world: World, host: HostState) -> None:
    """The source's connection to the target stands."""
    if not world.link_up or not world.other(host.name).up:
        raise fail("link-lost", "the target cannot be reached")


def receive_begin(
    world: World, host: HostState, *, stream: str, image: str, origin: str | None, partial: str = ""
) -> None:
    """The receiving end waits. What is left of an interrupted receive blocks a new one, so it goes first (zfs.md 9)."""
    found = host.images.get(image)
    if partial == "discard" and found is not None:
        found.partial = None
        if not found.points:
            del host.images[image]
    if found is not None and image in host.images and found.partial is not None and partial != "resume":
        raise fail("partial-receive", f"{image} holds a stream in part")
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
    token: str | None = None,
) -> dict[str, object]:
    """An incremental stream: unique pages since the base over the link's rate. Writers go on, unless gated.

    The base may be a bookmark: what is sent is found by age alone.
    With a token half of it: how much had arrived plays no part in what may go wrong.
    """
    sent = point_of(image_of(host, image), point)
    every = (p for i in host.images.values() for p in (*i.points, *i.bookmarks))
    base = next((p for p in every if p.guid == base_guid), None)
    if base_guid is not None and base is None:
        raise Stale("base-gone", f"{host.name} has no snapshot {base_guid} any more")
    if base is None:
        size = world.database_bytes
    else:
        size = 64_000 + world.load.unique_bytes(max(0.0, sent.content.work_s - base.content.work_s))
    if token is not None:
        size //= 2
    began_s, left = world.now_s, float(size)
    while left > 0:
        if not world.link_up or stream not in world.streams:
            _leave_partial(world, stream, sent, base_guid)
            raise fail("link-lost", "the stream ended early")
        if not host.up or not world.other(host.name).up:
            raise fail("link-lost", "a host is gone")
        if world.now_s - began_s >= deadline_s:
            raise fail("deadline", f"the stream took longer than {deadline_s:.1f} s")
        slice_s = min(SLICE_S, left / world.link_bytes_per_s)
        advance(world, slice_s)
        left -= slice_s * world.link_bytes_per_s + 1e-3
    world.arrived[stream] = (sent, base_guid)
    return {"bytes": size, "send_s": world.now_s - began_s}


def _leave_partial(world: World, stream: str, sent: PointState, base_guid: int | None) -> None:
    image, _ = world.streams.pop(stream, ("", None))
    for host in world.hosts.values():
        if image in host.images:
            host.images[image].partial = (sent.guid, base_guid)
        elif image == f"{host.live_name}.recv":
            made_of = base_guid if any(base_guid == p.guid for i in host.images.values() for p in i.points) else None
            host.images[image] = ImageState(image, ImageRole.RECV, origin_guid=made_of, partial=(sent.guid, base_guid))


def receive_end(world: World, host: HostState, *, stream: str, image: str, guids: tuple[int, ...]) -> dict[str, object]:
    """`zfs receive` without -F: into an image that ends exactly at the base, or a new clone of it; GUID read back."""
    world_stream, arrived = world.streams.pop(stream, None), world.arrived.pop(stream, None)
    if world_stream is None or arrived is None:
        raise fail("receive-incomplete", "the stream did not come through")
    _, origin = world_stream
    point, base_guid = arrived
    if point.guid != guids[0]:
        raise fail("guid-differs")
    found = host.images.get(image)
    if found is None:
        found = _new_receiver(host, image, origin, base_guid)
    elif found.partial == (point.guid, base_guid):
        found.partial = None
    elif not found.points or found.points[-1].guid != base_guid:
        raise fail("base-differs", f"{image} does not end at the base")
    if found.started:
        world.broken.append(f"{image} was started and is received into")
    found.points.append(replace(point, txg=world.new_id(), held=False))
    found.content = point.content
    return {"name": point.name, "guids": (point.guid,)}


def _new_receiver(host: HostState, image: str, origin: str | None, base_guid: int | None) -> ImageState:
    if base_guid is not None:
        name, _, at = (origin or "").partition("@")
        if point_of(image_of(host, name), at).guid != base_guid:
            raise fail("base-differs", f"{origin} is not the base")
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
        raise fail("dataset-exists", f"{to} exists")
    origin = point_of(image_of(host, image), point)
    properties = {"serves": "replica", "generation": str(generation)}
    clone = ImageState(to, ImageRole.LIVE, content=origin.content, origin_guid=origin.guid, properties=properties)
    clone.mounted = mountpoint
    host.images[to] = clone
    if world.copies:  # a rename: what was received is the replica now
        clone.origin_guid = None
        del host.images[image]


def present_fed(
    world: World,
    host: HostState,
    *,
    image: str,
    point: str,
    to: str,
    mountpoint: str,
    generation: int,
    boot_id: str,
    import_id: str,
) -> int:
    """The same clone, with marks of what its base rests on; the last of them makes it one for a feed."""
    present(world, host, image=image, point=point, to=to, mountpoint=mountpoint, generation=generation)
    clone = image_of(host, to)
    assert clone.content is not None
    end = clone.content.position
    clone.properties.update({"fed-boot": boot_id, "fed-import": import_id, "fed-base": str(end)})
    return end


def withdraw(world: World, host: HostState, *, image: str) -> None:
    """Remove a replica's live image; never one that was a primary."""
    found = host.images.get(image)
    if found is None:
        return
    if found.properties.get("serves") != "replica":
        raise Stale("not-a-replica", f"{image} is not a replica's image; it stays")
    if host.server.mode == "open":
        raise fail("dataset-busy", f"{image} is open")
    destroy_image(world, host, image=image)


def mount(world: World, host: HostState, *, image: str, mountpoint: str) -> None:
    """Unmounted and mounted at the path that clients know; there already is fine."""
    found = image_of(host, image)
    if found.mounted not in ("", mountpoint) and host.server.mode != "closed":
        raise fail("dataset-busy", f"{image} is open")
    found.mounted = mountpoint


def fence(world: World, host: HostState, *, image: str) -> None:
    """Nobody opens this copy any more: shut down, unmounted, not mounted at boot."""
    found = image_of(host, image)
    host.server = replace(host.server, mode="closed", replicating=False)
    found.mounted, found.automounts = "", False


STORAGE: Mapping[str, Operation] = {
    f.__name__: f
    for f in (
        adopt, destroy_image, destroy_point, fence, hold, link_ready, mark, mark_takeover, mount, present,
        present_fed, receive_begin, receive_cancel, receive_end, release, send, set_aside, snapshot, withdraw,
    )
}  # fmt: skip
