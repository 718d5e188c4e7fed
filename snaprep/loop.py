"""The loop: observe, decide, act, until the answer is final.

What a run did is observed again, not remembered; the journal only explains.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from snaprep.act import cutover as act_cutover
from snaprep.act import ready, settle, ship, switchover, takeover
from snaprep.act.context import Context, Memory
from snaprep.act.interpreter import Interpreter
from snaprep.act.preflight import preflight
from snaprep.control import Control, Sink
from snaprep.core.action import (
    Action,
    Adopt,
    Cutover,
    Done,
    GiveUp,
    Hold,
    Prepare,
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
from snaprep.core.errors import ErrorInfo, NobodyServes, SnaprepError, Stopped, may_pass
from snaprep.core.estimate import Prediction
from snaprep.core.model import Facts, History, Policy
from snaprep.core.refusals import about
from snaprep.core.report import BaseReport, Forecast, Report, RoundReport, RunState
from snaprep.core.who import describe, judged, serving, who
from snaprep.engines.derby import recipe as derby_recipe
from snaprep.journal import Journal, earlier, fields_of, told
from snaprep.observe import judge, observe
from snaprep.session import Session

RETRIES = 5  # attempts in a row that fail for reasons that may pass: a cut link, an agent that died, stale facts
RETRIES_IN_ALL = 50
_RETRY_PAUSE_S = 1.0
_POLL_S = 0.5
_FIGURES = re.compile(r"\d+")

_UNSEEN_S = 60.0  # how long a run that has begun waits for a host that it can no longer reach
_UNSEEN_PAUSE_S = 3.0
_SAME_MAX = 3  # times in a row that one action may succeed and still be asked for
_UNDONE = "something undoes it, or it cannot be seen: the journal tells what was decided and done"
_STATES = {Seed: RunState.SEEDING, Round: RunState.ROUND, Refresh: RunState.REFRESHING}

Decide = Callable[[Facts, Policy, History], Action]


class Run:
    """One run of one verb on a connected session."""

    def __init__(
        self, session: Session, policy: Policy, sink: Sink, control: Control, journal: Journal, verb: str
    ) -> None:
        self.session = session
        self.policy = policy
        self.sink = sink
        self.control = control
        self.journal = journal
        self.memory = Memory(
            history=earlier(journal.entries(), journal.run),
            report=Report(
                run=journal.run, pair=session.pair.name, verb=verb, started_at=time.time(), journal=str(journal.path)
            ),
        )
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self.interpreter = Interpreter(session, self._on_event)

    # -- the loop ------------------------------------------------------------------------------------------------

    def loop(self, decide_next: Decide) -> Report:
        """Until an action is final. Raises SnaprepError for what ends the run otherwise."""
        while True:
            facts = observe(self.session)
            self._look(facts)
            self._listen(facts)
            self.memory.history = replace(self.memory.history, now_s=time.monotonic())
            action = decide_next(facts, self.policy, self.memory.history)
            new = self._is_new(action)
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
                raise Stopped("stopped", "stopped as asked; it can be resumed", hint="snaprep resume")
            if about(action) and about(action) == self.memory.same and self.memory.same_times >= _SAME_MAX:
                what = f"{type(action).__name__} was done {_SAME_MAX} times, and looking asks for it again"
                raise Stopped("no-progress", what, hint=_UNDONE, details=tuple(map(describe, facts.hosts)))
            self._try(facts, action, new=new)

    def _is_new(self, action: Action) -> bool:
        """Whether the journal should tell it: a hold is told when its reason changes, figures aside."""
        if not isinstance(action, Hold):
            return True
        former, self.memory.held_because = self.memory.held_because, _FIGURES.sub("#", action.reason)
        return former != self.memory.held_because

    def _waits_for_a_host(self, facts: Facts, action: Action) -> bool:
        """A run that has begun does not end because a host cannot be reached for a moment."""
        memory = self.memory
        unseen = [(h.name, h.error) for h in facts.hosts if h.error and self.session.has_met(h.name)]
        if not unseen:
            memory.unseen_since_s = None
        if not unseen or not isinstance(action, Refuse) or not self.session.acted or self.control.asked:
            return False
        if memory.unseen_since_s is None:
            memory.unseen_since_s = time.monotonic()
            name, why = unseen[0]
            self.sink.note(f"{why.what}; looking at {name} again for {_UNSEEN_S:.0f} s")
        if time.monotonic() - memory.unseen_since_s > _UNSEEN_S:
            return False
        self.control.wait(_UNSEEN_PAUSE_S)
        return True

    def _try(self, facts: Facts, action: Action, *, new: bool) -> None:
        try:
            self.act(facts, action)
        except SnaprepError as error:
            self.journal.append("failure", action=type(action).__name__, error=error.info)
            if self.control.asked and self._asked_for(error):
                return  # observe once more, then end in order
            if self.control.asked or not may_pass(error.id) or self._tried_enough():
                raise
            self.memory.failures += 1
            self.memory.failures_in_all += 1
            self.sink.note(f"{error.info.what}; trying again ({self.memory.failures} of {RETRIES})")
            self.control.wait(_RETRY_PAUSE_S * self.memory.failures)
        else:
            memory = self.memory
            memory.failures = 0
            memory.same_times = memory.same_times + 1 if about(action) == memory.same else 1
            memory.same = about(action)
            if new:
                self.journal.append("outcome", action=type(action).__name__)

    def _tried_enough(self) -> bool:
        return self.memory.failures >= RETRIES or self.memory.failures_in_all >= RETRIES_IN_ALL

    def _asked_for(self, error: SnaprepError) -> bool:
        return error.info.id in ("stopped", "cancelled", "link-cancelled")

    def act(self, facts: Facts, action: Action) -> None:
        """Do one action, and note what it taught."""
        deeds: dict[type, Callable[[Context, Any], None]] = {
            Reopen: self._reopen,
            Adopt: self._adopt,
            SetAside: self._set_aside,
            GiveUp: self._give_up,
            Seed: self._ship,
            Round: self._ship,
            Refresh: self._ship,
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

    def _verify(self, context: Context, action: Verify) -> None:
        self._say(state=RunState.VERIFYING, reason="")
        shared = settle.shared(context, action.roles)
        base = BaseReport(name=shared.point.name, guid=shared.point.guid)
        self._say(verified=settle.verify(context, action), base=base)
        self.memory.history = replace(self.memory.history, verified=True)

    def _settle(self, context: Context, action: Settle) -> None:
        self._say(state=RunState.SETTLING, reason="")
        settle.settle(context, action)
        self.memory.history = replace(self.memory.history, settled=True)

    def _context(self, facts: Facts) -> Context:
        return Context(
            pair=self.session.pair,
            policy=self.policy,
            session=self.session,
            engine=derby_recipe,
            interpreter=self.interpreter,
            facts=facts,
            run=self.journal.run,
            number=self._number,
            tell=self._tell_round,
            stop=self.control.stop.is_set,
        )

    def _number(self) -> int:
        self.memory.numbers += 1
        return self.memory.numbers

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
        self.journal.append("round", **fields_of(done))
        history = memory.history
        if isinstance(action, Refresh):
            history = replace(history, refreshed=(*history.refreshed, (action.sender, action.receiver)))
        else:
            memory.taken_s = taken_s
            history = replace(history, rounds=(*history.rounds, done))
        memory.history = replace(history, last_round_end_s=time.monotonic())

    def _prepare(self, context: Context, action: Prepare) -> None:
        self._say(state=RunState.PREPARING, reason=f"making {action.roles.target} ready; clients go on")
        act_cutover.prepare(context, action)
        self.memory.history = replace(self.memory.history, prepared_s=time.monotonic())

    def _cutover(self, context: Context, action: Cutover) -> None:
        self._say(
            state=RunState.CUTTING_OVER,
            reason="clients are cut off until replication is on",
            forecast=self._forecast(Prediction(action.p50_ms, action.p90_ms, 0)),
        )
        with self.linked(action.roles.source, action.roles.target):
            tried, shown = act_cutover.cutover(context, action)
        self.journal.append("cutover", **fields_of(tried))
        self._say(cutover=shown)
        history = self.memory.history
        self.memory.history = replace(history, cutovers=(*history.cutovers, tried))
        if not tried.ok:
            self.sink.note(f"the cutover was undone after {tried.blocked_ms:.0f} ms: {tried.error}")

    def _take_over(self, context: Context, action: TakeOver) -> None:
        self._say(state=RunState.TAKING_OVER, reason=f"{action.target} is made to serve")
        notes = takeover.take_over(context, action)
        self.memory.history = replace(self.memory.history, taken_over=True)
        self._say(notes=(*self.memory.report.notes, *notes))

    def _switch_over(self, context: Context, action: Switchover) -> None:
        way = f"{action.roles.target} becomes the primary, {action.roles.source} its replica"
        forecast = self._forecast(Prediction(action.p50_ms, action.p90_ms, 0))
        self._say(state=RunState.SWITCHING_OVER, reason=way, forecast=forecast)
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

    def _forecast(self, prediction: Prediction | None) -> Forecast:
        return Forecast(
            budget_ms=self.policy.budget_ms,
            undo_ms=self.policy.undo_ms,
            p50_ms=prediction.p50_ms if prediction else None,
            p90_ms=prediction.p90_ms if prediction else None,
        )

    # -- the way on which data goes, and commands of a second terminal ------------------------------------------

    @contextlib.contextmanager
    def linked(self, sender: str, receiver: str) -> Iterator[None]:
        """A way for streams from sender to receiver; commands are heard while it is used."""
        self.session.link(sender, receiver, self.journal.run, self.policy.limit_bytes_per_s)
        over = threading.Event()
        listener = threading.Thread(target=self._poll, args=(sender, over), daemon=True)
        listener.start()
        try:
            yield
        finally:
            over.set()
            listener.join(5)

    def _poll(self, name: str, over: threading.Event) -> None:
        while not over.wait(_POLL_S):
            self._hear(name)  # never reaches for a host anew: that is the loop's
            if self.control.asked:
                self.interpreter.cancel()

    def _listen(self, facts: Facts) -> None:
        for host in facts.hosts:
            if not host.error:
                self._hear(host.name)
        history = self.memory.history
        if self.control.abort.is_set() and not history.abort:
            self.memory.history = replace(history, abort=True)

    def _hear(self, name: str) -> None:
        host = self.session.live(name)
        if host is not None:
            with contextlib.suppress(SnaprepError):
                self._obey(host.call("commands", {}, list[str], deadline_s=10))

    def _obey(self, commands: list[str]) -> None:
        for command in commands:
            word, _, value = command.partition(" ")
            self.journal.append("command", command=command)
            if word == "cutover":
                self.memory.history = replace(self.memory.history, release=True)
                self.control.changed.set()
            elif word == "abort":
                self.control.ask_abort()
            elif word == "limit":
                rate = int(value) or None
                self.policy = replace(self.policy, limit_bytes_per_s=rate)
                for host in filter(None, (self.session.live(h.name) for h in self.session.pair.hosts)):
                    host.call("limit", {"bytes_per_s": rate}, type(None), deadline_s=10)
                self._say(limit_bytes_per_s=rate)

    # -- telling -------------------------------------------------------------------------------------------------

    def _look(self, facts: Facts) -> None:
        roles = who(facts, self.policy.source)
        source = facts.host(roles.source) if not isinstance(roles, ErrorInfo) else None
        target = facts.host(roles.target) if not isinstance(roles, ErrorInfo) else None
        self._say(
            source=source.name if source else self.memory.report.source,
            target=target.name if target else self.memory.report.target,
            serving=serving(facts),
            serves=source.name if source is not None and source.engine.server_up else None,
            source_free_bytes=source.volume.free_bytes if source and source.volume else None,
            target_free_bytes=target.volume.free_bytes if target and target.volume else None,
            pinned_bytes=source.live.pinned_bytes if source and source.live else None,
            limit_bytes_per_s=self.policy.limit_bytes_per_s,
        )

    def _say(self, **changed: Any) -> Report:  # noqa: ANN401 (fields of Report)
        with self._lock:
            elapsed_ms = 1000 * (time.monotonic() - self._began_s)
            self.memory.report = replace(self.memory.report, elapsed_ms=elapsed_ms, **changed)
            report = self.memory.report
        self.sink.report(report)
        return report

    def _tell_round(self, shown: RoundReport) -> None:
        others = tuple(r for r in self.memory.report.rounds if (r.number, r.kind) != (shown.number, shown.kind))
        self._say(rounds=(*others, shown))

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "progress" and "sent_bytes" in event and self.memory.report.current is not None:
            current = self.memory.report.current
            self._tell_round(
                replace(
                    current,
                    sent_bytes=event["sent_bytes"],
                    rate_bytes_per_s=event.get("rate_bytes_per_s"),
                    elapsed_ms=event.get("elapsed_ms", 0.0),
                )
            )
            return
        if event.get("event") != "command" or self.sink.show_commands:
            self.sink.event(event)

    def _end(self, error: ErrorInfo) -> Report:
        state = {10: RunState.STOPPED, 11: RunState.ABORTED}.get(error.exit_code, RunState.FAILED)
        return self._say(state=state, reason=error.what, error=error, hint=error.hint)

    def failed(self, error: SnaprepError) -> Report:
        """The report of a run that an exception ended: who serves now is looked at once more."""
        return self._end(judge(self.session, error.info))
