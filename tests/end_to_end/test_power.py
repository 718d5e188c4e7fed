"""A host loses its power in the middle of a run, and boots again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig import power

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig


@pytest.mark.parametrize(("side", "place"), power.CORE)
def test_power_cut(pair: Pair, side: str, place: str) -> None:
    """After the next boot `resume` makes the replica, and nothing is lost; `scripts/soak power` has all places."""
    power.survive(pair, side, place)
