"""Every error that snaprep shows, as a value that crosses the wire.

SnaprepError
├── UsageError        2   the command line or the configuration is wrong; nothing was touched
├── CheckFailed       3   something that would stop a run was found; nothing was touched
├── Stale             4   the facts moved under an action; observe again
├── Stopped          10   stopped, can be resumed; the source serves
├── Aborted          11   ended as asked; the source serves
├── NotConverging    12   the deltas do not shrink; the source serves
├── CutoverUndone    20   the cutover failed and was undone; the source serves
├── NobodyServes     21   the cutover failed and could not be undone
├── VerifyFailed     22   the replica serves or stands, but what it holds is not proven
├── HostUnreachable  30   a host cannot be reached, or does not let us in
└── Locked           75   another run holds the lock

An error has an id (kebab-case, stable: a playbook may test it), a sentence that says what happened, a sentence that
says who serves now, and a hint. The exit code is the safety state, not the cause.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """The parts of an error, free of any class: what is journalled, sent over the wire, and rendered."""

    id: str
    what: str
    serving: str = ""
    hint: str = ""
    exit_code: int = 1
    details: tuple[str, ...] = field(default_factory=tuple)


def named(info: ErrorInfo, host: str) -> ErrorInfo:
    """What an agent says of "here", for readers who are elsewhere."""
    return info if host in info.what else replace(info, what=f"{host}: {info.what}")


_PASSING = (
    "link-", "agent-died", "deadline", "stale", "host-unreachable", "not-a-replica", "base-missing",
    "replication-unreachable", "program-killed", "guard-at-work", "stream-damaged", "receive-incomplete",
    "receive-late",
)  # fmt: skip
_LASTING = ("link-refused", "link-host-key")


def may_pass(id: str) -> bool:
    """Whether what failed so is worth another try, a little later."""
    return id.startswith(_PASSING) and id not in _LASTING


class SnaprepError(Exception):
    """Base of all expected errors. `exit_code` is decided by the class, `id` by the place that raises."""

    exit_code = 1

    def __init__(
        self,
        id: str,
        what: str,
        *,
        hint: str = "",
        serving: str = "",
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(what)
        self.info = ErrorInfo(
            id=id, what=what, serving=serving, hint=hint, exit_code=self.exit_code, details=tuple(details)
        )

    @property
    def id(self) -> str:
        return self.info.id

    def __reduce__(self) -> tuple[Any, ...]:
        return (from_info, (self.info,))


class UsageError(SnaprepError):
    exit_code = 2


class CheckFailed(SnaprepError):
    exit_code = 3


class Stale(SnaprepError):
    exit_code = 4


class Stopped(SnaprepError):
    exit_code = 10


class Aborted(SnaprepError):
    exit_code = 11


class NotConverging(SnaprepError):
    exit_code = 12


class CutoverUndone(SnaprepError):
    exit_code = 20


class NobodyServes(SnaprepError):
    exit_code = 21


class VerifyFailed(SnaprepError):
    exit_code = 22


class HostUnreachable(SnaprepError):
    exit_code = 30


class Locked(SnaprepError):
    exit_code = 75


_BY_EXIT_CODE: dict[int, type[SnaprepError]] = {
    cls.exit_code: cls
    for cls in (
        SnaprepError, UsageError, CheckFailed, Stale, Stopped, Aborted, NotConverging, CutoverUndone, NobodyServes,
        VerifyFailed, HostUnreachable, Locked,
    )
}  # fmt: skip


def from_info(info: ErrorInfo) -> SnaprepError:
    """The exception for parts that came over the wire: its class follows from the exit code."""
    cls = _BY_EXIT_CODE.get(info.exit_code, SnaprepError)
    return cls(info.id, info.what, hint=info.hint, serving=info.serving, details=info.details)
