"""Where the images of a pair stand on a host without snapshots, and what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from snaprep.core.errors import SnaprepError
from snaprep.core.model import recv_name
from snaprep.core.volume import Image, ImageRole, Partial, VolumeFacts
from snaprep.volumes.directory import files as directory_files
from snaprep.volumes.directory import marks
from snaprep.volumes.directory.marks import Marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """`root` is where clients look, `beside` where a replica stands; all others are named after `root`."""

    pair: str
    root: Path
    beside: Path

    @property
    def away(self) -> Path:
        """Where the live image is when nobody is to find it."""
        return self.root.with_name(f"{self.root.name}.unmounted")

    def path(self, image: str) -> Path:
        """Where an image stands now. Raises `unknown-dataset`."""
        path = self.live_path() if image == str(self.root) else Path(image)
        if path is None or not path.is_dir():
            raise SnaprepError("unknown-dataset", f"there is no {image}", hint="look at `snaprep status`")
        return path

    def live_path(self) -> Path | None:
        """What is marked as this pair's wherever it stands, else what is where clients look."""
        places = [p for p in (self.beside, self.away, self.root) if p.is_dir()]
        marked = [p for p in places if marks.read(p).pair == self.pair]
        return next(iter(marked), self.root if self.root in places else None)

    def rest(self, image: str) -> Path:
        """Where it stands when it is not mounted."""
        return self.away if image == str(self.root) else Path(image)

    def points(self) -> list[tuple[Path, Marks]]:
        """The directories of copies that this pair's runs have made or begun here."""
        found = [(path, marks.read(path)) for path in self._siblings("point-")]
        return [(path, seen) for path, seen in found if seen.made_by(self.pair)]

    def _siblings(self, begin: str = "") -> list[Path]:
        prefix = f"{self.root.name}.{begin}"
        return sorted(p for p in self.root.parent.iterdir() if p.name.startswith(prefix) and p.is_dir())

    def point_path(self, name: str) -> Path:
        return self.root.with_name(f"{self.root.name}.point-{name}")

    def facts(self, caps: frozenset[str], until_s: float) -> VolumeFacts:
        """Raises `volume-unavailable`, `volume-timeout`, `marks-unreadable`."""
        store = directory_files.store(self.root.parent)
        users = directory_files.users_below(self.root.parent)
        live = self.live_path()
        points = self.points()
        aside = [p for p in self._siblings() if p not in (live, self.beside, self.away, *(at for at, _ in points))]
        images = [self._aside(path, until_s) for path in aside]
        if live is not None:
            images.append(self._live(live, points, until_s))
        return VolumeFacts(
            kind="directory",
            version=store.kind,
            store=store.path,
            store_guid=store.number,
            store_health="READ-ONLY" if store.read_only else "ONLINE",
            import_id=store.import_id,
            free_bytes=store.free_bytes,
            size_bytes=store.size_bytes,
            caps=caps,
            images=tuple(replace(i, in_use_by=directory_files.inside(users, self.path(i.name))) for i in images),
        )

    def _live(self, path: Path, points: Sequence[tuple[Path, Marks]], until_s: float) -> Image:
        found = marks.read(path)
        mine = found.pair == self.pair
        size = directory_files.size_bytes(path, until_s)
        pinned = sum(directory_files.size_bytes(p, until_s) for p, _ in points)
        begun = any(seen.point is None for _, seen in points)
        return Image(
            name=str(self.root),
            role=ImageRole.LIVE if mine else ImageRole.FOREIGN,
            ours=found.made_by(self.pair),
            points=tuple(sorted((s.point for _, s in points if s.point), key=lambda p: p.createtxg)),
            mounted_at=None if path == self.away else str(path),
            mountpoint=str(path),
            used_bytes=size + pinned,
            referenced_bytes=size,
            pinned_bytes=pinned,
            properties=_properties(found),
            partial=Partial(token="") if begun else None,
        )

    def _aside(self, path: Path, until_s: float) -> Image:
        found = marks.read(path)
        if found.pair != self.pair:
            return Image(name=str(path), role=ImageRole.FOREIGN, properties=_properties(found))
        is_recv = str(path) == recv_name(str(self.root))
        size = directory_files.size_bytes(path, until_s)
        # What was about to become the replica may be marked as it already.
        role = ImageRole.RECV if is_recv else ImageRole(found.role or ImageRole.ISOLATED)
        return Image(
            name=str(path),
            role=role,
            ours=found.made_by(self.pair),
            points=(found.point,) if found.point and is_recv else (),
            used_bytes=size,
            referenced_bytes=size,
            properties=_properties(found),
            partial=Partial(token="") if is_recv and found.point is None else None,
        )


def _properties(found: Marks) -> dict[str, str]:
    return {**found.properties, **({"pair": found.pair, "role": found.role} if found.pair else {})}
