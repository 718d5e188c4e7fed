"""`reopen`: a database that a dead guard left halted is let go on, whatever that guard had begun."""

from __future__ import annotations

import os
import signal

import pytest

from snaprep.engines.derby import sockets
from snaprep.engines.derby.client import SqlTimeout
from snaprep.engines.derby.host import DerbyHost
from snaprep.engines.derby.session import ADMIN, Session
from tests.engines.derby.pairs import Two
from tests.rig.node import wait_until

pytestmark = pytest.mark.derby
_FREEZE = "CALL SYSCS_UTIL.SYSCS_FREEZE_DATABASE()"


def test_a_freeze_that_ends_after_its_client_is_thawed(pair: Two) -> None:
    """A client died while its freeze flushed: the freeze comes after a first thaw, and is taken back as well."""
    pair.halt.ready_to_thaw()
    guards = Session(pair.at_source.spec)
    host = DerbyHost(pair.at_source.spec)
    for session in (guards, host.session):
        session.connect(ADMIN, 20)  # nobody gets in while it is frozen
    pair.halt.freeze()  # what a freeze waits for that comes now, as another does for what it flushes
    with pytest.raises(SqlTimeout):
        guards.client.execute(ADMIN, _FREEZE, deadline_s=1)
    os.kill(guards.client.pid, signal.SIGKILL)
    wait_until(lambda: sockets.orphans(pair.source.pid, pair.source.port) == 1, "an orphan", 10)
    try:
        host.reopen()
        host.session.client.execute(ADMIN, "INSERT INTO snaprep.t VALUES (1, 1, 'on')", deadline_s=5)
    finally:
        host.close()
        guards.close()
