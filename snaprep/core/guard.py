"""The guard's mind: what keeps a freeze or a gate from outliving its lease, as a pure state machine.

Invariant: nothing is thawed or opened while an uninterruptible step (freeze, close, quiesce, attach) is in flight, and
whatever was frozen or gated is thawed and opened within lease + `PATIENCE_S` (+ one restart of the server) on a host
that is up.

The executing process feeds events in, with the host's monotonic clock, and does what comes back, in order:

* before it sends a statement that freezes, closes, quiesces or attaches: `Begins`; `refused` in the answer: do not;
* when that statement has come back, well or not: `Returns`;
* when its owner wants the database open, on the planned way as well as in an undo: `Wanted`;
* when its owner takes a gated database away, for the other host to serve: `Leaves`; `refused` in the answer: do not;
* when its owner is gone (end of file on its pipe): `OwnerGone`;
* when it has done `THAW`, `OPEN`, `CUT` or `RESTART`: `DidIt`, with `ok`;
* when `wake_at_s` has passed: `Tick`.

`Begins` comes before the statement and not after it, because a guard that dies between the two must be survived by a
successor who knows. A thaw or an opening that there was no need for does no harm; a missing one does.

Why it waits: a commit while Derby's startMaster is in flight wedges the database, and opening the gate is a commit.
The order that works is cut the connection that startMaster waits for, wait until it returns, open; an unfreeze that
overtakes its freeze is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

PATIENCE_S = 15.0  # how long a step may take to return once it was cut, or cannot be cut
RETRY_S = 1.0  # between two tries to thaw or open


class Work(StrEnum):
    """Steps that must come back before anything is undone."""

    FREEZE = "freeze"
    CLOSE = "close"
    QUIESCE = "quiesce"
    ATTACH = "attach"


class Do(StrEnum):
    """What the guard's process has to do now."""

    CUT = "cut"  # end the replication connection that attach waits for
    THAW = "thaw"
    OPEN = "open"
    RESTART = "restart"  # the server: the step neither returned nor could be cut
    EXIT = "exit"


@dataclass(frozen=True, slots=True)
class Begins:
    """A statement is about to be sent. `lease_s` counts from now and is given with FREEZE and CLOSE."""

    work: Work
    lease_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Returns:
    work: Work
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """The owner wants the database thawed and open."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """The owner takes the database away while its gate stands: from now on it is not to be opened here."""


@dataclass(frozen=True, slots=True)
class OwnerGone:
    """End of file on the owner's pipe."""


@dataclass(frozen=True, slots=True)
class DidIt:
    do: Do
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = Begins | Returns | Wanted | Leaves | OwnerGone | DidIt | Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """`frozen` and `gated` mean: may be, so it has to be taken back. Times are seconds of the host's own clock."""

    frozen: bool = False
    gated: bool = False
    lease_until_s: float = 0.0
    in_flight: Work | None = None
    doing: Do | None = None  # handed out and not reported back
    ending: bool = False  # lease passed, owner gone, or wanted: take everything back
    owner_gone: bool = False
    cut: bool = False
    patience_until_s: float | None = None
    retry_at_s: float | None = None

    @property
    def halted(self) -> bool:
        return self.frozen or self.gated

    @property
    def phase(self) -> str:
        """idle, frozen, gated or attaching, or ending when it takes things back: for facts and the journal."""
        if self.ending and self.halted:
            return "ending"
        if self.in_flight is Work.ATTACH:
            return "attaching"
        return "frozen" if self.frozen else "gated" if self.gated else "idle"

    @property
    def wake_at_s(self) -> float | None:
        """When a `Tick` is due at the latest; None when only an event can change anything."""
        if self.doing is not None or not self.halted:
            return None
        if not self.ending:
            return self.lease_until_s
        return self.patience_until_s if self.in_flight else self.retry_at_s


@dataclass(frozen=True, slots=True)
class Answer:
    """The guard afterwards, what to do now, and why a `Begins` is refused (empty: it may be sent)."""

    guard: Guard
    do: tuple[Do, ...] = ()
    refused: str = ""


def step(guard: Guard, event: Event, now_s: float) -> Answer:
    """Take one event in."""
    if isinstance(event, Begins):
        return _begin(guard, event, now_s)
    if isinstance(event, Leaves):
        return _leave(guard, now_s)
    return _go_on(_taken(guard, event, now_s), now_s)


