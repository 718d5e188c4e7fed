"""The model world as facts, and the rules of DESIGN.md over it."""

from __future__ import annotations

from snaprep.core.errors import ErrorInfo
from snaprep.core.guard import PATIENCE_S
from snaprep.core.lineage import Base, common_base, common_snapshot
from snaprep.core.model import EngineFacts, EngineState, Facts, FeedFacts, HostFacts, KeptLog, Transactions, recv_name
from snaprep.core.simulated.world import PATH, RESTART_S, HostState, ImageState, World, accepts
from snaprep.core.volume import Image, Partial, Point, VolumeFacts

GRACE_S = PATIENCE_S + RESTART_S + 2.0


def facts_of(world: World) -> Facts:
    """What both agents would answer now."""
    first, second = (_host_facts(world, h) for h in world.hosts.values())
    return Facts((first, second))


def _host_facts(world: World, host: HostState) -> HostFacts:
    if not host.up or not host.reachable:
        silent = ErrorInfo("host-unreachable", f"{host.name} does not answer", exit_code=30)
        return HostFacts(name=host.name, live_name=host.live_name, error=silent)
    return HostFacts(
        name=host.name,
        boot_id=str(host.boots),
        clock_s=world.now_s,
        volume=_volume_facts(world, host),
        engine=_engine_facts(world, host),
        live_name=host.live_name,
        feed=_feed(world),
        mountpoint=PATH,
        guarded="" if host.guard is None else ("frozen" if host.guard.frozen else "gated" if host.guard.gated else ""),
    )


def _engine_facts(world: World, host: HostState) -> EngineFacts:
    live, server = host.live, host.server
    if live is None or live.content is None or not live.mounted:
        return EngineFacts(server_up=server.up)
    content = live.content
    opened = server.up and server.mode == "open"
    age_s = world.now_s - host.oldest_since_s if host.transactions else 0.0
    return EngineFacts(
        state=_state(host, gate=content.gate or content.away),
        server_up=server.up,
        position=content.position,
        position_text=str(content.position),
        logged_bytes=int(content.work_s * world.load.log_bytes_per_s),
        generation=content.generation or None if opened else None,
        replicating=_replicating(world, host),
        gate_saved=(opened and content.gate) or content.away,
        kept_log=_kept_log(host) if opened else None,
        transactions=Transactions(open=host.transactions, oldest_s=age_s),
    )


def _feed(world: World) -> FeedFacts | None:
    """As both hosts tell it while one is under way; in the model a replica has at once what the source wrote."""
    if not world.fed:
        return None
    return FeedFacts(stream="model", phase="feeding", since_s=0.0, at_s=world.now_s, stored=1)


def _kept_log(host: HostState) -> KeptLog:
    on = host.kept_since is not None
    return KeptLog(wanted=on, since=host.kept_since, ours=on, first=host.kept_since or 0)


def _state(host: HostState, *, gate: bool) -> EngineState:
    server = host.server
    if server.wedged or server.attaching:
        return EngineState.UNKNOWN
    if server.mode == "open":
        return EngineState.FROZEN if server.frozen else EngineState.GATED if gate else EngineState.PRIMARY
    if server.mode == "closed" and host.live and host.live.content and host.live.content.away:
        return EngineState.GATED
    modes = {"waiting": EngineState.WAITING, "replica": EngineState.REPLICA}
    return modes.get(server.mode, EngineState.CLOSED)


def _replicating(world: World, host: HostState) -> bool:
    peer = world.other(host.name)
    primary = host if host.server.mode == "open" else peer
    return world.link_up and primary.up and primary.server.replicating


def used_bytes(world: World, host: HostState) -> int:
    """What the images occupy: the database once, what points pin, and what others use."""
    used = host.other_bytes
    for image in host.images.values():
        if image.content is None:
            continue
        oldest = image.points[0].content.work_s if image.points else image.content.work_s
        used += world.load.unique_bytes(max(0.0, image.content.work_s - oldest))
        used += world.database_bytes if image.origin_guid is None else 0
    return used


def _volume_facts(world: World, host: HostState) -> VolumeFacts:
    return VolumeFacts(
        kind="model",
        version="1",
        store=host.name,
        store_guid=1,
        store_health="ONLINE",
        import_id=str(host.boots),
        free_bytes=host.size_bytes - used_bytes(world, host),
        size_bytes=host.size_bytes,
        caps=_caps(world),
        images=tuple(_image(world, host, i) for i in host.images.values()),
    )


