"""One snapshot and one stream: the seed, a round, a refresh."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from snaprep.act.context import Context
from snaprep.core import lineage
from snaprep.core.action import Refresh, Round, Seed
from snaprep.core.errors import from_info
from snaprep.core.lineage import Base
from snaprep.core.model import Facts, RoundDone, recv_name
from snaprep.core.recipe import Arg, Recipe, Ref, Step
from snaprep.core.report import RoundReport
from snaprep.core.volume import Image, Partial, Point
from snaprep.engines.base import SnapshotPlan

SEND_S = 30 * 24 * 3600.0  # a stream ends by its stall timeout, not by the clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    sender: str
    receiver: str
    base: Base | None
    freeze: bool
    report: RoundReport
    resume: Partial | None = None  # the point exists, and part of it has arrived


def parcel(action: Seed | Round | Refresh, number: int) -> Shipment:
    """What an action ships. `number` counts what this run has shipped, for a refresh."""
    if isinstance(action, Refresh):
        shown = RoundReport(number=number, kind="refresh")
        return Shipment(sender=action.sender, receiver=action.receiver, base=action.base, freeze=False, report=shown)
    if isinstance(action, Seed):
        base, shown = None, RoundReport(number=0, kind="full", expected_bytes=action.expected_bytes)
    else:
        base, shown = action.base, RoundReport(number=action.number)
    arrived_bytes = action.resume.received_bytes if action.resume is not None else None
    return Shipment(
        sender=action.roles.source,
        receiver=action.roles.target,
        base=base,
        freeze=action.freeze and action.resume is None,
        report=replace(shown, arrived_bytes=arrived_bytes),
        resume=action.resume,
    )


def ship(context: Context, shipment: Shipment, since_s: float | None) -> tuple[RoundDone, float | None]:
    """Snapshot, send, receive, read the GUIDs back; then hold on both sides, and let go of the run's former point.

    `since_s` is the sender's monotonic time of the former snapshot. Returns what was measured, and this one's time;
    None for a stream that was gone on with: nobody knows any more when its snapshot was taken.
    What comes after the GUIDs were read back is no part of the round's time: the replica has the point by then.
    """
    began_s = time.monotonic()
    context.tell(shipment.report)
    point = point_name(context, shipment)
    outcome = context.interpreter.run(recipe(context, shipment, point), context.stop)
    if outcome.error is not None:
        context.tell(replace(shipment.report, state="failed"))
        raise from_info(outcome.error)
    total_s = time.monotonic() - began_s
    context.interpreter.must(holds(context, shipment, point))
    context.interpreter.run(former(context, shipment))
    taken_s = next((s.ended_s for _, s in outcome.done if s.key == "snapshot"), None)
    sent = outcome.results["send"]
    frozen = shipment.freeze
    done = RoundDone(
        number=shipment.report.number,
        base_guid=shipment.base.point.guid if shipment.base else None,
        head_guid=outcome.results["receive_end"]["guids"][0],
        delta_bytes=sent["bytes"],
        send_s=sent["seconds"],
        total_s=total_s,
        dirty_s=taken_s - since_s if taken_s and since_s and shipment.base is not None else None,
        freeze_ms=outcome.took_ms("freeze", "freeze") if frozen else 0.0,
        blocked_ms=outcome.took_ms("freeze", "thaw") if frozen else 0.0,
        arrived_bytes=shipment.report.arrived_bytes,
    )
    context.tell(
        replace(
            shipment.report,
            state="done",
            sent_bytes=done.delta_bytes,
            rate_bytes_per_s=done.delta_bytes / max(done.send_s, 1e-3),
            elapsed_ms=1000 * done.total_s,
            freeze_ms=done.freeze_ms if frozen else None,
            blocked_ms=done.blocked_ms if frozen else None,
        )
    )
    return done, taken_s


def recipe(context: Context, shipment: Shipment, point: str) -> Recipe:
    """The steps of one shipment, named points and images all known beforehand."""
    sender, receiver = context.facts.host(shipment.sender), context.facts.host(shipment.receiver)
    base, image = shipment.base, recv_name(receiver.live_name)
    stream = point
    origin = f"{base.target_image}@{base.target_point}" if base is not None and not base.continues else None
    begin: Mapping[str, Arg] = {
        "stream": stream,
        "image": image,
        "origin": origin,
        "base_guid": base.point.guid if base else None,
        "tuning": tuning(context, sender.name),
        "partial": _partial(context, shipment),
    }
    cancel = Step(host=receiver.name, op="receive_cancel", args={"stream": stream})
    plan = SnapshotPlan(
        source=sender.name,
        image=sender.live_name,
        point=point,
        freeze=shipment.freeze,
        flush=shipment.report.kind != "refresh",
        freeze_lease_ms=context.policy.freeze_lease_ms,
        copies=sender.volume is not None and sender.volume.copies,
    )
    flags = send_flags(context.facts, sender.name, base)
    guids: Arg = _head(context, shipment).guids if shipment.resume else Ref("snapshot", "guids")
    # What goes on with a stream must not begin before the other side has looked at what it has of it.
    beside = not shipment.freeze and shipment.resume is None
    sent: Mapping[str, Arg] = {
        "stream": stream,
        "image": sender.live_name,
        "point": point,
        "guids": guids,
        "base_guid": base.point.guid if base else None,
        "base_name": base.source_name if base else "",
        "flags": flags,
        "token": shipment.resume.token if shipment.resume else None,
    }
    landed: Mapping[str, Arg] = {"stream": stream, "image": image, "guids": guids}
    return (
        Step(host=receiver.name, op="receive_begin", args=begin, undo=(cancel,)),
        *(() if shipment.resume else _keep_flags(sender.name, sender.live_name, sender.live, flags, beside=True)),
        *(() if shipment.resume else context.engine.snapshot(plan)),
        Step(host=sender.name, op="send", args=sent, deadline_s=SEND_S, beside=beside),
        Step(host=receiver.name, op="receive_end", args=landed, deadline_s=300),
        *(() if shipment.resume else _keep_flags(receiver.name, image, receiver.recv, flags)),
    )


def _keep_flags(host: str, image: str, seen: Image | None, flags: tuple[str, ...], *, beside: bool = False) -> Recipe:
    """Remember on an image how its streams are sent: one step in the life of an image."""
    mark = lineage.flags_mark(flags)
    if seen is not None and mark.items() <= seen.properties.items():
        return ()
    args: Mapping[str, Arg] = {"image": image, "properties": mark}
    return (Step(host=host, op="mark", args=args, beside=beside, name=f"mark {host}"),)


def point_name(context: Context, shipment: Shipment) -> str:
    """A new name, or that of the point whose stream is gone on with."""
    return _head(context, shipment).name if shipment.resume is not None else context.point_name()


def _head(context: Context, shipment: Shipment) -> Point:
    """The point whose stream is gone on with."""
    live = context.facts.host(shipment.sender).live
    assert live is not None
    assert shipment.resume is not None
    head = live.point(shipment.resume.head_guid)
    assert head is not None
    return head


def _partial(context: Context, shipment: Shipment) -> str:
    """What to do with a stream that came in part earlier: it is in the way of every other."""
    if shipment.resume is not None:
        return "resume"
    recv = context.facts.host(shipment.receiver).recv
    return "discard" if recv is not None and recv.partial is not None else ""


def holds(context: Context, shipment: Shipment, point: str) -> Recipe:
    """Hold the new common point, on both sides at the same time. Until then the former one is held, and stays."""
    sender, receiver = context.facts.host(shipment.sender), context.facts.host(shipment.receiver)
    there = {"image": recv_name(receiver.live_name), "point": point}
    return (
        Step(host=sender.name, op="hold", args={"image": sender.live_name, "point": point}),
        Step(host=receiver.name, op="hold", args=there, beside=True, name="hold there"),
    )


def former(context: Context, shipment: Shipment) -> Recipe:
    """Let go of the point that this very run shipped before: both sides hold the new one.

    A recipe of its own, run after the shipment and the holds: a failed one must not cost the newest common point.
    """
    sender, receiver = context.facts.host(shipment.sender), context.facts.host(shipment.receiver)
    base = shipment.base
    if base is None or not base.continues or f"-{context.run}-" not in base.point.name:
        return ()
    if shipment.report.kind == "refresh":
        return ()  # the way back may still begin there: a replica that is served stands on it
    there = {"image": recv_name(receiver.live_name), "point": base.target_point}
    here = {"image": base.source_image, "point": base.point.name}
    return (
        Step(host=receiver.name, op="destroy_point", args=there),
        Step(host=sender.name, op="destroy_point", args=here, beside=True, name="destroy old"),
    )


def tuning(context: Context, sender: str) -> Mapping[str, str]:
    """What the sender's image is tuned with, recordsize above all: a copy without it grows larger increments."""
    live = context.facts.host(sender).live
    return live.tuning if live else {}


def send_flags(facts: Facts, sender: str, base: Base | None) -> tuple[str, ...]:
    """How the live image of a host is sent to the other one."""
    source, target = facts.host(sender), facts.other(sender)
    assert source.volume is not None
    assert source.live is not None
    assert target.volume is not None
    return lineage.send_flags(source.volume, source.live, target.volume, base)
