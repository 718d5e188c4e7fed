"""What check says of datasets, on a real ZFS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snaprep.volumes.zfs.check import dataset_of
from tests.volumes.conftest import Make
from tests.volumes.harness import Side

pytestmark = pytest.mark.zfs


def served(make_side: Make, *, children: tuple[str, ...] = ()) -> Side:
    """A side with its live image mounted, and a record size that fits."""
    side = make_side("alpha", children=children)
    side.create(side.live, str(side.path))
    side.raw("set", "recordsize=8K", side.live)
    side.raw("set", "canmount=noauto", side.live)
    return side


def levels(side: Side, *, as_target: bool = False) -> dict[str, str]:
    paths = (str(side.path), f"{side.path}.replica")
    return {f.id: f.level for f in side.volume.check(mountpoints=paths, as_target=as_target)}


def elsewhere(side: Side) -> None:
    side.raw("set", f"mountpoint={side.path}.other", side.live)
    if "yes" not in side.raw("get", "-H", "-o", "value", "mounted", side.live):
        side.raw("mount", side.live)


def read_only(side: Side) -> None:
    side.raw("unmount", side.live)  # zfs-fuse does not honour it on a mount, and says "off" as long as there is one
    side.raw("set", "readonly=on", side.live)


TROUBLES: dict[str, tuple[Callable[[Side], object], str]] = {
    "not-mounted": (lambda side: side.raw("unmount", side.live), "fail"),
    "mounted-elsewhere": (elsewhere, "fail"),
    "mounted-at-boot": (lambda side: side.raw("set", "canmount=on", side.live), "warn"),
    "read-only": (read_only, "fail"),
    "recordsize": (lambda side: side.raw("set", "recordsize=128K", side.live), "warn"),
    "strangers": (lambda side: side.raw("create", f"{side.live}/mail"), "warn"),
    "mountpoint-taken": (
        lambda side: side.raw("create", "-o", f"mountpoint={side.path}.replica", "alpha/other"),
        "fail",
    ),
}


@pytest.mark.parametrize("id", TROUBLES)
def test_troubles(make_side: Make, id: str) -> None:
    """A sound dataset gives no warning; each trouble gives its own."""
    side = served(make_side)
    assert set(levels(side).values()) == {"ok"}
    bring_about, level = TROUBLES[id]
    bring_about(side)
    assert levels(side)[id] == level


def test_the_way_is_said(make_side: Make) -> None:
    """A host says whether snapshots are made by the C library or by the command."""
    side = served(make_side)
    (said,) = (f.what for f in side.volume.check(mountpoints=(str(side.path),), as_target=False) if f.id == "zfs-way")
    assert "the zfs command" in said


def test_missing_datasets(make_side: Make) -> None:
    """A target may lack the dataset; a source may not, nor a child that is configured."""
    side = make_side("alpha")
    assert levels(side, as_target=True)["dataset"] == "ok"
    assert levels(side)["unknown-dataset"] == "fail"
    side = make_side("beta", children=("log",))
    side.raw("create", "-o", f"mountpoint={side.path}", side.live)
    assert levels(side)["missing-child"] == "fail"


def test_what_a_snapshot_holds(make_side: Make, tmp_path: Path) -> None:
    """Files that a link leads out of the pair's datasets are named; those in a child are inside."""
    side = served(make_side, children=("log",))
    inside, away = side.path / "log", side.path / "away"
    assert [f.id for f in side.volume.outside(side.live, [side.path, inside])] == ["one-snapshot"]
    away.symlink_to(tmp_path)
    found = side.volume.outside(side.live, [side.path, away])
    assert [(f.id, f.level) for f in found] == [("outside-snapshot", "fail")]
    assert dataset_of(inside) == f"{side.live}/log"
    assert dataset_of(tmp_path) is None
