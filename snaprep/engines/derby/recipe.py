"""Derby's dangerous sequences as data. Pure; why each order is as it is stands in docs/derby.md.

* A freeze stands around a snapshot only. `startMaster` on a frozen or busy database hangs it for ever.
* One shutdown leaves open transactions in the files; the second, after a boot that rolls them back, does not.
* Nothing commits on the source while `startMaster` is in flight: the gate opens only after it has returned.
* The replica is armed only on a copy whose log ends where the source's does.
* A primary that hands over is shut down once, out of its clients' reach: what is open in its files is rolled back by
  its successor, whose log it then gets. If it rolled that back itself, the two logs would part.
"""

from __future__ import annotations

from collections.abc import Mapping

from snaprep.core.recipe import Arg, Recipe, Ref, Step
from snaprep.engines.base import (
    CutoverPlan,
    FeedCutoverPlan,
    FormerPlan,
    PreparePlan,
    SnapshotPlan,
    SwitchPlan,
    TakeOverPlan,
)

BACKUP_S = 24 * 3600.0  # it reads all of the database and writes it; its writers go on
OPENS_S = 75.0  # what is in flight is waited for first, and a shutdown may take a minute on a host under load


def snapshot(plan: SnapshotPlan) -> Recipe:
    """One snapshot named `plan.point`; its result is under the key `snapshot`."""
    if plan.copies:
        named = {"image": plan.image, "point": plan.point}
        gone = Step(host=plan.source, op="destroy_point", args=named, deadline_s=600)
        copy: Mapping[str, Arg] = {"image": plan.image, "name": plan.point}
        return (Step(host=plan.source, op="snapshot", args=copy, deadline_s=BACKUP_S, undo=(gone,)),)
    take = Step(host=plan.source, op="snapshot", args={"image": plan.image, "name": plan.point}, beside=not plan.freeze)
    flush = (Step(host=plan.source, op="checkpoint", deadline_s=120, beside=True),) if plan.flush else ()
    if not plan.freeze:
        return (*flush, take)  # nobody waits for it: it need not wait for the target either
    thaw = Step(host=plan.source, op="thaw", deadline_s=80)
    freeze = Step(
        host=plan.source, op="freeze", args={"lease_ms": plan.freeze_lease_ms}, deadline_s=40, undo=(thaw,), blocks=True
    )
    # A JVM starts: not while writers wait.
    ready = Step(host=plan.source, op="guard_ready", deadline_s=30, beside=True)
    return (ready, *flush, freeze, take, thaw)


def take_down(plan: FormerPlan) -> Recipe:
    """End a former replication on both sides. A primary whose replica is gone keeps its role, and looks for it."""
    detach = (Step(host=plan.source, op="detach", deadline_s=30),) if plan.detach else ()
    if plan.live is None:
        return detach
    return (
        *detach,
        Step(host=plan.target, op="stop_replica", deadline_s=60),
        Step(host=plan.target, op="withdraw", args={"image": plan.live}, deadline_s=60),
    )


def prepare(plan: PreparePlan) -> Recipe:
    """What takes seconds: a former replica taken down, the target's server and the guard warmed."""
    warmed: Mapping[str, Arg] = {"image": plan.target_recv, "point": plan.warm_point, "owner": plan.owner}
    return (
        *take_down(plan.former),
        Step(host=plan.target, op="warm", args=warmed, deadline_s=120),
        Step(host=plan.source, op="guard_ready", deadline_s=60, beside=True),
    )


def arm(plan: CutoverPlan) -> Recipe:
    """Everything else that can be done while writers still write; as short as can be, because they do."""
    source, target = plan.source, plan.target
    begin: Mapping[str, Arg] = {
        "stream": plan.stream,
        "image": plan.target_recv,
        "origin": plan.origin,
        "base_guid": plan.base_guid,
        "tuning": plan.tuning,
    }
    end = Step(host=target, op="receive_cancel", args={"stream": plan.stream})
    return (
        Step(host=target, op="receive_begin", args=begin, undo=(end,)),
        Step(host=source, op="link_ready", deadline_s=40, beside=True),
        # Last, because it flushes: what is dirty when the gate closes is written while clients wait.
        Step(host=source, op="gate_prepare", deadline_s=60, beside=True),
    )


