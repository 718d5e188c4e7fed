"""The part of a run that feeds a replica: the feed goes on in the agents while the run decides and acts."""

from __future__ import annotations

from dataclasses import replace

from snaprep.act import feed as act_feed
from snaprep.act.context import Context
from snaprep.act.feed import Feeding
from snaprep.core.action import (
    Cutover,
    Feed,
    FeedCutover,
    KeepLog,
    KeepNoLog,
    Present,
)
from snaprep.core.errors import SnaprepError
from snaprep.core.estimate import Prediction
from snaprep.core.follow import caught_up
from snaprep.core.model import CutoverTried, Facts, FeedFacts
from snaprep.core.report import BaseReport, CutoverReport, Forecast, RunState
from snaprep.engines.derby import recipe as derby_recipe
from snaprep.journal import fields_of
from snaprep.patience import Patience


class Feeds(Patience):
    feeding: Feeding | None = None  # the feed that is under way

    @property
    def feeds(self) -> bool:
        """What is shipped is to be fed: it matters in which life of the source it was taken."""
        return self.patient or "log" in (self.policy.lane, self.memory.history.lane)

    def _keep_log(self, context: Context, action: KeepLog) -> None:
        self._say(state=RunState.PREPARING, reason=f"having {action.roles.source} keep its log: {action.how}")
        away_s = act_feed.keep_log(context, action)
        if away_s:
            self.sink.note(
                f"the database of {action.roles.source} was away for {1000 * away_s:.0f} ms: it keeps its log now"
            )

    def _keep_no_log(self, context: Context, action: KeepNoLog) -> None:
        self._say(state=RunState.SETTLING, reason="")
        act_feed.keep_no_log(context, action.roles)
        self.memory.history = replace(self.memory.history, log_let_go=True)

    def _present(self, context: Context, action: Present) -> None:
        self._say(state=RunState.PREPARING, reason=f"making the replica on {action.roles.target}")
        act_feed.present(context, action)
        base = BaseReport(name=action.base.point.name, guid=action.base.point.guid)
        self._say(base=base)
        self.memory.history = replace(self.memory.history, settled=False)

    def _feed(self, context: Context, action: Feed) -> None:
        """One look's worth of feeding: begun when it is not under way, and left under way."""
        if self.feeding is None:
            with self.linked(action.roles.source, action.roles.target):
                self.feeding = act_feed.begin(context, action)
        try:
            with self.heard(action.roles.source):
                act_feed.watch(context, action, self.feeding, tell=self._tell_feed, over=self._seen_enough)
        except SnaprepError:
            self.feeding = None
            self._say(feed=None)
            raise

    def _seen_enough(self, feed: FeedFacts) -> bool:
        """Something else may have to be done than to feed on: what was asked for, or the cutover."""
        return self.control.asked or (not self.patient and caught_up(feed))

    def _feed_cutover(self, context: Context, action: FeedCutover) -> None:
        self._say_cutting_over(action)
        self.feeding = None  # it ends in this, well or not
        with self.heard(action.roles.source):
            tried, shown = act_feed.cut_over(context, action)
        self._tried(tried, shown)

    def _say_cutting_over(self, action: Cutover | FeedCutover) -> None:
        self._say(
            state=RunState.CUTTING_OVER,
            reason="clients are cut off until replication is on",
            forecast=self._forecast(Prediction(action.p50_ms, action.p90_ms, 0)),
        )

    def _put_off(self, error: SnaprepError) -> None:
        """The common base stays where it is for now; the feed goes on."""
        self.sink.note(f"the common base was not moved on: {error.info.what}")
        self.memory.history = replace(
            self.memory.history, refreshed=(), refresh=False, settled_s=self.memory.history.now_s
        )

    def stop_feeding(self, facts: Facts) -> None:
        """End a feed in order: something else is to be done, or the run ends."""
        feeding, self.feeding = self.feeding, None
        if feeding is not None:
            why = act_feed.finish(self._context(facts), feeding)
            if why:
                self.sink.note(f"the replica was stopped before it had all of the log: {why}")

    def _tried(self, tried: CutoverTried, shown: CutoverReport) -> None:
        self.journal.append("cutover", **fields_of(tried))
        self._say(cutover=shown)
        history = self.memory.history
        self.memory.history = replace(history, cutovers=(*history.cutovers, tried))
        if not tried.ok:
            self.sink.note(f"the cutover was undone after {tried.blocked_ms:.0f} ms: {tried.error}")

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

    def _forecast(self, prediction: Prediction | None) -> Forecast:
        return Forecast(
            budget_ms=self.policy.budget_ms,
            undo_ms=self.policy.undo_ms,
            p50_ms=prediction.p50_ms if prediction else None,
            p90_ms=prediction.p90_ms if prediction else None,
        )