def _begin(guard: Guard, event: Begins, now_s: float) -> Answer:
    if guard.in_flight is not None or guard.doing is not None:
        return Answer(guard, refused=f"{guard.in_flight or guard.doing} is under way")
    if guard.owner_gone:
        return Answer(guard, refused="the owner is gone")
    if event.work in (Work.QUIESCE, Work.ATTACH):
        if not guard.gated or guard.ending or now_s >= guard.lease_until_s:
            return _refuse(guard, "lease-passed: the gate does not stand any more", now_s)
        return Answer(replace(guard, in_flight=event.work, cut=False, patience_until_s=None))
    if guard.halted and (guard.ending or now_s >= guard.lease_until_s):
        return _refuse(guard, "lease-passed: what was halted before is being taken back", now_s)
    frozen = guard.frozen or event.work is Work.FREEZE
    gated = guard.gated or event.work is Work.CLOSE
    until_s = now_s + event.lease_s
    if guard.halted:  # a second halt never lengthens the first
        until_s = min(until_s, guard.lease_until_s)
    begun = Guard(frozen=frozen, gated=gated, lease_until_s=until_s, in_flight=event.work)
    return Answer(begun)


def _leave(guard: Guard, now_s: float) -> Answer:
    if guard.in_flight is not None or guard.doing is not None or guard.frozen:
        return Answer(guard, refused=f"{guard.in_flight or guard.doing or 'a freeze'} is under way")
    if not guard.gated or guard.ending or now_s >= guard.lease_until_s:
        return _refuse(guard, "lease-passed: the gate does not stand any more", now_s)
    return Answer(Guard())


def _refuse(guard: Guard, why: str, now_s: float) -> Answer:
    """Refused, and what is due is done at once instead of at the next tick."""
    answer = _go_on(guard, now_s)
    return Answer(answer.guard, answer.do, refused=why)


def _taken(guard: Guard, event: Event, now_s: float) -> Guard:
    """The guard with one event noted, before it thinks about what to do."""
    if isinstance(event, Returns):
        return replace(guard, in_flight=None, patience_until_s=None) if guard.in_flight is event.work else guard
    if isinstance(event, OwnerGone):
        return replace(guard, owner_gone=True, ending=True)
    if isinstance(event, Wanted):
        return replace(guard, ending=True)
    if isinstance(event, DidIt):
        return _did(guard, event, now_s)
    return guard


def _did(guard: Guard, event: DidIt, now_s: float) -> Guard:
    if guard.doing is not event.do:
        return guard
    guard = replace(guard, doing=None)
    if event.do is Do.CUT:
        return replace(guard, cut=True)
    if event.do is Do.RESTART and not event.ok:  # it is still in flight: cut again, wait again
        return replace(guard, cut=False, patience_until_s=now_s + PATIENCE_S)
    if event.do is Do.RESTART:  # whatever was in flight died with the server, and so did a freeze
        return replace(guard, in_flight=None, frozen=False, patience_until_s=None)
    if not event.ok:
        return replace(guard, retry_at_s=now_s + RETRY_S)
    if event.do is Do.THAW:
        return replace(guard, frozen=False, retry_at_s=None)
    return replace(guard, gated=False, retry_at_s=None)


def _go_on(guard: Guard, now_s: float) -> Answer:
    """The next thing to do, at most one at a time: each must be reported before the next is handed out."""
    if guard.doing is not None:
        return Answer(guard)
    if guard.halted and now_s >= guard.lease_until_s:
        guard = replace(guard, ending=True)
    if not guard.ending:
        return Answer(guard)
    if guard.in_flight is not None:
        return _wait_for_return(guard, now_s)
    if guard.halted:
        if guard.retry_at_s is not None and now_s < guard.retry_at_s:
            return Answer(guard)
        do = Do.THAW if guard.frozen else Do.OPEN
        return Answer(replace(guard, doing=do, retry_at_s=None), (do,))
    if guard.owner_gone:
        return Answer(guard, (Do.EXIT,))
    return Answer(Guard())


def _wait_for_return(guard: Guard, now_s: float) -> Answer:
    if guard.patience_until_s is None:
        guard = replace(guard, patience_until_s=now_s + PATIENCE_S)
    if guard.in_flight is Work.ATTACH and not guard.cut:
        return Answer(replace(guard, doing=Do.CUT), (Do.CUT,))
    if guard.patience_until_s is not None and now_s >= guard.patience_until_s:
        return Answer(replace(guard, doing=Do.RESTART), (Do.RESTART,))
    return Answer(guard)
