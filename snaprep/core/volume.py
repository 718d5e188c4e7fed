"""Values that describe snapshot storage: what a volume adapter reports, and what `decide` reasons about.

An *image* is the database's storage as one unit: a dataset with the children that belong to it, always snapshotted,
sent, cloned and renamed together. A *point* is one snapshot of an image. Points are equal when their GUIDs are;
names are decoration, and order within one host is `createtxg`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ImageRole(StrEnum):
    """What an image is for, kept as the property `snaprep:role` on the image itself."""

    LIVE = "live"  # at the path that the engine opens
    RECV = "recv"  # received into, never started
    ISOLATED = "isolated"  # set aside, never started again, never destroyed by a run
    SCRATCH = "scratch"  # a throwaway clone: to warm a server, to verify; destroyed when done
    FOREIGN = "foreign"  # carries no mark of this pair


@dataclass(frozen=True, slots=True)
class Point:
    """One snapshot of an image. `guids` holds one GUID for each part, the root's first, the rest by part name."""

    name: str  # the part after the @
    guids: tuple[int, ...]
    createtxg: int
    held: bool = False  # by our tag
    held_by_others: bool = False
    bookmark: bool = False  # the snapshot is gone, its bookmark is left: an increment starts from it, nothing else does

    @property
    def guid(self) -> int:
        return self.guids[0]

    def of(self, image: str) -> str:
        """The full name, as a point of that image."""
        return f"{image}{'#' if self.bookmark else '@'}{self.name}"


@dataclass(frozen=True, slots=True)
class Partial:
    """A stream that came in part. It can be gone on with while the sender still has the point, whose GUID is `head`."""

    token: str
    head_guid: int = 0  # 0: not known, so it can only be discarded
    base_guid: int | None = None  # of an increment
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """`name` is the root dataset; `parts` are the children below it, relative, sorted, without the root."""

    name: str
    role: ImageRole
    parts: tuple[str, ...] = ()
    ours: bool = False  # a run of this pair created it, so a run may destroy it; being marked alone is not enough
    points: tuple[Point, ...] = ()  # by createtxg, oldest first; only complete ones (in every part)
    bookmarks: tuple[Point, ...] = ()  # the same of what the pair's own bookmarks have left of points that are gone
    origin: str | None = None  # the image whose point this one is a clone of
    origin_guid: int | None = None
    mounted_at: str | None = None
    mountpoint: str | None = None  # the property: where it would be mounted
    automounts: bool = False  # canmount=on: comes up by itself at boot
    read_only: bool = False
    used_bytes: int = 0  # what the image and its snapshots occupy, shared blocks counted once
    referenced_bytes: int = 0
    written_bytes: int | None = None  # written since the newest point; None where the filesystem cannot say
    pinned_bytes: int = 0  # held only by snapshots
    properties: dict[str, str] = field(default_factory=dict)  # snaprep:* without the prefix
    tuning: dict[str, str] = field(default_factory=dict)  # set here and worth having on a copy: recordsize, atime, ...
    encrypted: bool = False  # what is sent of it stays so, and its receiver needs no key to hold it
    locked: bool = False  # the key is not loaded: it can be received into, and not mounted
    key_of: str = ""  # the dataset whose key opens it: of a clone its origin's
    fragments: tuple[str, ...] = ()  # names of snapshots that only some of the parts have
    strangers: tuple[str, ...] = ()  # datasets below it that are not configured as parts, relative
    partial: Partial | None = None  # what an interrupted receive has left
    in_use_by: tuple[str, ...] = ()  # processes that have files of it open, "pid name"

    def point(self, guid: int) -> Point | None:
        return next((p for p in self.points if p.guid == guid), None)

    @property
    def newest(self) -> Point | None:
        return self.points[-1] if self.points else None


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """What one host's storage holds for a pair, read in one call."""

    kind: str  # "zfs", "directory"
    version: str
    store: str  # pool
    store_guid: int
    store_health: str  # "ONLINE", "DEGRADED", ...
    import_id: str  # changes when the pool was exported or its service restarted
    free_bytes: int
    size_bytes: int
    caps: frozenset[str] = frozenset()  # estimate, resume, bookmarks, origin, large_blocks, compressed, embedded, ...
    # Of storage without snapshots: copies (a point is a whole copy that the engine makes, and that is sent once: no
    # increments, no clones), always_there (what is there cannot be kept from being there after a boot).
    images: tuple[Image, ...] = ()  # every image under the configured name and its dotted siblings

    @property
    def copies(self) -> bool:
        """Every base is a whole copy, which is gone from the source when the replica stands on it."""
        return "copies" in self.caps

    def image(self, name: str) -> Image | None:
        return next((i for i in self.images if i.name == name), None)
