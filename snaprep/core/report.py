"""The state of a run as plain data: sampled once, then drawn by every view and written as JSON.

Units stand at the end of names: `_bytes`, `_ms`, `_bytes_per_s`; names that end in `_at` are seconds since the epoch
here and RFC 3339 in UTC outside. None means unknown. Fields and their names are a promise, kept in docs/json.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from snaprep.core.action import Choose
from snaprep.core.errors import ErrorInfo
from snaprep.core.lineage import Base
from snaprep.core.model import FeedFacts, Finding, RunInfo


class RunState(StrEnum):
    """What a run is doing, in the word that users see."""

    PLANNING = "planning"
    PREPARING = "preparing"  # marks, setting aside, opening what an earlier run has left closed
    SEEDING = "seeding"
    ROUND = "round"
    FOLLOWING = "following"
    HELD = "held"
    CUTTING_OVER = "cutting-over"
    TAKING_OVER = "taking-over"
    SWITCHING_OVER = "switching-over"
    REFRESHING = "refreshing"
    VERIFYING = "verifying"
    SETTLING = "settling"
    DONE = "done"
    STOPPED = "stopped"  # can be resumed
    ABORTED = "aborted"
    FAILED = "failed"

    @property
    def words(self) -> str:
        return self.value.replace("-", " ")


FINAL_STATES = frozenset({RunState.DONE, RunState.STOPPED, RunState.ABORTED, RunState.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """One stream from source to target. Number 0 is the full send."""

    number: int
    kind: Literal["full", "delta", "refresh"] = "delta"
    state: Literal["sending", "done", "failed"] = "sending"
    expected_bytes: int | None = None
    sent_bytes: int = 0
    arrived_bytes: int | None = None  # of a stream that broke, what was there before; None: sent from its beginning
    rate_bytes_per_s: float | None = None
    elapsed_ms: float = 0.0
    freeze_ms: float | None = None  # None: this round froze nothing
    blocked_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a cutover begun now would block, against what is allowed."""

    budget_ms: float
    undo_ms: float
    p50_ms: float | None = None
    p90_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoverReport:
    """What the cutover did. `blocked_ms` counts from the last commit before it to the first possible one after it."""

    ok: bool
    blocked_ms: float
    p50_ms: float | None = None
    p90_ms: float | None = None
    position: str = ""  # where both logs ended
    reason: str = ""  # why it was undone


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedReport:
    """How far a fed replica is. The lag is what it has not received: what a take-over now would lack."""

    since_at: float | None = None
    seen_at: float | None = None  # when this was measured
    sent_bytes: int = 0
    rate_bytes_per_s: float | None = None
    lag_bytes: int | None = None
    lag_ms: float | None = None
    delta_bytes: int | None = None  # what is not on the replica's disk


