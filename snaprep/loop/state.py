"""A run on its way: what it works with, what it keeps between two actions, and its one report, always up to date."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from snaprep.act.context import Context
from snaprep.act.feed import Feeding
from snaprep.act.interpreter import Interpreter
from snaprep.control import Control, Sink
from snaprep.core.action import Action, Cutover, FeedCutover, Switchover
from snaprep.core.history import after, attempted
from snaprep.core.model import CutoverTried, Facts, History, Policy
from snaprep.core.report import Report, RoundReport, named_lane
from snaprep.engines.recipes import recipes_of
from snaprep.journal import Journal, earlier
from snaprep.session import Session

_IN_A_LANE = frozenset({"rebuild", "resume"})


@dataclass(slots=True, eq=False)
class Run:
    """One run of one verb on a connected session."""

    session: Session
    policy: Policy
    sink: Sink
    control: Control
    journal: Journal
    verb: str
    interpreter: Interpreter = field(init=False)
    history: History = field(init=False)
    report: Report = field(init=False)
    feeding: Feeding | None = None  # the feed that is under way
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
    _began_s: float = field(default_factory=time.monotonic)
    _telling: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.interpreter = Interpreter(self.session, self.pass_on)
        self.history = earlier(self.journal.entries(), self.journal.run)
        self.report = Report(
            run=self.journal.run,
            pair=self.session.pair.name,
            verb=self.verb,
            lane=named_lane(self.policy.lane) if self.verb in _IN_A_LANE else None,
            started_at=time.time(),
            journal=str(self.journal.path),
        )

    @property
    def patient(self) -> bool:
        """It has no end of its own: what breaks is taken up again."""
        return self.verb == "follow"

    @property
    def feeds(self) -> bool:
        """What is shipped is to be fed: it matters in which life of the source it was taken."""
        return self.patient or "log" in (self.policy.lane, self.history.lane)

    def learn(self, **changed: Any) -> None:  # noqa: ANN401 (fields of History)
        """Also called where a second terminal is heard, beside the action under way."""
        with self._telling:
            self.history = replace(self.history, **changed)

    def went_well(self, action: Action) -> None:
        with self._telling:
            self.history = after(action, self.history, time.monotonic())

    def attempted(self, action: Cutover | FeedCutover | Switchover, tried: CutoverTried) -> None:
        with self._telling:
            self.history = attempted(action, self.history, tried)

    def say(self, **changed: Any) -> Report:  # noqa: ANN401 (fields of Report)
        """Change the report, and show it."""
        with self._telling:
            elapsed_ms = 1000 * (time.monotonic() - self._began_s)
            self.report = replace(self.report, elapsed_ms=elapsed_ms, **changed)
            report = self.report
        self.sink.report(report)
        return report

    def say_round(self, shown: RoundReport) -> None:
        current = self.report.current
        if shown.state == "failed" and current is not None:
            shown = replace(current, state="failed")  # with what was sent of it
        others = tuple(r for r in self.report.rounds if (r.number, r.kind) != (shown.number, shown.kind))
        self.say(rounds=(*others, shown))

    def pass_on(self, event: Mapping[str, Any]) -> None:
        """What an agent tells while it works."""
        if event.get("event") == "progress" and "sent_bytes" in event and self.report.current is not None:
            self.say_round(
                replace(
                    self.report.current,
                    sent_bytes=event["sent_bytes"],
                    rate_bytes_per_s=event.get("rate_bytes_per_s"),
                    elapsed_ms=event.get("elapsed_ms", 0.0),
                )
            )
            return
        if event.get("event") != "command" or self.sink.show_commands:
            self.sink.event(event)

    def context(self, facts: Facts) -> Context:
        """What an action works with."""
        return Context(
            pair=self.session.pair,
            policy=self.policy,
            session=self.session,
            engine=recipes_of(self.session.pair),
            interpreter=self.interpreter,
            facts=facts,
            run=self.journal.run,
            number=self._number,
            tell=self.say_round,
            stop=self.control.stop.is_set,
        )

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers
