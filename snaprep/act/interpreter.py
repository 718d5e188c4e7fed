"""Runs any recipe on the hosts: one call for the steps of one host that follow each other, both hosts at the same time
where a recipe says so.

When a step fails, its host has undone its own part of that call before it answered. What earlier calls did is then
undone on all hosts at once, each host's newest first: the hosts do not wait for each other, because opening the source
must not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from snaprep.core.errors import ErrorInfo, SnaprepError, from_info, named
from snaprep.core.model import Facts
from snaprep.core.perform import Performed, Rests, StepCall, StepDone, rests, to_call, undo_calls
from snaprep.core.recipe import Recipe, stages
from snaprep.host.base import Host, Pending

# What the guard of an agent that died does by itself. A second hand would get in its way: an open that waits for what
# the guard has to cut first keeps the clients out, and one that does not wait may wedge the database.
_GUARDED = frozenset({"gate_open", "thaw"})
_ANSWER_S = 20.0  # what a call may take beyond its steps' own deadlines
OnEvent = Callable[[Mapping[str, Any]], None]


class Agents(Protocol):
    """Where the interpreter finds hosts; a `Session`. `acted` tells that something was asked to change."""

    acted: bool

    def host(self, name: str, /) -> Host: ...


@dataclass(slots=True)
class Outcome:
    """What a recipe did. `results` are the steps' values by key; `error` says why it ended early."""

    results: dict[str, Any] = field(default_factory=dict)
    done: list[tuple[str, StepDone]] = field(default_factory=list)  # (host, step)
    undone: list[tuple[str, StepDone]] = field(default_factory=list)
    error: ErrorInfo | None = None

    def took_ms(self, first: str, last: str) -> float:
        """From the beginning of one step to the end of another, on one host's clock; 0 when either did not succeed."""
        began = next((s.began_s for _, s in self.done if s.key == first and s.error is None), None)
        ended = next((s.ended_s for _, s in self.done + self.undone if s.key == last and s.error is None), None)
        return max(0.0, 1000 * (ended - began)) if began is not None and ended is not None else 0.0


@dataclass(frozen=True, slots=True)
class _Call:
    """What one host was asked to do in a stage; without `pending` it could not even be asked."""

    host: str
    steps: list[StepCall]
    pending: Pending[Performed] | None
    error: ErrorInfo | None