def _caps(world: World) -> frozenset[str]:
    if world.copies:
        return frozenset({"copies", "always_there"})
    return frozenset({"resume", "bookmarks"} if world.bookmarks else {"resume"})


def _image(world: World, host: HostState, image: ImageState) -> Image:
    there = {p.guid for p in image.points}
    parent = next((i for i in host.images.values() if any(p.guid == image.origin_guid for p in i.points)), None)
    return Image(
        name=image.name,
        role=image.role,
        ours=image.ours,
        points=tuple(Point(p.name, (p.guid,), p.txg, p.held, p.held_by_others) for p in image.points),
        bookmarks=tuple(Point(b.name, (b.guid,), b.txg, bookmark=True) for b in image.bookmarks if b.guid not in there),
        origin=parent.name if parent else None,
        origin_guid=image.origin_guid,
        mounted_at=image.mounted or None,
        automounts=image.automounts,
        referenced_bytes=world.database_bytes if image.content else 0,
        properties=dict(image.properties),
        partial=_partial(image),
    )


def _partial(image: ImageState) -> Partial | None:
    if image.partial is None:
        return None
    head_guid, base_guid = image.partial
    return Partial(f"token-{head_guid}", head_guid, base_guid)


def bases(facts: Facts) -> dict[str, Base]:
    """The newest common point for each host that has something to send, by the sender's name."""
    found: dict[str, Base] = {}
    for sender, receiver in (facts.hosts, facts.hosts[::-1]):
        if sender.volume is None or receiver.volume is None or sender.live is None:
            continue
        base = common_base(sender.volume, sender.live, receiver.volume, recv_name(receiver.live_name))
        if base is not None:
            found[sender.name] = base
    return found


def common_now(world: World) -> dict[str, int]:
    """For each sender the age (createtxg there) of the newest common snapshot, whether or not the hosts answer."""
    volumes = {h.name: _volume_facts(world, h) for h in world.hosts.values()}
    found = {}
    for host in world.hosts.values():
        peer, mine = world.other(host.name), volumes[host.name]
        live = mine.image(host.live_name)
        base = common_snapshot(mine, live, volumes[peer.name], recv_name(peer.live_name)) if live else None
        if base is not None:
            found[host.name] = base.point.createtxg
    return found


def violations(world: World) -> list[str]:
    """What must never happen, as far as one state shows it."""
    found = list(world.broken)
    takers = [h.name for h in world.hosts.values() if accepts(h)]
    if len(takers) > 1:
        found.append(f"{' and '.join(takers)} accept writes")
    for host in world.hosts.values():
        found += _halted_too_long(world, host)
        for image in host.images.values():
            if image.name == recv_name(host.live_name) and image.started:
                found.append(f"{image.name} was started")
            if image.content and image.content.damaged and host.server.mode != "waiting" and image.mounted:
                found.append(f"{image.name} lost rows without a word")
    return found + _lost(world)


def _halted_too_long(world: World, host: HostState) -> list[str]:
    live = host.live
    if host.unguarded or not host.up or not host.server.up or live is None or live.content is None or not live.mounted:
        return []
    halted = host.server.frozen or (live.content.gate and host.server.mode in ("open", "closed"))
    until_s = world.halted_until_s.get(host.name)
    if (
        halted
        and until_s is not None
        and world.now_s > until_s + GRACE_S
        and live.properties.get("serves") == "primary"
    ):
        return [f"{host.name} is halted past its lease"]
    return []


def _lost(world: World) -> list[str]:
    """Acknowledged commits are on the primary; after a take-over they may be in any image, but never gone."""
    kept = 0
    for host in world.hosts.values():
        for image in host.images.values():
            kept |= image.content.commits if image.content else 0
    lost = world.acknowledged & ~kept
    if lost:
        return [f"{lost.bit_count()} acknowledged commits are in no image"]
    primary = world.hosts[world.clients_at].live
    if not world.taken_over and primary and primary.content and world.acknowledged & ~primary.content.commits:
        return ["a planned change lost an acknowledged commit"]
    return []
