"""How long a run waits, and how often it tries again, before it says that something does not pass by itself."""

from __future__ import annotations

import time

from snaprep.act.context import Memory
from snaprep.control import Control, Sink
from snaprep.core.action import Action, Refuse
from snaprep.core.errors import SnaprepError, Stopped, may_pass
from snaprep.core.model import Facts, Policy
from snaprep.core.refusals import about
from snaprep.core.who import describe
from snaprep.hearing import Hearing
from snaprep.journal import Journal
from snaprep.session import Session

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


class Patience(Hearing):
    """The part of a run that waits. A `patient` one has no end of its own: what breaks is taken up again."""

    def __init__(
        self,
        session: Session,
        policy: Policy,
        sink: Sink,
        memory: Memory,
        control: Control,
        journal: Journal,
        *,
        patient: bool,
    ) -> None:
        super().__init__(session, policy, sink, memory, control, journal)
        self.patient = patient

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

    def _may_pass(self, error: SnaprepError, action: Action) -> bool:
        """Whether looking anew, after a while, may lead on."""
        if self.patient:
            return error.exit_code not in _FINAL or error.id in _MENDED
        of_its_kind = self.memory.failures_of[type(action)]
        tried = self.memory.failures >= RETRIES or of_its_kind >= RETRIES_OF_A_KIND
        return may_pass(error.id) and not tried

    def _wait_after(self, error: SnaprepError, action: Action) -> None:
        """Longer with each failure in a row."""
        self.memory.failures += 1
        self.memory.failures_of[type(action)] += 1
        self.sink.note(f"{error.info.what}; trying again ({self.memory.failures})")
        self.control.wait(min(_RETRY_PAUSE_S * self.memory.failures, RETRY_PAUSE_MOST_S))

    def _went_well(self, action: Action) -> None:
        memory = self.memory
        memory.failures = 0
        memory.failures_of[type(action)] = 0
        memory.same_times = memory.same_times + 1 if about(action) == memory.same else 1
        memory.same = about(action)

    def _must_lead_on(self, facts: Facts, action: Action) -> None:
        """Raises `no-progress` when an action went well again and again, and looking asks for it once more."""
        if about(action) and about(action) == self.memory.same and self.memory.same_times >= _SAME_MAX:
            what = f"{type(action).__name__} was done {_SAME_MAX} times, and looking asks for it again"
            raise Stopped("no-progress", what, hint=_UNDONE, details=tuple(map(describe, facts.hosts)))
