"""What `check` says of a plain directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from snaprep.core.model import Finding
from snaprep.core.volume import ImageRole, VolumeFacts


def findings(root: Path, facts: VolumeFacts, *, mountpoints: Sequence[str], as_target: bool) -> list[Finding]:
    """`mountpoints`: where clients look, and where a replica stands."""
    return [
        _filesystem(facts),
        *_live(root, facts, mountpoints, as_target=as_target),
        *_left(facts),
    ]


def outside(top: Path, paths: Sequence[Path]) -> list[Finding]:
    """Parts of the database that neither a rename nor an online backup takes along."""
    strangers = [path for path in paths if not path.resolve().is_relative_to(top.resolve())]
    if not strangers:
        return [Finding("one-directory", "ok", f"everything of the database lies in {top}")]
    hint = "move it into the database's directory: a replica is made of that alone"
    return [Finding("outside-directory", "fail", f"{path} does not lie in {top}", hint) for path in strangers]


def _filesystem(facts: VolumeFacts) -> Finding:
    what = f"{facts.version} at {facts.store}: no snapshots, so a base is a whole copy, made by the database itself"
    if facts.store_health != "ONLINE":
        return Finding("pool-unhealthy", "fail", f"{facts.store} is {facts.store_health}", "see the kernel's log")
    return Finding("filesystem", "ok", what)


def _live(root: Path, facts: VolumeFacts, mountpoints: Sequence[str], *, as_target: bool) -> Iterator[Finding]:
    live = facts.image(str(root))
    stands = live.mountpoint if live is not None else None
    for path in mountpoints:
        if path != stands and (path != str(root) or live is not None) and Path(path).exists():
            hint = "move it away; it is not touched"
            yield Finding("mountpoint-taken", "fail", f"something else stands at {path}", hint)
    if root.is_symlink():
        yield Finding("directory-fixed", "fail", f"{root} is a link; a rename would leave behind what it leads to")
    elif root.is_mount():
        what = f"{root} is where a filesystem is mounted, so it cannot be renamed"
        hint = "put the database into a directory on that filesystem, and name this in derby.database"
        yield Finding("directory-fixed", "fail", what, hint)
    if live is None:
        hint = "check derby.database in snaprep.toml"
        if as_target:
            yield Finding("directory", "ok", f"{root} does not exist yet; a run makes it")
        else:
            yield Finding("unknown-dataset", "fail", f"{root} does not exist", hint)
        return
    if live.mounted_at in mountpoints:
        yield Finding("directory", "ok", f"the database stands at {live.mounted_at}")
    else:
        what = f"the database was put away: it stands at {live.mountpoint}"
        yield Finding("not-mounted", "warn" if as_target else "fail", what, "`snaprep takeover` puts it back")
    what = "a directory is there after every boot: should this host fail as the primary and come back, its database "
    what += "opens for the first client that asks"
    yield Finding("always-there", "warn", what, "keep its Derby server from starting at boot, or its clients away")


def _left(facts: VolumeFacts) -> Iterator[Finding]:
    """What dead runs have left. Not to be asked while one is under way."""
    for image in facts.images:
        if image.role is ImageRole.ISOLATED:
            what = f"{image.name} was set aside and holds {image.used_bytes >> 20} MiB"
            yield Finding("isolated", "ok", f"{what}; `snaprep status` says who may remove it")
        elif image.partial is not None:
            what = f"a run has left a copy of {image.name} that is not whole"
            yield Finding("leftover-copy", "warn", what, "`snaprep clean` removes it, and so does the next run")
        elif image.points and image.role is ImageRole.LIVE:
            what = f"a copy of {image.name} that was sent, or was to be, occupies {image.pinned_bytes >> 20} MiB"
            yield Finding("leftover-copy", "warn", what, "`snaprep clean` removes it, and so does the next run")
