"""The steps of recipes that have to do with a feed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from snaprep.agent import identity, locks
from snaprep.agent.host import AgentHost
from snaprep.agent.process import patient_s
from snaprep.agent.steps import gate_close, gate_open, gate_prepare, present, step
from snaprep.core.errors import CheckFailed, SnaprepError, Stale
from snaprep.engines.base import Quiesced
from snaprep.engines.derby.feed import handover
from snaprep.engines.derby.feed.link import Finish
from snaprep.engines.derby.feed.probe import direct_boot
from snaprep.engines.derby.log import archive

_BOUNCE_S = 15.0  # a shutdown and a boot; then the guard lets clients in, whatever goes on

# -- keeping the log ---------------------------------------------------------------------------------------------


@step
def keep_log(host: AgentHost, *, how: str) -> float:
    """Have the source log everything and keep it: from the next "restart" on, by a "bounce", or by a "backup".

    Seconds for which the database was away.
    """
    locks.await_guard(host.engine.key, patient_s(_BOUNCE_S))  # another pair's may be bouncing it: one is enough
    if host.engine.keeps_log():
        return 0.0
    if how == "bounce":
        return _bounce(host)
    host.engine.keep_log(how)
    return 0.0


def _bounce(host: AgentHost) -> float:
    """With the gate closed: a client that comes back while the database shuts down may be at work, and hang it."""
    try:
        gate_prepare(host)
    except SnaprepError:
        locks.await_guard(host.engine.key, patient_s(_BOUNCE_S))  # another pair's may have shut it down since
        if host.engine.keeps_log():
            return 0.0
        raise
    began_s = time.monotonic()
    try:
        gate_close(host, lease_ms=round(patient_s(_BOUNCE_S) * 1000))
        host.guard.call("bounce", deadline_s=patient_s(_BOUNCE_S) + 60)
    finally:
        gate_open(host)
    return time.monotonic() - began_s


@step
def release_log(host: AgentHost, *, keep_from: int) -> int:
    """Remove kept log before a position that every replica has stored; how many files."""
    return len(archive.release(host.engine.directory, keep_from))


@step
def keep_no_log(host: AgentHost) -> bool:
    """Put the engine back as it was before `keep_log`; false when that was not ours."""
    return archive.put_back(host.engine.session)


@step
def log_mode_before(host: AgentHost) -> str:
    """What the engine's own word for keeping log was before `keep_log`; empty when that was not ours."""
    return archive.before_us(host.engine.session)


@step
def forget_log_mode(host: AgentHost, *, before: str) -> None:
    """On the target: the replica does not keep its log either, when it is the primary one day."""
    archive.forget(host.engine.directory, before)


# -- the replica of a feed ---------------------------------------------------------------------------------------


@step
def try_direct_boot(host: AgentHost) -> None:
    """See that this server boots a copy without rolling back what is open in it. Raises `no-direct-boot`."""
    mountpoint = Path(host.spec.mountpoint)
    for left in mountpoint.parent.glob(f"{mountpoint.name}.probe-*"):
        shutil.rmtree(left, ignore_errors=True)
    probed = direct_boot(
        host.engine.session, mountpoint.with_name(f"{mountpoint.name}.probe-{os.getpid()}-{time.time_ns()}")
    )
    if not probed.behaves:
        hint = "a replica cannot be fed on this server; on ZFS `snaprep rebuild` does without"
        raise CheckFailed("no-direct-boot", probed.why, hint=hint)


@step
def present_fed(
    host: AgentHost,
    *,
    image: str,
    point: str,
    to: str,
    mountpoint: str,
    generation: int,
    owner: str,
    boot_id: str,
    import_id: str,
) -> int:
    """Like `present`, for a replica that is fed: remembers what of the source the base rests on.

    Returns the position at which the base's log ends. Until the last mark is set the image is no base for a feed.
    """
    present(host, image=image, point=point, to=to, mountpoint=mountpoint, generation=generation, owner=owner)
    end = host.engine.settled_end()
    host.volume.set_properties(to, {"fed-boot": boot_id, "fed-import": import_id, "fed-base": str(end)})
    return end


# -- the feed itself ---------------------------------------------------------------------------------------------


@step
def feed_play(host: AgentHost, *, stream: str, replication: bool = False) -> None:
    """On the target: expect a feed of this name. With `replication` a primary can take the replica over later."""
    host.feeds.play(stream, host.engine.feed_target(replication=replication))


@step
def feed_send(host: AgentHost, *, stream: str, boot_id: str, import_id: str, base: int) -> None:
    """On the source: begin to feed the target, which expects it.

    Raises `feed-base-old` when the source was booted or its storage imported since the base was taken, for then what
    was fed may never have been on its disk; and when it did not log everything since.
    """
    if (identity.boot_id(), host.volume.import_id()) != (boot_id, import_id):
        raise Stale("feed-base-old", "the source was started anew since the base was taken", hint="a new base is made")
    host.engine.must_go_on_from(base)
    host.feeds.send(stream, host.engine.feed_source())


@step
def feed_finish(host: AgentHost, *, how: str, at: int | None = None, deadline_s: float) -> int:
    """On the source: feed to the end of the log, then "stop" the replica, "promote" it, or "leave" it waiting.

    With `at` the log must end there. Returns the position. Raises what ended the feed.
    """
    return host.feeds.finish(Finish(how), at, deadline_s)


@step
def ship_mark(host: AgentHost) -> Quiesced:
    """With the gate closed, by the guard: the place in the log where Derby's own replication takes a feed over."""
    return Quiesced(**host.guard.call("ship_mark", deadline_s=45))


@step
def must_end_at(host: AgentHost, *, position: int) -> None:
    """Nothing was logged since the mark. Raises `log-ends-differ`."""
    handover.must_end_at(host.engine.session, position)


@step
def feed_wait(host: AgentHost, *, deadline_s: float) -> None:
    """On the target: see the feed ended as the source asked. Raises what ended it instead."""
    host.feeds.wait(deadline_s)


@step
def feed_end(host: AgentHost) -> None:
    """Break off a feed of this agent; fine when there is none."""
    host.feeds.end()
