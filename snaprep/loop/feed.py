"""Feeding a replica: the feed goes on in the agents while the run decides and acts."""

from __future__ import annotations

from snaprep.act import feed as act_feed
from snaprep.act.context import Context
from snaprep.core.action import Feed, FeedCutover, KeepLog, KeepNoLog, Present
from snaprep.core.errors import SnaprepError
from snaprep.core.follow import caught_up
from snaprep.core.model import Facts, FeedFacts
from snaprep.core.report import RunState, base_report, feed_report
from snaprep.loop import hear, tell
from snaprep.loop.state import Run


def keep_log(run: Run, context: Context, action: KeepLog) -> None:
    run.say(state=RunState.PREPARING, reason=f"having {action.roles.source} keep its log: {action.how}")
    away_s = act_feed.keep_log(context, action)
    if away_s:
        run.sink.note(
            f"the database of {action.roles.source} was away for {1000 * away_s:.0f} ms: it keeps its log now"
        )


def keep_no_log(run: Run, context: Context, action: KeepNoLog) -> None:
    run.say(state=RunState.SETTLING, reason="")
    act_feed.keep_no_log(context, action.roles)


def present(run: Run, context: Context, action: Present) -> None:
    run.say(state=RunState.PREPARING, reason=f"making the replica on {action.roles.target}")
    act_feed.present(context, action)
    run.say(base=base_report(action.base))


def feed(run: Run, context: Context, action: Feed) -> None:
    """One look's worth of feeding: begun when it is not under way, and left under way."""
    if run.feeding is None:
        with hear.linked(run, action.roles.source, action.roles.target):
            run.feeding = act_feed.begin(context, action)

    def show(seen: FeedFacts) -> None:
        run.say(state=RunState.FOLLOWING, reason="", feed=feed_report(seen))

    def over(seen: FeedFacts) -> bool:
        """Something else may have to be done than to feed on: what was asked for, or the cutover."""
        return run.control.asked or (not run.patient and caught_up(seen))

    try:
        with hear.heard(run, action.roles.source):
            act_feed.watch(context, action, run.feeding, tell=show, over=over)
    except SnaprepError:
        run.feeding = None
        run.say(feed=None)
        raise


def cut_over(run: Run, context: Context, action: FeedCutover) -> None:
    tell.cutting_over(run, action)
    run.feeding = None  # it ends in this, well or not
    with hear.heard(run, action.roles.source):
        tried, shown = act_feed.cut_over(context, action)
    tell.attempted(run, action, tried, shown)


def put_off(run: Run, error: SnaprepError) -> None:
    """The common base stays where it is for now; the feed goes on."""
    run.sink.note(f"the common base was not moved on: {error.info.what}")
    run.learn(refreshed=(), refresh=False, settled_s=run.history.now_s)


def stop(run: Run, facts: Facts) -> None:
    """End a feed in order: something else is to be done, or the run ends."""
    feeding, run.feeding = run.feeding, None
    if feeding is not None:
        why = act_feed.finish(run.context(facts), feeding)
        if why:
            run.sink.note(f"the replica was stopped before it had all of the log: {why}")
