"""The receiving end: what may be received into, and what is made of a point that came in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from snaprep.core.errors import CheckFailed, SnaprepError, Stale
from snaprep.core.volume import Point
from snaprep.volumes.zfs import command as zfs_command
from snaprep.volumes.zfs import facts as zfs_facts
from snaprep.volumes.zfs import guard as zfs_guard
from snaprep.volumes.zfs import look as zfs_look
from snaprep.volumes.zfs import stream as zfs_stream
from snaprep.volumes.zfs.command import existing, get, zfs
from snaprep.volumes.zfs.facts import PAIR, Rows, dataset, is_marked, number_of
from snaprep.volumes.zfs.look import Layout


def program(
    layout: Layout,
    caps: Collection[str],
    image: str,
    part: str,
    *,
    origin: str | None,
    base_guid: int | None,
) -> list[str]:
    """argv of the program that reads one part's stream. Raises as `ZfsVolume.open_receive` says.

    One process where the image is there and known to be ours: this stands in every round.
    """
    name, rows = dataset(image, part), _points_of(image)
    if rows:
        local = zfs_look.local_of(rows)
        known = is_marked(local, image, PAIR, layout.pair)
        zfs_guard.require_recv(image, layout.pair, local if known else zfs_look.local(layout, [image]))
    if zfs_command.mounts_below(image):
        raise CheckFailed(
            "recv-mounted", f"{image} is mounted; what is received into is never opened", hint=f"zfs unmount {image}"
        )
    new = not (existing([name]) if part else rows)
    if new and origin and "origin" not in caps:
        _grow(layout, name, part, origin)
        new = False
    elif base_guid is not None and not part and not (new and origin):
        _require_newest(image, base_guid, rows)
    if new and "properties" not in caps:
        zfs("set", f"{zfs_guard.intent(layout.pair)}={image}", layout.parent)
    return zfs_stream.receive(
        name,
        resumable="resume" in caps,
        origin=zfs_stream.part_of(origin, part) if origin and new else None,
        properties=zfs_guard.sealed(layout.pair, part) if new and "properties" in caps else {},
    )


def _points_of(image: str) -> Rows:
    """The image with its marks, and its points; nothing when it is not there."""
    try:
        return get(["guid", "createtxg", *zfs_look.MARKS], [image], "-r", "-d", "1")
    except SnaprepError as error:
        if error.id != "unknown-dataset":
            raise
        return {}


def _grow(layout: Layout, name: str, part: str, origin: str) -> None:
    """Without `receive -o origin=`: a clone that takes the shared snapshots over: its newest is the base."""
    sealed = zfs_guard.sealed(layout.pair, part)
    zfs("clone", *zfs_stream.options(sealed), zfs_stream.part_of(origin, part), name)
    zfs("promote", name)


def _require_newest(image: str, base_guid: int, rows: Rows) -> None:
    snapshots = [n for n in rows if n.startswith(f"{image}@")]
    newest = max(snapshots, key=lambda n: number_of(rows, n, "createtxg"), default=None)
    if newest is None or number_of(rows, newest, "guid") != base_guid:
        what = f"the newest point of {image} is {newest}, not the base with GUID {base_guid}"
        raise Stale("stale", what, hint="it is looked at anew")


def received(layout: Layout, image: str, point: str, guids: Sequence[int], tuning: Mapping[str, str]) -> Point:
    """Read back a received point, compare it with `guids` when there are any, and seal a new image."""
    every, intent = layout.snapshots(image, point), zfs_guard.intent(layout.pair)
    try:
        props = [*zfs_facts.READ_POINT, PAIR, intent, *tuning]
        rows = get(props, [*every, *layout.datasets(image), layout.parent])
    except SnaprepError as error:
        if error.id != "unknown-dataset":
            raise
        what = f"{image}@{point} is not there in every part"
        raise SnaprepError("receive-incomplete", what, hint="The round is repeated.") from error
    got = zfs_facts.point(every, layout.pair, rows)
    if guids and got.guids != tuple(guids):
        what = f"{image}@{point} has GUIDs {got.guids}; the source has {tuple(guids)}"
        raise SnaprepError("receive-incomplete", what, hint="The round is repeated.")
    seal(layout, image, rows, tuning)
    return got


def seal(layout: Layout, image: str, rows: Rows, tuning: Mapping[str, str]) -> None:
    """Close what of the image is there and not closed yet, then forget the intent. Safe to repeat.

    An image that was closed by its receive has no tuning yet: what nobody has set on it is set.
    """
    for part, name in zip(layout.parts, layout.datasets(image), strict=True):
        if name not in rows:
            continue
        wanted = {p: value for p, value in tuning.items() if not (p in rows[name] and rows[name][p].local)}
        if not is_marked(rows, name, PAIR, layout.pair):
            wanted = {**tuning, **zfs_guard.sealed(layout.pair, part)}
        for prop, value in wanted.items():
            zfs("set", f"{prop}={value}", name)
    intent = zfs_guard.intent(layout.pair)
    if is_marked(rows, layout.parent, intent, image):
        zfs("inherit", intent, layout.parent)


def discard_partial(layout: Layout, image: str) -> None:
    """Throw away the state of an interrupted receive (a stale resume token)."""
    every = existing(layout.datasets(image))
    rows = get([zfs_facts.PARTIAL], every) if every else {}
    for name in every:
        if zfs_facts.text_of(rows, name, zfs_facts.PARTIAL):
            zfs("receive", "-A", name)
