"""Facts for the tests of `decide`, `who`, `lineage` and `keep`: small builders, one difference a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from snaprep.core.action import Roles
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import EngineFacts, EngineState, Facts, History, HostFacts, RoundDone
from snaprep.core.volume import Image, ImageRole, Point, VolumeFacts

GIB = 1 << 30
AB = Roles(source="a", target="b", generation=1)


def point(guid: int, *, name: str = "", held: bool = True, **more: Any) -> Point:  # noqa: ANN401
    """A point of this pair; its GUID is its age."""
    return Point(name or f"snaprep-p-r-{guid:03d}", (guid,), guid, held=held, **more)


def image(name: str, role: ImageRole, *points: Point, **more: Any) -> Image:  # noqa: ANN401
    return Image(name=name, role=role, points=points, **{"ours": role is not ImageRole.FOREIGN, **more})


def serving(name: str, *points: Point, generation: int = 1, **more: Any) -> HostFacts:  # noqa: ANN401
    """The primary: adopted, open, with these points on its live image."""
    marks = {"serves": "primary", "generation": str(generation)}
    live = image(f"{name}/db", ImageRole.LIVE, *points, properties=marks, mounted_at="/db", referenced_bytes=GIB)
    engine = EngineFacts(state=EngineState.PRIMARY, server_up=True, generation=generation)
    return host(name, live, engine=engine, **more)


def empty(name: str, *images: Image, **more: Any) -> HostFacts:  # noqa: ANN401
    """A host with a server and no database."""
    return host(name, *images, engine=EngineFacts(server_up=True), **more)


def replica(name: str, *points: Point, **more: Any) -> HostFacts:  # noqa: ANN401
    """Runs from a clone of the newest point that it received."""
    recv = image(f"{name}/db.recv", ImageRole.RECV, *points)
    live = image(
        f"{name}/db",
        ImageRole.LIVE,
        properties={"serves": "replica", "generation": "1"},
        mounted_at="/db.replica",
        origin=recv.name,
        origin_guid=points[-1].guid if points else None,
    )
    engine = EngineFacts(state=EngineState.REPLICA, server_up=True, replicating=True)
    return host(name, live, recv, **{"engine": engine, **more})


NO_ROUTE = ErrorInfo("host-unreachable", "no route", exit_code=30)


def host(name: str, *images: Image, **more: Any) -> HostFacts:  # noqa: ANN401
    volume = VolumeFacts("zfs", "2", "pool", 1, "ONLINE", "1", 100 * GIB, 200 * GIB, images=images)
    given = {"name": name, "live_name": f"{name}/db", "mountpoint": "/db", "volume": volume}
    return HostFacts(**{**given, **more})


def with_engine(of: HostFacts, **changes: Any) -> HostFacts:  # noqa: ANN401
    return replace(of, engine=replace(of.engine, **changes))


def with_volume(of: HostFacts, **changes: Any) -> HostFacts:  # noqa: ANN401
    assert of.volume is not None
    return replace(of, volume=replace(of.volume, **changes))


def with_live(of: HostFacts, **changes: Any) -> HostFacts:  # noqa: ANN401
    assert of.volume is not None
    assert of.live is not None
    live = replace(of.live, **changes)
    return with_volume(of, images=tuple(live if i.name == live.name else i for i in of.volume.images))


def both(first: HostFacts, second: HostFacts) -> Facts:
    return Facts((first, second))


def attached() -> Facts:
    """a serves, b replicates, both hold point 1."""
    return both(with_engine(serving("a", point(1)), replicating=True), replica("b", point(1)))


def round_done(delta_bytes: int, dirty_s: float | None = 1.0, link: float = 20e6) -> RoundDone:
    send_s = delta_bytes / link
    return RoundDone(1, 1, 2, delta_bytes, send_s, send_s + 0.15, dirty_s)


def small_rounds() -> History:
    """Two increments so small that a cutover fits any budget."""
    rounds = (round_done(100_000_000, None), round_done(2_000_000, 5.0), round_done(100_000, 0.25))
    return History(rounds=rounds, last_round_end_s=10.0, now_s=10.0)


def ready(history: History) -> History:
    """The same after the target was made ready, and a round since."""
    return replace(history, prepared_s=history.last_round_end_s)