def feed_report(facts: FeedFacts) -> FeedReport:
    """What the source's agent knows, as it is shown: nothing of the lag before the replica has said where it is."""
    known = facts.phase != "waiting" and facts.stored > 0
    return FeedReport(
        since_at=facts.since_s,
        seen_at=facts.at_s,
        sent_bytes=facts.sent_bytes,
        rate_bytes_per_s=facts.rate_bytes_per_s if known else None,
        lag_bytes=facts.lag_bytes if known else None,
        lag_ms=1000 * facts.lag_s if known else None,
        delta_bytes=facts.delta_bytes if known else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneReport:
    """What is shipped after the base, and why. Rates: how fast an increment grows, and the log."""

    name: Literal["pages", "log"]
    why: str
    page_bytes_per_s: float | None = None
    log_bytes_per_s: float | None = None


def named_lane(lane: Literal["auto", "pages", "log"]) -> LaneReport | None:
    """The lane that the operator has named; None when it is to be chosen."""
    return None if lane == "auto" else LaneReport(name=lane, why="as asked")


def chosen_lane(choice: Choose) -> LaneReport:
    """The lane that was measured to be better."""
    return LaneReport(
        name=choice.lane,
        why=choice.why,
        page_bytes_per_s=choice.page_bytes_per_s,
        log_bytes_per_s=choice.log_bytes_per_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseReport:
    name: str  # snapshot on the source
    guid: int


def base_report(base: Base | None) -> BaseReport | None:
    return BaseReport(name=base.point.name, guid=base.point.guid) if base is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Something that stays behind on a host, and what it is good for."""

    host: str
    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What one side holds that never reached the other, and where it can be found."""

    host: str
    where: str  # dataset or snapshot that still holds it
    since: str = ""  # engine positions
    until: str = ""
    commits: int | None = None
    tail_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is known of a run at one moment."""

    run: str = ""
    pair: str
    verb: str
    state: RunState = RunState.PLANNING
    reason: str = ""  # why it is in this state, above all why it waits
    source: str = ""
    target: str = ""
    serves: str | None = None  # the host that serves; None when nobody does
    serving: str = ""  # the same as a sentence
    started_at: float | None = None
    elapsed_ms: float = 0.0
    rounds: tuple[RoundReport, ...] = ()
    lane: LaneReport | None = None  # None: nobody has named one, and nothing was measured yet
    forecast: Forecast | None = None
    cutover: CutoverReport | None = None
    feed: FeedReport | None = None
    base: BaseReport | None = None
    source_free_bytes: int | None = None
    target_free_bytes: int | None = None
    pinned_bytes: int | None = None  # what the base keeps from being freed on the source
    limit_bytes_per_s: int | None = None
    verified: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    lost: tuple[Lost, ...] = ()
    journal: str = ""
    error: ErrorInfo | None = None
    hint: str = ""

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0

    @property
    def current(self) -> RoundReport | None:
        """The stream on its way."""
        last = self.rounds[-1] if self.rounds else None
        return last if last is not None and last.state not in ("done", "failed") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """Bytes, time or blocked None: unknown; 0: none."""

    name: str
    what: str
    step_bytes: int | None = 0
    time_ms: float | None = 0.0
    blocked_ms: float | None = 0.0
    effect: str = ""  # what clients see: "commits wait", "clients are cut off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    label: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rebuild would do. `error` is what would stop it."""

    pair: str
    engine: str = ""
    source: str = ""
    target: str = ""
    source_dataset: str = ""
    target_dataset: str = ""
    serves: str | None = None
    serving: str = ""
    facts: tuple[Fact, ...] = ()
    lane: LaneReport | None = None
    steps: tuple[PlanStep, ...] = ()
    forecast: Forecast | None = None
    warnings: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    hint: str = ""

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0


Replica: TypeAlias = Literal["attached", "fed", "broken", "stopped", "none", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    name: str
    role: Literal["primary", "replica", "other", "unknown"] = "unknown"
    engine_state: str = ""
    generation: int | None = None
    position: str = ""
    replicating: bool = False
    server_up: bool = False
    dataset: str = ""
    mounted_at: str = ""
    newest: str = ""  # newest snapshot of ours
    store_health: str = ""
    free_bytes: int | None = None
    pinned_bytes: int | None = None
    guarded: str = ""  # "frozen" or "gated" while the guard keeps it so
    held_by: RunInfo | None = None
    error: str = ""  # why this host told nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the pair stands. `error` is set when somebody has to act: nobody serves, a gate was left closed, ..."""

    pair: str
    serves: str | None = None
    serving: str = ""
    hosts: tuple[HostStatus, ...] = ()
    base: BaseReport | None = None
    feed: FeedReport | None = None
    replica: Replica = "unknown"  # `stopped`: it was fed, and nobody feeds it now
    replication: str = ""  # the same as a sentence
    last_run: str = ""
    last_verb: str = ""
    last_state: str = ""
    resumable: bool = False
    warnings: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    journal: str = ""
    error: ErrorInfo | None = None
    hint: str = ""

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostChecks:
    host: str  # "" for what belongs to both
    role: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    pair: str
    serves: str | None = None
    serving: str = ""
    hosts: tuple[HostChecks, ...] = ()

    def count(self, level: Literal["ok", "warn", "fail"]) -> int:
        return sum(f.level == level for h in self.hosts for f in h.findings)

    @property
    def exit_code(self) -> int:
        return 3 if self.count("fail") else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOverQuestion:
    """What is said before anyone is asked to take over."""

    target: str
    loss: tuple[str, ...]  # what may be lost, and how that is known
    fenced: tuple[str, ...] = ()  # what is done so that the other side no longer serves
    not_fenced: tuple[str, ...] = ()  # what cannot be kept from writing to the other side


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchQuestion:
    """What is said before anyone is asked to change the roles."""

    source: str  # serves now
    target: str  # will serve
    p50_ms: float
    p90_ms: float
    budget_ms: float
