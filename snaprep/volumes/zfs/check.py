"""What of a host's ZFS could stop a run, or what others do to the pair's datasets. Changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from snaprep.core.model import Finding
from snaprep.core.volume import Image, ImageRole, VolumeFacts
from snaprep.volumes.zfs import mounts as zfs_mounts
from snaprep.volumes.zfs.command import get, get_local
from snaprep.volumes.zfs.facts import Rows, dataset, number_of, point_prefix
from snaprep.volumes.zfs.features import Features
from snaprep.volumes.zfs.look import Layout

_PAGE_BYTES_MAX = 16 << 10  # a record this large is still no waste with pages of 4 to 8 KiB
_SHOWN = 3
# Tools that take and remove snapshots by themselves: what their names look like, and the property that turns them on.
_TOOLS = {
    "sanoid": re.compile(r"(autosnap|syncoid)_"),
    "zfs-auto-snapshot": re.compile(r"zfs-auto-snap_"),
    "zrepl": re.compile(r"zrepl_"),
    "pyznap": re.compile(r"pyznap_"),
    "znapzend": re.compile(r"\d{4}-\d\d-\d\d-\d{6}$"),
    "zfs_autobackup": re.compile(r"[\w.]+-20\d{12}$"),
}
_SWITCHES = {
    "com.sun:auto-snapshot": "zfs-auto-snapshot",
    "org.znapzend:enabled": "znapzend",
    "autobackup:": "zfs_autobackup",
    "bookmark-cleaner:": "a cleaner of bookmarks",
}


def findings(layout: Layout, facts: VolumeFacts, *, mountpoints: Sequence[str], as_target: bool) -> list[Finding]:
    """A finding for each thing looked at. `mountpoints`: where the live image is mounted, serving or as a replica."""
    found = [_pool(facts), _abilities(facts)]
    live = facts.image(layout.root)
    if live is None:
        found += _missing(layout, as_target=as_target)
    else:
        found += _live(layout, live, mountpoints[0], mountpoints, as_target=as_target)
    found += _keys(facts)
    found += _path(layout, mountpoints)
    found += _left(facts)
    found += _others(layout, facts)
    return found


def dataset_of(path: Path) -> str | None:
    """The ZFS dataset that a path lies in; None when it lies in none. Links are followed."""
    real = str(path.resolve())
    mounts = [m for m in zfs_mounts.zfs_mounts() if real == m.path or real.startswith(m.path.rstrip("/") + "/")]
    within = max(mounts, key=lambda m: len(m.path), default=None)
    device = path.stat().st_dev if path.exists() else None
    if within is None or device is None or f"{os.major(device)}:{os.minor(device)}" != within.device:
        return None
    return within.dataset


def outside(layout: Layout, image: str, paths: Sequence[Path]) -> list[Finding]:
    """Parts of the database that the pair's atomic snapshot does not cover."""
    covered = set(layout.datasets(image))
    found = []
    for path in paths:
        where = dataset_of(path)
        if where not in covered:
            lies = f"lies in dataset {where}" if where else "lies in no dataset of ZFS"
            what = f"{path} {lies}: the snapshot of {image} does not hold it"
            hint = "move it into the dataset, or name its dataset below it in `children`"
            found.append(Finding("outside-snapshot", "fail", what, hint))
    if not found:
        what = f"everything of the database lies in {' and '.join(sorted(covered))}, in one atomic snapshot"
        found.append(Finding("one-snapshot", "ok", what))
    return found


def _pool(facts: VolumeFacts) -> Finding:
    if facts.store_health == "ONLINE":
        return Finding("pool", "ok", f"pool {facts.store} is ONLINE")
    hint = f"see zpool status {facts.store}"
    what = f"pool {facts.store} is {facts.store_health}"
    return Finding("pool-unhealthy", "warn" if facts.store_health == "DEGRADED" else "fail", what, hint)


