"""A model of two hosts with a database pair, for tests to crash.

The model holds what the rules of DESIGN.md speak of and no more: who accepts writes, what each image holds, which
points are common, what was acknowledged. Commits are bits of one number, so that "is anything lost" is one operation on
integers. Times are seconds of the model's clock; nothing here waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from snaprep.core.guard import Begins, DidIt, Do, Event, Guard, Leaves, OwnerGone, Tick, step
from snaprep.core.volume import ImageRole

SLICE_S = 0.25
RESTART_S = 6.0  # a server comes back by itself, as under systemd
REBOOT_S = 20.0
PATH = "/db"  # where clients and their server look for the database; a replica's image is mounted elsewhere
ROLE_DROPPED_S = 5.0


@dataclass(frozen=True, slots=True)
class Content:
    """What the database's files in an image hold. `position` is where the log ends, `work_s` the writing behind it."""

    commits: int = 0
    position: int = 0
    open_work: int = 0  # transactions in the files that are neither committed nor rolled back
    gate: bool = False
    generation: int = 0
    clean: bool = False  # shut down, nothing to roll back
    work_s: float = 0.0
    damaged: bool = False  # rows were lost without a word
    away: bool = False  # shut down, and put out of the sight of clients who would open it


@dataclass(frozen=True, slots=True)
class PointState:
    name: str
    guid: int
    txg: int
    content: Content
    ours: bool = True
    held: bool = False
    held_by_others: bool = False


@dataclass(slots=True)
class ImageState:
    name: str
    role: ImageRole
    ours: bool = True  # created by a run of this pair
    content: Content | None = None
    points: list[PointState] = field(default_factory=list)
    bookmarks: list[PointState] = field(default_factory=list)  # of points that may be gone
    origin_guid: int | None = None
    properties: dict[str, str] = field(default_factory=dict)
    mounted: str = ""  # where
    automounts: bool = False
    started: bool = False
    partial: tuple[int, int | None] | None = None  # GUIDs of what was being received when it ended, and of its base


@dataclass(slots=True)
class Server:
    """The database server of a host and the database that it has open. Lost when the server ends."""

    up: bool = True
    back_at_s: float | None = None
    mode: str = "closed"  # closed, open, waiting, replica
    frozen: bool = False
    attaching: bool = False  # startMaster is in flight
    cut: bool = False
    wedged: bool = False
    was_master: bool = False  # in this boot of the database
    replicating: bool = False


@dataclass(slots=True)
class HostState:
    name: str
    live_name: str
    images: dict[str, ImageState] = field(default_factory=dict)
    up: bool = True
    back_at_s: float | None = None
    boots: int = 0
    reachable: bool = True  # by the operator
    agent: bool = False
    guard: Guard | None = None
    unguarded: bool = False  # a power cut, or the agent and the guard killed together: the next run opens it
    server: Server = field(default_factory=Server)
    size_bytes: int = 1 << 40
    other_bytes: int = 0  # used by somebody else
    transactions: int = 0
    oldest_since_s: float = 0.0
    kept_since: int | None = None  # from which position on the database keeps its log

    @property
    def live(self) -> ImageState | None:
        return self.images.get(self.live_name)


@dataclass(frozen=True, slots=True)
class Load:
    """What writers do: a hot set of pages, hit at a rate."""

    commits_per_s: float = 2.0
    dirty_bytes_per_s: float = 2e6
    hot_bytes: float = 64e6
    cold_bytes_per_s: float = 0.0  # pages that are never written twice
    log_bytes_per_s: float = 2e5

    def unique_bytes(self, seconds: float) -> int:
        hot = self.hot_bytes * (1 - math.exp(-self.dirty_bytes_per_s * seconds / self.hot_bytes))
        return int(hot + self.cold_bytes_per_s * seconds)


