"""The sending end: from which snapshot an increment of an image can start."""

from __future__ import annotations

from collections.abc import Collection

from snaprep.core.errors import SnaprepError
from snaprep.volumes.zfs import facts as zfs_facts
from snaprep.volumes.zfs import look as zfs_look
from snaprep.volumes.zfs.command import get, zfs
from snaprep.volumes.zfs.look import Layout

_FORKS_MAX = 100


def base(layout: Layout, caps: Collection[str], image: str, point: str, base_guid: int) -> str:
    """The base's full name. Without the cap `origin` it is first made a snapshot of the image itself.

    An old `send -i` reaches the direct origin at most, and marks that stream so that it can only become a new
    dataset. A promotion moves the shared snapshots to the image that is sent; nothing else notices. Raises
    `base-missing`.
    """
    for _ in range(_FORKS_MAX):
        name = found(layout, image, point, base_guid)
        if "origin" in caps or name.startswith((f"{image}@", f"{image}#")):
            return name
        promote(layout, image)
    raise SnaprepError("base-missing", f"{name} is more than {_FORKS_MAX} forks behind {image}@{point}")


def found(layout: Layout, image: str, point: str, base_guid: int) -> str:
    """Where the base is now. Changes nothing. Raises `base-missing`."""
    name = zfs_facts.base_name(zfs_look.histories(layout), image, point, base_guid)
    if name is None:
        what = f"{image}@{point} does not descend from a snapshot with GUID {base_guid}"
        raise SnaprepError("base-missing", what, hint="Observe again: it was destroyed, or is of another history.")
    return name


def promote(layout: Layout, image: str) -> None:
    """Make a clone independent of its origin. Independent already is fine."""
    rows = get(["origin"], layout.datasets(image))
    for name in layout.datasets(image):
        if zfs_facts.text_of(rows, name, "origin"):
            zfs("promote", name)