def _abilities(facts: VolumeFacts) -> Finding:
    lacks = [
        text
        for word, text in (("estimate", "tell a stream's size before"), ("resume", "go on with a stream that broke"))
        if word not in facts.caps
    ]
    said = f"ZFS {facts.version}; can: {', '.join(sorted(facts.caps)) or 'plain send and receive'}"
    return Finding("zfs", "ok", f"{said}; cannot {' nor '.join(lacks)}" if lacks else said)


def versions(features: Features) -> list[Finding]:
    """After an upgrade the commands are new, and the module is the old one until it is loaded again.

    What a distribution adds behind the release may differ.
    """
    if not features.module or features.module.split("-")[0] == features.version.split("-")[0]:
        return []
    what = f"the zfs command is of version {features.version}, the kernel module of {features.module}"
    return [Finding("zfs-versions", "warn", what, "restart the host, so that both are of one version")]


def _missing(layout: Layout, *, as_target: bool) -> Iterator[Finding]:
    if as_target:
        yield Finding("dataset", "ok", f"{layout.root} does not exist yet; a rebuild makes it")
    else:
        yield Finding("unknown-dataset", "fail", f"{layout.root} does not exist", "check `dataset` in snaprep.toml")


def _live(
    layout: Layout, live: Image, serves_at: str, mountpoints: Sequence[str], *, as_target: bool
) -> Iterator[Finding]:
    """The configured image itself."""
    if live.mounted_at in mountpoints:
        yield Finding("mounted", "ok", f"{live.name} is mounted at {live.mounted_at}")
    elif live.mounted_at is not None:
        what = f"{live.name} is mounted at {live.mounted_at}, the configuration says {serves_at}"
        yield Finding("mounted-elsewhere", "warn" if as_target else "fail", what, "check `mountpoint` in snaprep.toml")
    elif not as_target:
        # A former primary that was booted must not be opened before the other host was looked at.
        looks = "`snaprep takeover` looks at both hosts, and mounts it where it is the right one"
        hint = looks if "serves" in live.properties else f"zfs mount {live.name}"
        yield Finding("not-mounted", "fail", f"{live.name} is not mounted", hint)
    if live.automounts:
        what = f"{live.name} is mounted at boot (canmount=on), before anybody knows whether it is the right copy"
        hint = "the first rebuild sets canmount=noauto; from then on `snaprep takeover` mounts it after a boot"
        yield Finding("mounted-at-boot", "warn", what, hint)
    if live.read_only and not as_target:
        yield Finding("read-only", "fail", f"{live.name} is read-only", f"zfs set readonly=off {live.name}")
    lacking = sorted(set(layout.parts[1:]) - set(live.parts))
    if lacking:
        what = f"{', '.join(lacking)} below {live.name} does not exist"
        yield Finding("missing-child", "warn" if as_target else "fail", what, "check `children` in snaprep.toml")
    if live.strangers:
        what = f"below {live.name} are datasets that are not configured: {_few(live.strangers)}"
        yield Finding("strangers", "warn", what, "they are moved along with it; name them in `children` or move them")
    yield from _records(live)


def _keys(facts: VolumeFacts) -> Iterator[Finding]:
    """Encrypted datasets: what a rebuild and a take-over need on this host."""
    worked_with = [i for i in facts.images if i.encrypted and i.role is not ImageRole.ISOLATED]
    for key_of in sorted({i.key_of for i in worked_with}):
        names = [i.name for i in worked_with if i.key_of == key_of]
        if any(i.locked for i in worked_with if i.key_of == key_of):
            what = f"{_few(names)} is encrypted, and its key is not loaded: it can be received, and not be started"
            yield Finding("key-not-loaded", "fail", what, f"zfs load-key {key_of}, before a rebuild or a take-over")
        else:
            what = f"{_few(names)} is encrypted, and its key is loaded"
            hint = f"after each boot of this host: zfs load-key {key_of}; without it nothing here can take over"
            yield Finding("key", "ok", what, hint)


