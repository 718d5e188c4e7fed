"""The facts that `decide` reasons about, and what the operator allows.

Facts are values read from the hosts in one call each. They are never updated in place and go stale: an action names the
ones it rests on, and the agent checks them again when it acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from snaprep.core.errors import ErrorInfo
from snaprep.core.volume import Image, ImageRole, VolumeFacts


class EngineState(StrEnum):
    """What the database on one host is doing, found without opening it."""

    ABSENT = "absent"  # no database files at the engine's path
    CLOSED = "closed"  # files are there, no process has them open
    PRIMARY = "primary"  # open and takes sessions
    GATED = "gated"  # open, but new client sessions are refused by our gate
    FROZEN = "frozen"  # open, commits wait
    WAITING = "waiting"  # armed as a replica, no primary connected yet
    REPLICA = "replica"  # open and replays what its primary sends
    UNKNOWN = "unknown"  # a process has the files open, but does not answer


OPEN_STATES = frozenset({EngineState.PRIMARY, EngineState.GATED, EngineState.FROZEN})
HALTED_STATES = frozenset({EngineState.GATED, EngineState.FROZEN})
REPLICA_STATES = frozenset({EngineState.WAITING, EngineState.REPLICA})


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `check`: `level` ok, warn or fail; `hint` says what to do."""

    id: str
    level: Literal["ok", "warn", "fail"]
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What one host's agent found. `traits` is what should be equal on both hosts, by name."""

    findings: tuple[Finding, ...]
    traits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transactions:
    """Open work of client sessions, looked at before a gate is closed."""

    open: int = 0
    oldest_s: float = 0.0  # a lower bound: how long we have been seeing it
    in_doubt: int = 0  # prepared XA transactions
    of_our_user: int = 0  # foreign sessions that log in as snaprep's user: the gate would not stop them


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLog:
    """Whether the engine keeps its log, and logs everything, so that a replica can be fed from it.

    `since`: the position from which on that holds without a break; None when it does not, or nobody saw it begin.
    """

    wanted: bool = False  # on at the next start of the database
    due: bool = False  # this start was after the wish: only nobody has noted it yet
    since: int | None = None
    ours: bool = False  # a run switched it on, and `clean` switches it off
    first: int = 0  # the oldest position that is still there


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedFacts:
    """A feed, as one of its two hosts knows it. Positions are the engine's.

    `lag_bytes` and `lag_s` are of what the replica has not received: a take-over would lack it. `delta_bytes` is what
    it has not stored. The target knows neither.
    """

    stream: str
    phase: Literal["waiting", "feeding", "finished", "failed"]
    since_s: float  # this host's clock, as all times here
    at_s: float
    position: int = 0  # read at the source
    sent: int = 0
    received: int = 0
    stored: int = 0
    sent_bytes: int = 0
    rate_bytes_per_s: float = 0.0
    delta_bytes: int = 0
    lag_bytes: int = 0
    lag_s: float = 0.0
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What a fed replica's base rests on: where its log ended, and in which life of the source it was taken."""

    position: int
    boot_id: str
    import_id: str


@dataclass(frozen=True, slots=True)
class EngineFacts:
    state: EngineState = EngineState.ABSENT
    server_up: bool = False
    server_pid: int | None = None
    server_version: str = ""  # empty when it cannot be seen
    position: int | None = None  # the engine's own order: for Derby the log instant
    position_text: str = ""
    logged_bytes: int | None = None  # about how much log was written since this agent first looked
    generation: int | None = None  # stamped in the database; None when it cannot be read without opening it
    replicating: bool = False  # a live connection between primary and replica
    gate_saved: bool = False  # former values of a gate are stored in the database
    kept_log: KeptLog | None = None  # None: it is not known without opening the database
    transactions: Transactions = field(default_factory=Transactions)
    note: str = ""  # what the engine said when something is wrong

    @property
    def halted(self) -> bool:
        """A run, or what one has left, keeps clients waiting or out: it has to be opened."""
        return self.gate_saved or self.state in HALTED_STATES


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Who holds a lock of a host, and to do what."""

    run: str
    verb: str
    operator: str
    pid: int


@dataclass(frozen=True, slots=True)
class HostFacts:
    name: str
    boot_id: str = ""
    clock_s: float = 0.0
    volume: VolumeFacts | None = None
    engine: EngineFacts = field(default_factory=EngineFacts)
    live_name: str = ""  # the configured image
    mountpoint: str = ""  # where clients look for the database; empty: not known, any place counts
    owner: str = ""  # "user:group" of the database's files, by name
    held_by: RunInfo | None = None
    guarded: str = ""  # what the guard keeps at present: "", "frozen", "gated"
    feed: FeedFacts | None = None  # one that is on its way
    error: ErrorInfo | None = None  # why this host told nothing, or could not look into its database

    @property
    def live(self) -> Image | None:
        return self.volume.image(self.live_name) if self.volume else None

    @property
    def stands_at_path(self) -> bool:
        """The live image is where clients look: the first session that comes opens it. A replica's stands elsewhere."""
        at = self.live.mounted_at if self.live else None
        return at is not None and self.mountpoint in ("", at)

    @property
    def recv(self) -> Image | None:
        return self.volume.image(recv_name(self.live_name)) if self.volume else None

    @property
    def claimed_generation(self) -> int:
        """The newest generation stamped in the database or on the live image; 0 when neither carries one."""
        on_image = int(self.live.properties.get("generation", "0")) if self.live else 0
        return max(self.engine.generation or 0, on_image)

    @property
    def claims_primary(self) -> bool:
        """The live image was last known as the one that takes writes."""
        return bool(self.live and self.live.properties.get("serves") == "primary")

    @property
    def claims_replica(self) -> bool:
        """The live image was made as a replica's, and nobody has promoted it."""
        return bool(self.live and self.live.properties.get("serves") == "replica")

    @property
    def has_database(self) -> bool:
        return self.engine.state is not EngineState.ABSENT or bool(self.live and self.live.properties.get("serves"))


