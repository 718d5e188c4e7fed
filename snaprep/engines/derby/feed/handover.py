"""From a feed to Derby's own replication without booting the replica again.

A replica that has got log in its session takes a primary only when that names the place of the very last record that
the replica got. A primary names the end of its log, except when it has shipped log before in this boot: then it names
the last record that it shipped. So the primary, its clients shut out, first replicates to a stand-in of ours on its own
host, for one commit; the feed brings that commit to the replica; and then both name the same record.
"""

from __future__ import annotations

import contextlib
import socket
import time

from snaprep.core.errors import Stopped, VerifyFailed
from snaprep.engines.derby import files, gate, sockets
from snaprep.engines.derby.client import ClientDied, ClientError, Pending, SqlError, SqlTimeout
from snaprep.engines.derby.feed.peer import OutOfStep, PeerLost, StandIn
from snaprep.engines.derby.feed.peer_codec import Kind, NotDerby
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.session import ADMIN, SOMEBODY_OPENED, InFlight, Session, files_told

_MARK = "snaprep.handover"
_HINT = "look at derby.log; open the gate again"


def ship_mark(session: Session, deadline_s: float = 15) -> int:
    """Boot the database as a primary of a stand-in, commit once, and leave that role. Returns the log's end.

    The gate must be closed and the database shut down: what clients had open is rolled back by this boot, and nobody
    else may commit until it returns. Afterwards: feed up to the position and leave the replica, attach, `must_end_at`,
    open the gate. Raises `handover-failed`: then open the gate, and switch over the long way. Raises InFlight when
    `startMaster` does not return although its connection was cut.
    """
    ends = time.monotonic() + deadline_s
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        begun = session.begin(ADMIN, startMaster="true", slaveHost="127.0.0.1", slavePort=str(port))
        try:
            stand_in = StandIn.accept(listener, None, deadline_s=deadline_s)
        except (PeerLost, NotDerby, OutOfStep) as error:
            listener.close()
            _await_return(begun, session, port)
            raise Stopped("handover-failed", f"the database did not become a primary: {error}", hint=_HINT) from error
    try:
        begun.wait(_left(ends))
        gate.set_property(session.client, ADMIN, _MARK, str(time.time_ns()), _left(ends))
        stopped = session.begin("handover", stopMaster="true")
        while stand_in.receive(_left(ends)).kind != Kind.STOP:
            continue
        stopped.wait(_left(ends))
    except (SqlError, SqlTimeout, ClientDied, ClientError, PeerLost, NotDerby) as error:
        stand_in.close()
        _await_return(begun, session, port)
        raise Stopped("handover-failed", f"the commit before the handover failed: {error}", hint=_HINT) from error
    finally:
        stand_in.close()
    return _end(session).instant


def must_end_at(session: Session, position: int) -> None:
    """After the attach, before the gate opens: the replica got all that was logged. Raises `log-ends-differ`."""
    end = _end(session)
    if end.instant != position:
        there = log.LogPosition.from_instant(position)
        what = f"the log ends at {end}, the replica was fed up to {there}"
        raise VerifyFailed("log-ends-differ", what, hint=SOMEBODY_OPENED)


def _end(session: Session) -> log.LogPosition:
    with files_told():
        return log.log_end(files.log_directory(session.directory))


def _await_return(begun: Pending, session: Session, port: int) -> None:
    """Nothing may commit before `startMaster` has returned, and it returns when its connection is gone."""
    pid = session.server_pid
    if pid is not None:
        with contextlib.suppress(OSError):
            sockets.cut(pid, remote_port=port)
    with contextlib.suppress(SqlError, ClientDied, ClientError):
        try:
            begun.wait(10)
        except SqlTimeout as error:
            raise InFlight("attach-hangs", "startMaster does not return", begun) from error


def _left(ends_s: float) -> float:
    return max(0.01, ends_s - time.monotonic())
