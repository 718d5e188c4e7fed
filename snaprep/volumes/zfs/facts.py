"""From what `zfs get` says to images and points. Pure: no program is started here.

Marks are user properties, and those are inherited by children and may travel in a stream: only a value whose source is
`local` is a mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from snaprep.core.volume import Image, ImageRole, Partial, Point
from snaprep.volumes.lzc.header import decode_resume_token
from snaprep.volumes.lzc.values import NvlistError
from snaprep.volumes.zfs.mounts import Mount, of_dataset

PREFIX = "snaprep:"
PAIR, ROLE, CREATED, HELD = "snaprep:pair", "snaprep:role", "snaprep:created", "snaprep:held"
READ = (
    "guid", "createtxg", "origin", "canmount", "mountpoint", "readonly", "used", "referenced", "available",
    "usedbysnapshots", "userrefs", PAIR, HELD,
)  # fmt: skip
READ_POINT = ("guid", "createtxg", "userrefs", HELD)
PARTIAL = "receive_resume_token"
ENCRYPTION = ("encryption", "keystatus", "encryptionroot")
READ_IF = {"written": ("written", PARTIAL), "encryption": ENCRYPTION}  # cap -> what it adds
# Native properties that change how a database performs or how large its deltas are, so a copy should have them too.
TUNING = frozenset(
    {
        "recordsize", "compression", "atime", "relatime", "logbias", "primarycache", "secondarycache", "checksum",
        "copies", "redundant_metadata", "sync", "xattr", "acltype", "aclinherit", "dnodesize", "special_small_blocks",
        "prefetch", "direct", "devices", "exec", "setuid",
    }
)  # fmt: skip
_ASIDE = ("isolated", "old")


@dataclass(frozen=True, slots=True)
class Value:
    text: str
    local: bool


Rows = dict[str, dict[str, Value]]  # dataset or snapshot -> property -> value


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at the pair's images gave."""

    rows: Rows  # everything below the images, snapshots included: the properties of READ
    local: Rows  # images and parts only: every property that is set right there
    mounts: tuple[Mount, ...] = ()


def parse_get(text: str) -> Rows:
    """Output of `zfs get -Hp -o name,property,value,source`. Names may hold spaces, user values may hold tabs."""
    rows: Rows = {}
    for line in text.splitlines():
        columns = line.split("\t")
        if len(columns) >= 4:
            name, prop, source = columns[0], columns[1], columns[-1]
            rows.setdefault(name, {})[prop] = Value("\t".join(columns[2:-1]), source == "local")
    return rows


def parse_json(text: str) -> Rows | None:
    """Output of `zfs get -jp`: users' values may hold line ends, too.

    None where it is not whole, or holds a character by its number: how bytes beyond ASCII come out depends on the
    locale, so that they are read from the other output.
    """
    if "\\u" in text:
        return None
    try:
        found = json.loads(text)["datasets"]
    except (ValueError, KeyError):
        return None
    return {
        name: {p: Value(said["value"], said["source"]["type"] == "LOCAL") for p, said in entry["properties"].items()}
        for name, entry in found.items()
    }


def parse_names(text: str, root: str) -> tuple[str, ...]:
    """The configured image and its dotted siblings, out of `zfs list -H -o name`; sorted, the configured one first."""
    names = {line for line in text.splitlines() if line == root or line.startswith(f"{root}.")}
    return tuple(sorted(names))


def point_prefix(pair: str) -> str:
    """What the names of all points start with that this pair's runs create."""
    return f"snaprep-{pair}-"


def text_of(rows: Rows, name: str, prop: str) -> str | None:
    value = rows.get(name, {}).get(prop)
    return None if value is None or value.text in ("-", "") else value.text


def number_of(rows: Rows, name: str, prop: str) -> int:
    return int(text_of(rows, name, prop) or 0)


def is_marked(rows: Rows, name: str, prop: str, wanted: str) -> bool:
    """Whether the property is set right there to `wanted`; inherited and received values do not count."""
    value = rows.get(name, {}).get(prop)
    return value is not None and value.local and value.text == wanted


def dataset(image: str, part: str) -> str:
    return f"{image}/{part}" if part else image


def is_dataset(name: str) -> bool:
    """Neither a snapshot nor a bookmark."""
    return "@" not in name and "#" not in name


def images(names: Sequence[str], root: str, children: Sequence[str], pair: str, reading: Reading) -> tuple[Image, ...]:
    """Every image of `names` that is there. `root` is the configured one."""
    return tuple(_image(name, root, children, pair, reading) for name in names if name in reading.rows)