def recv_name(live_name: str) -> str:
    """The image that receives for `live_name`. Nobody ever starts what is in it."""
    return f"{live_name}.recv"


@dataclass(frozen=True, slots=True)
class Facts:
    """Both hosts, in the order of the configuration."""

    hosts: tuple[HostFacts, HostFacts]

    def host(self, name: str) -> HostFacts:
        return self.hosts[0] if self.hosts[0].name == name else self.hosts[1]

    def other(self, name: str) -> HostFacts:
        return self.hosts[1] if self.hosts[0].name == name else self.hosts[0]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows. Times in milliseconds or seconds as the names say."""

    budget_ms: int = 4000  # the most `blocked` allowed, an undo included
    undo_ms: int = 1000  # what an undo of the cutover may take
    freeze: Literal["base", "always", "never"] = "base"
    freeze_lease_ms: int = 10_000
    limit_bytes_per_s: int | None = None
    hold: bool = False
    hold_pace_s: float = 10.0
    rounds_max: int = 50
    cutover_attempts: int = 3
    transaction_wait_s: float = 60.0  # how long a cutover waits for old transactions before it says so and stops
    transaction_old_s: float = 5.0
    floor_bytes: int = 1 << 30  # the source's free space under which the replica is given up
    lane: Literal["auto", "pages", "log"] = "auto"  # what a rebuild ships after the base: increments, or the log
    archive: Literal["restart", "bounce", "backup"] | None = None  # how the source comes to keep its log
    refresh_s: float | None = 3600.0  # how often a run that follows moves the common base on; None: when it is told to
    source: str | None = None
    isolate_foreign: bool = False  # the target may set a dataset aside that this pair did not create

    @property
    def cutover_lease_ms(self) -> int:
        """Of the gate of a planned change: when it is over, the change undoes itself, inside the budget."""
        return self.budget_ms - self.undo_ms


@dataclass(frozen=True, slots=True)
class RoundDone:
    """What one round measured. Durations in seconds; `dirty_s` is the time in which the delta was written."""

    number: int
    base_guid: int | None
    head_guid: int
    delta_bytes: int
    send_s: float
    total_s: float
    dirty_s: float | None
    freeze_ms: float = 0.0
    blocked_ms: float = 0.0
    log_bytes_per_s: float | None = None  # written since the round before
    arrived_bytes: int | None = None  # None: sent in one piece. Else nobody knows when the point was taken


@dataclass(frozen=True, slots=True)
class CutoverTried:
    ok: bool
    predicted_p50_ms: float
    predicted_p90_ms: float
    blocked_ms: float
    error: str = ""
    delta_bytes: int = 0  # what was shipped while the gate was closed
    fed: bool = False  # the replica had been fed the log


@dataclass(frozen=True, slots=True)
class History:
    """What this run has done so far, as the journal tells it, and what the operator has said since."""

    rounds: tuple[RoundDone, ...] = ()
    cutovers: tuple[CutoverTried, ...] = ()
    switchovers: tuple[CutoverTried, ...] = ()
    now_s: float = 0.0  # monotonic, the operator's
    last_round_end_s: float | None = None
    prepared_s: float | None = None  # when the target was last made ready for a cutover
    waiting_since_s: float | None = None  # for old transactions, before the cutover that comes next
    release: bool = False  # `snaprep cutover` was said
    abort: bool = False
    lane: Literal["pages", "log"] | None = None  # what was chosen, where nobody has named one
    unfeedable: bool = False  # the target's engine does not boot a copy so that it can be fed
    failed_tokens: tuple[str, ...] = ()  # of streams that could not be gone on with; what came in since has another
    refreshed: tuple[tuple[str, str], ...] = ()  # (sender, receiver) of the refreshes done
    settled_s: float | None = None  # when the common base was last moved on, or first made
    refresh: bool = False  # `snaprep refresh` was said
    taken_over: bool = False
    settled: bool = False
    verified: bool = False
    log_let_go: bool = False  # as far as no other pair needs it
    begun: bool = False  # something was done: what breaks now is waited for

    @property
    def since_round_s(self) -> float:
        return max(0.0, self.now_s - self.last_round_end_s) if self.last_round_end_s is not None else 0.0

    @property
    def fresh(self) -> bool:
        """A round has carried what was written while the target was made ready."""
        ready_s, ended_s = self.prepared_s, self.last_round_end_s
        return ready_s is not None and ended_s is not None and ended_s >= ready_s


__all__ = [
    "HALTED_STATES",
    "OPEN_STATES",
    "REPLICA_STATES",
    "Checked",
    "CutoverTried",
    "EngineFacts",
    "EngineState",
    "Facts",
    "FeedFacts",
    "Finding",
    "History",
    "HostFacts",
    "Image",
    "ImageRole",
    "KeptLog",
    "Origin",
    "Policy",
    "RoundDone",
    "RunInfo",
    "Transactions",
    "recv_name",
]
