"""What a run does, one function an action: it says so, has it done, and keeps what was learnt from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from snaprep.act import cutover as act_cutover
from snaprep.act import feed as act_feed
from snaprep.act import ready, settle, ship, switchover, takeover
from snaprep.act.context import Context
from snaprep.act.preflight import preflight
from snaprep.core.action import (
    Action,
    Adopt,
    Choose,
    Cutover,
    Feed,
    FeedCutover,
    GiveUp,
    Hold,
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
    Verify,
)
from snaprep.core.errors import SnaprepError
from snaprep.core.estimate import Prediction, bytes_per_s
from snaprep.core.model import Facts, RoundDone
from snaprep.core.report import RunState, base_report, chosen_lane
from snaprep.journal import fields_of
from snaprep.loop import feed, hear, tell
from snaprep.loop.state import Run

_STATES = {Seed: RunState.SEEDING, Round: RunState.ROUND, Refresh: RunState.REFRESHING}


def do(run: Run, facts: Facts, action: Action) -> None:
    """Do one action, and note in the history what came of it. Raises SnaprepError."""
    run.interpreter.rest_on(facts)
    _DEEDS[type(action)](run, run.context(facts), action)
    run.went_well(action)


def _reopen(run: Run, context: Context, action: Reopen) -> None:
    run.say(state=RunState.PREPARING, reason=f"opening {action.host}, which an earlier run has left closed")
    ready.reopen(context, action)


def _adopt(run: Run, context: Context, action: Adopt) -> None:
    run.say(state=RunState.PREPARING, reason=f"marking {action.roles.source} as the primary")
    ready.adopt(context, action)


def _set_aside(run: Run, context: Context, action: SetAside) -> None:
    run.say(state=RunState.PREPARING, reason=f"setting {action.image} aside: {action.why}")
    kept, lost = ready.set_aside(context, action)
    report = run.report
    run.say(kept=(*report.kept, kept), lost=(*report.lost, lost) if lost else report.lost)


def _give_up(run: Run, context: Context, action: GiveUp) -> None:
    run.sink.note("the source runs out of space: the common base is released, the primary lives")
    ready.give_up(context, action)
    act_feed.give_up_log(context, action.roles.source)


def _choose(run: Run, context: Context, action: Choose) -> None:
    del context  # nothing is done to anybody
    run.say(lane=chosen_lane(action))


def _verify(run: Run, context: Context, action: Verify) -> None:
    run.say(state=RunState.VERIFYING, reason="")
    base = settle.shared(context, action.roles)
    run.say(verified=settle.verify(context, action), base=base_report(base))


def _settle(run: Run, context: Context, action: Settle) -> None:
    run.say(state=RunState.SETTLING, reason="")
    settle.settle(context, action)


def _ship(run: Run, context: Context, action: Seed | Round | Refresh) -> None:
    parcel = ship.parcel(action, len(run.report.rounds) + 1)
    run.say(state=_STATES[type(action)], reason="", base=base_report(parcel.base))
    if not run.preflown and not isinstance(action, Refresh):
        preflight(context, action.roles)
        run.preflown = True
    with hear.linked(run, parcel.sender, parcel.receiver):
        try:
            done, taken_s = ship.ship(context, parcel, run.taken_s)
        except SnaprepError:
            if parcel.resume is not None:
                run.learn(failed_tokens=(*run.history.failed_tokens, parcel.resume.token))
            raise
    done = _with_log_rate(run, context, parcel.sender, done)
    run.journal.append("round", **fields_of(done))
    if run.feeds and parcel.resume is None and parcel.sender == run.report.source:
        act_feed.note_taken(context, parcel.receiver, parcel.sender, done)
    if not isinstance(action, Refresh):
        run.taken_s = taken_s
        run.learn(rounds=(*run.history.rounds, done), last_round_end_s=time.monotonic())


def _with_log_rate(run: Run, context: Context, sender: str, done: RoundDone) -> RoundDone:
    """How fast log was written in the time in which this increment was."""
    logged = context.facts.host(sender).engine.logged_bytes
    now_s = run.history.now_s
    before, run.logged = run.logged, (now_s, logged) if logged is not None else None
    return replace(done, log_bytes_per_s=bytes_per_s(before, now_s, logged))


def _prepare(run: Run, context: Context, action: Prepare) -> None:
    run.say(state=RunState.PREPARING, reason=f"making {action.roles.target} ready; clients go on")
    act_cutover.prepare(context, action)


def _cutover(run: Run, context: Context, action: Cutover) -> None:
    tell.cutting_over(run, action)
    with hear.linked(run, action.roles.source, action.roles.target):
        tried, shown = act_cutover.cutover(context, action)
    tell.attempted(run, action, tried, shown)


def _take_over(run: Run, context: Context, action: TakeOver) -> None:
    run.say(state=RunState.TAKING_OVER, reason=f"{action.target} is made to serve")
    notes = takeover.take_over(context, action)
    run.say(notes=(*run.report.notes, *notes))


def _switch_over(run: Run, context: Context, action: Switchover) -> None:
    way = f"{action.roles.target} becomes the primary, {action.roles.source} its replica"
    forecast = tell.forecast(run.policy, Prediction(action.p50_ms, action.p90_ms, 0))
    run.say(state=RunState.SWITCHING_OVER, reason=way, forecast=forecast)
    run.feeding = None  # one that there is ends in this, well or not
    tried, shown, error = switchover.switch_over(context, action)
    tell.attempted(run, action, tried, shown)
    if error is not None:
        run.sink.note(f"{action.roles.source} does not follow yet: {error.id}: {error.what}")
    elif tried.ok:
        done = f"{action.roles.target} serves as generation {action.generation}, and {action.roles.source} follows"
        run.say(notes=(*run.report.notes, done))


def _hold(run: Run, context: Context, action: Hold) -> None:
    del context  # nothing is done: that is the action
    prediction = Prediction(action.p50_ms, action.p90_ms or 0.0, 0) if action.p50_ms is not None else None
    run.say(state=RunState.HELD, reason=action.reason, forecast=tell.forecast(run.policy, prediction))
    run.control.wait(action.pace_s)


_DEEDS: dict[type, Callable[[Run, Context, Any], None]] = {
    Reopen: _reopen,
    Adopt: _adopt,
    SetAside: _set_aside,
    GiveUp: _give_up,
    Choose: _choose,
    Seed: _ship,
    Round: _ship,
    Refresh: _ship,
    KeepLog: feed.keep_log,
    KeepNoLog: feed.keep_no_log,
    Present: feed.present,
    Feed: feed.feed,
    FeedCutover: feed.cut_over,
    Hold: _hold,
    Prepare: _prepare,
    Cutover: _cutover,
    TakeOver: _take_over,
    Switchover: _switch_over,
    Verify: _verify,
    Settle: _settle,
}
