"""What the operations on a database ask of the model world first."""

from __future__ import annotations

from snaprep.core.guard import Begins, Guard, Work
from snaprep.core.simulated.storage import fail
from snaprep.core.simulated.world import Content, HostState, ImageState, Server, World, guarded


def live_of(host: HostState) -> tuple[ImageState, Content]:
    """The database at the engine's path."""
    live = host.live
    if live is None or live.content is None or not live.mounted:
        raise fail("no-database", f"nothing at the engine's path on {host.name}")
    return live, live.content


def ready_server(host: HostState) -> Server:
    if not host.server.up or host.server.wedged:
        raise fail("engine-down", f"the server on {host.name} does not answer")
    return host.server


def guard_of(host: HostState) -> None:
    host.guard = host.guard or Guard()


def begin_work(world: World, host: HostState, work: Work, lease_s: float = 0.0) -> None:
    refused = guarded(world, host, Begins(work, lease_s))
    if refused or host.guard is None:
        raise fail("lease-passed", refused or "the guard is gone")
