"""ZFS: a module in the kernel, or zfs-fuse; by the `zfs` command, and what `ops` says by the C library.

A target receives into `ROOT.recv`, which nobody ever starts, and serves from a clone of it at `ROOT`. Why, and what it
costs: docs/adr/0002-serve-from-a-clone.md. Nothing here ever uses `receive -F`, `destroy -r` or `destroy -R`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType

from snaprep.agent.process import CommandFailed
from snaprep.core.errors import SnaprepError
from snaprep.core.model import Finding
from snaprep.core.volume import ImageRole, Point, VolumeFacts
from snaprep.volumes import owner
from snaprep.volumes.base import Place
from snaprep.volumes.zfs import bookmarks as zfs_bookmarks
from snaprep.volumes.zfs import check as zfs_check
from snaprep.volumes.zfs import clone as zfs_clone
from snaprep.volumes.zfs import command as zfs_command
from snaprep.volumes.zfs import facts as zfs_facts
from snaprep.volumes.zfs import guard as zfs_guard
from snaprep.volumes.zfs import look as zfs_look
from snaprep.volumes.zfs import mounts as zfs_mounts
from snaprep.volumes.zfs import receive as zfs_receive
from snaprep.volumes.zfs import rights as zfs_rights
from snaprep.volumes.zfs import send as zfs_send
from snaprep.volumes.zfs import stream as zfs_stream
from snaprep.volumes.zfs.command import COMMAND_S, get, get_local, zfs
from snaprep.volumes.zfs.errors import explain, hint_of, stream_error
from snaprep.volumes.zfs.facts import HELD, PAIR, PREFIX, Rows, is_marked, number_of
from snaprep.volumes.zfs.features import Features, parse_size, pool_properties, probe
from snaprep.volumes.zfs.look import Layout
from snaprep.volumes.zfs.ops import ZfsOps
from snaprep.volumes.zfs.way import Choose, chosen

# Data that lies in block pointers is refused where it is to be encrypted on arrival.
_NOT_INTO_ENCRYPTED = frozenset({"embedded"})


class ZfsVolume:
    """The images of one pair on this host. `root` is the configured dataset, `children` its parts below it."""

    programs: Mapping[str, str] = MappingProxyType({"zfs": "zfsutils-linux", "zpool": "zfsutils-linux"})

    def __init__(self, *, pair: str, root: str, children: Sequence[str] = (), choose: Choose = chosen) -> None:
        self.layout = Layout(pair, root, ("", *sorted(children)))
        self.pair = pair
        self._features: Features | None = None
        self._choose = choose
        self._ops: ZfsOps | None = None

    @property
    def features(self) -> Features:
        """What the host can do, probed once. Raises `volume-unavailable`, `unknown-dataset`."""
        if self._features is None:
            self._features = probe(self.layout.pool, deadline_s=COMMAND_S)
        return self._features

    @property
    def caps(self) -> frozenset[str]:
        return self.features.caps

    @property
    def ops(self) -> ZfsOps:
        """How snapshots are made, held and destroyed here, tried once. Raises what `features` raises."""
        if self._ops is None:
            self._ops = self._choose(self.layout.pool, self.features)
        return self._ops

    # ---- looking

    def facts(self, *, deadline_s: float = COMMAND_S) -> VolumeFacts:
        """Everything about the pair's images: four short processes. Raises `volume-unavailable`, `unknown-dataset`."""
        features = self.features
        try:
            pool = pool_properties(self.layout.pool, legacy=features.legacy, deadline_s=deadline_s)
        except CommandFailed as error:
            raise explain(error) from error
        names = zfs_look.names(self.layout, deadline_s=deadline_s)
        reading = zfs_look.read(self.layout, names, self.caps, deadline_s=deadline_s)
        return VolumeFacts(
            kind="zfs",
            version=features.version,
            store=self.layout.pool,
            store_guid=int(pool.get("guid", "0")),
            store_health=zfs_look.health(pool),
            import_id=zfs_look.import_id(pool),
            free_bytes=number_of(reading.rows, names[0], "available") if names else self.free_bytes(),
            size_bytes=parse_size(pool.get("size", "")),
            caps=features.caps - _NOT_INTO_ENCRYPTED if self._encrypts else features.caps,
            images=tuple(zfs_command.with_users(image) for image in self.layout.images(names, reading)),
        )

    @functools.cached_property
    def _encrypts(self) -> bool:
        """Whether a new dataset beside the configured one is encrypted by what is above it; that never changes."""
        if "encryption" not in self.caps:
            return False
        above = get(["encryption"], [self.layout.parent])
        return zfs_facts.text_of(above, self.layout.parent, "encryption") not in (None, "off")

    def check(self, *, mountpoints: Sequence[str], as_target: bool) -> list[Finding]:
        """What could stop a run, and what other tools do here. Raises `volume-unavailable`, `unknown-dataset`."""
        found = zfs_check.findings(self.layout, self.facts(), mountpoints=mountpoints, as_target=as_target)
        return [*found, *zfs_check.versions(self.features), Finding("zfs-way", "ok", self.ops.way)]

    def lacking(self, places: Sequence[Place], user: str, group: str) -> list[Finding] | None:
        """What `user`, who is not root, may not do here, each with what gives it; None where only root can work."""
        if not zfs_rights.can_delegate():
            return None
        return zfs_rights.lacking(self.layout, places, user, group)

    def outside(self, image: str, paths: Sequence[Path]) -> list[Finding]:
        """What of these paths the atomic snapshot of an image does not hold."""
        return zfs_check.outside(self.layout, image, paths)

    def import_id(self) -> str:
        """Changes when the pool was exported, or its daemon started anew."""
        if self.features.legacy:
            return zfs_look.import_id({})
        return zfs_look.import_id(pool_properties(self.layout.pool, wanted="load_guid", deadline_s=COMMAND_S))

    def marks(self, image: str, names: Sequence[str]) -> dict[str, str] | None:
        """Those of the named properties that are set right on an image; None when there is no such image."""
        try:
            rows = get([f"{PREFIX}{name}" for name in names], [image])
        except SnaprepError as error:
            if error.id != "unknown-dataset":
                raise
            return None
        return {prop.removeprefix(PREFIX): value.text for prop, value in rows[image].items() if value.local}

    def free_bytes(self) -> int:
        """What could still be written where the images are: one short process."""
        return number_of(get(["available"], [self.layout.parent]), self.layout.parent, "available")

    # ---- points

    def begin_point(self, image: str, name: str) -> Path | None:
        """Nothing is copied for a snapshot."""
        del image, name
        return None

    def snapshot(self, image: str, name: str) -> Point:
        """One atomic snapshot of all parts. Raises `no-space`, `unknown-dataset`, `snapshot-exists`."""
        every = self.layout.snapshots(image, name)
        self.ops.snapshot(every, {PAIR: self.pair})
        return zfs_facts.point(every, self.pair, get(zfs_facts.READ_POINT, every))

    def hold(self, image: str, point: str) -> None:
        """Hold under the pair's tag. Held already is fine. A live image's points are bookmarked, too.

        `zfs holds` does not work everywhere: a property of the snapshot remembers that one of its holds is ours.
        """
        every = self.layout.snapshots(image, point)
        self.ops.hold(self._tag, every)
        zfs("set", f"{HELD}={self.pair}", *every)
        if image == self.layout.root and "bookmarks" in self.caps:
            zfs_bookmarks.keep(self.ops, self.layout, image, point)

    def release(self, image: str, point: str) -> None:
        """Release the pair's hold. Not held, or gone, is fine."""
        if there := self.ops.release(self._tag, self.layout.snapshots(image, point)):
            zfs("inherit", HELD, *there)

    @property
    def _tag(self) -> str:
        return f"snaprep:{self.pair}"

    def destroy_point(self, image: str, point: str) -> None:
        """Destroy one snapshot that this pair created, in every part. Gone already is fine; never recursive.

        The root's goes last, so what a kill leaves is found again. Raises `not-ours`, `point-held`, `has-dependents`.
        """
        found, rows = self._our_point(image, point)
        for snapshot in found:
            zfs_guard.require_unheld(snapshot, rows)
        self.ops.destroy(found)

    def let_go(self, image: str, point: str) -> None:
        """`release` and `destroy_point` with as little as there can be: this stands in every round."""
        found, rows = self._our_point(image, point)
        mine = [s for s in found if is_marked(rows, s, HELD, self.pair)]
        if any(number_of(rows, s, "userrefs") != int(s in mine) for s in found):
            # Somebody else holds it too, or a kill came between a hold and its mark.
            self.release(image, point)
            self.destroy_point(image, point)
            return
        if mine:
            self.ops.release(self._tag, mine)
        try:
            self.ops.destroy(found)
        except SnaprepError:
            if left := self.ops.existing(mine):  # a mark without a hold would make another's hold look like ours
                zfs("inherit", HELD, *left)
            raise

    def _our_point(self, image: str, point: str) -> tuple[list[str], Rows]:
        """The point's snapshots, children's first, and what is below the image. Raises `not-ours`."""
        rows, local = zfs_look.subtree(self.layout, image)
        found = sorted((n for n in rows if n.partition("@")[2] == point), key=lambda n: n.count("/"), reverse=True)
        for snapshot in found:
            zfs_guard.require_our_point(snapshot, self.pair, rows, local)
        return found, rows

    # ---- streams

    def estimate_bytes(self, image: str, point: str, base_guid: int | None, *, flags: Sequence[str] = ()) -> int:
        """About the size of the stream, where the host can say: the cap `estimate`. Raises `base-missing`."""
        base = None if base_guid is None else zfs_send.found(self.layout, image, point, base_guid)
        try:
            return sum(
                self.ops.stream_bytes(snapshot, base and zfs_stream.part_of(base, part), flags)
                for part, snapshot in zip(self.layout.parts, self.layout.snapshots(image, point), strict=True)
            )
        except SnaprepError as error:
            if base is None or error.id != "unknown-dataset":
                raise
            # Both ends were there a moment ago, and ZFS does not say which of them is not.
            raise SnaprepError("base-missing", error.info.what, hint=hint_of("base-missing")) from error

    def written_bytes(self, image: str) -> int | None:
        """Bytes written since the newest snapshot, those of this moment included; None where nobody can say."""
        if "written" not in self.caps:
            return None
        self.ops.sync(self.layout.pool)
        every = self.layout.datasets(image)
        rows = get(["written"], every)
        return sum(number_of(rows, d, "written") for d in every)

    def open_send(
        self,
        image: str,
        point: str,
        base_guid: int | None,
        *,
        base_name: str = "",
        flags: Sequence[str] = (),
        token: str | None = None,
    ) -> list[tuple[str, list[str]]]:
        """(part, argv) of the programs that write the streams, in the order in which they must be sent.

        `base_name`, when it is a snapshot or a bookmark of the image itself, is taken as it is, without looking for the
        GUID: the receiver refuses a stream from another base. Raises `base-missing`.
        """
        if token is not None:
            return [("", ["zfs", "send", "-t", token])]
        base = base_name if base_name.startswith((f"{image}@", f"{image}#")) else None
        if base is None and base_guid is not None:
            base = zfs_send.base(self.layout, self.caps, image, point, base_guid)
        return [
            (part, zfs_stream.send(snapshot, base and zfs_stream.part_of(base, part), flags))
            for part, snapshot in zip(self.layout.parts, self.layout.snapshots(image, point), strict=True)
        ]

    def open_receive(
        self,
        image: str,
        part: str,
        *,
        origin: str | None,
        base_guid: int | None = None,
        resumes: bool = False,
    ) -> list[str]:
        """argv of the program that reads one part's stream into `image`; never mounts, never forces.

        With `resumes` the stream goes on with the one that the image holds in part. `origin` is the full name of the
        root's snapshot that a new image starts from. `base_guid` is what the root's stream starts from. Raises
        `not-ours` for an image that no run of this pair received, `recv-mounted` for one that is in use, and Stale when
        the base is not the newest point: where the named dataset is missing, an old `zfs receive` looks for the base by
        itself and writes into whatever dataset has it.
        """
        return zfs_receive.program(
            self.layout,
            self.caps,
            image,
            part,
            origin=origin,
            base_guid=None if resumes else base_guid,
        )

    def received(
        self, image: str, point: str, guids: Sequence[int] = (), *, tuning: Mapping[str, str] | None = None
    ) -> Point:
        """Read back a received point, and seal a new image: marked, read-only, never mounted by itself.

        `guids`, when given, are what the source says the point's parts are. Raises `receive-incomplete`.
        """
        return zfs_receive.received(self.layout, image, point, guids, tuning or {})

    def discard_partial(self, image: str) -> None:
        """Throw away the state of an interrupted receive (a stale resume token)."""
        if "resume" in self.caps:
            zfs_receive.discard_partial(self.layout, image)

    def stream_failed(self, status: int, stderr: str) -> SnaprepError:
        """The error for a program of `open_send` or `open_receive` that ended with `status` and said `stderr`."""
        return stream_error(stderr, status)

    # ---- images

    def adopt(self, image: str, role: ImageRole) -> None:
        """Mark an image that exists, such as the database's own: known to the pair, still not ours to destroy."""
        zfs_guard.require_unclaimed(image, self.pair, get_local([image]))
        self.set_properties(image, {"role": str(role), "pair": self.pair})

    def clone(
        self,
        image: str,
        point: str,
        to: str,
        *,
        mountpoint: str | None,
        role: ImageRole,
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """A writable clone, marked with the pair, `role` and `properties`; mounted at `mountpoint` unless that is None.

        Tuning set on the origin is set on the clone. A clone that a kill left without all its parts is completed.
        Raises `dataset-exists`, `mountpoint-taken`, `unknown-dataset`. Two processes for an image of one part: this
        stands in the cutover.
        """
        zfs_clone.clone(
            self.layout, self.ops, image, point, to, mountpoint=mountpoint, role=role, properties=properties
        )

    def rename(self, image: str, to: str) -> None:
        """Unmount and rename an image with its children. Raises `dataset-busy`, `dataset-exists`, `unknown-dataset`."""
        if self.ops.existing([to]):
            raise SnaprepError("dataset-exists", f"{to} exists already", hint="Set it aside by a rename first.")
        intent = zfs_guard.intent(self.pair)
        rows = get([PAIR, intent], [*self.ops.existing(self.layout.datasets(image)), self.layout.parent])
        if is_marked(rows, self.layout.parent, intent, image) and zfs_look.half_made(self.layout, image):
            zfs_receive.seal(self.layout, image, rows, {})
        zfs_command.unmount(image)
        zfs_command.when_free(image, lambda: zfs("rename", image, to))

    def mount(self, image: str, mountpoint: str) -> None:
        """Mount at exactly this path, all parts, and check by dataset that it is there. Raises `mountpoint-taken`."""
        paths = self.layout.paths(image, mountpoint)
        if zfs_command.is_at(paths):
            return
        zfs_command.require_free_path(image, mountpoint)
        zfs_command.unmount(image)
        if zfs_facts.text_of(get(["mountpoint"], [image]), image, "mountpoint") != mountpoint:
            zfs("set", f"mountpoint={mountpoint}", image)
        zfs_command.mount_parts(image, paths)

    def unmount(self, image: str) -> None:
        """Unmount what of the image is mounted. Raises `dataset-busy` with the processes that hold it."""
        zfs_command.unmount(image)

    def looked_at(self, image: str, beside: Path) -> AbstractContextManager[Path]:
        """Mounted there meanwhile."""
        return zfs_command.mounted(self, image, beside)

    def set_properties(self, image: str, properties: Mapping[str, str]) -> None:
        """Set `snaprep:*` properties (names without the prefix); an empty value removes."""
        for name, value in properties.items():
            words = ["set", f"{PREFIX}{name}={value}"] if value else ["inherit", f"{PREFIX}{name}"]
            zfs(*words, image)

    def set_automount(self, image: str, *, on: bool) -> None:
        """Whether the image comes up by itself at boot."""
        for name in self.layout.datasets(image):
            zfs("set", f"canmount={'on' if on else 'noauto'}", name)

    def destroy_image(self, image: str) -> None:
        """Destroy an image that this pair's runs created, and its own snapshots; refuses when something depends on it.

        Raises `not-ours`, `dataset-busy`, `point-held`, `has-dependents`. Gone already is fine.
        """
        if not self.ops.existing([image]):
            return
        rows, local = zfs_look.subtree(self.layout, image)
        zfs_guard.require_our_image(image, self.pair, rows, local)
        listed = zfs("list", "-H", "-r", "-o", "name,origin", "-t", "filesystem,volume", self.layout.pool)
        zfs_guard.require_independent(image, dict(line.split("\t") for line in listed.splitlines()))
        zfs_command.unmount(image)
        for name in sorted(rows, key=lambda n: (n.count("/"), not zfs_facts.is_dataset(n)), reverse=True):
            zfs_command.when_free(image, lambda name=name: zfs("destroy", name))  # type: ignore[misc]

    def promote(self, image: str) -> None:
        """Make a clone independent of its origin, so that the origin can go. Independent already is fine."""
        zfs_send.promote(self.layout, image)

    def chown_tree(self, image: str, user: str, group: str) -> int:
        """Give the database's files to these names where their numbers differ from the other host's; how many."""
        mount = zfs_mounts.of_dataset(zfs_mounts.zfs_mounts(), image)
        if mount is None:
            raise SnaprepError("not-mounted", f"{image} is not mounted", hint=f"zfs mount {image}")
        return owner.chown_tree(mount.path, user, group)
