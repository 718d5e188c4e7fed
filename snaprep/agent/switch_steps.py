"""The operations of a switchover: two open places at no moment, and the same log on both sides when it is over."""

from __future__ import annotations

from pathlib import Path

from snaprep.agent.host import AgentHost
from snaprep.agent.steps import gate_open, shown, step
from snaprep.engines.base import Quiesced
from snaprep.engines.derby.log import tail as log_ends
from snaprep.engines.derby.log.tail import LogTail

_CLOSES_S = 5.0


@step
def guard_awake(host: AgentHost) -> None:
    """The guard of a host that does not serve yet: alive, with its client."""
    host.guard.awake()


@step
def warm_up(host: AgentHost, *, image: str, point: str, owner: str) -> float:
    """Boot and shut down a throw-away clone beside the replica, so that its server has done it before. Seconds."""
    with shown(host, image, point, f"{host.spec.dataset}.warm", owner) as directory:
        return host.engine.warm(directory)


@step
def replica_ready(host: AgentHost) -> None:
    """Nobody is in the way where this host's database is to wait as a replica."""
    host.engine.replication.must_be_free()


@step
def roll_log(host: AgentHost) -> int:
    """Let the replica replay all but the last moments, before clients wait for it. The place of a checkpoint."""
    return host.engine.halt.roll_log()


@step
def replayed(host: AgentHost, *, position: int, deadline_s: float) -> bool:
    """Whether the replica has got there; if not, it replays the rest when it is opened."""
    return host.engine.replication.replayed(position, deadline_s)


@step
def retire(host: AgentHost) -> Quiesced:
    """Shut the gated database down, and out of its clients' sight. Its replica gets all of its log, and shuts down."""
    answer = host.guard.call("retire", deadline_s=30)
    return Quiesced(**answer)


@step
def replica_leaves(host: AgentHost, *, deadline_s: float) -> None:
    """The replica whose primary has retired is shut down."""
    host.engine.replication.stop(deadline_s)


@step
def log_tail(host: AgentHost, *, since: int | None) -> LogTail:
    """The log of the copy here from a position on, or the end of it."""
    return log_ends.read(host.engine.directory, since)


@step
def log_append(host: AgentHost, *, tail: LogTail) -> None:
    """Make the log of the copy here end where the other's does."""
    log_ends.append(host.engine.directory, tail)


@step
def move(host: AgentHost, *, image: str, mountpoint: str) -> None:
    """Mount the image of a database that has just been shut down at another path."""
    _move(host, image, mountpoint)


@step
def open_shut(host: AgentHost, *, deadline_s: float) -> None:
    """Open the database with its gate closed: what was open in the files is rolled back."""
    host.guard.call("open_shut", deadline_s=deadline_s)


@step
def step_down(host: AgentHost) -> None:
    """The guard lets go of the retired database: from here on the other host serves, or somebody takes it back."""
    host.guard.call("leave", deadline_s=10)


@step
def step_up(host: AgentHost, *, image: str, mountpoint: str) -> None:
    """Take `step_down` back: where clients look, and open."""
    _move(host, image, mountpoint)
    gate_open(host)


@step
def gate_keep(host: AgentHost, *, lease_ms: int) -> None:
    """From here on this host's guard opens, at the latest when the lease is over."""
    host.guard.call("gate_keep", {"lease_ms": lease_ms}, deadline_s=30)


def _move(host: AgentHost, image: str, mountpoint: str) -> None:
    """What stands there already may be open."""
    if host.engine.directory != Path(mountpoint) / host.inside:
        host.engine.must_close(_CLOSES_S)
    host.volume.mount(image, mountpoint)
