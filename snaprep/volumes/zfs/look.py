"""Where a pair's images are, and reading them with as few processes as there can be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snaprep.agent import identity
from snaprep.core.errors import SnaprepError, UsageError
from snaprep.core.volume import Image, ImageRole
from snaprep.volumes.zfs import facts as zfs_facts
from snaprep.volumes.zfs import guard as zfs_guard
from snaprep.volumes.zfs import mounts as zfs_mounts
from snaprep.volumes.zfs.command import COMMAND_S, get, get_local, zfs
from snaprep.volumes.zfs.facts import CREATED, HELD, PAIR, ROLE, Reading, Rows, is_marked

_FUSE_SOCKET = Path("/run/zfs/zfs_socket")
MARKS = (PAIR, ROLE, CREATED)


@dataclass(frozen=True, slots=True)
class Layout:
    """`root` is the configured dataset; `parts` are "" for itself and its children that belong to the database."""

    pair: str
    root: str
    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        if "/" not in self.root:
            what = f"{self.root} is a whole pool; images are renamed, and a pool cannot be"
            raise UsageError("dataset-is-pool", what, hint=f"Use a dataset in it, such as {self.root}/db.")

    @property
    def parent(self) -> str:
        return self.root.rpartition("/")[0]

    @property
    def pool(self) -> str:
        return self.root.partition("/")[0]

    def datasets(self, image: str) -> list[str]:
        return [zfs_facts.dataset(image, part) for part in self.parts]

    def snapshots(self, image: str, point: str) -> list[str]:
        return [f"{name}@{point}" for name in self.datasets(image)]

    def paths(self, image: str, mountpoint: str) -> dict[str, str]:
        return {zfs_facts.dataset(image, part): zfs_facts.dataset(mountpoint, part) for part in self.parts}

    def images(self, names: Sequence[str], reading: Reading) -> tuple[Image, ...]:
        return zfs_facts.images(names, self.root, self.parts[1:], self.pair, reading)


def names(layout: Layout, *, deadline_s: float = COMMAND_S) -> tuple[str, ...]:
    """The configured image and its dotted siblings, those that are there. Raises `unknown-dataset`."""
    listed = zfs("list", "-H", "-o", "name", "-d", "1", "-t", "filesystem", layout.parent, deadline_s=deadline_s)
    return zfs_facts.parse_names(listed, layout.root)


def read(layout: Layout, wanted: Sequence[str], caps: Collection[str], *, deadline_s: float = COMMAND_S) -> Reading:
    """Two processes: what is below the images, and what is set right on them. Snapshots may be named, too."""
    props = [*zfs_facts.READ, *(prop for cap, found in zfs_facts.READ_IF.items() if cap in caps for prop in found)]
    rows = get(props, wanted, "-r", deadline_s=deadline_s) if wanted else {}
    return Reading(rows, local(layout, list(filter(zfs_facts.is_dataset, rows))), zfs_mounts.zfs_mounts())


def histories(layout: Layout) -> tuple[Image, ...]:
    """The images with their points and origins only."""
    there = names(layout)
    return layout.images(there, Reading(get(["guid", "createtxg", "origin"], there, "-r"), {}))


def subtree(layout: Layout, image: str) -> tuple[Rows, Rows]:
    """Everything below one image as far as the guard asks, and what is set right on its datasets.

    One process, unless the image carries no mark of the pair.
    """
    rows = get(["origin", "userrefs", HELD, *MARKS], [image], "-r")
    datasets = list(filter(zfs_facts.is_dataset, rows))
    if all(is_marked(rows, n, PAIR, layout.pair) for n in datasets):
        return rows, local_of(rows)
    return rows, local(layout, datasets)


def local_of(rows: Rows) -> Rows:
    """Of what was read, what is set right there."""
    return {name: {prop: value for prop, value in found.items() if value.local} for name, found in rows.items()}


def local(layout: Layout, wanted: Sequence[str]) -> Rows:
    """Local properties. An image whose first receive was killed has no marks yet: the parent says whose it is."""
    found = get_local([layout.parent, *wanted])
    intent = found.get(layout.parent, {}).get(zfs_guard.intent(layout.pair))
    if intent is not None and half_made(layout, intent.text):
        marks = zfs_guard.marks(layout.pair, ImageRole.RECV)
        for name in layout.datasets(intent.text):
            there = found.setdefault(name, {})
            for prop, text in marks.items():
                there.setdefault(prop, zfs_facts.Value(text, local=True))
    return found


def half_made(layout: Layout, image: str) -> bool:
    """Whether an image that was meant to be received can have been: it has snapshots, all with names of ours.

    Somebody else may have made a dataset of that name since; a receive is atomic, and leaves one with a snapshot.
    """
    try:
        listed = zfs("list", "-H", "-r", "-o", "name", "-t", "snapshot", image)
    except SnaprepError as error:
        if error.id != "unknown-dataset":
            raise
        return False
    names_there = [line.partition("@")[2] for line in listed.splitlines()]
    prefix = zfs_facts.point_prefix(layout.pair)
    return bool(names_there) and all(name.startswith(prefix) for name in names_there)


def health(pool: Mapping[str, str]) -> str:
    """As ZFS says it. A pool that was imported to be read only counts itself as ONLINE, and takes no snapshot."""
    return "READONLY" if pool.get("readonly") == "on" else pool.get("health", "UNKNOWN")


def import_id(pool: Mapping[str, str]) -> str:
    """Changes with a boot, and with an import where ZFS counts those; zfs-fuse imports when its daemon starts."""
    boot_id = identity.boot_id()
    if "load_guid" in pool:
        return f"{boot_id}:{pool['load_guid']}"
    try:
        return f"{boot_id}:{_FUSE_SOCKET.stat().st_ctime_ns}"
    except FileNotFoundError:
        return boot_id