def _image(name: str, root: str, children: Sequence[str], pair: str, reading: Reading) -> Image:
    rows = reading.rows
    below = [d.removeprefix(f"{name}/") for d in rows if d.startswith(f"{name}/") and is_dataset(d)]
    parts = tuple(sorted(p for p in below if p in children))
    every = [dataset(name, part) for part in ("", *parts)]
    points, fragments = _points(every, pair, rows)
    origin = text_of(rows, name, "origin")
    mount = of_dataset(reading.mounts, name)
    mountpoint = text_of(rows, name, "mountpoint")
    marked = is_marked(reading.local, name, PAIR, pair)
    written = [text_of(rows, d, "written") for d in every]
    return Image(
        name=name,
        role=_role(name, root, reading.local) if marked else ImageRole.FOREIGN,
        parts=parts,
        ours=marked and all(CREATED in reading.local.get(d, {}) for d in every),
        points=points,
        bookmarks=_bookmarks(every, pair, rows, points),
        origin=origin.partition("@")[0] if origin else None,
        origin_guid=number_of(rows, origin, "guid") or None if origin else None,
        mounted_at=mount.path if mount else None,
        mountpoint=None if mountpoint == "none" else mountpoint,
        automounts=any(_automounts(rows, d) for d in every),
        read_only=text_of(rows, name, "readonly") == "on",
        used_bytes=number_of(rows, name, "used"),
        referenced_bytes=sum(number_of(rows, d, "referenced") for d in every),
        written_bytes=None if None in written else sum(int(w) for w in written if w),
        pinned_bytes=sum(number_of(rows, d, "usedbysnapshots") for d in every),
        properties=_marks(reading.local.get(name, {})),
        tuning={p: v.text for p, v in sorted(reading.local.get(name, {}).items()) if p in TUNING},
        encrypted=any(text_of(rows, d, "encryption") not in (None, "off") for d in every),
        locked=any(text_of(rows, d, "keystatus") == "unavailable" for d in every),
        key_of=text_of(rows, name, "encryptionroot") or "",
        fragments=fragments,
        strangers=tuple(sorted(p for p in below if p not in children)),
        partial=next((partial(t, alone=not parts) for d in every if (t := text_of(rows, d, PARTIAL))), None),
    )


def partial(token: str, *, alone: bool) -> Partial:
    """What a token says. Of an image with parts each has a token of its own: such a stream begins anew."""
    try:
        said = decode_resume_token(token) if alone else {}
    except NvlistError:
        said = {}
    head, base, received = (said.get(name) for name in (b"toguid", b"fromguid", b"bytes"))
    return Partial(
        token=token,
        head_guid=head if isinstance(head, int) else 0,
        base_guid=base if isinstance(base, int) and base else None,
        received_bytes=received if isinstance(received, int) else 0,
    )


def _role(name: str, root: str, local: Rows) -> ImageRole:
    """A rename happens before the role is written: an image that was set aside is known by its name, too."""
    suffix = name.removeprefix(f"{root}.")
    if suffix != name and suffix.split("-")[0] in _ASIDE:
        return ImageRole.ISOLATED
    said = text_of(local, name, ROLE)
    return ImageRole(said) if said in tuple(ImageRole) else ImageRole.FOREIGN


def _automounts(rows: Rows, name: str) -> bool:
    return text_of(rows, name, "canmount") == "on" and text_of(rows, name, "mountpoint") not in ("none", "legacy")


def _marks(local: Mapping[str, Value]) -> dict[str, str]:
    return {p.removeprefix(PREFIX): v.text for p, v in sorted(local.items()) if p.startswith(PREFIX)}


def _points(every: Sequence[str], pair: str, rows: Rows) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """The snapshots that all parts have, by createtxg, and the names of those that only some have."""
    of_part: list[set[str]] = [{s.partition("@")[2] for s in rows if s.startswith(f"{d}@")} for d in every]
    complete = set.intersection(*of_part)
    points = [point([f"{d}@{name}" for d in every], pair, rows) for name in complete]
    fragments = set.union(*of_part) - complete
    return tuple(sorted(points, key=lambda p: (p.createtxg, p.name))), tuple(sorted(fragments))


def _bookmarks(every: Sequence[str], pair: str, rows: Rows, points: Sequence[Point]) -> tuple[Point, ...]:
    """The pair's own, of points that are gone, by createtxg."""
    first = f"{every[0]}#{point_prefix(pair)}"
    names = [b.partition("#")[2] for b in rows if b.startswith(first)]
    found = [
        Point(
            name=name,
            guids=tuple(number_of(rows, f"{d}#{name}", "guid") for d in every),
            createtxg=number_of(rows, f"{every[0]}#{name}", "createtxg"),
            bookmark=True,
        )
        for name in names
        if all(f"{d}#{name}" in rows for d in every)
    ]
    there = {p.guids for p in points}
    return tuple(sorted((b for b in found if b.guids not in there), key=lambda b: b.createtxg))


def point(snapshots: Iterable[str], pair: str, rows: Rows) -> Point:
    """One point from the properties of its snapshots, the root's first."""
    every = list(snapshots)
    refs = [number_of(rows, s, "userrefs") for s in every]
    mine = [int(refs_now > 0 and is_marked(rows, s, HELD, pair)) for s, refs_now in zip(every, refs, strict=True)]
    return Point(
        name=every[0].partition("@")[2],
        guids=tuple(number_of(rows, s, "guid") for s in every),
        createtxg=number_of(rows, every[0], "createtxg"),
        held=all(mine),
        held_by_others=any(r > m for r, m in zip(refs, mine, strict=True)),
    )


def base_name(found: Sequence[Image], image: str, point: str, base_guid: int) -> str | None:
    """The full name of the base: of the image itself before `point`, or of an origin before the fork.

    None when the base is not in the point's history.
    """
    by_name = {i.name: i for i in found}
    current, head, seen = by_name.get(image), point, set[str]()
    while current is not None and current.name not in seen:
        seen.add(current.name)
        end = next((p for p in current.points if p.name == head), None)
        base = next((p for p in (*current.points, *current.bookmarks) if p.guid == base_guid), None)
        if end is not None and base is not None and base.createtxg <= end.createtxg:
            return base.of(current.name)
        parent = by_name.get(current.origin or "")
        fork = parent.point(current.origin_guid) if parent and current.origin_guid else None
        current, head = parent, fork.name if fork else ""
    return None