@dataclass(slots=True)
class World:
    hosts: dict[str, HostState]
    load: Load = field(default_factory=Load)
    now_s: float = 0.0
    link_bytes_per_s: float = 20e6
    link_up: bool = True
    link_silent: bool = False  # accepts and never answers
    database_bytes: int = 200_000_000
    clients_at: str = ""  # where people have pointed the clients
    acknowledged: int = 0
    taken_over: bool = False
    given_up: bool = False
    copies: bool = False  # no snapshots: the caps `copies` and `always_there`
    bookmarks: bool = False  # the cap
    fed: str = ""  # the host whose replica is fed by the other; empty: none is
    link_lost_at_s: float | None = None
    streams: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # stream -> (image, origin)
    arrived: dict[str, tuple[PointState, int | None]] = field(default_factory=dict)  # stream -> (point, base)
    broken: list[str] = field(default_factory=list)
    counter: int = 100
    commit_count: int = 0
    due_commits: float = 0.0
    halted_until_s: dict[str, float] = field(default_factory=dict)
    due: list[tuple[float, Callable[[World], None]]] = field(default_factory=list)  # what happens at a time

    def new_id(self) -> int:
        self.counter += 1
        return self.counter

    def other(self, name: str) -> HostState:
        return next(h for h in self.hosts.values() if h.name != name)


def accepts(host: HostState) -> bool:
    """A session that comes now could commit. Derby opens a database for the first one that asks."""
    live, server = host.live, host.server
    if not (host.up and server.up and live and live.mounted == PATH and live.content) or server.frozen:
        return False
    found = server.mode == "open" or (server.mode == "closed" and not live.content.away)
    return found and not live.content.gate and not server.wedged


def put(host: HostState, **changes: object) -> None:
    """Change what the live image holds."""
    live = host.live
    assert live is not None
    assert live.content is not None
    live.content = replace(live.content, **changes)  # type: ignore[arg-type]


def opened(host: HostState) -> None:
    """Opening a closed database rolls its open work back, and writes that to the log."""
    live = host.live
    assert live is not None
    assert live.content is not None
    live.started = True
    put(host, position=live.content.position + live.content.open_work, open_work=0, clean=False, away=False)
    host.server.mode = "open"
    host.server.was_master = False


def advance(world: World, seconds: float) -> None:
    """Let time pass: leases run out, clients commit, the link ships, servers and hosts come back."""
    end_s = world.now_s + seconds
    while world.now_s < end_s:
        left_s = end_s - world.now_s
        dt = min(SLICE_S if left_s < 5 else 4 * SLICE_S, left_s)
        world.now_s += max(dt, 1e-6)
        for at_s, happen in [d for d in world.due if d[0] <= world.now_s]:
            world.due.remove((at_s, happen))
            happen(world)
        _ship(world)
        _feed(world)
        for host in world.hosts.values():
            _come_back(world, host)
            guarded(world, host, Tick())
        _clients(world, dt)


def guarded(world: World, host: HostState, event: Event) -> str:
    """Give an event to the host's guard and do what it answers. Returns why a `Begins` was refused."""
    if host.guard is None or not host.up:
        return ""
    answer = step(host.guard, event, world.now_s)
    host.guard = answer.guard
    if isinstance(event, Begins) and not answer.refused:
        world.halted_until_s[host.name] = answer.guard.lease_until_s
    if isinstance(event, Leaves) and not answer.refused:
        world.halted_until_s.pop(host.name, None)
    for do in answer.do:
        if do is Do.EXIT:
            host.guard = None
        else:
            guarded(world, host, DidIt(do, ok=_does(world, host, do)))
    return answer.refused


def _does(world: World, host: HostState, do: Do) -> bool:
    server = host.server
    if do is Do.RESTART:
        host.server = Server(up=False, back_at_s=world.now_s + RESTART_S)
        return True
    if not server.up:
        return False
    if do is Do.CUT:
        server.cut = True
    elif do is Do.THAW:
        server.frozen = False
    else:
        return open_gate(world, host)
    return True


def open_gate(world: World, host: HostState) -> bool:
    """Opening is a commit. While startMaster is in flight it wedges the database (trap E)."""
    live, server = host.live, host.server
    if (
        not server.up
        or live is None
        or live.content is None
        or not live.mounted
        or server.mode in ("waiting", "replica")
    ):
        return live is None or not live.mounted  # there is nothing here that could be open
    if server.attaching and not server.cut:
        server.wedged = True
        world.broken.append(f"{host.name}: the gate was opened while startMaster was in flight")
        return False
    if server.mode == "closed":
        opened(host)
    if live.content.gate:
        put(host, gate=False, position=live.content.position + 1)
    return True


