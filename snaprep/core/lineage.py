"""Which snapshot an increment can start from, and into which image it goes.

Invariant: an increment's base is a point that both hosts hold with equal GUIDs in every part, that lies in the history
of what is sent, and it goes into an image that was never started. Identity is the GUID; a name proves nothing, and
neither does a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snaprep.core.model import HostFacts, recv_name
from snaprep.core.volume import Image, Partial, Point, VolumeFacts

FLAGS = "stream-flags"  # of an image: how streams of it are sent


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A point in an image's history: its own snapshots, then its origin's up to the fork, and so on."""

    image: str
    point: Point


@dataclass(frozen=True, slots=True)
class Base:
    """A common point. `source_image` may be an origin of what is sent; `target_image` is where the target holds it."""

    point: Point  # as the source has it
    source_image: str
    target_image: str
    target_point: str  # its name on the target
    continues: bool  # the target's recv image ends exactly here: receive into it; else into a new clone of the point

    @property
    def source_name(self) -> str:
        """In full, as the source has it: a snapshot, or a bookmark."""
        return self.point.of(self.source_image)


def history(volume: VolumeFacts, image: Image) -> tuple[Ancestor, ...]:
    """All points an increment of `image` may start from, newest first."""
    found: list[Ancestor] = []
    seen: set[str] = set()
    current: Image | None = image
    fork_txg: int | None = None
    while current is not None and current.name not in seen:
        seen.add(current.name)
        every = sorted((*current.points[::-1], *current.bookmarks[::-1]), key=lambda p: -p.createtxg)
        found += [Ancestor(current.name, p) for p in every if fork_txg is None or p.createtxg <= fork_txg]
        parent = volume.image(current.origin) if current.origin else None
        fork = parent.point(current.origin_guid) if parent and current.origin_guid else None
        fork_txg = fork.createtxg if fork else 0
        current = parent
    return tuple(found)


def base_between(source: HostFacts, target: HostFacts) -> Base | None:
    """The base of an increment from the one's live image to where the other receives; None also where one was not seen.

    See `common_base`.
    """
    return _between(source, target, common_base)


def snapshot_between(source: HostFacts, target: HostFacts) -> Base | None:
    """The same of what both hold as a snapshot. See `common_snapshot`."""
    return _between(source, target, common_snapshot)


def _between(
    source: HostFacts, target: HostFacts, newest: Callable[[VolumeFacts, Image, VolumeFacts, str], Base | None]
) -> Base | None:
    if source.volume is None or source.live is None or target.volume is None:
        return None
    return newest(source.volume, source.live, target.volume, recv_name(target.live_name))


def common_base(source: VolumeFacts, sent: Image, target: VolumeFacts, recv_name: str) -> Base | None:
    """The newest point in `sent`'s history that the target holds anywhere, preferring its recv image.

    A point that only sits in an image which was started is still good: the increment goes into a new clone of the point
    itself, never onto what the start has changed.
    """
    return _newest_held(history(source, sent), target, recv_name)


def common_snapshot(source: VolumeFacts, sent: Image, target: VolumeFacts, recv_name: str) -> Base | None:
    """The same among what both hold as a snapshot: the source may have only the bookmark of a newer one left.

    This one can be cloned on both sides, and a history that parts after it comes back from it.
    """
    return _newest_held(tuple(a for a in history(source, sent) if not a.point.bookmark), target, recv_name)


def _newest_held(ancestors: tuple[Ancestor, ...], target: VolumeFacts, recv_name: str) -> Base | None:
    recv = target.image(recv_name)
    candidates = [recv] if recv else []
    candidates += [i for i in target.images if i.name != recv_name]
    for ancestor in ancestors:
        for image in candidates:
            held = image.point(ancestor.point.guid)
            if held is None or held.guids != ancestor.point.guids:
                continue
            newest = image.newest
            continues = image.name == recv_name and newest is not None and newest.guid == held.guid
            return Base(ancestor.point, ancestor.image, image.name, held.name, continues=continues)
    return None


def send_flags(source: VolumeFacts, sent: Image, target: VolumeFacts, base: Base | None) -> tuple[str, ...]:
    """How to send. A full stream, one without a base, is sent as both sides can; what goes on from it is sent like it
    for the life of the pair, whatever the sides have learnt since, less what one of them can do no more.

    A stream with large blocks onto a base that came without them has lost data on old versions, and one without onto a
    base that has them is refused.
    """
    possible = _possible_flags(source, sent, target)
    images = (target.image(base.target_image), sent) if base is not None else ()
    marks = [image.properties[FLAGS].split() for image in images if image is not None and FLAGS in image.properties]
    return tuple(flag for flag in possible if flag in marks[0]) if marks else possible


def flags_mark(flags: tuple[str, ...]) -> dict[str, str]:
    """The property that keeps flags for later streams, on what was sent with them and on what was received."""
    return {FLAGS: " ".join(flags) or "plain"}


def _possible_flags(source: VolumeFacts, sent: Image, target: VolumeFacts) -> tuple[str, ...]:
    """An encrypted image goes as it lies on disk: otherwise the target would hold it in the clear."""
    if sent.encrypted:
        return ("-w",)
    both = source.caps & target.caps
    flags = ["-L"] if "large_blocks" in both else []
    if "compressed" in both and ("zstd_active" not in source.caps or "zstd" in target.caps):
        flags.append("-c")
    if "embedded" in both:
        flags.append("-e")
    return tuple(flags)


def resumable(source: VolumeFacts, sent: Image, recv: Image | None, base: Base | None) -> Partial | None:
    """A stream that came in part and can be gone on with: its point and its base are what would be sent anyway."""
    partial = recv.partial if recv is not None else None
    if partial is None or "resume" not in source.caps or sent.point(partial.head_guid) is None:
        return None
    return partial if partial.base_guid == (base.point.guid if base else None) else None
