"""Facts from both hosts: one call each, at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from snaprep.core.errors import SnaprepError
from snaprep.core.model import Facts, HostFacts
from snaprep.session import Session

_OBSERVE_S = 40.0


def observe(session: Session) -> Facts:
    """What both hosts say now. A host that cannot be reached tells why, in its `error`."""
    first, second = session.pair.hosts
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda spec: _host_facts(session, spec.name, spec.dataset), (first, second)))
    return Facts((told[0], told[1]))


def _host_facts(session: Session, name: str, dataset: str) -> HostFacts:
    try:
        return session.host(name).call("observe", {}, HostFacts, deadline_s=_OBSERVE_S)
    except SnaprepError as error:
        return HostFacts(name=name, live_name=dataset, error=f"{error.info.id}: {error.info.what}")
