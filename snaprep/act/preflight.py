"""What a cutover will need and nothing else would miss before it: proven while nothing has been sent."""

from __future__ import annotations

import contextlib
import secrets

from snaprep.act.context import Context
from snaprep.core.action import Roles
from snaprep.core.errors import SnaprepError
from snaprep.core.model import REPLICA_STATES
from snaprep.session import Session

_CALL_S = 20.0


def preflight(context: Context, roles: Roles) -> None:
    """Raises `unknown-user` and what `prove_way` raises.

    While a replica waits or runs its port takes one connection only, so the way is not tried then.
    """
    source, target = context.facts.host(roles.source), context.facts.host(roles.target)
    owner = context.owner(source, target)
    if owner:
        context.session.host(target.name).call("probe_owner", {"owner": owner}, type(None), deadline_s=_CALL_S)
    if target.engine.state not in REPLICA_STATES:
        prove_way(context.session, source.name, target.name)


def prove_way(session: Session, sender: str, receiver: str) -> None:
    """The receiver listens for a moment where its replica would wait, and the sender connects as its primary would.

    Raises `replication-address`, `replication-port-taken`, `replication-unreachable`, `replication-leads-elsewhere`.
    """
    nonce = secrets.token_hex(16)
    listening = session.host(receiver)
    try:
        listening.call("probe_listen", {"nonce": nonce}, type(None), deadline_s=_CALL_S)
        session.host(sender).call("probe_call", {"nonce": nonce}, type(None), deadline_s=_CALL_S)
    finally:
        with contextlib.suppress(SnaprepError):
            listening.call("probe_end", {}, bool, deadline_s=_CALL_S)
