"""The loop: observe, decide, act, until the answer is final.

What a run did is observed again, not remembered; the journal only explains.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from snaprep.core.action import Action, Done, Feed, Hold, Refresh, Refuse, SetAside, Settle
from snaprep.core.errors import NobodyServes, SnaprepError, Stopped
from snaprep.core.follow import beside
from snaprep.core.model import Facts, History, Policy
from snaprep.core.report import Report, RunState
from snaprep.core.who import judged
from snaprep.journal import told
from snaprep.loop import feed, hear, patience, tell
from snaprep.loop.deeds import do
from snaprep.loop.state import Run
from snaprep.observe import observe

_BEGUN_AGAIN = frozenset({"follow", "refresh"})  # `resume` goes on with a rebuild, which is more than these want
_FIGURES = re.compile(r"\d+")

Decide = Callable[[Facts, Policy, History], Action]


def loop(run: Run, decide_next: Decide) -> Report:
    """Until an action is final. Raises SnaprepError for what ends the run otherwise."""
    while True:
        facts = observe(run.session)
        tell.hosts(run, facts)
        tell.journal_trouble(run)
        hear.listen(run, facts)
        run.learn(now_s=time.monotonic(), begun=run.patient and run.session.acted)
        action = decide_next(facts, run.policy, run.history)
        new = _is_new(run, action)
        if not beside(action, facts):
            feed.stop(run, facts)
        if new:
            run.journal.append("decision", action=type(action).__name__, **told(action))
        if patience.waits_for_a_host(run, facts, action):
            continue
        if isinstance(action, Refuse):
            error = judged(action.error, facts, acted=run.session.acted)
            began = bool(run.report.rounds)  # marks alone count as nothing touched
            return tell.ended(run, error if began or error.exit_code == NobodyServes.exit_code else action.error)
        if isinstance(action, Done):
            return run.say(state=RunState.DONE, reason="", serves=action.serving)
        if run.control.stop.is_set() and not run.control.abort.is_set():
            feed.stop(run, facts)
            again = run.verb if run.verb in _BEGUN_AGAIN else "resume"
            raise Stopped("stopped", "stopped as asked; it can be resumed", hint=f"`snaprep {again}`")
        patience.must_lead_on(run, facts, action)
        _try(run, facts, action, new=new)


def _is_new(run: Run, action: Action) -> bool:
    """Whether the journal should tell it: a hold is told when its reason changes, figures aside."""
    if isinstance(action, Feed):
        return run.feeding is None
    if not isinstance(action, Hold):
        return True
    former, run.held_because = run.held_because, _FIGURES.sub("#", action.reason)
    return former != run.held_because


def _try(run: Run, facts: Facts, action: Action, *, new: bool) -> None:
    try:
        do(run, facts, action)
    except SnaprepError as error:
        run.journal.append("failure", action=type(action).__name__, error=error.info)
        if run.control.asked and _asked_for(error):
            return  # observe once more, then end in order
        if error.id == "no-direct-boot" and not run.patient:
            run.learn(unfeedable=True)
            copies = any(h.volume is not None and h.volume.copies for h in facts.hosts)
            instead = (
                "nothing else can be shipped without snapshots" if copies else "pages are shipped in rounds instead"
            )
            run.sink.note(f"{error.info.what}; {instead}")
            return
        if run.control.asked:
            raise
        if run.feeding is not None and isinstance(action, Refresh | SetAside | Settle):
            feed.put_off(run, error)
            return
        if not patience.bears(run, error, action):
            raise
        patience.wait_after(run, error, action)
    else:
        patience.went_well(run, action)
        if new:
            run.journal.append("outcome", action=type(action).__name__)


def _asked_for(error: SnaprepError) -> bool:
    return error.info.id in ("stopped", "cancelled", "link-cancelled")
