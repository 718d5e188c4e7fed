"""What a pair may let go of, and what it must keep: points, holds and images.

Invariant (rule 6): for each direction in which the pair may ship, the newest common point is held on both hosts before
anything older is let go. Kept besides: points that clones stand on, points that others hold, the newest point of a
receiving image (it ends there, so the next increment finds it unchanged). Never touched: foreign images, isolated
images, points that no run of this pair made.

Do it in the order of the fields: a run that is killed in between leaves more than needed, never less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from snaprep.core import lineage
from snaprep.core.action import Roles
from snaprep.core.model import Facts, HostFacts, recv_name
from snaprep.core.volume import Image, ImageRole, Point

Needed: TypeAlias = frozenset[tuple[str, str, str]]  # (host, image, point)


@dataclass(frozen=True, slots=True, order=True)
class OnHost:
    """A point, or with `point` empty an image."""

    host: str
    image: str
    point: str = ""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What to do now. `destroy_points` may still carry our hold."""

    hold: tuple[OnHost, ...] = ()
    release: tuple[OnHost, ...] = ()  # held by us, made by somebody else or in an image that goes: the hold goes
    destroy_points: tuple[OnHost, ...] = ()
    destroy_images: tuple[OnHost, ...] = ()


def keeping(facts: Facts, roles: Roles, pair: str, isolated: Iterable[tuple[str, str]] = ()) -> Keeping:
    """What settling does now. `isolated` names images, as (host, image), that the user of `clean` wants gone.

    Nothing is let go of while one of the hosts tells nothing: what it holds is not known then.
    """
    if any(h.volume is None for h in facts.hosts):
        return Keeping()
    needed = common_points(facts)
    wanted = set(isolated)
    gone = {(h.name, i.name) for h, i in _images(facts) if _image_can_go(h, i, roles, needed, wanted)}
    staying = [
        (h, i)
        for h, i in _images(facts)
        if (h.name, i.name) not in gone and (i.role is not ImageRole.FOREIGN or i.name == h.live_name)
    ]
    hold, destroy = [], []
    release = [OnHost(h.name, i.name, p.name) for h, i in _images(facts) if (h.name, i.name) in gone for p in _held(i)]
    for host, image in staying:
        for point in image.points:
            at = OnHost(host.name, image.name, point.name)
            if (host.name, image.name, point.name) in needed:
                hold += [] if point.held else [at]
            elif not _is_worked_with(host, image):
                continue
            elif _made_by(point, pair) and not _must_stay(host, image, point):
                destroy.append(at)
            elif point.held:
                release.append(at)
    return Keeping(tuple(hold), tuple(release), tuple(destroy), tuple(OnHost(h, i) for h, i in sorted(gone)))


def isolated_images(facts: Facts) -> tuple[OnHost, ...]:
    """Images that hold what was set aside for people: `clean` removes those that the user names."""
    return tuple(
        OnHost(h.name, i.name)
        for h, i in _images(facts)
        if i.role is ImageRole.ISOLATED and not (i.ours and _was_replaced(h, i))
    )


def given_up(facts: Facts, roles: Roles, pair: str) -> Keeping:
    """Let go of all that this pair's points pin on the source, so that the primary has room. Where the filesystem has
    bookmarks the next rebuild still finds its base; elsewhere it seeds.
    """
    source = facts.host(roles.source)
    release, destroy = [], []
    for host, image in _images(facts):
        if host.name != source.name or not _is_worked_with(host, image):
            continue
        for point in image.points:
            at = OnHost(host.name, image.name, point.name)
            if _made_by(point, pair) and not _stood_on(host, image, point):
                destroy.append(at)
            elif point.held:
                release.append(at)
    return Keeping(release=tuple(release), destroy_points=tuple(destroy))


def common_points(facts: Facts) -> Needed:
    """Where the newest common points of both directions are, on both hosts."""
    needed: set[tuple[str, str, str]] = set()
    for sender, receiver in (facts.hosts, facts.hosts[::-1]):
        # Where a bookmark is the base the receiver's point is needed, and besides what both still hold as a snapshot.
        for base in (lineage.base_between(sender, receiver), lineage.snapshot_between(sender, receiver)):
            if base is None:
                continue
            needed |= {
                (sender.name, base.source_image, base.point.name),
                (receiver.name, base.target_image, base.target_point),
            }
    return frozenset(needed)


def _images(facts: Facts) -> Iterator[tuple[HostFacts, Image]]:
    for host in facts.hosts:
        for image in host.volume.images if host.volume else ():
            yield host, image


def _is_worked_with(host: HostFacts, image: Image) -> bool:
    """Isolated images keep all their points, and their holds. The live one may be another pair's that we follow."""
    return image.role in (ImageRole.LIVE, ImageRole.RECV) or image.name == host.live_name


def _held(image: Image) -> tuple[Point, ...]:
    return tuple(point for point in image.points if point.held)


def _made_by(point: Point, pair: str) -> bool:
    return point.name.startswith(f"snaprep-{pair}-") and not point.held_by_others


def _must_stay(host: HostFacts, image: Image, point: Point) -> bool:
    return _stood_on(host, image, point) or (image.role is ImageRole.RECV and point is image.newest)


def _stood_on(host: HostFacts, image: Image, point: Point | None = None) -> bool:
    """A clone of this point, or of any point of the image, exists."""
    assert host.volume is not None
    return any(i.origin == image.name and (point is None or i.origin_guid == point.guid) for i in host.volume.images)


def _image_can_go(host: HostFacts, image: Image, roles: Roles, needed: Needed, wanted: set[tuple[str, str]]) -> bool:
    if image.role in (ImageRole.FOREIGN, ImageRole.LIVE) or image.name == host.live_name or image.in_use_by:
        return False
    if any(p.held_by_others for p in image.points) or _stood_on(host, image):
        return False
    if any((host.name, image.name, p.name) in needed for p in image.points):
        return False
    if (host.name, image.name) in wanted:
        return True
    if not image.ours:
        return False
    if image.name == recv_name(host.live_name):
        return host.name == roles.source
    return image.role is ImageRole.SCRATCH or _was_replaced(host, image)


def _was_replaced(host: HostFacts, image: Image) -> bool:
    """A receiving image that was set aside because its history parted; what it held, the sender has as well."""
    old = f"{host.live_name}.old"
    return image.name == old or image.name.startswith(f"{old}-")
