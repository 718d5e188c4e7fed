"""Clones of a point, in all its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snaprep.core.errors import SnaprepError
from snaprep.core.volume import ImageRole
from snaprep.volumes.zfs import command as zfs_command
from snaprep.volumes.zfs import facts as zfs_facts
from snaprep.volumes.zfs import guard as zfs_guard
from snaprep.volumes.zfs import stream as zfs_stream
from snaprep.volumes.zfs.command import get, get_local, zfs
from snaprep.volumes.zfs.facts import CREATED, PAIR, PREFIX, dataset, is_marked
from snaprep.volumes.zfs.look import Layout
from snaprep.volumes.zfs.ops import ZfsOps


def clone(
    layout: Layout,
    ops: ZfsOps,
    image: str,
    point: str,
    to: str,
    *,
    mountpoint: str | None,
    role: ImageRole,
    properties: Mapping[str, str],
) -> None:
    """See `ZfsVolume.clone`."""
    if mountpoint is not None:
        zfs_command.require_free_path(to, mountpoint)
    tuned = get_local(layout.datasets(image))
    marks = zfs_guard.marks(layout.pair, role) | {f"{PREFIX}{name}": value for name, value in properties.items()}
    done: list[str] = []
    for part in layout.parts:
        name, origin = dataset(to, part), dataset(image, part)
        wanted = {p: v.text for p, v in tuned.get(origin, {}).items() if p in zfs_facts.TUNING}
        wanted |= {"canmount": "noauto", "readonly": "off"} | marks
        wanted |= {} if part else {"mountpoint": mountpoint or "none"}
        try:
            if name not in done:
                zfs("clone", *zfs_stream.options(wanted), f"{origin}@{point}", name)
        except SnaprepError as error:
            if error.id != "dataset-exists" or done:
                raise
            done = ops.existing(layout.datasets(to))
            _require_half_made(layout, image, point, to, done)
        if mountpoint is not None and not part:  # before the next part: its path is inside
            zfs_command.mount_parts(to, {to: mountpoint})
    if mountpoint is not None:
        zfs_command.mount_parts(to, layout.paths(to, mountpoint))


def _require_half_made(layout: Layout, image: str, point: str, to: str, done: Sequence[str]) -> None:
    if not done:
        return
    rows = get(["origin", PAIR, CREATED], done)
    wanted = {dataset(to, part): f"{dataset(image, part)}@{point}" for part in layout.parts}
    same = all(
        is_marked(rows, n, PAIR, layout.pair) and zfs_facts.text_of(rows, n, "origin") == wanted[n] for n in done
    )
    if not same or len(done) == len(layout.parts):
        raise SnaprepError("dataset-exists", f"{to} exists already", hint="Set it aside by a rename first.")
