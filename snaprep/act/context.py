"""What every action works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snaprep.act.interpreter import Interpreter
from snaprep.core.model import Facts, HostFacts, Policy
from snaprep.core.report import RoundReport
from snaprep.core.spec import Pair
from snaprep.engines.base import EngineRecipe
from snaprep.session import Session


@dataclass(frozen=True, slots=True)
class Context:
    """`number` gives streams and snapshots names that this pair never used; `tell` shows a stream on its way."""

    pair: Pair
    policy: Policy
    session: Session
    engine: EngineRecipe
    interpreter: Interpreter
    facts: Facts
    run: str
    number: Callable[[], int]
    tell: Callable[[RoundReport], None]
    stop: Callable[[], bool]

    def owner(self, source: HostFacts, target: HostFacts) -> str:
        """Whose the replica's files are on the target, "user:group": as configured there, else as on the source."""
        return self.pair.host(target.name).owner or source.owner

    def point_name(self) -> str:
        """A snapshot name: ours by its prefix, never used before."""
        return f"snaprep-{self.pair.name}-{self.run}-{self.number():03d}"
