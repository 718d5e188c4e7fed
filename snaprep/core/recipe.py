"""Recipes: the short, dangerous sequences as data.

Invariant: after every prefix of a recipe, and after every prefix of its undo, the database is served by exactly one
side or by nobody for a bounded time; running the undo of what was done, newest first, leaves the source open.

A recipe is a tuple of steps. Steps of one host that follow each other go in one call, and the host undoes its own part
of a failed call before it answers, so an undo never waits for the operator's round trip. Undo steps are written so that
running them when there is nothing to undo is fine. Steps that are `beside` those before them run at the same time on
another host: in whichever order the two end, the invariant has to hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Ref:
    """A value that an earlier step gives: `field` of its result, or the result itself when empty."""

    step: str
    field: str = ""


Plain: TypeAlias = str | int | float | bool | None
Arg: TypeAlias = Plain | Ref | tuple[str, ...] | tuple[int, ...] | Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation on one host.

    `undo` takes back what this step did; it runs when this step or a later one fails. A step that must not be cut off
    (`may_interrupt=False`) is waited for before any undo begins. `blocks` marks the steps in which writers get no
    commit. `beside` lets a step run while the other host does the steps before it.
    """

    host: str
    op: str
    args: Mapping[str, Arg] = field(default_factory=dict)
    deadline_s: float = 30.0
    undo: tuple[Step, ...] = ()
    may_interrupt: bool = True
    blocks: bool = False
    beside: bool = False
    name: str = ""

    @property
    def key(self) -> str:
        """How other steps refer to this one."""
        return self.name or self.op


Recipe: TypeAlias = tuple[Step, ...]


def calls(recipe: Iterable[Step]) -> list[Recipe]:
    """Group the steps of one host that follow each other and wait for the same."""
    return [tuple(group) for _, group in itertools.groupby(recipe, key=lambda s: (s.host, s.beside))]


def stages(recipe: Iterable[Step]) -> list[list[Recipe]]:
    """The calls, with those that run at the same time together: at most one a host."""
    found: list[list[Recipe]] = []
    for call in calls(recipe):
        if call[0].beside and found and all(c[0].host != call[0].host for c in found[-1]):
            found[-1].append(call)
        else:
            found.append([call])
    return found


def undo_of(done: Iterable[Step]) -> Recipe:
    """What takes back the given steps, newest first."""
    return tuple(undo for step in reversed(list(done)) for undo in step.undo)


def resolve(args: Mapping[str, Arg], results: Mapping[str, object]) -> dict[str, object]:
    """Put the values of earlier steps where the recipe refers to them.

    Raises KeyError when a step refers to one that has not run.
    """
    return {key: _value(arg, results) for key, arg in args.items()}


def _value(arg: Arg, results: Mapping[str, object]) -> object:
    if not isinstance(arg, Ref):
        return arg
    result = results[arg.step]
    if not arg.field:
        return result
    if isinstance(result, Mapping):
        return result[arg.field]
    return getattr(result, arg.field)


def unresolved(recipe: Iterable[Step]) -> list[str]:
    """References to steps that do not come earlier: a mistake in the recipe, found by a test over every recipe.

    What runs at the same time is not earlier.
    """
    known: set[str] = set()
    missing: list[str] = []
    for stage in stages(recipe):
        for call in stage:
            mine: set[str] = set()
            for step in call:
                wanted = [arg.step for arg in step.args.values() if isinstance(arg, Ref)]
                missing += [f"{step.key} refers to {key}" for key in wanted if key not in known | mine]
                mine.add(step.key)
        known |= {step.key for call in stage for step in call}
    return missing
