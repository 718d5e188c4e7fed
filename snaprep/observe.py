"""Facts from both hosts, one call each, at the same time; and what they make of an error that ends a verb."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from snaprep.core.errors import ErrorInfo, SnaprepError, from_info
from snaprep.core.model import Facts, HostFacts
from snaprep.core.spec import Pair
from snaprep.core.who import judged
from snaprep.session import Session

_OBSERVE_S = 40.0


def observe(session: Session) -> Facts:
    """What both hosts say now. A host that cannot be reached, or looked at, tells why in its `error`."""
    first, second = session.pair.hosts
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda spec: _host_facts(session, spec.name, spec.dataset), (first, second)))
    return Facts((told[0], told[1]))


def _host_facts(session: Session, name: str, dataset: str) -> HostFacts:
    try:
        return session.host(name).call("observe", {}, HostFacts, deadline_s=_OBSERVE_S)
    except SnaprepError as error:
        return HostFacts(name=name, live_name=dataset, error=error.info)


def judge(session: Session, info: ErrorInfo) -> ErrorInfo:
    """The error as it is shown: who serves is looked at once more, and the exit code is the safety state."""
    return judged(info, observe(session), acted=session.acted)


@contextlib.contextmanager
def opened(pair: Pair) -> Iterator[Session]:
    """A session for one verb. Whatever ends it says who serves. Raises SnaprepError with a code of its safety state."""
    with Session.open(pair) as session:
        try:
            yield session
        except SnaprepError as error:
            raise from_info(judge(session, error.info)) from error
