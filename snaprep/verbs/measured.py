"""What `plan` learns by looking twice at the source, and by sending throw-away bytes in between."""

from __future__ import annotations

import time
from dataclasses import dataclass

from snaprep.act.interpreter import Interpreter
from snaprep.act.ship import send_flags
from snaprep.control import Sink
from snaprep.core import lineage
from snaprep.core.action import Roles
from snaprep.core.errors import SnaprepError
from snaprep.core.estimate import bytes_per_s
from snaprep.core.model import Facts, HostFacts
from snaprep.core.recipe import Step
from snaprep.core.volume import Point
from snaprep.session import Session

_LOOK_S = 1.0  # between the two looks that tell how fast the database writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was learnt by looking; None where it could not be."""

    link_bytes_per_s: float | None
    log_bytes_per_s: float | None
    dirty_bytes_per_s: float | None
    full_bytes: int | None
    increment_bytes: int | None
    has_base: bool
    copies: bool


def look(session: Session, sink: Sink, facts: Facts, roles: Roles) -> Seen:
    """Look twice, and send throw-away bytes in between."""
    source, target = facts.host(roles.source), facts.host(roles.target)
    alone = _alone(session, sink)
    began_s = time.monotonic()
    before = _count(session, sink, source, alone=alone)
    link = _link_rate(session, sink, source.name, target.name) if alone else None
    time.sleep(max(0.0, _LOOK_S - (time.monotonic() - began_s)))
    again = session.host(source.name).call("observe", {}, HostFacts, deadline_s=40)
    took_s = time.monotonic() - began_s
    after = _count(session, sink, again, alone=alone)
    base = lineage.base_between(source, target)
    size = _stream_bytes(session, again, after, base, send_flags(facts, source.name, base))
    return Seen(
        link_bytes_per_s=link,
        log_bytes_per_s=_log_rate(source, again, took_s),
        dirty_bytes_per_s=_dirty_rate(before, after),
        full_bytes=size if base is None else None,
        increment_bytes=None if base is None else size,
        has_base=base is not None,
        copies=source.volume is not None and source.volume.copies,
    )


def _alone(session: Session, sink: Sink) -> bool:
    """No run is under way, and none begins until this has ended."""
    try:
        session.lock("plan", "plan", ())
    except SnaprepError as error:
        sink.note(f"nothing could be measured: {error.info.what}")
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """Bytes written since `newest`, the source's newest snapshot, by this moment."""

    written_bytes: int
    newest: Point
    at_s: float
    flushed: bool  # the database had written out what it keeps in memory; else this is too little, by any factor


def _count(session: Session, sink: Sink, host: HostFacts, *, alone: bool) -> _Count | None:
    """What the next increment carries; None where the filesystem cannot say.

    A database keeps pages in memory for minutes, and a round has them written out. So it is asked for a checkpoint
    here, too, but not while a run may hold it frozen. Without one, what the filesystem counts is better than nothing.
    """
    live = host.live
    if live is None or live.newest is None or live.written_bytes is None:
        return None
    written_bytes, flushed = live.written_bytes, False
    if alone:
        try:
            written_bytes, flushed = session.host(host.name).call("written", {}, int, deadline_s=90), True
        except SnaprepError as error:
            sink.note(f"what {host.name} keeps in memory was not counted: {error.info.what}")
    return _Count(written_bytes=written_bytes, newest=live.newest, at_s=time.monotonic(), flushed=flushed)


def _link_rate(session: Session, sink: Sink, source: str, target: str) -> float | None:
    stream = "probe"
    try:
        session.link(source, target, f"plan-{time.time_ns()}", None)
        outcome = Interpreter(session, sink.event).must(
            (
                Step(host=target, op="probe_begin", args={"stream": stream}),
                Step(host=source, op="probe_send", args={"stream": stream}, deadline_s=120),
            )
        )
    except SnaprepError as error:
        sink.note(f"the link could not be measured: {error.info.what}")
        return None
    sent = outcome.results["probe_send"]
    return float(sent["bytes"]) / max(float(sent["seconds"]), 1e-3)


def _log_rate(before: HostFacts, after: HostFacts, took_s: float) -> float | None:
    """How fast the database writes its log, from two looks."""
    if before.engine.logged_bytes is None:
        return None
    return bytes_per_s((0.0, before.engine.logged_bytes), took_s, after.engine.logged_bytes)


def _dirty_rate(before: _Count | None, after: _Count | None) -> float | None:
    """How fast an increment grows, where the filesystem can say. Counts of two kinds tell nothing by their difference,
    and what lies in memory shows in none without a checkpoint.
    """
    if before is None or after is None or before.newest != after.newest or not (before.flushed and after.flushed):
        return None
    return max(0, after.written_bytes - before.written_bytes) / (after.at_s - before.at_s)


def _stream_bytes(
    session: Session, source: HostFacts, count: _Count | None, base: lineage.Base | None, flags: tuple[str, ...]
) -> int | None:
    """What the first stream would carry now, where the filesystem can say: up to the newest snapshot by its estimate,
    and what was written since.
    """
    if source.volume is None or count is None:
        return None
    if base is not None and base.point.guid == count.newest.guid:
        return count.written_bytes
    if "estimate" not in source.volume.caps or (base is not None and count.newest.createtxg < base.point.createtxg):
        return None
    args = {"point": count.newest.name, "base_guid": base.point.guid if base is not None else None, "flags": flags}
    return session.host(source.name).call("estimate", args, int, deadline_s=40) + count.written_bytes
