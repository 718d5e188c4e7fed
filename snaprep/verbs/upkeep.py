"""What `verify`, `clean` and the commands to a run work with: a report, a context without a run, and who is who."""

from __future__ import annotations

from snaprep.act.context import Context
from snaprep.act.interpreter import Interpreter
from snaprep.control import Sink
from snaprep.core.action import Roles
from snaprep.core.errors import ErrorInfo, from_info
from snaprep.core.model import Facts, Policy
from snaprep.core.report import Report, RunState
from snaprep.core.spec import Pair
from snaprep.core.who import serves, serving, who
from snaprep.engines.recipes import recipes_of
from snaprep.session import Session


def report_of(pair: Pair, verb: str, facts: Facts) -> Report:
    return Report(pair=pair.name, verb=verb, state=RunState.DONE, serves=serves(facts), serving=serving(facts))


def context_of(session: Session, policy: Policy, sink: Sink, facts: Facts) -> Context:
    """Nothing is named or shipped in it, so no run has to give names."""
    return Context(
        pair=session.pair,
        policy=policy,
        session=session,
        engine=recipes_of(session.pair),
        interpreter=Interpreter(session, sink.event),
        facts=facts,
        run="upkeep",
        number=lambda: 0,
        tell=lambda _: None,
        stop=lambda: False,
    )


def roles_of(facts: Facts, policy: Policy) -> Roles:
    """Raises what `who` says when looking does not settle it."""
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        raise from_info(roles)
    return roles
