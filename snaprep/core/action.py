"""What `decide` can answer. Each action says in one line what it does and names what it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from snaprep.core.errors import ErrorInfo
from snaprep.core.lineage import Base
from snaprep.core.model import Origin
from snaprep.core.volume import Partial


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Who is what in this run, and the generation that the decision rests on."""

    source: str
    target: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """End with an error; nothing more is touched."""

    error: ErrorInfo
    final: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopen:
    """Open a gate, or thaw a freeze, that a run which died has left on the source."""

    host: str
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Mark the source's image as this pair's, and stamp the generation into database and dataset."""

    roles: Roles
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Rename an image of the target so that it can never be started by mistake; nothing in it is lost."""

    roles: Roles
    image: str
    to: str
    why: str
    tail_from: int | None = None  # engine position at which the two histories part; None when unknown
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """Snapshot the source and send it whole: no common point is left."""

    roles: Roles
    freeze: bool
    expected_bytes: int
    resume: Partial | None = None  # go on with a stream that broke, instead of a new point
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Snapshot the source and send what was written since the base."""

    roles: Roles
    base: Base
    freeze: bool
    number: int
    resume: Partial | None = None
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose:
    """Take this lane from here on, because of what was measured. Touches nothing. Rates are bytes written a second."""

    roles: Roles
    lane: Literal["pages", "log"]
    why: str
    page_bytes_per_s: float | None
    log_bytes_per_s: float | None
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepLog:
    """Have the source log everything and keep its log, in the way that the operator chose."""

    roles: Roles
    how: str
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepNoLog:
    """Let the source go of the log that it kept for a replica, and put it back as it was."""

    roles: Roles
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Make the replica's image from the newest common point, to be fed."""

    roles: Roles
    base: Base
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Play the source's log to the replica for a while; whatever it wrote since the base, and then as it writes."""

    roles: Roles
    origin: Origin
    replication: bool = False  # a primary may take the replica over later
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedCutover:
    """Close the gate, feed the last of the log, turn the engine's own replication on, open the gate."""

    roles: Roles
    p50_ms: float
    p90_ms: float
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Wait, with the reason on the screen; look again after `pace_s`."""

    reason: str
    pace_s: float
    for_work: bool = False  # for clients to end what they have open, which is waited for only so long
    p50_ms: float | None = None
    p90_ms: float | None = None
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Do what takes long and needs no gate: end a former replication, and warm the target's server with this base."""

    roles: Roles
    base: Base
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutover:
    """Close the gate, ship the last increment, turn replication on, open the gate."""

    roles: Roles
    base: Base
    p50_ms: float
    p90_ms: float
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """Make the replica serve: promote, open the gate, stamp the next generation."""

    target: str
    generation: int  # the one it will have
    from_state: str
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Switchover:
    """Shut the primary down, bring its replica to the same end, and let the two change places."""

    roles: Roles  # as they are before it
    generation: int  # the one that the target will have
    fed: bool = False  # the replica is fed, and gets the last of the log so
    p50_ms: float
    p90_ms: float
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """Ship one side's newest content to the other's receiving image, so that the common base moves on."""

    sender: str
    receiver: str
    base: Base
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The source's space is under its floor: release the base and kept log, so that the primary lives."""

    roles: Roles
    free_bytes: int
    floor_bytes: int
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Keep the newest common point, let go of older ones, and remove what the run no longer needs."""

    roles: Roles
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Prove that the replica is attached and that both sides stand at the same place."""

    roles: Roles
    final: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The goal holds."""

    serving: str
    replica: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)
    final: ClassVar[bool] = True


Action: TypeAlias = (
    Refuse
    | Reopen
    | Adopt
    | SetAside
    | Seed
    | Round
    | Choose
    | KeepLog
    | KeepNoLog
    | Present
    | Feed
    | FeedCutover
    | Hold
    | Prepare
    | Cutover
    | Switchover
    | TakeOver
    | Refresh
    | GiveUp
    | Settle
    | Verify
    | Done
)
