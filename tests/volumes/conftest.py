"""Every filesystem that can be run here, as two sides; the contract suite is parametrised over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaprep.agent import process
from snaprep.volumes.zfs.features import Features
from snaprep.volumes.zfs.ops import CommandOps, ZfsOps
from snaprep.volumes.zfs.ops_library import LibraryOps
from snaprep.volumes.zfs.volume import ZfsVolume
from snaprep.volumes.zfs.way import Choose, chosen
from tests.volumes.harness import Side
from tests.volumes.private_zfs import in_kernel, kernel_zfs, make_pool, why_not, zfs_fuse

Make = Callable[..., Side]

PATH_WITH_SPACE = "srv data"


def zfs_side(
    folder: Path, name: str, choose: Choose, *, children: tuple[str, ...], dataset: str, size_mib: int
) -> Side:
    """A pool named after the side, and a volume for `dataset` in it. Nothing of the database exists yet."""
    make_pool(name, folder, size_mib)
    volume = ZfsVolume(pair="p", root=f"{name}/{dataset}", children=children, choose=choose)

    def raw(*words: str) -> str:
        return process.run(["zfs", *words], deadline_s=20).text

    def create(image: str, mountpoint: str | None) -> None:
        raw("create", "-o", f"mountpoint={mountpoint or 'none'}", image)
        for child in children:
            raw("create", f"{image}/{child}")

    path = folder / name / PATH_WITH_SPACE
    return Side(name, volume, f"{name}/{dataset}", path, ("", *sorted(children)), create, raw)


def by_command(pool: str, features: Features) -> ZfsOps:
    del pool
    return CommandOps(features.caps, "asked for")


def by_library(pool: str, features: Features) -> ZfsOps:
    del pool, features
    return LibraryOps()


# Either what a machine's kernel has, both ways, or a daemon of one's own; where there is neither, tests are skipped.
KERNEL: dict[str, Choose] = {"openzfs-command": by_command, "openzfs-library": by_library}
WAYS: dict[str, Choose] = KERNEL if in_kernel() else {"zfs-fuse": chosen}


@pytest.fixture(params=[pytest.param(way, marks=pytest.mark.zfs) for way in WAYS])
def make_side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes sides of one filesystem: `make_side(name, children=(...), dataset="my bank", size_mib=192)`."""
    if request.param == "zfs-fuse" and (reason := why_not()):
        pytest.skip(reason)
    folder = tmp_path / "zfs"

    def make(name: str, *, children: tuple[str, ...] = (), dataset: str = "my bank", size_mib: int = 192) -> Side:
        choose = WAYS[request.param]
        return zfs_side(folder, name, choose, children=children, dataset=dataset, size_mib=size_mib)

    with zfs_fuse(folder) if request.param == "zfs-fuse" else kernel_zfs(folder):
        yield make


@pytest.fixture
def pair(make_side: Make) -> tuple[Side, Side]:
    """A source with a live database of two parts, and an empty target."""
    return seeded(make_side, ("log",))


@pytest.fixture
def plain(make_side: Make) -> tuple[Side, Side]:
    """The same with one part only."""
    return seeded(make_side, ())


def seeded(make_side: Make, children: tuple[str, ...], target_mib: int = 192) -> tuple[Side, Side]:
    source = make_side("alpha", children=children)
    target = make_side("beta", children=children, size_mib=target_mib)
    source.create(source.live, str(source.path))
    source.write("bank.dat", 8 << 20)
    for child in children:
        source.write("log1.dat", 1 << 20, part=child)
    return source, target
