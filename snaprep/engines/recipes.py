"""Which engine's sequences a pair asks for."""

from __future__ import annotations

from collections.abc import Mapping

from snaprep.core.spec import Pair
from snaprep.engines.base import EngineRecipe
from snaprep.engines.derby import recipe as derby

_RECIPES: Mapping[str, EngineRecipe] = {"derby": derby}


def recipes_of(pair: Pair) -> EngineRecipe:
    """Those of the engine that both hosts of a pair run."""
    return _RECIPES[pair.hosts[0].engine]
