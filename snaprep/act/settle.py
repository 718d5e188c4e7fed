"""After the goal is reached: prove it, keep the newest common point, let go of what is of no more use."""

from __future__ import annotations

from snaprep.act.context import Context
from snaprep.core import keep, lineage
from snaprep.core.action import Roles, Settle, Verify
from snaprep.core.errors import ErrorInfo, VerifyFailed
from snaprep.core.lineage import Base
from snaprep.core.model import EngineState
from snaprep.core.recipe import Step


def verify(context: Context, action: Verify) -> tuple[str, ...]:
    """What was proven, a sentence each. Raises `not-attached`, `no-common-base`."""
    source, target = context.facts.host(action.roles.source), context.facts.host(action.roles.target)
    if not (source.engine.replicating and target.engine.state is EngineState.REPLICA):
        raise VerifyFailed(
            "not-attached",
            f"{target.name} is {target.engine.state} and does not receive from {source.name}",
            hint="`snaprep rebuild` attaches it again",
        )
    base = shared(context, action.roles)
    follows = f"{target.name} replays what {source.name} sends"
    return (follows,) if base is None else (follows, f"both hold {base.point.name} (guid {base.point.guid})")


def shared(context: Context, roles: Roles) -> Base | None:
    """The newest snapshot that both hold; None where every base is a whole copy. Raises `no-common-base`."""
    source, target = context.facts.host(roles.source), context.facts.host(roles.target)
    base = lineage.snapshot_between(source, target)
    if base is None and source.volume is not None and source.volume.copies:
        return None
    if base is None:
        raise VerifyFailed("no-common-base", "the two sides share no snapshot", hint="`snaprep rebuild` makes one")
    return base


def settle(context: Context, action: Settle) -> None:
    """Holds on the newest common points first, then what may go. What refuses to go now goes next time."""
    let_go(context, keep.keeping(context.facts, action.roles, context.pair.name))


def let_go(context: Context, what: keep.Keeping) -> tuple[tuple[keep.OnHost, ErrorInfo], ...]:
    """Holds come first and must succeed; what refuses to go now goes next time. Returns what refused, and why."""
    refused: list[tuple[keep.OnHost, ErrorInfo]] = []
    for op, items in (
        ("hold", what.hold),
        ("release", what.release),
        ("destroy_point", what.destroy_points),
        ("destroy_image", what.destroy_images),
    ):
        for item in items:
            args = {"image": item.image} if op == "destroy_image" else {"image": item.image, "point": item.point}
            step = Step(host=item.host, op=op, args=args, deadline_s=60)
            if op == "hold":
                context.interpreter.must((step,))
            elif (error := context.interpreter.run((step,)).error) is not None:
                refused.append((item, error))
    return tuple(refused)
