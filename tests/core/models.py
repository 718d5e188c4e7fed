"""Small worlds and facts for the tests of the core, and the actions' recipes as the actions write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from snaprep.act import cutover, feed, ship, switchover, takeover
from snaprep.act.context import Context
from snaprep.core import keep
from snaprep.core.action import (
    Action,
    Adopt,
    Cutover,
    Feed,
    FeedCutover,
    GiveUp,
    KeepLog,
    KeepNoLog,
    Prepare,
    Present,
    Refresh,
    Reopen,
    Round,
    Seed,
    SetAside,
    Settle,
    Switchover,
    TakeOver,
)
from snaprep.core.model import Facts, Policy
from snaprep.core.recipe import Recipe, Ref, Step
from snaprep.core.simulated.world import Content, HostState, ImageState, Load, World
from snaprep.core.spec import DerbySpec, HostSpec, Pair, Reach
from snaprep.core.volume import ImageRole
from snaprep.engines.derby import recipe as derby

SECRET = "hunter2-never-shown"
PAIR = Pair(
    name="model",
    hosts=cast(
        "tuple[HostSpec, HostSpec]",
        tuple(
            HostSpec(
                name=name,
                pair="model",
                dataset=f"{name}/db",
                mountpoint="/db",
                derby=DerbySpec(database="/db/bank", password=SECRET),
            )
            for name in ("a", "b")
        ),
    ),
    reach=(Reach(ssh="a"), Reach(ssh="b")),
)


def fresh_world(load: Load | None = None) -> World:
    """Host a has a database that snaprep has never seen; b has nothing."""
    a, b = HostState("a", "a/db"), HostState("b", "b/db")
    a.images["a/db"] = ImageState(
        "a/db", ImageRole.FOREIGN, ours=False, content=Content(), mounted="/db", automounts=True, started=True
    )
    a.server.mode = "open"
    return World(hosts={"a": a, "b": b}, load=load or Load(), clients_at="a")


def context(facts: Facts, policy: Policy, run: str) -> Context:
    """What the actions' pure parts need; they never touch the rest."""
    return Context(
        pair=PAIR,
        policy=policy,
        session=cast("Any", None),
        engine=derby,
        interpreter=cast("Any", None),
        facts=facts,
        run=run,
        number=lambda: 1,
        tell=lambda _: None,
        stop=lambda: False,
    )


def write(action: Action, facts: Facts, policy: Policy, name: str) -> tuple[Recipe, ...]:
    """An action as recipes. `name` is what the action calls the point that it makes."""
    there = context(facts, policy, name.rsplit("-", 1)[0].removeprefix("snaprep-model-"))
    there = replace(there, number=lambda: int(name.rsplit("-", 1)[1]))
    if isinstance(action, Seed | Round | Refresh):
        parcel = ship.parcel(action, 1)
        point = ship.point_name(there, parcel)
        return ship.recipe(there, parcel, point), ship.holds(there, parcel, point), ship.former(there, parcel)
    if isinstance(action, Cutover):
        plan = cutover.cutover_plan(there, action)
        return derby.arm(plan), derby.cutover(plan), cutover.holds(plan)
    if isinstance(action, Prepare):
        return (derby.prepare(cutover.prepare_plan(there, action)),)
    if isinstance(action, Switchover):
        change = switchover.switch_plan(there, action)
        known = Ref("rolled_back")
        return (
            derby.switch_prepare(change),
            derby.hand_over(change),
            derby.assume(change, known, Ref("retire", "position")),
        )
    if isinstance(action, Present):
        return (feed.present_recipe(there, action),)
    if isinstance(action, Feed):
        return (feed.feed_recipe(there, action, name),)
    if isinstance(action, FeedCutover):
        ready = Step(host=action.roles.source, op="gate_prepare", deadline_s=60)
        return (ready,), derby.feed_cutover(feed.cutover_plan(there, action)), ()
    if isinstance(action, KeepNoLog):
        return feed.forget_recipe(action.roles), (Step(host=action.roles.source, op="keep_no_log"),)
    if isinstance(action, TakeOver):
        return (derby.take_over(takeover.take_over_plan(there, action)),)
    return tuple((s,) for s in _plain(action, facts))


def _plain(action: Action, facts: Facts) -> list[Step]:
    """Actions whose steps follow from the action alone."""
    if isinstance(action, Reopen):
        return [Step(host=action.host, op="gate_open", deadline_s=90)]
    if isinstance(action, Adopt):
        source, generation = facts.host(action.roles.source), action.roles.generation
        image: Mapping[str, Any] = {"image": source.live_name, "generation": generation}
        return [
            Step(host=source.name, op="adopt", args=image),
            Step(host=source.name, op="stamp", args={"generation": generation}),
        ]
    if isinstance(action, SetAside):
        return [Step(host=action.roles.target, op="set_aside", args={"image": action.image, "to": action.to})]
    if isinstance(action, GiveUp):
        off = (
            [Step(host=action.roles.source, op="keep_no_log")]
            if facts.host(action.roles.source).engine.kept_log
            else []
        )
        return [*_kept(keep.given_up(facts, action.roles, PAIR.name)), *off]
    if isinstance(action, KeepLog):
        return [Step(host=action.roles.source, op="keep_log", args={"how": action.how})]
    if isinstance(action, Settle):
        return _kept(keep.keeping(facts, action.roles, PAIR.name))
    return []


def _kept(plan: keep.Keeping) -> list[Step]:
    return [
        *(Step(host=i.host, op="hold", args={"image": i.image, "point": i.point}) for i in plan.hold),
        *(Step(host=i.host, op="release", args={"image": i.image, "point": i.point}) for i in plan.release),
        *(
            Step(host=i.host, op="destroy_point", args={"image": i.image, "point": i.point})
            for i in plan.destroy_points
        ),
        *(Step(host=i.host, op="destroy_image", args={"image": i.image}) for i in plan.destroy_images),
    ]
