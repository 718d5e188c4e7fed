"""A pair for each scenario: a world of its own, because scenarios break things.

Each scenario is there twice: in namespaces, and with --machines on machines with kernels of their own.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.fed import ARCHIVE, BACK_S, BALLAST_ROWS, Fed
from tests.machines.world import Machines
from tests.rig.derby import add_ballast, create_bank
from tests.rig.fixtures import BANK_MB
from tests.rig.pair import Pair
from tests.rig.storm import feeds
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MACHINES_S = 3000
TIERS = [
    pytest.param(World, id="namespaces"),
    pytest.param(Machines, id="machines", marks=[pytest.mark.machines, pytest.mark.timeout(MACHINES_S)]),
]


@contextmanager
def new_pair(tier: type[World], folder: Path) -> Iterator[Pair]:
    """db1 serves a bank of 20 MB, db2 has an empty pool."""
    with tier.start(folder) as world:
        yield Pair(world, create_bank(world["db1"], size_mb=BANK_MB))


@pytest.fixture(params=TIERS)
def pair(rig_tools: None, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Two hosts for one test only."""
    with new_pair(request.param, tmp_path) as pair:
        yield pair


@pytest.fixture(scope="module", params=TIERS)
def shared_pair(
    rig_tools: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """The same for all the tests of a module: for those that leave nothing behind."""
    with new_pair(request.param, tmp_path_factory.mktemp("world")) as pair:
        yield pair


@pytest.fixture(scope="module")
def fed(shared_pair: Pair) -> Iterator[Fed]:
    """A replica that is fed throughout the tests of a module, and afterwards is whole."""
    with shared_pair.writers(rate=20) as clients:
        clients.wait_for(20)
        fed = Fed(shared_pair, clients, shared_pair.start("follow", *ARCHIVE))
        try:
            fed.running.wait_event(feeds, BACK_S)
            add_ballast(fed.source, fed.url, BALLAST_ROWS)
            yield fed
            fed.must_be_whole()
        finally:
            fed.running.kill()
