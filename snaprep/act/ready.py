"""Making ready: marks, setting aside, opening what a dead run has left closed, giving a base up."""

from __future__ import annotations

from snaprep.act.context import Context
from snaprep.act.settle import let_go
from snaprep.core import keep
from snaprep.core.action import Adopt, GiveUp, Reopen, SetAside
from snaprep.core.recipe import Step
from snaprep.core.report import Kept, Lost


def reopen(context: Context, action: Reopen) -> None:
    context.interpreter.must((Step(host=action.host, op="gate_open", deadline_s=90),))


def adopt(context: Context, action: Adopt) -> None:
    source = context.facts.host(action.roles.source)
    generation = action.roles.generation
    context.interpreter.must(
        (
            Step(host=source.name, op="adopt", args={"image": source.live_name, "generation": generation}),
            Step(host=source.name, op="stamp", args={"generation": generation}),
        )
    )


def set_aside(context: Context, action: SetAside) -> tuple[Kept, Lost | None]:
    """Rename the image; count what it holds that nobody else got, when it is known where the histories part."""
    target = action.roles.target
    context.interpreter.must(
        (Step(host=target, op="set_aside", args={"image": action.image, "to": action.to}, deadline_s=60),)
    )
    kept = Kept(host=target, name=action.to, why=action.why)
    if action.tail_from is None:
        return kept, None
    counted = context.interpreter.run(
        (Step(host=target, op="tail", args={"image": action.to, "position": action.tail_from}, deadline_s=120),)
    )
    if counted.error is not None:
        return kept, Lost(host=target, where=action.to)
    found = counted.results["tail"]
    lost = Lost(
        host=target,
        where=action.to,
        since=found["since_text"],
        until=found["end_text"],
        commits=found["commits"],
        tail_bytes=found["bytes"],
    )
    return kept, lost


def give_up(context: Context, action: GiveUp) -> None:
    """Let go of every point of ours on the source: the primary needs the room."""
    let_go(context, keep.given_up(context.facts, action.roles, context.pair.name))
