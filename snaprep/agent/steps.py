"""The operations that a recipe's steps name: small, typed, each with a bound of its own.

Every one may be run again: after a crash the loop observes and decides anew, and then the same step may come once more.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from snaprep.agent.host import AgentHost
from snaprep.agent.link import StreamHeader
from snaprep.agent.streams import PROBE_SINK, Sent
from snaprep.core.codec import decode_at, encode
from snaprep.core.errors import CheckFailed, SnaprepError, Stale
from snaprep.core.volume import ImageRole, Point
from snaprep.engines.base import Quiesced, Tail

STEPS: dict[str, Callable[..., object]] = {}
_Step = TypeVar("_Step", bound=Callable[..., object])


def step(function: _Step) -> _Step:
    """Let recipes name this function. Its first parameter is the host, the others are the step's arguments."""
    STEPS[function.__name__] = function
    return function


# -- storage -----------------------------------------------------------------------------------------------------


@step
def snapshot(host: AgentHost, *, image: str, name: str) -> Point:
    """Take a point, from a copy that the engine makes where the storage has no snapshots."""
    folder = host.volume.begin_point(image, name)
    if folder is not None:
        host.engine.back_up(folder)
    return host.volume.snapshot(image, name)


@step
def hold(host: AgentHost, *, image: str, point: str) -> None:
    host.volume.hold(image, point)


@step
def release(host: AgentHost, *, image: str, point: str) -> None:
    host.volume.release(image, point)


@step
def destroy_point(host: AgentHost, *, image: str, point: str) -> None:
    """Destroy a point that the pair's runs made, its hold included."""
    host.volume.let_go(image, point)


@step
def destroy_image(host: AgentHost, *, image: str) -> None:
    host.volume.destroy_image(image)


@step
def mark(host: AgentHost, *, image: str, properties: dict[str, str]) -> None:
    host.volume.set_properties(image, properties)


@step
def mark_takeover(host: AgentHost, *, image: str, position: int) -> None:
    """Remember where the promoted copy's history parts from the former primary's."""
    host.volume.set_properties(image, {"took-over-at": str(position)})


@step
def adopt(host: AgentHost, *, image: str, generation: int) -> None:
    """Make the image this pair's, known as the primary, and not mounted at boot before its role is known.

    Raises `stale` when another pair has marked it since it was looked at: two that begin to follow one database.
    """
    try:
        host.volume.adopt(image, ImageRole.LIVE)
    except CheckFailed as error:
        raise Stale("stale", f"{error.info.what} by now", hint="look again") from error
    host.volume.set_properties(image, {"serves": "primary", "generation": str(generation)})
    host.volume.set_automount(image, on=False)


@step
def set_aside(host: AgentHost, *, image: str, to: str) -> None:
    """Rename an image so that nobody starts it by mistake. What is in it stays."""
    if image == host.spec.dataset:
        host.engine.let_go()
    else:
        host.volume.discard_partial(image)
    isolated = ".isolated" in to.removeprefix(host.spec.dataset)
    # The role comes first: a run that dies in between must not leave a tail that looks like a live image.
    host.volume.adopt(image, ImageRole.ISOLATED if isolated else ImageRole.RECV)
    host.volume.set_automount(image, on=False)
    host.volume.rename(image, to)


@step
def tail(host: AgentHost, *, image: str, position: int) -> Tail:
    """Count what an image that was set aside holds beyond a position.

    It is mounted where no server looks: mounting is also what makes the last writes before a power cut visible.
    """
    with host.volume.looked_at(image, Path(host.spec.beside("look"))) as place:
        return host.engine.tail(place / host.inside, position)


# -- streams -----------------------------------------------------------------------------------------------------


@step
def receive_begin(
    host: AgentHost,
    *,
    stream: str,
    image: str,
    origin: str | None,
    base_guid: int | None,
    tuning: dict[str, str],
    partial: str = "",
) -> None:
    """Expect a stream; `partial` says whether what came in part of an earlier one is to be resumed or discarded.

    What can be refused is refused now, before the sender does anything. As soon as the stream is in, its GUIDs are read
    back and a new image is sealed. A stream is named after its point.
    """
    resumes = partial == "resume"
    if partial == "discard":
        host.volume.discard_partial(image)
    programs = {
        part: host.volume.open_receive(image, part, origin=origin, base_guid=base_guid, resumes=resumes)
        for part in ("", *sorted(host.spec.children))
    }
    host.streams.receive_begin(stream, programs, lambda: host.volume.received(image, stream, tuning=tuning))


