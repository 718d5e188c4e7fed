"""What a second terminal says to a live run; and `snaprep abort` where none is left to hear it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from snaprep.act.interpreter import Interpreter
from snaprep.control import Sink
from snaprep.core.errors import CheckFailed
from snaprep.core.model import EngineState, Facts, Policy
from snaprep.core.recipe import Step
from snaprep.core.report import Report, RunState
from snaprep.core.spec import Pair
from snaprep.core.who import handing_over, opened_copy, serves, serving, stands_apart
from snaprep.observe import judge, observe, opened
from snaprep.session import Session
from snaprep.verbs.upkeep import report_of

_POST_S = 15.0
_LISTEN = {  # the verbs whose runs obey a command
    "abort": ("rebuild", "resume", "refresh", "takeover", "switchover", "follow"),
    "cutover": ("rebuild", "resume"),
    "refresh": ("follow",),
    "limit": ("rebuild", "resume", "refresh", "follow"),
}


def command(
    pair: Pair, policy: Policy, sink: Sink, command: Literal["cutover", "abort", "limit", "refresh"], value: int | None
) -> Report:
    """Say something to the live run, through the hosts that it holds.

    `abort` without a live run puts back what a dead one has left.
    """
    del policy  # the live run has its own
    with opened(pair) as session:
        words = f"limit {value or 'none'}" if command == "limit" else command
        facts = observe(session)
        reached = [
            h.name
            for h in facts.hosts
            if h.held_by is not None
            and h.held_by.verb in _LISTEN[command]
            and session.host(h.name).call("post", {"command": words}, bool, deadline_s=_POST_S)
        ]
        report = report_of(pair, command, facts)
        if reached:
            return replace(report, notes=(f"the run that holds {' and '.join(reached)} was told: {words}",))
        held = next((h.held_by for h in facts.hosts if h.held_by is not None), None)
        if held is not None:
            what = f"{held.verb} by {held.operator} holds the pair (run {held.run}); it does not listen to `{command}`"
            raise CheckFailed("no-run", what, hint="wait until it is over: `snaprep status` shows it")
        if command != "abort":
            raise CheckFailed("no-run", "no run of this pair is on its way", hint="`snaprep rebuild --hold`")
        return _put_back(session, facts, sink, report)


def _put_back(session: Session, facts: Facts, sink: Sink, report: Report) -> Report:
    """Open what is gated or frozen, drop what was half received, take back keys that were left."""
    session.lock("abort", "abort", [h.name for h in session.pair.hosts if h.name in session.hosts])
    interpreter = Interpreter(session, sink.event)
    notes, halfway = [], handing_over(facts)
    for host in facts.hosts:
        if host.error:
            continue
        if host.engine.halted and not stands_apart(host) and not opened_copy(host):
            interpreter.must((Step(host=host.name, op="gate_open", deadline_s=90),))
            notes.append(f"{host.name} is open again")
        if host is halfway:
            notes.append(f"a switchover to {host.name} has died: `snaprep switchover` finishes it")
        elif host.engine.state is EngineState.WAITING or opened_copy(host):
            interpreter.must((Step(host=host.name, op="stop_replica", deadline_s=60),))
            notes.append(f"the replica on {host.name}, which has no primary, was stopped")
        tidied = interpreter.must((Step(host=host.name, op="tidy", deadline_s=60),)).results["tidy"]
        notes += [f"{host.name}: {line}" for line in tidied]
    now = observe(session)
    report = replace(report, state=RunState.ABORTED, serves=serves(now), serving=serving(now), notes=tuple(notes))
    if (why := next((h.error for h in facts.hosts if h.error), None)) is not None:
        left = replace(why, hint=f"what a run has left there stays until `snaprep abort` reaches it; {why.hint}")
        return replace(report, state=RunState.FAILED, error=judge(session, left), hint=left.hint)
    return report if notes else replace(report, notes=("nothing had to be put back",))