def _records(live: Image) -> Iterator[Finding]:
    names = [dataset(live.name, part) for part in ("", *live.parts)]
    rows = get(["recordsize"], names)
    large = {n: size for n in names if (size := number_of(rows, n, "recordsize")) > _PAGE_BYTES_MAX}
    for name, size in large.items():
        what = (
            f"recordsize of {name} is {size >> 10}K and the database writes pages of 4 to 32 KiB: "
            "an increment is 2 to 16 times larger than what was written"
        )
        yield Finding("recordsize", "warn", what, "a dataset with recordsize=8K and the files copied into it")
    if not large:
        yield Finding(
            "recordsize", "ok", f"recordsize of {live.name} is {number_of(rows, live.name, 'recordsize') >> 10}K"
        )


def _path(layout: Layout, mountpoints: Sequence[str]) -> Iterator[Finding]:
    """Other things at the paths where the images have to be mounted."""
    mine = (layout.root, f"{layout.root}.")
    for path in mountpoints:
        over = [m for m in zfs_mounts.zfs_mounts() if m.path == path and not m.dataset.startswith(mine)]
        if over:
            what = f"{over[-1].dataset} is mounted at {path}"
            yield Finding("mountpoint-taken", "fail", what, "unmount it, or change `mountpoint`")


def _left(facts: VolumeFacts) -> Iterator[Finding]:
    """What dead runs have left. Not to be asked while one is under way."""
    for image in facts.images:
        if image.role is ImageRole.SCRATCH:
            what = f"{image.name} is a throw-away clone that a run has left"
            yield Finding("leftover-clone", "warn", what, "the next run that needs the name removes it")
        if image.partial is not None:
            what = f"{image.name} holds a stream that was received in part"
            yield Finding("partial-receive", "warn", what, "`snaprep resume` goes on, `snaprep clean` discards it")
        if image.role is ImageRole.RECV and image.mounted_at:
            what = f"{image.name} is mounted at {image.mounted_at}; what is received into is never opened"
            yield Finding("recv-mounted", "fail", what, f"zfs unmount {image.name}")
        if image.role is ImageRole.ISOLATED:
            what = f"{image.name} was set aside and holds {image.used_bytes >> 20} MiB"
            yield Finding("isolated", "ok", f"{what}; `snaprep status` says who may remove it")


def _others(layout: Layout, facts: VolumeFacts) -> Iterator[Finding]:
    """Snapshots, holds and switches of other tools."""
    for image in facts.images:
        foreign = [p for p in image.points if not p.name.startswith(point_prefix(layout.pair))]
        by_tool: dict[str, list[str]] = {}
        for point in foreign:
            by_tool.setdefault(_tool(point.name), []).append(point.name)
        for tool, names in by_tool.items():
            if tool:
                what = f"{tool} keeps {len(names)} snapshots of {image.name}: {_few(names)}"
                hint = f"let {tool} leave the dataset alone, or never let it remove what begins with snaprep-"
                yield Finding("foreign-snapshots", "warn", what, hint)
            else:
                what = f"{image.name} has {len(names)} snapshots of others: {_few(names)}"
                yield Finding("other-snapshots", "ok", f"{what}; they stay, and pin their space")
        held = [p.name for p in image.points if p.held_by_others]
        if held:
            what = f"somebody else holds {_few(held)} of {image.name}: snaprep cannot let go of them"
            yield Finding("foreign-holds", "warn", what, "zfs holds tells by whom")
    names = [i.name for i in facts.images]
    yield from _switched_on(get_local(names) if names else {})


def _switched_on(local: Rows) -> Iterator[Finding]:
    for name, properties in local.items():
        for tool in sorted({t for p, v in properties.items() if v.text not in ("false", "off") for t in _switch(p)}):
            what = f"a property of {name} turns {tool} on"
            hint = "it takes snapshots in the middle of runs; turn it off for this dataset"
            yield Finding("foreign-tool", "warn", what, hint)


def _switch(name: str) -> list[str]:
    return [tool for prefix, tool in _SWITCHES.items() if name.startswith(prefix)]


def _tool(name: str) -> str:
    return next((tool for tool, pattern in _TOOLS.items() if pattern.match(name)), "")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
