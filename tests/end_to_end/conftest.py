"""A pair for each scenario: a world of its own, because scenarios break things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig.derby import create_bank
from tests.rig.fixtures import BANK_MB
from tests.rig.pair import Pair
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair(rig_tools: None, tmp_path: Path) -> Iterator[Pair]:
    """db1 serves a bank of 20 MB, db2 has an empty pool."""
    with World.start(tmp_path) as world:
        yield Pair(world, create_bank(world["db1"], size_mb=BANK_MB))


@pytest.fixture(scope="module")
def shared_pair(rig_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The same for all the tests of a module: for those that leave nothing behind."""
    with World.start(tmp_path_factory.mktemp("world")) as world:
        yield Pair(world, create_bank(world["db1"], size_mb=BANK_MB))
