"""A plain directory, on any filesystem: no snapshots, no increments, no clones.

The image is the database's own directory. It stands where clients look, beside that as a replica, or out of everybody's
way, and a rename moves it between these places; what a dataset has as properties lies in a file in it. A point is a
whole copy that the engine makes in a directory of its own, and that is sent once. What is received becomes the replica
by a rename, so a target has its base only until then. Nothing is ever written over: what is in the way is renamed, and
only what a run of this pair made is removed.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from snaprep.agent import process
from snaprep.core.codec import encode
from snaprep.core.errors import CheckFailed, SnaprepError
from snaprep.core.model import Finding
from snaprep.core.volume import ImageRole, Point, VolumeFacts
from snaprep.volumes import owner
from snaprep.volumes.base import Place
from snaprep.volumes.directory import check as directory_check
from snaprep.volumes.directory import files as directory_files
from snaprep.volumes.directory import marks
from snaprep.volumes.directory.look import Places
from snaprep.volumes.directory.marks import Marks

CAPS = frozenset({"copies", "always_there"})
LOOK_S = 20.0
_PACK, _UNPACK = (f"snaprep.volumes.directory.tar_stream:{name}" for name in ("pack", "unpack"))


class DirectoryVolume:
    """The images of one pair on this host: `root` is the database's directory, `beside` where it is as a replica."""

    programs: Mapping[str, str] = MappingProxyType({})

    def __init__(self, *, pair: str, root: str, beside: str) -> None:
        self.pair = pair
        self.root = Path(root)
        self._at = Places(pair=pair, root=self.root, beside=Path(beside))

    # ---- looking

    def facts(self, *, deadline_s: float = LOOK_S) -> VolumeFacts:
        """Everything about the pair's images. Raises `volume-unavailable`, `volume-timeout`, `marks-unreadable`."""
        return self._at.facts(CAPS, time.monotonic() + process.patient_s(deadline_s))

    def check(self, *, mountpoints: Sequence[str], as_target: bool) -> list[Finding]:
        """What could stop a run. Raises what `facts` raises."""
        return directory_check.findings(self.root, self.facts(), mountpoints=mountpoints, as_target=as_target)

    def lacking(self, places: Sequence[Place], user: str, group: str) -> None:
        """Only root can: files of another account are read, renamed and given away."""
        del places, user, group

    def outside(self, image: str, paths: Sequence[Path]) -> list[Finding]:
        """What of these paths does not lie in the directory: a rename would not move it."""
        return directory_check.outside(self._at.path(image), paths)

    def import_id(self) -> str:
        """Changes when the filesystem is another one."""
        return directory_files.store(self.root.parent).import_id

    def marks(self, image: str, names: Sequence[str]) -> dict[str, str] | None:
        """Those of the named properties that are set on an image; None when there is no such image."""
        try:
            found = marks.read(self._at.path(image)).properties
        except SnaprepError as error:
            if error.id != "unknown-dataset":
                raise
            return None
        return {name: found[name] for name in names if name in found}

    def free_bytes(self) -> int:
        """What could still be written where the images are."""
        return directory_files.store(self.root.parent).free_bytes

    # ---- points

    def begin_point(self, image: str, name: str) -> Path | None:
        """A new private directory of the database's owner, in which the engine puts its copy. The former one goes.

        Raises `snapshot-exists`, `unknown-dataset`, and `dataset-busy` while an engine still writes the former one.
        """
        top = self._at.path(image).stat()
        place = self._at.point_path(name)
        if place.exists():
            raise SnaprepError("snapshot-exists", f"{place} exists already")
        for former, _ in self._at.points():
            directory_files.remove(former)
        place.mkdir(mode=0o700)
        marks.write(place, Marks(pair=self.pair, created=_now()))
        os.chown(place, top.st_uid, top.st_gid)
        return place

    def snapshot(self, image: str, name: str) -> Point:
        """What the engine has put into the place of `begin_point` is a point from now on. Raises `unknown-dataset`."""
        place = self._at.point_path(name)
        copies = [p for p in place.iterdir() if p.is_dir()] if place.is_dir() else []
        if len(copies) != 1:
            raise SnaprepError("unknown-dataset", f"{place} does not hold one copy of {image}")
        point = Point(name=name, guids=(secrets.randbits(63),), createtxg=time.time_ns())
        with marks.changing(place) as found:
            marks.write(place, replace(found, point=point))
        return point

    def hold(self, image: str, point: str) -> None:
        """Keep a point for the pair. Held already is fine."""
        self._set_hold(image, point, held=True)

    def release(self, image: str, point: str) -> None:
        """Not held, or gone, is fine."""
        self._set_hold(image, point, held=False)

    def _set_hold(self, image: str, point: str, *, held: bool) -> None:
        place = self._at.point_path(point) if image == str(self.root) else Path(image)
        if not place.is_dir():
            return
        with marks.changing(place) as found:
            if found.made_by(self.pair) and found.point is not None and found.point.name == point:
                marks.write(place, replace(found, point=replace(found.point, held=held)))

    def destroy_point(self, image: str, point: str) -> None:
        """Remove a copy that a run of this pair made, whole or not. Gone already is fine. Raises `not-ours`."""
        if image != str(self.root):
            if Path(image).is_dir() and (held := marks.read(Path(image)).point) is not None and held.name == point:
                self.destroy_image(image)
            return
        place = self._at.point_path(point)
        if place.is_dir():
            self._require_ours(place)
            directory_files.remove(place)

    def let_go(self, image: str, point: str) -> None:
        """The copy goes with its hold."""
        self.destroy_point(image, point)

    # ---- streams

    def estimate_bytes(self, image: str, point: str, base_guid: int | None, *, flags: Sequence[str] = ()) -> int:
        """About the size of the stream. Raises `base-missing` for an increment."""
        del flags
        _refuse_increment(image, base_guid)
        return directory_files.size_bytes(self._at.point_path(point), time.monotonic() + LOOK_S)

    def written_bytes(self, image: str) -> int | None:
        """No plain filesystem can say."""
        del image
        return None

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
        """argv of the program that writes a copy as a stream. Raises `base-missing` for an increment."""
        del base_name, flags, token
        _refuse_increment(image, base_guid)
        place = self._at.point_path(point)
        found = marks.read(place) if place.is_dir() else Marks()
        if found.point is None:
            raise SnaprepError("base-missing", f"{place} is no copy any more", hint="a new one is made")
        copy = next(p for p in place.iterdir() if p.is_dir())
        return [("", process.own_argv(_PACK, str(copy), json.dumps(encode(replace(found.point, held=False)))))]

    def open_receive(
        self,
        image: str,
        part: str,
        *,
        origin: str | None,
        base_guid: int | None = None,
        resumes: bool = False,
    ) -> list[str]:
        """argv of the program that reads a stream into a new directory. Raises `not-ours` when there is one already."""
        del part, origin, resumes
        _refuse_increment(image, base_guid)
        place = Path(image)
        if os.path.lexists(place):
            what = f"{place} exists; nothing is received over it"
            raise CheckFailed("not-ours", what, hint="rename it, or let it be set aside")
        place.mkdir(mode=0o700)
        marks.write(place, Marks(pair=self.pair, role=ImageRole.RECV, created=_now()))
        marks.sync(place.parent)
        return process.own_argv(_UNPACK, image)

    def received(
        self, image: str, point: str, guids: Sequence[int] = (), *, tuning: Mapping[str, str] | None = None
    ) -> Point:
        """Read back what came in. Raises `receive-incomplete`."""
        del tuning
        got = marks.read(self._at.path(image)).point
        if got is None or got.name != point or (guids and got.guids != tuple(guids)):
            raise SnaprepError("receive-incomplete", f"{image} does not hold {point}", hint="It is sent again.")
        return got

    def stream_failed(self, status: int, stderr: str) -> SnaprepError:
        """`no-space`, `stream-damaged`, or `stream-failed`."""
        said = stderr.strip().splitlines()[-1:] or [f"the program ended with status {status} and said nothing"]
        if "No space left" in stderr or "quota exceeded" in stderr:
            return SnaprepError("no-space", said[0], hint="Free space there.")
        if "the stream is damaged" in stderr:
            return SnaprepError("stream-damaged", said[0], hint="It was cut on its way; the target is as before.")
        return SnaprepError("stream-failed", said[0], hint="See what the filesystem says there.")

    def discard_partial(self, image: str) -> None:
        """Throw away a copy that was not finished, or not received whole."""
        if image == str(self.root):
            left = [place for place, seen in self._at.points() if seen.point is None]
        else:
            place = Path(image)
            seen = marks.read(place) if place.is_dir() else Marks()
            left = [place] if seen.made_by(self.pair) and seen.point is None else []
        for place in left:
            directory_files.remove(place)

    # ---- images

    def adopt(self, image: str, role: ImageRole) -> None:
        """Mark a directory that exists: known to the pair, still not ours to destroy. Raises `not-ours`."""
        place = self._at.path(image)
        with marks.changing(place) as found:
            if found.pair not in ("", self.pair):
                what = f"{image} belongs to pair {found.pair}"
                raise CheckFailed("not-ours", what, hint="Use that pair's configuration.")
            marks.write(place, replace(found, pair=self.pair, role=role))

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
        """What was received becomes the live image: there is one copy of it, and this is it.

        Raises `dataset-exists`, `mountpoint-taken`, `no-clones` for a throw-away copy.
        """
        if role is not ImageRole.LIVE:
            raise CheckFailed("no-clones", f"a plain directory cannot be cloned: no {role} copy of {image}")
        if self._at.live_path() is not None:
            raise SnaprepError("dataset-exists", f"{to} exists already", hint="Set it aside by a rename first.")
        place = self._at.path(image)
        self.received(image, point)
        with marks.changing(place) as found:
            marks.write(place, replace(found, role=role).with_properties(dict(properties)))
        self._move(place, Path(mountpoint) if mountpoint is not None else self._at.rest(to), "mountpoint-taken")

    def rename(self, image: str, to: str) -> None:
        """Raises `dataset-busy`, `dataset-exists`, `unknown-dataset`."""
        self._move(self._at.path(image), self._at.rest(to), "dataset-exists")

    def mount(self, image: str, mountpoint: str) -> None:
        """Have it at exactly this path. Raises `dataset-busy`, `mountpoint-taken`."""
        self._move(self._at.path(image), Path(mountpoint), "mountpoint-taken")

    def unmount(self, image: str) -> None:
        """Put it where nobody looks. Raises `dataset-busy`."""
        self._move(self._at.path(image), self._at.rest(image), "mountpoint-taken")

    @contextmanager
    def looked_at(self, image: str, beside: Path) -> Iterator[Path]:
        """It can be looked at where it is."""
        del beside
        yield self._at.path(image)

    def _move(self, place: Path, to: Path, taken: str) -> None:
        if place == to:
            return
        if os.path.lexists(to):
            raise SnaprepError(taken, f"{to} exists", hint="Something else is at the path; it is not touched.")
        directory_files.must_be_unused(place)
        place.rename(to)
        marks.sync(to.parent)

    def set_properties(self, image: str, properties: Mapping[str, str]) -> None:
        """Set properties; an empty value removes."""
        place = self._at.path(image)
        with marks.changing(place) as found:
            marks.write(place, found.with_properties(dict(properties)))

    def set_automount(self, image: str, *, on: bool) -> None:
        """A directory is there whenever its filesystem is: the cap `always_there`."""
        del image, on

    def destroy_image(self, image: str) -> None:
        """Remove an image that this pair's runs made. Raises `not-ours`, `dataset-busy`. Gone already is fine."""
        place = self._at.live_path() if image == str(self.root) else Path(image)
        if place is None or not place.is_dir():
            return
        self._require_ours(place)
        directory_files.remove(place)

    def promote(self, image: str) -> None:
        """Every directory stands by itself."""
        del image

    def chown_tree(self, image: str, user: str, group: str) -> int:
        """Give the database's files to these names; how many."""
        return owner.chown_tree(str(self._at.path(image)), user, group)

    def _require_ours(self, place: Path) -> None:
        if not marks.read(place).made_by(self.pair):
            raise CheckFailed("not-ours", f"{place} was not made by a run of pair {self.pair}; it stays")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _refuse_increment(image: str, base_guid: int | None) -> None:
    if base_guid is not None:
        raise SnaprepError("base-missing", f"{image} is a plain directory: no increments", hint="A whole copy is sent.")