@step
def receive_end(host: AgentHost, *, stream: str, image: str, guids: tuple[int, ...], deadline_s: float) -> Point:
    """Wait for the stream to be in, and compare the GUIDs that were read back with the source's."""
    point = host.streams.receive_end(stream, deadline_s)
    if point is None or point.guids != guids:
        what = f"{image}@{stream} has GUIDs {point.guids if point else ()}; the source has {guids}"
        raise SnaprepError("receive-incomplete", what, hint="the round is repeated")
    return point


@step
def receive_cancel(host: AgentHost, *, stream: str) -> None:
    host.streams.receive_cancel(stream)


@step
def send(
    host: AgentHost,
    *,
    stream: str,
    image: str,
    point: str,
    guids: tuple[int, ...],
    base_guid: int | None,
    base_name: str,
    flags: tuple[str, ...],
    token: str | None = None,
) -> Sent:
    header = StreamHeader(
        run=host.streams.run, stream=stream, image=image, parts=host.spec.children, base_guid=base_guid, head=point,
        head_guid=guids[0],
    )  # fmt: skip
    return host.streams.send(host.volume, header, base_name, flags, token)


@step
def link_ready(host: AgentHost) -> None:
    """A connection to the target stands: not the moment to find out while clients wait."""
    host.streams.ready()


@step
def probe_begin(host: AgentHost, *, stream: str) -> None:
    """Expect throw-away bytes."""
    host.streams.receive_begin(stream, {"": PROBE_SINK}, lambda: None)


@step
def probe_send(host: AgentHost, *, stream: str) -> Sent:
    """Send throw-away bytes, and see what the link carries."""
    return host.streams.probe(stream)


# -- the replica's image -----------------------------------------------------------------------------------------


@step
def present(host: AgentHost, *, image: str, point: str, to: str, mountpoint: str, generation: int, owner: str) -> None:
    """Make the live image of a replica: a clone at the engine's path, owned by the engine's user."""
    marks = {"serves": "replica", "generation": str(generation)}
    host.volume.clone(image, point, to, mountpoint=mountpoint, role=ImageRole.LIVE, properties=marks)
    host.give_to(to, owner)


@step
def withdraw(host: AgentHost, *, image: str) -> None:
    """Remove the live image of a replica that did not come to be, or is replaced. Never one that was a primary."""
    found = host.volume.facts().image(image)
    if found is None:
        return
    if found.properties.get("serves") != "replica":
        raise Stale("not-a-replica", f"{image} is not a replica's image; it stays", hint="it is looked at anew")
    host.volume.destroy_image(image)


@step
def mount(host: AgentHost, *, image: str, mountpoint: str) -> None:
    host.volume.mount(image, mountpoint)


@step
def fence(host: AgentHost, *, image: str) -> None:
    """Make sure that nobody opens this copy: shut down if it is idle, unmounted, not mounted at boot."""
    host.engine.let_go()
    host.volume.set_automount(image, on=False)
    host.volume.unmount(image)


# -- the database ------------------------------------------------------------------------------------------------


@step
def freeze(host: AgentHost, *, lease_ms: int) -> None:
    host.guard.call("freeze", {"lease_ms": lease_ms}, deadline_s=30)


@step
def thaw(host: AgentHost) -> None:
    """Thaw through the guard that froze; by ourselves when it was killed."""
    gate_open(host)


@step
def guard_ready(host: AgentHost) -> None:
    """The guard lives, with its connections and the thaw prepared."""
    host.guard.ready()


@step
def checkpoint(host: AgentHost) -> None:
    host.engine.halt.checkpoint()


@step
def gate_prepare(host: AgentHost) -> None:
    """Everything that makes the closing quick: the guard warm, former values stored, pages flushed."""
    guard_ready(host)
    host.engine.halt.gate_prepare()


@step
def gate_close(host: AgentHost, *, lease_ms: int) -> None:
    host.guard.call("gate_close", {"lease_ms": lease_ms}, deadline_s=10)


