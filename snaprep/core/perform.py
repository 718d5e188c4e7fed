"""Steps as they travel to one host in one call, and what came of them.

A value that an earlier step of the same call gives is named by a reference; the host fills it in. Everything else was
resolved by the interpreter before the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from snaprep.core.errors import ErrorInfo
from snaprep.core.model import HostFacts
from snaprep.core.recipe import Arg, Ref, Step

_STEP, _FIELD = "$step", "$field"
MARKS = ("serves", "generation")  # of a live image: who it is taken for


@dataclass(frozen=True, slots=True)
class StepCall:
    key: str
    op: str
    args: dict[str, Any]
    deadline_s: float
    undo: tuple[StepCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rests:
    """What an action rests on, as it was seen of one host. `marks` are those of its live image; None: there is none."""

    boot_id: str
    import_id: str
    marks: dict[str, str] | None

    def differs(self, now: Rests) -> str:
        """What is no longer as it was, in words; empty when all is."""
        if now.boot_id != self.boot_id:
            return "the host was booted since"
        if now.import_id != self.import_id:
            return "its storage was imported anew since"
        if now.marks != self.marks:
            return f"its image was marked {shown(self.marks)}, and is marked {shown(now.marks)} now"
        return ""


def shown(marks: Mapping[str, str] | None) -> str:
    if marks is None:
        return "not at all"
    return ", ".join(f"{name}={value}" for name, value in sorted(marks.items())) or "with nothing"


def rests(host: HostFacts) -> Rests | None:
    """None when the host could not be seen: what is done there nevertheless rests on nothing."""
    if host.volume is None:
        return None
    live = host.live
    marks = {name: live.properties[name] for name in MARKS if name in live.properties} if live else None
    return Rests(boot_id=host.boot_id, import_id=host.volume.import_id, marks=marks)


@dataclass(frozen=True, slots=True)
class StepDone:
    """`began_s` and `ended_s` are the host's monotonic clock: differences within one host mean something."""

    key: str
    op: str
    began_s: float
    ended_s: float
    value: Any = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Performed:
    """What a host did of a call. When a step failed, `undone` are its own undo steps, run at once, newest first."""

    done: tuple[StepDone, ...] = ()
    undone: tuple[StepDone, ...] = ()
    commands: tuple[str, ...] = field(default_factory=tuple)

    @property
    def failed(self) -> StepDone | None:
        return next((s for s in self.done if s.error), None)


def to_call(step: Step, results: Mapping[str, Any]) -> StepCall:
    """The wire form of a step. Values of earlier calls are put in; those of the same call stay references."""
    return StepCall(
        key=step.key,
        op=step.op,
        args={name: _out(arg, results) for name, arg in step.args.items()},
        deadline_s=step.deadline_s,
        undo=tuple(to_call(u, results) for u in step.undo),
    )


def _out(arg: Arg, results: Mapping[str, Any]) -> Any:  # noqa: ANN401 (any JSON value)
    if not isinstance(arg, Ref):
        return arg
    if arg.step in results:
        return _field(results[arg.step], arg.field)
    return {_STEP: arg.step, _FIELD: arg.field}


def fill(args: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Put in what earlier steps of this call gave. Raises KeyError when they did not run."""
    return {
        name: _field(results[arg[_STEP]], arg[_FIELD]) if isinstance(arg, dict) and _STEP in arg else arg
        for name, arg in args.items()
    }


def _field(value: Any, name: str) -> Any:  # noqa: ANN401 (any JSON value)
    return value[name] if name else value


def undo_calls(done: Iterable[StepCall]) -> tuple[StepCall, ...]:
    """What takes back these steps, newest first; the same undo twice in a row runs once."""
    calls: list[StepCall] = []
    for step in reversed(list(done)):
        for undo in step.undo:
            if not any(c.op == undo.op and c.args == undo.args for c in calls):
                calls.append(undo)
    return tuple(calls)