def _clients(world: World, dt: float) -> None:
    """They know both hosts: where nobody lets them in they try the other."""
    host = world.hosts[world.clients_at]
    if not accepts(host) and accepts(other := world.other(host.name)):
        world.clients_at, host = other.name, other
    live = host.live
    knocked = host.up and host.server.up and live and live.mounted == PATH and host.server.mode == "closed"
    if knocked and not quiescing(host):
        opened(host)  # a refused client opens it as well
    if not accepts(host):
        return
    assert live is not None
    assert live.content is not None
    world.due_commits += world.load.commits_per_s * dt
    count, world.due_commits = int(world.due_commits), world.due_commits % 1
    bits = ((1 << count) - 1) << world.commit_count
    world.commit_count += count
    world.acknowledged |= bits
    put(
        host,
        commits=live.content.commits | bits,
        position=live.content.position + count,
        open_work=1 if count else live.content.open_work,
        work_s=live.content.work_s + dt,
        clean=False,
    )


def quiescing(host: HostState) -> bool:
    """Shut down twice, or put away: a refused client that comes changes nothing in its log any more."""
    content = host.live.content if host.live else None
    return content is not None and (content.away or (content.clean and content.gate))


def _ship(world: World) -> None:
    """The primary's log reaches the replica with a delay of one slice; without a link the role is dropped after 5 s."""
    for host in world.hosts.values():
        if not host.server.replicating or host.server.mode != "open":
            continue
        replica = world.other(host.name)
        if world.link_up and replica.up and replica.server.mode == "replica":
            world.link_lost_at_s = None
            live, copy = host.live, replica.live
            assert live is not None
            assert live.content is not None
            assert copy is not None
            assert copy.content is not None
            copy.content = replace(live.content, clean=False, damaged=copy.content.damaged, away=False)
        else:
            world.link_lost_at_s = world.now_s if world.link_lost_at_s is None else world.link_lost_at_s
            if world.now_s - world.link_lost_at_s >= ROLE_DROPPED_S:
                host.server.replicating, world.link_lost_at_s = False, None


def _feed(world: World) -> None:
    """Agents play the source's log to the replica; without one of the four that it takes, the replica waits."""
    if not world.fed:
        return
    target = world.hosts[world.fed]
    source = world.other(target.name)
    runs = world.link_up and not world.link_silent and source.up and source.agent and target.up and target.agent
    live, copy = source.live, target.live
    if not runs or target.server.mode != "replica" or live is None or copy is None:
        end_feed(world)
        return
    assert live.content is not None
    assert copy.content is not None
    copy.content = replace(live.content, clean=False, damaged=copy.content.damaged, away=False)


def end_feed(world: World) -> None:
    """The replica's feed is gone: it runs on and waits."""
    target = world.hosts[world.fed] if world.fed else None
    world.fed = ""
    if target is not None and target.server.mode == "replica":
        target.server.mode = "waiting"


def _come_back(world: World, host: HostState) -> None:
    if host.back_at_s is not None and world.now_s >= host.back_at_s:
        host.up, host.back_at_s = True, None
        host.server = Server()
        if world.copies:
            host.server.up = False  # its operator starts it when nothing stale is there
        else:
            for image in host.images.values():
                image.mounted = PATH if image.automounts else ""
    stale = host.live is not None and host.live.mounted == PATH and world.clients_at != host.name
    if world.copies and host.up and not host.server.up and host.server.back_at_s is None and not stale:
        host.server = Server()
    if host.server.back_at_s is not None and world.now_s >= host.server.back_at_s:
        host.server = Server()


def kill_server(world: World, host: HostState) -> None:
    """kill -9: open work stays in the files, a freeze is gone, the gate is not."""
    host.server = Server(up=False, back_at_s=world.now_s + RESTART_S)


def kill_host(world: World, host: HostState) -> None:
    """A power cut: no agent, no guard, nothing mounted that does not mount itself."""
    host.up, host.back_at_s, host.boots = False, world.now_s + REBOOT_S, host.boots + 1
    host.guard, host.agent, host.unguarded = None, False, True
    host.server = Server(up=False)
    for stream in [s for s, (image, _) in world.streams.items() if image in host.images or image.startswith(host.name)]:
        world.streams.pop(stream)


def kill_agent(world: World, host: HostState) -> None:
    host.agent = False
    guarded(world, host, OwnerGone())


def kill_guard(world: World, host: HostState) -> None:
    """The agent notices at once and does what the guard would have done: cut, wait, open."""
    if host.guard is None:
        return
    held, host.guard = host.guard, None
    if not host.agent:
        host.unguarded = held.halted
        return
    host.guard = replace(held, ending=True, doing=None)
    guarded(world, host, Tick())
