"""What may be received into, marked and destroyed. Pure: every question is answered from properties already read.

Two things make an object ours: a mark set right on it, or on the image that our runs made, and for a snapshot its name,
which starts with the pair's prefix. One of them alone is not enough.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from snaprep.core.errors import CheckFailed, SnaprepError
from snaprep.core.volume import ImageRole
from snaprep.volumes.zfs.facts import CREATED, PAIR, ROLE, Rows, is_marked, number_of, point_prefix, text_of


def intent(pair: str) -> str:
    """The property of the parent dataset that names an image while its first, not yet marked, copy is received."""
    return f"snaprep:receiving:{pair.lower()}"


def marks(pair: str, role: ImageRole) -> dict[str, str]:
    """The marks of an image that a run creates. The pair is the last: an image that carries it carries all."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {ROLE: str(role), CREATED: created, PAIR: pair}


def sealed(pair: str, part: str) -> dict[str, str]:
    """Properties of a received image: read-only, and never mounted by anything that mounts all."""
    closed = {"readonly": "on", "canmount": "noauto"}
    return (closed if part else closed | {"mountpoint": "none"}) | marks(pair, ImageRole.RECV)


def require_recv(image: str, pair: str, local: Rows) -> None:
    """Raises `not-ours` unless a run of this pair made `image` to receive into."""
    mine = is_marked(local, image, PAIR, pair) and CREATED in local.get(image, {})
    if not mine or not is_marked(local, image, ROLE, str(ImageRole.RECV)):
        raise CheckFailed(
            "not-ours",
            f"{image} exists and was not received by a run of pair {pair}; nothing is received into it",
            hint="Rename it, or let it be set aside.",
        )


def require_unclaimed(image: str, pair: str, local: Rows) -> None:
    """Raises `not-ours` when the image is marked by another pair."""
    other = text_of(local, image, PAIR)
    if other not in (None, pair):
        raise CheckFailed("not-ours", f"{image} belongs to pair {other}", hint="Use that pair's configuration.")


def require_our_point(snapshot: str, pair: str, rows: Rows, local: Rows) -> None:
    """Raises `not-ours` unless a run of this pair created the snapshot, or received it into an image of its own."""
    holder, _, name = snapshot.partition("@")
    marked = is_marked(rows, snapshot, PAIR, pair) or _ours(holder, pair, local)
    if not (marked and name.startswith(point_prefix(pair))):
        raise CheckFailed("not-ours", f"{snapshot} was not created by a run of pair {pair}; it stays")


def _require_our_bookmark(bookmark: str, pair: str) -> None:
    """Raises `not-ours`. It has no properties."""
    if not bookmark.partition("#")[2].startswith(point_prefix(pair)):
        raise CheckFailed("not-ours", f"{bookmark} was not created by a run of pair {pair}; it stays")


def _ours(holder: str, pair: str, local: Rows) -> bool:
    return is_marked(local, holder, PAIR, pair) and CREATED in local.get(holder, {})


def require_unheld(snapshot: str, rows: Rows) -> None:
    """Raises `point-held`."""
    if number_of(rows, snapshot, "userrefs"):
        raise SnaprepError(
            "point-held", f"{snapshot} is held", hint="`zfs holds` shows by whom; ours are released first."
        )


def require_our_image(image: str, pair: str, rows: Rows, local: Rows) -> None:
    """Raises `not-ours`, `point-held`: everything below the image has to be ours, too."""
    for name in rows:
        if "@" in name:
            require_our_point(name, pair, rows, local)
            require_unheld(name, rows)
        elif "#" in name:
            _require_our_bookmark(name, pair)
        elif not _ours(name, pair, local):
            raise CheckFailed("not-ours", f"{name} was not created by a run of pair {pair}; it stays")
    role = text_of(local, image, ROLE)
    if role not in (ImageRole.RECV, ImageRole.SCRATCH, ImageRole.ISOLATED, ImageRole.LIVE):
        raise CheckFailed("not-ours", f"{image} says that it is {role!r}; that is no role of ours")


def require_independent(image: str, origins: Mapping[str, str]) -> None:
    """Raises `has-dependents` when a dataset outside the image is a clone of it. `origins`: dataset -> origin."""
    clones = [
        name
        for name, origin in origins.items()
        if origin.startswith((f"{image}@", f"{image}/")) and name != image and not name.startswith(f"{image}/")
    ]
    if clones:
        raise SnaprepError(
            "has-dependents",
            f"{image} cannot go: {', '.join(clones)} would lose what they share",
            hint="Promote the clone first, or let it go first.",
            details=tuple(clones),
        )
