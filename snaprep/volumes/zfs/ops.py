"""What is done to snapshots, and the two ways of doing it: OpenZFS's C library where the agent can call it, and the
`zfs` command everywhere.

The library does many snapshots in one transaction and without a process. What it cannot do, or not better, is the
command's either way: listing, properties, mounts, clones and renames, and streams, which want a program that can be
killed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from snaprep.core.errors import SnaprepError
from snaprep.volumes.zfs import command as zfs_command
from snaprep.volumes.zfs import stream as zfs_stream
from snaprep.volumes.zfs.command import zfs


class ZfsOps(Protocol):
    """Snapshots are given by their full names. Errors are those of `Volume`."""

    @property
    def way(self) -> str:
        """Which way this is, and why, as `check` says it."""

    def existing(self, names: Sequence[str]) -> list[str]:
        """Those of the named datasets and snapshots that exist."""

    def snapshot(self, snapshots: Sequence[str], properties: Mapping[str, str]) -> None:
        """All of them in one transaction, or none. Raises `snapshot-exists`, `unknown-dataset`, `no-space`."""

    def hold(self, tag: str, snapshots: Sequence[str]) -> None:
        """Held already is fine. Raises `unknown-dataset`."""

    def release(self, tag: str, snapshots: Sequence[str]) -> list[str]:
        """Those that exist; none of them is held under the tag any more. Not held, or gone, is fine."""

    def destroy(self, snapshots: Sequence[str]) -> None:
        """In this order. Gone already is fine. Raises `has-dependents`; `point-held` or `dataset-busy` when held."""

    def bookmark(self, snapshots: Sequence[str]) -> None:
        """Of each under its own name, where bookmarks are. There already is fine. Raises `unknown-dataset`."""

    def bookmarks(self, dataset: str) -> list[str]:
        """The full names of a dataset's own."""

    def destroy_bookmarks(self, bookmarks: Sequence[str]) -> None:
        """Gone already is fine."""

    def stream_bytes(self, snapshot: str, base: str | None, flags: Sequence[str]) -> int:
        """The estimated size of a stream. Raises `base-missing`, `unknown-dataset`."""

    def sync(self, pool: str) -> None:
        """Wait until the pool's counts hold what was written so far: by itself it counts every few seconds."""


class CommandOps:
    """By the `zfs` command. `why`: what keeps the library from being used."""

    def __init__(self, caps: Collection[str], why: str) -> None:
        self._caps = caps
        self._why = why

    @property
    def way(self) -> str:
        return f"everything by the zfs command: {self._why}"

    def existing(self, names: Sequence[str]) -> list[str]:
        return zfs_command.existing(names)

    def snapshot(self, snapshots: Sequence[str], properties: Mapping[str, str]) -> None:
        """An old `zfs snapshot` knows one name only; with -r it takes what is below along."""
        alone = len(snapshots) == 1 or "multi" in self._caps
        chosen = zfs_stream.options(properties)
        zfs("snapshot", *([] if alone else ["-r"]), *chosen, *(snapshots if alone else snapshots[:1]))

    def hold(self, tag: str, snapshots: Sequence[str]) -> None:
        try:
            zfs("hold", tag, *snapshots)
        except SnaprepError as error:
            if "tag already exists" not in error.info.what:
                raise
            if len(snapshots) > 1:
                for snapshot in snapshots:
                    self.hold(tag, [snapshot])

    def release(self, tag: str, snapshots: Sequence[str]) -> list[str]:
        try:
            zfs("release", tag, *snapshots)
        except SnaprepError as error:
            gone = error.id == "unknown-dataset"
            if not gone and "no such tag" not in error.info.what:
                raise
            if len(snapshots) == 1:
                return [] if gone else list(snapshots)
            return [there for snapshot in snapshots for there in self.release(tag, [snapshot])]
        return list(snapshots)

    def destroy(self, snapshots: Sequence[str]) -> None:
        for snapshot in snapshots:
            try:
                zfs("destroy", snapshot)
            except SnaprepError as error:
                if error.id != "unknown-dataset":
                    raise

    def bookmark(self, snapshots: Sequence[str]) -> None:
        for snapshot in snapshots:
            try:
                zfs("bookmark", snapshot, snapshot.replace("@", "#"))
            except SnaprepError as error:
                if "bookmark exists" not in error.info.what:
                    raise

    def bookmarks(self, dataset: str) -> list[str]:
        return zfs("list", "-H", "-d", "1", "-o", "name", "-t", "bookmark", dataset).splitlines()

    def destroy_bookmarks(self, bookmarks: Sequence[str]) -> None:
        self.destroy(bookmarks)

    def stream_bytes(self, snapshot: str, base: str | None, flags: Sequence[str]) -> int:
        argv = zfs_stream.dry(zfs_stream.send(snapshot, base, flags))
        return zfs_stream.parse_estimate(zfs_command.program(argv).text)

    def sync(self, pool: str) -> None:
        zfs_command.program(["zpool", "sync", pool])
