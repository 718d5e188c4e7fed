"""The loop: observe, decide, act, until the answer is final.

What a run did is observed again, not remembered; the journal only explains.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from snaprep.act import cutover as act_cutover
from snaprep.act import feed as act_feed
from snaprep.act import ready, settle, ship, switchover, takeover
from snaprep.act.context import Context, Memory
from snaprep.act.preflight import preflight
from snaprep.control import Control, Sink
from snaprep.core.action import (
    Action,
    Adopt,
    Choose,
    Cutover,
    Done,
    Feed,
    FeedCutover,
    GiveUp,
    Hold,
    KeepLog,
    KeepNoLog,
    Prepare,
    Present,
    Refresh,
    Refuse,
    Reopen,
    Round,
    Seed,
    SetAside,
    Settle,
    Switchover,
    TakeOver,
    Verify,
)
from snaprep.core.errors import NobodyServes, SnaprepError, Stopped
from snaprep.core.estimate import Prediction, bytes_per_s
from snaprep.core.follow import beside
from snaprep.core.model import Facts, History, Policy, RoundDone
from snaprep.core.report import BaseReport, LaneReport, Report, RunState, named_lane
from snaprep.core.who import judged
from snaprep.feeding import Feeds
from snaprep.journal import Journal, earlier, fields_of, told
from snaprep.observe import observe
from snaprep.session import Session

_FIGURES = re.compile(r"\d+")
_IN_A_LANE = frozenset({"rebuild", "resume"})
_STATES = {Seed: RunState.SEEDING, Round: RunState.ROUND, Refresh: RunState.REFRESHING}

Decide = Callable[[Facts, Policy, History], Action]


class Run(Feeds):
    """One run of one verb on a connected session."""

    def __init__(
        self, session: Session, policy: Policy, sink: Sink, control: Control, journal: Journal, verb: str
    ) -> None:
        memory = Memory(
            history=earlier(journal.entries(), journal.run),
            report=Report(
                run=journal.run,
                pair=session.pair.name,
                verb=verb,
                lane=named_lane(policy.lane) if verb in _IN_A_LANE else None,
                started_at=time.time(),
                journal=str(journal.path),
            ),
        )
        super().__init__(session, policy, sink, memory, control, journal, patient=verb == "follow")
        self.resume_hint = "snaprep follow" if self.patient else "snaprep resume"

    # -- the loop ------------------------------------------------------------------------------------------------

    def loop(self, decide_next: Decide) -> Report:
        """Until an action is final. Raises SnaprepError for what ends the run otherwise."""
        while True:
            facts = observe(self.session)
            self._look(facts)
            self._listen(facts)
            self.memory.history = replace(
                self.memory.history, now_s=time.monotonic(), begun=self.patient and self.session.acted
            )
            action = decide_next(facts, self.policy, self.memory.history)
            new = self._is_new(action)
            if not beside(action, facts):
                self.stop_feeding(facts)
            if new:
                self.journal.append("decision", action=type(action).__name__, **told(action))
            if self._waits_for_a_host(facts, action):
                continue
            if isinstance(action, Refuse):
                error = judged(action.error, facts, acted=self.session.acted)
                began = bool(self.memory.report.rounds)  # marks alone count as nothing touched
                return self._end(error if began or error.exit_code == NobodyServes.exit_code else action.error)
            if isinstance(action, Done):
                return self._say(state=RunState.DONE, reason="", serves=action.serving)
            if self.control.stop.is_set() and not self.control.abort.is_set():
                self.stop_feeding(facts)
                raise Stopped("stopped", "stopped as asked; it can be resumed", hint=self.resume_hint)
            self._must_lead_on(facts, action)
            self._try(facts, action, new=new)

    def _is_new(self, action: Action) -> bool:
        """Whether the journal should tell it: a hold is told when its reason changes, figures aside."""
        if isinstance(action, Feed):
            return self.feeding is None
        if not isinstance(action, Hold):
            return True
        former, self.memory.held_because = self.memory.held_because, _FIGURES.sub("#", action.reason)
        return former != self.memory.held_because

    def _try(self, facts: Facts, action: Action, *, new: bool) -> None:
        try:
            self.act(facts, action)
        except SnaprepError as error:
            self.journal.append("failure", action=type(action).__name__, error=error.info)
            if self.control.asked and self._asked_for(error):
                return  # observe once more, then end in order
            if error.id == "no-direct-boot" and not self.patient:
                self.memory.history = replace(self.memory.history, unfeedable=True)
                self.sink.note(f"{error.info.what}; what is written is shipped in rounds of pages instead")
                return
            if self.control.asked:
                raise
            if self.feeding is not None and isinstance(action, Refresh | SetAside | Settle):
                self._put_off(error)
                return
            if not self._may_pass(error, action):
                raise
            self._wait_after(error, action)
        else:
            self._went_well(action)
            if new:
                self.journal.append("outcome", action=type(action).__name__)

    def _asked_for(self, error: SnaprepError) -> bool:
        return error.info.id in ("stopped", "cancelled", "link-cancelled")

    def act(self, facts: Facts, action: Action) -> None:
        """Do one action, and note what it taught."""
        deeds: dict[type, Callable[[Context, Any], None]] = {
            Reopen: self._reopen,
            Adopt: self._adopt,
            SetAside: self._set_aside,
            GiveUp: self._give_up,
            Choose: self._choose,
            Seed: self._ship,
            Round: self._ship,
            Refresh: self._ship,
            KeepLog: self._keep_log,
            KeepNoLog: self._keep_no_log,
            Present: self._present,
            Feed: self._feed,
            FeedCutover: self._feed_cutover,
            Hold: self._hold,
            Prepare: self._prepare,
            Cutover: self._cutover,
            TakeOver: self._take_over,
            Switchover: self._switch_over,
            Verify: self._verify,
            Settle: self._settle,
        }
        self.interpreter.rest_on(facts)
        deeds[type(action)](self._context(facts), action)

    def _reopen(self, context: Context, action: Reopen) -> None:
        self._say(state=RunState.PREPARING, reason=f"opening {action.host}, which an earlier run has left closed")
        ready.reopen(context, action)

    def _adopt(self, context: Context, action: Adopt) -> None:
        self._say(state=RunState.PREPARING, reason=f"marking {action.roles.source} as the primary")
        ready.adopt(context, action)

    def _set_aside(self, context: Context, action: SetAside) -> None:
        self._say(state=RunState.PREPARING, reason=f"setting {action.image} aside: {action.why}")
        kept, lost = ready.set_aside(context, action)
        report = self.memory.report
        self._say(kept=(*report.kept, kept), lost=(*report.lost, lost) if lost else report.lost)

    def _give_up(self, context: Context, action: GiveUp) -> None:
        self.sink.note("the source runs out of space: the common base is released, the primary lives")
        ready.give_up(context, action)
        act_feed.give_up_log(context, action.roles.source)

    def _choose(self, context: Context, action: Choose) -> None:
        del context  # nothing is done to anybody
        self.memory.history = replace(self.memory.history, lane=action.lane)
        self._say(
            lane=LaneReport(
                name=action.lane,
                why=action.why,
                page_bytes_per_s=action.page_bytes_per_s,
                log_bytes_per_s=action.log_bytes_per_s,
            )
        )

    def _verify(self, context: Context, action: Verify) -> None:
        self._say(state=RunState.VERIFYING, reason="")
        shared = settle.shared(context, action.roles)
        base = BaseReport(name=shared.point.name, guid=shared.point.guid) if shared is not None else None
        self._say(verified=settle.verify(context, action), base=base)
        self.memory.history = replace(self.memory.history, verified=True)

    def _settle(self, context: Context, action: Settle) -> None:
        self._say(state=RunState.SETTLING, reason="")
        settle.settle(context, action)
        history = self.memory.history
        self.memory.history = replace(history, settled=True, settled_s=time.monotonic(), refreshed=(), refresh=False)

    # -- actions that teach something ----------------------------------------------------------------------------

    def _ship(self, context: Context, action: Seed | Round | Refresh) -> None:
        memory = self.memory
        parcel = ship.parcel(action, len(memory.report.rounds) + 1)
        base = parcel.base
        self._say(
            state=_STATES[type(action)],
            reason="",
            base=BaseReport(name=base.point.name, guid=base.point.guid) if base else None,
        )
        if not memory.preflown and not isinstance(action, Refresh):
            preflight(context, action.roles)
            memory.preflown = True
        with self.linked(parcel.sender, parcel.receiver):
            try:
                done, taken_s = ship.ship(context, parcel, memory.taken_s)
            except SnaprepError:
                if parcel.resume is not None:
                    memory.history = memory.history.without_token(parcel.resume.token)
                raise
        done = self._with_log_rate(context, parcel.sender, done)
        self.journal.append("round", **fields_of(done))
        if self.feeds and parcel.resume is None and parcel.sender == memory.report.source:
            act_feed.note_taken(context, parcel.receiver, parcel.sender, done)
        history = memory.history
        if isinstance(action, Refresh):
            history = replace(history, refreshed=(*history.refreshed, (action.sender, action.receiver)))
        else:
            memory.taken_s = taken_s
            history = replace(history, rounds=(*history.rounds, done))
        memory.history = replace(history, last_round_end_s=time.monotonic())

    def _with_log_rate(self, context: Context, sender: str, done: RoundDone) -> RoundDone:
        """How fast log was written in the time in which this increment was."""
        memory, logged = self.memory, context.facts.host(sender).engine.logged_bytes
        now_s = memory.history.now_s
        before, memory.logged = memory.logged, (now_s, logged) if logged is not None else None
        return replace(done, log_bytes_per_s=bytes_per_s(before, now_s, logged))

    def _prepare(self, context: Context, action: Prepare) -> None:
        self._say(state=RunState.PREPARING, reason=f"making {action.roles.target} ready; clients go on")
        act_cutover.prepare(context, action)
        self.memory.history = replace(self.memory.history, prepared_s=time.monotonic())

    def _cutover(self, context: Context, action: Cutover) -> None:
        self._say_cutting_over(action)
        with self.linked(action.roles.source, action.roles.target):
            tried, shown = act_cutover.cutover(context, action)
        self._tried(tried, shown)

    def _take_over(self, context: Context, action: TakeOver) -> None:
        self._say(state=RunState.TAKING_OVER, reason=f"{action.target} is made to serve")
        notes = takeover.take_over(context, action)
        self.memory.history = replace(self.memory.history, taken_over=True)
        self._say(notes=(*self.memory.report.notes, *notes))

    def _switch_over(self, context: Context, action: Switchover) -> None:
        way = f"{action.roles.target} becomes the primary, {action.roles.source} its replica"
        forecast = self._forecast(Prediction(action.p50_ms, action.p90_ms, 0))
        self._say(state=RunState.SWITCHING_OVER, reason=way, forecast=forecast)
        self.feeding = None  # one that there is ends in this, well or not
        tried, shown, error = switchover.switch_over(context, action)
        self.journal.append("switchover", **fields_of(tried))
        self._say(cutover=shown)
        history = self.memory.history
        self.memory.history = replace(history, switchovers=(*history.switchovers, tried))
        if not tried.ok:
            self.sink.note(f"the switchover was undone after {tried.blocked_ms:.0f} ms: {tried.error}")
        elif error is not None:
            self.sink.note(f"{action.roles.source} does not follow yet: {error.id}: {error.what}")
        else:
            done = f"{action.roles.target} serves as generation {action.generation}, and {action.roles.source} follows"
            self._say(notes=(*self.memory.report.notes, done))

    def _hold(self, context: Context, action: Hold) -> None:
        del context  # nothing is done: that is the action
        prediction = Prediction(action.p50_ms, action.p90_ms or 0.0, 0) if action.p50_ms is not None else None
        self._say(state=RunState.HELD, reason=action.reason, forecast=self._forecast(prediction))
        history = self.memory.history
        if action.reason.startswith("waiting") and history.waiting_since_s is None:
            self.memory.history = replace(history, waiting_since_s=time.monotonic())
        self.control.wait(action.pace_s)
