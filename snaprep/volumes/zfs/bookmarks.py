"""Bookmarks of the pair's points: an increment can still start from one when the snapshot is gone.

They take no room, so they outlive a base that was given up for room, and one that somebody destroyed. No property can
be set on a bookmark: its name alone says that it is ours.
"""

from __future__ import annotations

from snaprep.volumes.zfs.facts import point_prefix
from snaprep.volumes.zfs.look import Layout
from snaprep.volumes.zfs.ops import ZfsOps


def keep(ops: ZfsOps, layout: Layout, image: str, point: str) -> None:
    """Bookmark a point in every part. Older bookmarks of ours go, unless their snapshots are there still."""
    ops.bookmark(layout.snapshots(image, point))
    names = [bookmark.partition("#")[2] for bookmark in ops.bookmarks(image)]
    older = [name for name in names if name.startswith(point_prefix(layout.pair)) and name != point]
    there = set(ops.existing([f"{image}@{name}" for name in older]))
    ops.destroy_bookmarks(
        [f"{part}#{name}" for name in older if f"{image}@{name}" not in there for part in layout.datasets(image)]
    )
