"""How long a run waits, and how often it tries again, before it says that something does not pass by itself."""

from __future__ import annotations

import time

from snaprep.core.action import Action, Refuse
from snaprep.core.errors import SnaprepError, Stopped, may_pass
from snaprep.core.model import Facts
from snaprep.core.refusals import about
from snaprep.core.who import describe
from snaprep.loop.state import Run

RETRIES = 5  # attempts in a row that fail for reasons that may pass: a cut link, an agent that died, stale facts
RETRIES_OF_A_KIND = 50  # attempts at one kind of action since it last went well, whatever went well between them
_RETRY_PAUSE_S = 1.0
RETRY_PAUSE_MOST_S = 30.0
# Errors that looking anew does not mend, by their code, and those of such a code that it does.
_FINAL = frozenset({1, 2, 3, 21, 22, 75})
_MENDED = frozenset(
    {"no-space", "primary-answers", "engine-down", "log-damaged", "archive-off", "replication-port-taken"}
)

_UNSEEN_S = 60.0  # how long a run that has begun waits for a host that it can no longer reach
_UNSEEN_PAUSE_S = 3.0
_SAME_MAX = 3  # times in a row that one action may succeed and still be asked for
_UNDONE = "something undoes it, or it cannot be seen: the journal tells what was decided and done"


def waits_for_a_host(run: Run, facts: Facts, action: Action) -> bool:
    """A run that has begun does not end because a host cannot be reached for a moment."""
    unseen = [(h.name, h.error) for h in facts.hosts if h.error and run.session.has_met(h.name)]
    if not unseen:
        run.unseen_since_s = None
    if not unseen or not isinstance(action, Refuse) or not run.session.acted or run.control.asked:
        return False
    if run.unseen_since_s is None:
        run.unseen_since_s = time.monotonic()
        name, why = unseen[0]
        run.sink.note(f"{why.what}; looking at {name} again for {_UNSEEN_S:.0f} s")
    if time.monotonic() - run.unseen_since_s > _UNSEEN_S:
        return False
    run.control.wait(_UNSEEN_PAUSE_S)
    return True


def bears(run: Run, error: SnaprepError, action: Action) -> bool:
    """Whether looking anew, after a while, may lead on."""
    if run.patient:
        return error.exit_code not in _FINAL or error.id in _MENDED or may_pass(error.id)
    tried = run.failures >= RETRIES or run.failures_of[type(action)] >= RETRIES_OF_A_KIND
    return may_pass(error.id) and not tried


def wait_after(run: Run, error: SnaprepError, action: Action) -> None:
    """Longer with each failure in a row."""
    run.failures += 1
    run.failures_of[type(action)] += 1
    run.sink.note(f"{error.info.what}; trying again ({run.failures})")
    run.control.wait(min(_RETRY_PAUSE_S * run.failures, RETRY_PAUSE_MOST_S))


def went_well(run: Run, action: Action) -> None:
    run.failures = 0
    run.failures_of[type(action)] = 0
    run.same_times = run.same_times + 1 if about(action) == run.same else 1
    run.same = about(action)


def must_lead_on(run: Run, facts: Facts, action: Action) -> None:
    """Raises `no-progress` when an action went well again and again, and looking asks for it once more."""
    if about(action) and about(action) == run.same and run.same_times >= _SAME_MAX:
        what = f"{type(action).__name__} was done {_SAME_MAX} times, and looking asks for it again"
        raise Stopped("no-progress", what, hint=_UNDONE, details=tuple(map(describe, facts.hosts)))
