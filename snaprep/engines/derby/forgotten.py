"""Having a Derby server close the files that it has forgotten.

A replica that is told to stop leaves the log file open that it was reading, until the server's Java next collects what
nobody refers to. On a server with little to do that takes minutes, and as long its database cannot be unmounted. Derby
runs any public static method as a procedure: so its Java can be asked, by way of a database in memory.
"""

from __future__ import annotations

import contextlib

from snaprep.engines.derby.client import ClientDied, ClientError, SqlError, SqlTimeout
from snaprep.engines.derby.session import Session

_NAME = "forgotten"
_DATABASE = "memory:snaprep-forgotten"
_CREATE = "CREATE PROCEDURE COLLECT() LANGUAGE JAVA PARAMETER STYLE JAVA NO SQL EXTERNAL NAME 'java.lang.System.gc'"
_CALL_S = 5.0
_REFUSED = (SqlError, SqlTimeout, ClientDied, ClientError)


def close_forgotten(session: Session) -> None:
    """Ask for it. A server that refuses keeps them a while longer; nothing else depends on it."""
    with contextlib.suppress(*_REFUSED):
        session.connect(_NAME, _CALL_S, _DATABASE, create="true")
        for statement in (_CREATE, "CALL COLLECT()"):
            session.client.execute(_NAME, statement, deadline_s=_CALL_S)
    with contextlib.suppress(*_REFUSED):
        session.connect(_NAME, _CALL_S, _DATABASE, drop="true")