@step
def quiesce(host: AgentHost) -> Quiesced:
    answer = host.guard.call("quiesce", deadline_s=30)
    return Quiesced(**answer)


@step
def attach(host: AgentHost, *, deadline_s: float) -> None:
    host.guard.call("attach", {"deadline_s": deadline_s}, deadline_s=deadline_s + 30)


@step
def gate_open(host: AgentHost) -> None:
    """Open the gate through the guard that closed it; by ourselves when there is none."""
    if host.has_guard:
        host.guard.call("put_back", deadline_s=70)
    else:
        host.reopen()


@step
def stamp(host: AgentHost, *, generation: int) -> None:
    host.engine.halt.stamp(generation)


@step
def detach(host: AgentHost) -> None:
    host.engine.replication.detach()


@step
def prove(host: AgentHost, *, position: int) -> None:
    host.engine.prove(position)


@step
def arm_replica(host: AgentHost) -> None:
    host.engine.replication.arm()


@step
def stop_replica(host: AgentHost) -> None:
    """Shut down the copy beside where clients look, whatever it has become: waiting, running, or simply open."""
    host.engine.let_go(30)


@step
def open_database(host: AgentHost, *, deadline_s: float) -> None:
    host.engine.open(deadline_s)


@step
def promote(host: AgentHost, *, from_state: str) -> Quiesced:
    return host.engine.replication.promote(from_state)


@step
def warm(host: AgentHost, *, image: str, point: str, owner: str) -> float:
    """Boot and shut down a throw-away clone of the last round in the target's server. Returns seconds.

    What else would stop the replica from being armed is looked at too, while clients still work.
    """
    host.engine.replication.must_be_free()
    with shown(host, image, point, f"{host.spec.dataset}.warm", owner) as directory:
        return host.engine.warm(directory)


@step
def digest(host: AgentHost, *, image: str, point: str, owner: str) -> dict[str, str]:
    """Row counts and digests of every table at a point, read from a throw-away clone that this host's server opens."""
    with shown(host, image, point, f"{host.spec.dataset}.verify", owner) as directory:
        return host.engine.digest(directory)


@step
def tidy(host: AgentHost) -> list[str]:
    """Remove what dead runs have left outside of the datasets: half-received state, one-run keys. What was done."""
    return host.tidy()


@contextlib.contextmanager
def shown(host: AgentHost, image: str, point: str, scratch: str, owner: str = "") -> Iterator[Path]:
    """The database's directory in a throw-away clone of a point, mounted beside the real one."""
    beside = Path(host.spec.beside(scratch.rpartition(".")[2]))
    host.volume.destroy_image(scratch)
    host.volume.clone(image, point, scratch, mountpoint=str(beside), role=ImageRole.SCRATCH)
    try:
        host.give_to(scratch, owner)
        yield beside / host.inside
    finally:
        host.volume.destroy_image(scratch)
        with contextlib.suppress(OSError):
            beside.rmdir()


def invoke(host: AgentHost, op: str, args: dict[str, Any], deadline_s: float) -> Any:  # noqa: ANN401 (JSON)
    """Run a step with its arguments decoded by its own annotations. Raises `bad-request` before anything runs."""
    function = STEPS.get(op)
    if function is None:
        raise Stale("bad-request", f"there is no step {op}", hint="operator and agent differ in version")
    names, hints = _shape(function)
    if "deadline_s" in names:
        args = {"deadline_s": deadline_s, **args}
    if unknown := args.keys() - names:
        raise Stale("bad-request", f"{op} has no argument {min(unknown)}", hint="operator and agent differ in version")
    try:
        decoded = {name: decode_at(hints[name], value, f"{op}.{name}") for name, value in args.items()}
    except ValueError as error:
        raise Stale("bad-request", str(error), hint="operator and agent differ in version") from error
    return encode(function(host, **decoded), hints["return"])


@functools.cache
def _shape(function: Callable[..., object]) -> tuple[frozenset[str], dict[str, Any]]:
    """A step's arguments, and the types of them and of its answer. Worked out once: it takes longer than a call."""
    return frozenset(inspect.signature(function).parameters) - {"host"}, typing.get_type_hints(function)