class Interpreter:
    """Runs recipes on live hosts. `on_event` hears of every step and of the bytes under way.

    A recipe keeps the agents that it began with: what a new one would go on with, the former one's guard has ended
    (a gate that was closed is open by then). Only an undo may reach a host anew.
    """

    def __init__(self, agents: Agents, on_event: OnEvent) -> None:
        self._agents = agents
        self._on_event = on_event
        self._pending: list[Pending[Performed]] = []
        self._rests: dict[str, Rests] = {}

    def rest_on(self, facts: Facts) -> None:
        """What is done next rests on these facts: the first call to each host asks it whether they still hold."""
        self._rests = {host.name: found for host in facts.hosts if (found := rests(host)) is not None}

    def run(self, recipe: Recipe, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Run to the end or to the first failure. `stop` is asked between calls."""
        outcome = Outcome()
        finished: list[tuple[str, list[StepCall]]] = []
        begun: dict[str, Host] = {}
        for stage in stages(recipe):
            if stop():
                outcome.error = ErrorInfo("stopped", "stopped as asked", exit_code=10)
                break
            under_way = [self._begin(group, outcome, begun) for group in stage]
            for call in under_way:
                if call is not None:
                    self._end(call, outcome, finished)
            self._pending = []
            if outcome.error is not None:
                break
        if outcome.error is not None:
            self._undo(outcome, finished, {name for name, agent in begun.items() if not agent.alive})
        return outcome

    def _begin(self, group: Recipe, outcome: Outcome, begun: dict[str, Host]) -> _Call | None:
        """Ask one host for its steps; None when another host's part of this stage, or its own agent, has failed."""
        if outcome.error is not None:
            return None
        host = group[0].host
        wire = [to_call(step, outcome.results) for step in group]
        try:
            begun[host] = begun[host] if host in begun else self._agents.host(host)
        except SnaprepError as error:
            outcome.error = error.info
            return None
        interruptible = all(s.may_interrupt and not s.blocks for s in group)
        try:
            asked = self._ask(begun[host], host, wire, rests=self._rests.pop(host, None), interruptible=interruptible)
            return _Call(host, wire, asked, None)
        except SnaprepError as error:
            return _Call(host, wire, None, error.info)

    def _end(self, call: _Call, outcome: Outcome, finished: list[tuple[str, list[StepCall]]]) -> None:
        """Wait for what one host did. The first error of a stage is the one that is told, and the others give up."""
        error, undone = call.error, False
        if call.pending is not None:
            try:
                performed = call.pending.result()
            except SnaprepError as failure:
                error = failure.info
            else:
                self._note(outcome, call.host, performed)
                if performed.failed is not None and performed.failed.error is not None:
                    error, undone = named(performed.failed.error, call.host), True
                    outcome.undone += [(call.host, s) for s in performed.undone]
        if not undone:  # unknown how far it got: its undo is fine to run
            finished.append((call.host, call.steps))
        if error is not None and outcome.error is None:
            outcome.error = error
            self._pending = [p for p in self._pending if p is not call.pending]
            self.cancel()

    def must(self, recipe: Recipe) -> Outcome:
        """Like `run`, but a failure is raised after the undo."""
        outcome = self.run(recipe)
        if outcome.error is not None:
            raise from_info(outcome.error)
        return outcome

    def cancel(self) -> None:
        """Ask the calls under way to give up, if their steps allow it: a stream ends, a cutover does not."""
        for pending in self._pending:
            pending.cancel()

    def _ask(
        self, agent: Host, host: str, steps: list[StepCall], *, rests: Rests | None = None, interruptible: bool = False
    ) -> Pending[Performed]:
        self._agents.acted = True
        deadline_s = sum(s.deadline_s for s in steps) + _ANSWER_S
        self._on_event({"event": "steps", "host": host, "steps": [s.key for s in steps]})
        pending = agent.begin(
            "perform",
            {"steps": steps, "rests": rests},
            Performed,
            deadline_s=deadline_s,
            on_progress=lambda e: self._on_event({"event": "progress", "host": host, **e}),
        )
        if interruptible:
            self._pending = [*self._pending, pending]
        return pending

    def _note(self, outcome: Outcome, host: str, performed: Performed) -> None:
        for step in performed.done:
            outcome.done.append((host, step))
            if step.error is None:
                outcome.results[step.key] = step.value
            self._on_event(
                {
                    "event": "step",
                    "host": host,
                    "step": step.key,
                    "ms": round(1000 * (step.ended_s - step.began_s), 1),
                    "error": step.error.id if step.error else None,
                }
            )
        for line in performed.commands:
            self._on_event({"event": "command", "host": host, "line": line})

    def _undo(self, outcome: Outcome, finished: list[tuple[str, list[StepCall]]], lost: set[str]) -> None:
        by_host: dict[str, list[StepCall]] = {}
        for host, steps in finished:
            by_host.setdefault(host, []).extend(steps)
        threads = []
        for host, steps in by_host.items():
            undo = list(undo_calls(steps))
            if host in lost:
                died = outcome.error
                outcome.undone += [(host, StepDone(u.key, u.op, 0, 0, None, died)) for u in undo if u.op in _GUARDED]
                undo = [u for u in undo if u.op not in _GUARDED]
            if undo:
                threads.append(threading.Thread(target=self._undo_on, args=(outcome, host, undo)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _undo_on(self, outcome: Outcome, host: str, undo: list[StepCall]) -> None:
        """Each undo in a call of its own, so that one that fails does not keep the next from running."""
        for step in undo:
            try:
                performed = self._ask(self._agents.host(host), host, [step]).result()
                outcome.undone += [(host, s) for s in performed.done]
            except SnaprepError as error:
                outcome.undone.append((host, StepDone(step.key, step.op, 0, 0, None, error.info)))
