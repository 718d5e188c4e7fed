"""Worlds for tests. `world` is shared by the tests of a module, which should not mind each other's traces;
a test that breaks things takes `fresh_world` (1 s) or, without database servers, `bare_world` (0.5 s).
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.rig.derby import Bank, bank_of, create_bank
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("unshare", "nsenter", "ip", "tc", "socat", "zfs-fuse", "zfs", "sshd", "ssh", "java", "javac")
BANK_MB = 20


@pytest.fixture(scope="session")
def rig_tools() -> None:
    """Skips what needs the rig where the rig cannot be."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=f"{os.defpath}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"the rig needs {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("the rig needs root")


@pytest.fixture(scope="module")
def world(rig_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An operator, `db1` that serves a small bank, and `db2` with an empty pool."""
    with World.start(tmp_path_factory.mktemp("world")) as world:
        create_bank(world["db1"], size_mb=BANK_MB)
        yield world


@pytest.fixture(scope="session")
def bank() -> Bank:
    """Where the bank of `world` is, and that of `fresh_world`."""
    return bank_of(BANK_MB)


@pytest.fixture
def fresh_world(rig_tools: None, tmp_path: Path) -> Iterator[World]:
    """Like `world`, for one test only."""
    with World.start(tmp_path) as world:
        create_bank(world["db1"], size_mb=BANK_MB)
        yield world


@pytest.fixture
def bare_world(rig_tools: None, tmp_path: Path) -> Iterator[World]:
    """Hosts with sshd and an empty pool, without Derby, for one test only."""
    with World.start(tmp_path, derby=False) as world:
        yield world
