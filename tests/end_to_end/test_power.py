"""A machine loses its power in the middle of a run, and boots again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.conftest import MACHINES_S, new_pair
from tests.machines import power
from tests.machines.world import Machines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.pair import Pair

pytestmark = [pytest.mark.machines, pytest.mark.timeout(MACHINES_S)]


@pytest.fixture(scope="module")
def machines(rig_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two machines for all the cuts: each ends with an attached replica."""
    with new_pair(Machines, tmp_path_factory.mktemp("world")) as pair:
        yield pair


@pytest.mark.parametrize(("side", "place"), power.CORE)
def test_power_cut(machines: Pair, side: str, place: str) -> None:
    """After the next boot `resume` makes the replica, and nothing is lost; `scripts/soak power` has all places."""
    power.survive(machines, side, place)
