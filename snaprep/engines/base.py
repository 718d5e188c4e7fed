"""What an engine writes its sequences from, and what it answers. One room an engine.

An engine has two halves. `host` runs inside the agent on the database's host and drives the database by its own client;
the agent's steps are what it has to be able to do. `recipe` is pure: it writes the dangerous sequences as data, for the
interpreter and for the model world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from snaprep.core.recipe import Recipe, Ref


@dataclass(frozen=True, slots=True)
class Quiesced:
    """Where the engine's log ended when it was shut down clean."""

    position: int
    position_text: str


@dataclass(frozen=True, slots=True)
class Tail:
    """What an image holds beyond a position: the commits that the other side never got."""

    since_text: str
    end_text: str
    commits: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPlan:
    """One snapshot of the source, perhaps frozen."""

    source: str
    image: str
    point: str
    freeze: bool
    flush: bool  # write dirty pages out first: an increment carries what was written, not what happens to be flushed
    freeze_lease_ms: int
    copies: bool = False  # the storage has no snapshots: the engine copies itself, at work


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerPlan:
    """What a former replication has left, before there is a new replica."""

    source: str
    target: str
    detach: bool  # the source may still have the role of a primary
    live: str | None  # the former replica's image; None: there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparePlan:
    """What is done before the last round: it takes long, and needs no gate."""

    source: str
    target: str
    former: FormerPlan
    target_recv: str
    warm_point: str  # the newest point on the target, for warming its server
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoverPlan:
    """Everything a cutover needs to know before it begins, so that nothing has to be looked up while writers wait."""

    source: str
    target: str
    source_live: str
    target_live: str
    target_recv: str
    point: str  # the final point's name
    base_guid: int
    base_name: str  # image@point on the source
    origin: str | None
    stream: str
    send_flags: tuple[str, ...]
    tuning: Mapping[str, str]
    mountpoint: str
    owner: str  # "user:group" that the copy's files get, by name; empty: as they came
    generation: int
    budget_ms: int
    lease_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedCutoverPlan:
    """From a feed to the engine's own replication."""

    source: str
    target: str
    budget_ms: int
    lease_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOverPlan:
    """Making one host serve. `fence` names the other host when it can be reached."""

    target: str
    live: str
    mountpoint: str
    replica_mountpoint: str
    owner: str
    recv_point: tuple[str, str] | None  # (image, point) to serve from when there is no live image
    from_state: str
    generation: int
    promotes: bool  # False: it was the primary already and is only opened again
    fence: str | None
    fence_live: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchPlan:
    """The two sides of a pair change places. `generation` is the one that the target will have."""

    source: str
    target: str
    source_live: str
    target_live: str
    source_path: str  # where clients look on the source
    source_replica_path: str  # where the source's image stands as a replica
    target_path: str  # where clients look on the target
    target_replica_path: str
    warm: tuple[str, str] | None  # (image, point) on the target, for warming its server
    owner: str  # "user:group" of the files there
    generation: int
    fed: bool  # the replica is fed, not attached
    budget_ms: int
    lease_ms: int


class EngineRecipe(Protocol):
    """The sequences of one engine."""

    def snapshot(self, plan: SnapshotPlan) -> Recipe: ...
    def take_down(self, plan: FormerPlan) -> Recipe: ...
    def prepare(self, plan: PreparePlan) -> Recipe: ...
    def arm(self, plan: CutoverPlan) -> Recipe: ...
    def cutover(self, plan: CutoverPlan) -> Recipe: ...
    def feed_cutover(self, plan: FeedCutoverPlan) -> Recipe: ...
    def take_over(self, plan: TakeOverPlan) -> Recipe: ...
    def switch_prepare(self, plan: SwitchPlan) -> Recipe: ...
    def hand_over(self, plan: SwitchPlan) -> Recipe: ...
    def assume(self, plan: SwitchPlan, rolled_back: Mapping[str, object] | Ref, position: int | Ref) -> Recipe: ...