def cutover(plan: CutoverPlan) -> Recipe:
    """From closing the gate to opening it, with the replica attached in between."""
    source, target = plan.source, plan.target
    budget_s = plan.budget_ms / 1000
    reopen = Step(host=source, op="gate_open", deadline_s=OPENS_S)
    withdraw = Step(host=target, op="withdraw", args={"image": plan.target_live}, deadline_s=60)
    disarm = Step(host=target, op="stop_replica", deadline_s=60)
    lease = {"lease_ms": plan.lease_ms}
    sent: Mapping[str, Arg] = {
        "stream": plan.stream,
        "image": plan.source_live,
        "point": plan.point,
        "guids": Ref("snapshot", "guids"),
        "base_guid": plan.base_guid,
        "base_name": plan.base_name,
        "flags": plan.send_flags,
    }
    landed: Mapping[str, Arg] = {
        "stream": plan.stream,
        "image": plan.target_recv,
        "guids": Ref("snapshot", "guids"),
    }
    shown: Mapping[str, Arg] = {
        "image": plan.target_recv,
        "point": plan.point,
        "to": plan.target_live,
        "mountpoint": plan.mountpoint,
        "owner": plan.owner,
        "generation": plan.generation,
    }
    return (
        Step(host=source, op="gate_close", args=lease, deadline_s=budget_s, undo=(reopen,), blocks=True),
        Step(host=source, op="quiesce", deadline_s=budget_s, may_interrupt=False, blocks=True),
        Step(host=source, op="snapshot", args={"image": plan.source_live, "name": plan.point}, blocks=True),
        Step(host=source, op="send", args=sent, deadline_s=budget_s, blocks=True),
        Step(
            host=target,
            op="receive_end",
            args=landed,
            deadline_s=budget_s,
            blocks=True,
        ),
        Step(host=target, op="present", args=shown, deadline_s=budget_s, undo=(withdraw,), blocks=True),
        Step(host=target, op="prove", args={"position": Ref("quiesce", "position")}, blocks=True),
        Step(host=target, op="arm_replica", deadline_s=budget_s, undo=(disarm,), blocks=True),
        Step(host=source, op="attach", deadline_s=budget_s, may_interrupt=False, undo=(reopen,), blocks=True),
        Step(host=source, op="gate_open", deadline_s=30, name="open", blocks=True),
    )


def feed_cutover(plan: FeedCutoverPlan) -> Recipe:
    """From a feed to Derby's own replication: all on the source, for the replica is where the log is.

    A primary that has shipped log before names its last record, and so does a replica: that is what the mark is for.
    """
    source, budget_s = plan.source, plan.budget_ms / 1000
    reopen = Step(host=source, op="gate_open", deadline_s=OPENS_S)
    disarm = Step(host=plan.target, op="stop_replica", deadline_s=60)
    at: Mapping[str, Arg] = {"how": "leave", "at": Ref("ship_mark", "position")}
    ends: Mapping[str, Arg] = {"position": Ref("ship_mark", "position")}
    lease = {"lease_ms": plan.lease_ms}
    return (
        Step(host=source, op="gate_close", args=lease, deadline_s=budget_s, undo=(reopen,), blocks=True),
        Step(host=source, op="ship_mark", deadline_s=budget_s, may_interrupt=False, blocks=True),
        Step(host=source, op="feed_finish", args=at, deadline_s=budget_s, undo=(disarm,), blocks=True),
        Step(host=source, op="attach", deadline_s=budget_s, may_interrupt=False, undo=(reopen,), blocks=True),
        Step(host=source, op="must_end_at", args=ends, blocks=True),
        Step(host=source, op="gate_open", deadline_s=30, name="open", blocks=True),
    )


