"""What snaprep can be asked: one function a verb. The command line calls these, and so can a program.

What a run did is observed again, not remembered; the journal only explains. So a run that died anywhere is resumed by
running the loop again, here or on another machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from snaprep.act import switchover as act_switchover
from snaprep.act import takeover as act_takeover
from snaprep.control import Control, Sink
from snaprep.core.action import Action, Refuse, Switchover, TakeOver
from snaprep.core.decide_switchover import aim, decide_resume, decide_switchover
from snaprep.core.decide_takeover import decide_takeover
from snaprep.core.errors import Aborted, CheckFailed, SnaprepError, from_info
from snaprep.core.follow import decide_follow
from snaprep.core.lane import decide_lane
from snaprep.core.model import Facts, History, Policy
from snaprep.core.refresh import decide_refresh
from snaprep.core.report import Report, SwitchQuestion, TakeOverQuestion
from snaprep.core.spec import Pair
from snaprep.journal import Journal, fields_of
from snaprep.loop import tell
from snaprep.loop.loop import Decide, loop
from snaprep.loop.state import Run
from snaprep.observe import observe
from snaprep.session import Session
from snaprep.verbs.check import check
from snaprep.verbs.clean import clean
from snaprep.verbs.command import command
from snaprep.verbs.plan import plan
from snaprep.verbs.status import status
from snaprep.verbs.verify import verify

_FOLLOWER_ENDS_S = 90.0
_TYPE_IT = "type the host's name to go on"
__all__ = [
    "check",
    "clean",
    "command",
    "follow",
    "plan",
    "rebuild",
    "refresh",
    "status",
    "switch_over",
    "take_over",
    "verify",
]


def rebuild(pair: Pair, policy: Policy, sink: Sink, *, resume: bool = False, control: Control | None = None) -> Report:
    """Make the other host a running replica of the one that serves.

    `resume` does the same, for the hosts know where it stood.
    """
    if resume:
        return _carry_out(pair, policy, sink, control, "resume", decide_resume)
    return _carry_out(pair, policy, sink, control, "rebuild", decide_lane)


def refresh(pair: Pair, policy: Policy, sink: Sink, *, control: Control | None = None) -> Report:
    """Move the common base forward in both directions while the replica runs. A run that follows is told to do it."""
    try:
        return command(pair, policy, sink, "refresh", None)
    except CheckFailed as error:
        if error.id != "no-run":
            raise
    return _carry_out(pair, policy, sink, control, "refresh", decide_refresh)


def follow(pair: Pair, policy: Policy, sink: Sink, *, control: Control | None = None) -> Report:
    """Feed the other host's replica the log of the one that serves, until told to stop. No client is ever kept out."""
    if pair.relay:  # there is one way through here, and the feed is on it
        policy = replace(policy, refresh_s=None)
    return _carry_out(pair, policy, sink, control, "follow", decide_follow, databases=False)


def take_over(
    pair: Pair,
    policy: Policy,
    sink: Sink,
    *,
    host: str | None,
    confirm: Callable[[TakeOverQuestion], bool],
    control: Control | None = None,
) -> Report:
    """Make the surviving host serve, after saying what may be lost."""
    confirmed: list[str] = []

    def decide_next(facts: Facts, policy: Policy, history: History) -> Action:
        action = decide_takeover(facts, policy, history, host)
        if isinstance(action, TakeOver) and action.target not in confirmed:
            if not confirm(act_takeover.question(facts, action)):
                raise Aborted("not-confirmed", "nothing was taken over", hint=_TYPE_IT)
            confirmed.append(action.target)
        return action

    return _carry_out(pair, policy, sink, control, "takeover", decide_next, need_all=False, ends_follower=True)


def switch_over(
    pair: Pair,
    policy: Policy,
    sink: Sink,
    *,
    host: str | None,
    confirm: Callable[[SwitchQuestion], bool],
    control: Control | None = None,
) -> Report:
    """Make the replica the primary and the primary its replica. `host` names the one that is to serve."""
    wanted = [host] if host is not None else []
    confirmed: list[str] = []

    def decide_next(facts: Facts, policy: Policy, history: History) -> Action:
        if not wanted and (found := aim(facts, policy)) is not None:
            wanted.append(found)
        action = decide_switchover(facts, policy, history, wanted[0] if wanted else None)
        if isinstance(action, Switchover) and action.roles.target not in confirmed:
            if not confirm(act_switchover.question(action, policy)):
                raise Aborted("not-confirmed", "the roles are as they were", hint=_TYPE_IT)
            confirmed.append(action.roles.target)
        return action

    return _carry_out(pair, policy, sink, control, "switchover", decide_next, ends_follower=True)


def _carry_out(
    pair: Pair,
    policy: Policy,
    sink: Sink,
    control: Control | None,
    verb: str,
    decide_next: Decide,
    *,
    need_all: bool = True,
    databases: bool = True,
    ends_follower: bool = False,
) -> Report:
    """Connect, lock, loop, tell how it ended. `databases`: nobody else may halt the databases meanwhile.

    `ends_follower`: a run of this pair that follows is told to end, and waited for.
    """
    journal = Journal.open(pair.name, run=new_run_id(), secrets=tuple(h.derby.password for h in pair.hosts))
    with Session.open(pair) as session:
        run = Run(session, policy, sink, control or Control(), journal, verb)
        journal.append("begin", verb=verb, policy=fields_of(policy))
        try:
            if need_all:
                session.need_all()
            if ends_follower and (fed := followed(session)):
                must_be_wanted(run, decide_next)
                end_follower(session, fed, sink)
            session.lock(journal.run, verb, [h.name for h in pair.hosts] if databases else ())
            report = loop(run, decide_next)
        except SnaprepError as error:
            report = tell.failed(run, error)
        journal.append("end", state=str(report.state), error=report.error)
        session.keep_journal(report.target, journal.path)
        return report


def followed(session: Session) -> Mapping[str, str]:
    """The hosts that a run which follows holds at present, and that run's id."""
    holders = {h.name: h.held_by for h in observe(session).hosts}
    return {name: held.run for name, held in holders.items() if held is not None and held.verb == "follow"}


def must_be_wanted(run: Run, decide_next: Decide) -> None:
    """Refuse and ask while the replica is still fed: whoever is refused, or says no, has lost nothing.

    Raises SnaprepError.
    """
    facts = observe(run.session)
    action = decide_next(facts, run.policy, run.history)
    if isinstance(action, Refuse):
        raise from_info(action.error)


def end_follower(session: Session, fed: Mapping[str, str], sink: Sink) -> None:
    """A replica that is to serve is no longer fed by another run: that is told to end, and waited for."""
    sink.note(f"the replica is still fed by run {next(iter(fed.values()))}, which is told to end")
    for name in fed:
        session.host(name).call("post", {"command": "abort"}, bool, deadline_s=15)
    until_s = time.monotonic() + _FOLLOWER_ENDS_S
    while followed(session) and time.monotonic() < until_s:
        time.sleep(1)


def new_run_id() -> str:
    """Sortable, and short enough for a snapshot's name."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{os.urandom(2).hex()}"
