"""What every action works with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from snaprep.act.interpreter import Interpreter
from snaprep.core.model import Facts, History, HostFacts, Policy
from snaprep.core.report import Report, RoundReport
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


@dataclass(slots=True)
class Memory:
    """What the loop keeps between two actions."""

    history: History
    report: Report
    preflown: bool = False  # what a cutover needs was proven by this run
    taken_s: float | None = None  # the sender's clock at this run's newest snapshot
    logged: tuple[float, int] | None = None  # when the source was last looked at for a round, and its log by then
    numbers: int = 0
    failures: int = 0  # in a row
    failures_of: Counter[type] = field(default_factory=Counter)  # each kind of action, since it last went well
    unseen_since_s: float | None = None  # a host that was reached before cannot be reached
    held_because: str = ""  # the reason that the journal knows
    same: tuple[object, ...] = ()  # what the last action was about, and how often in a row it succeeded
    same_times: int = 0