def take_over(plan: TakeOverPlan) -> Recipe:
    """Promote, mark, move to where clients look, open. The promotion is the point of no return; nothing is undone.

    The marks come before anybody can write: whoever looks after a crash sees a primary that is only not open yet.
    """
    target = plan.target
    steps = []
    if plan.fence is not None:
        steps.append(Step(host=plan.fence, op="fence", args={"image": plan.fence_live}, deadline_s=60))
    if plan.recv_point is not None:
        image, point = plan.recv_point
        shown: Mapping[str, Arg] = {
            "image": image,
            "point": point,
            "to": plan.live,
            "mountpoint": plan.replica_mountpoint,
            "owner": plan.owner,
            "generation": plan.generation,
        }
        steps.append(Step(host=target, op="present", args=shown, deadline_s=60))
    elif plan.from_state == "absent":
        aside = {"image": plan.live, "mountpoint": plan.replica_mountpoint}
        steps.append(Step(host=target, op="mount", args=aside, deadline_s=60))
    promote = {"from_state": plan.from_state}
    steps.append(Step(host=target, op="promote", args=promote, deadline_s=120, may_interrupt=False))
    if plan.promotes:
        at: Mapping[str, Arg] = {"image": plan.live, "position": Ref("promote", "position")}
        steps.append(Step(host=target, op="mark_takeover", args=at))
    marks = {"serves": "primary", "generation": str(plan.generation)}
    steps += [
        Step(host=target, op="mark", args={"image": plan.live, "properties": marks}),
        Step(host=target, op="mount", args={"image": plan.live, "mountpoint": plan.mountpoint}, deadline_s=60),
        Step(host=target, op="open_database", deadline_s=300),
        Step(host=target, op="gate_open", deadline_s=60),
        Step(host=target, op="stamp", args={"generation": plan.generation}, deadline_s=30),
    ]
    return tuple(steps)


def switch_prepare(plan: SwitchPlan) -> Recipe:
    """What a switchover needs ready before clients are cut off: guards, warm servers, and little to flush."""
    source, target = plan.source, plan.target
    warm: tuple[Step, ...] = ()
    if plan.warm is not None:
        image, point = plan.warm
        clone = {"image": image, "point": point, "owner": plan.owner}
        warm = (Step(host=target, op="warm_up", args=clone, deadline_s=120),)
    return (
        Step(host=target, op="guard_awake", deadline_s=60),
        *warm,
        Step(host=source, op="replica_ready", deadline_s=30),
        Step(host=source, op="roll_log", deadline_s=60),
        Step(host=target, op="replayed", args={"position": Ref("roll_log")}, deadline_s=10),
        # While a whole file was replayed, much was written into the next. The second time it is little.
        Step(host=source, op="roll_log", deadline_s=60, name="roll_again"),
        Step(host=target, op="replayed", args={"position": Ref("roll_again")}, deadline_s=10, name="replayed_again"),
        # Last, because it flushes: what is dirty when the gate closes is written while clients wait.
        Step(host=source, op="gate_prepare", deadline_s=60),
    )


def hand_over(plan: SwitchPlan) -> Recipe:
    """From closing the gate to a target that has all and is open but for its gate, and a source that nobody finds.

    All of it can be taken back: the target's log has gone on alone then, and it is replaced like a broken replica.
    """
    source, target = plan.source, plan.target
    budget_s = plan.budget_ms / 1000
    reopen = Step(host=source, op="gate_open", deadline_s=OPENS_S)
    here = {"image": plan.source_live, "mountpoint": plan.source_path}
    back = Step(host=source, op="step_up", args=here, deadline_s=60)
    beside = {"image": plan.target_live, "mountpoint": plan.target_replica_path}
    apart = Step(host=target, op="move", args=beside, deadline_s=60)
    shut = Step(host=target, op="stop_replica", deadline_s=60)
    there = {"image": plan.target_live, "mountpoint": plan.target_path}
    aside = {"image": plan.source_live, "mountpoint": plan.source_replica_path}
    lease = {"lease_ms": plan.lease_ms}
    end = Ref("retire", "position")
    return (
        Step(host=source, op="gate_close", args=lease, deadline_s=budget_s, undo=(reopen,), blocks=True),
        Step(host=source, op="retire", deadline_s=budget_s, may_interrupt=False, blocks=True),
        Step(host=source, op="log_tail", args={"since": None}, blocks=True),
        *_last_of_the_log(plan, end),
        Step(host=target, op="log_append", args={"tail": Ref("log_tail")}, blocks=True),
        Step(host=target, op="prove", args={"position": end}, blocks=True),
        Step(host=target, op="move", args=there, deadline_s=budget_s, undo=(apart,), blocks=True),
        Step(host=source, op="step_down", deadline_s=budget_s, undo=(back,), blocks=True),
        Step(host=source, op="move", args=aside, deadline_s=budget_s, blocks=True, name="move_aside"),
        Step(
            host=target,
            op="open_shut",
            deadline_s=budget_s,
            undo=(shut,),
            may_interrupt=False,
            blocks=True,
            beside=True,
        ),
        Step(host=target, op="log_tail", args={"since": end}, name="rolled_back", blocks=True, beside=True),
    )


def _last_of_the_log(plan: SwitchPlan, end: Ref) -> Recipe:
    """The replica has it, and is shut down: an attached one got it from the shutdown itself, a fed one gets it now."""
    source, target, budget_s = plan.source, plan.target, plan.budget_ms / 1000
    if not plan.fed:
        return (Step(host=target, op="replica_leaves", deadline_s=budget_s, blocks=True),)
    broken = (Step(host=source, op="feed_end", deadline_s=30), Step(host=target, op="stop_replica", deadline_s=60))
    at: Mapping[str, Arg] = {"how": "stop", "at": end}
    return (
        Step(host=source, op="feed_finish", args=at, deadline_s=budget_s, undo=broken, blocks=True),
        Step(host=target, op="feed_wait", deadline_s=budget_s, blocks=True),
    )


def assume(plan: SwitchPlan, rolled_back: Mapping[str, object] | Ref, position: int | Ref) -> Recipe:
    """The target becomes the primary, with the mark on its image: there is no way back. The former one follows it.

    Whatever fails after the mark ends with the target open, at worst without a replica.
    """
    source, target = plan.source, plan.target
    budget_s = plan.budget_ms / 1000
    # What it was fed from is over.
    primary = {"serves": "primary", "generation": str(plan.generation), **({"fed-base": ""} if plan.fed else {})}
    replica = {"serves": "replica", "generation": str(plan.generation)}
    opened = Step(host=target, op="gate_open", deadline_s=OPENS_S)
    marked: Mapping[str, Arg] = {"image": plan.target_live, "properties": primary}
    kept: Mapping[str, Arg] = {"lease_ms": plan.lease_ms}
    follow: Mapping[str, Arg] = {"image": plan.source_live, "properties": replica}
    parted: Mapping[str, Arg] = {"image": plan.target_live, "position": position}
    return (
        Step(host=source, op="log_append", args={"tail": rolled_back}, blocks=True),
        Step(host=source, op="arm_replica", deadline_s=budget_s, blocks=True),
        Step(host=target, op="mark", args=marked, blocks=True, beside=True),
        Step(host=target, op="gate_keep", args=kept, undo=(opened,), blocks=True, beside=True),
        Step(host=target, op="attach", deadline_s=budget_s, may_interrupt=False, undo=(opened,), blocks=True),
        Step(host=target, op="gate_open", deadline_s=30, name="open", blocks=True),
        Step(host=source, op="mark", args=follow, beside=True, name="follow"),
        Step(host=target, op="mark_takeover", args=parted),
        Step(host=target, op="stamp", args={"generation": plan.generation}, deadline_s=30),
    )
