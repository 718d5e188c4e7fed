"""A replica that is fed: booted so that nothing in its files is rolled back, and taken down or promoted.

`startSlave` boots twice; the first boot rolls back on disk what is open in the files, which a feed would go on with.
The attributes that Derby itself uses for its second boot do without the first. They are documented nowhere, so
`probe.py` tries them on this engine before anything rests on them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from snaprep.core.errors import Stopped
from snaprep.engines.derby import files, sockets
from snaprep.engines.derby.client import ClientDied, ClientError, Pending, SqlError, SqlTimeout
from snaprep.engines.derby.feed.peer import Feeding, OutOfStep, PeerLost, PeerRefused
from snaprep.engines.derby.feed.peer_codec import NotDerby
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log.scan import LogPosition
from snaprep.engines.derby.session import STEP_S, Session, answer_of, files_told, must_be_free

MODE, SLAVE = "replication.slave.mode", "slavemode"
NAME = "replication.slave.dbname"
_SEE = "look at the replica's derby.log"
_AGAIN_S = 0.02
_LEAVES_S = 10.0  # one that was told to stop goes by itself


class FedReplica:
    """A database of a session's server as a replica of a feed: the session's own, unless another is named."""

    def __init__(
        self, session: Session, directory: Path | None = None, port: int | None = None, address: str = "127.0.0.1"
    ) -> None:
        """`address` is where it listens: on loopback, unless a primary is to come by itself."""
        self.session = session
        self._directory = directory
        self.port = port or session.spec.listen_port
        self.address = address
        self._pending: Pending | None = None

    @property
    def directory(self) -> Path:
        return self._directory or self.session.directory

    @property
    def _connection(self) -> str:
        return f"fed-{self.port}"

    @property
    def booted(self) -> bool:
        return files.locked(self.directory)

    def end(self) -> LogPosition:
        """Where its log ends on disk; a running one has up to 100 KiB more in memory. Raises `log-damaged`."""
        with files_told():
            return log.log_end(files.log_directory(self.directory))

    def boot(self, deadline_s: float = 60) -> None:
        """Boot the copy as a replica and see it listen, without connecting to it. It must not be booted already.

        Raises `replica-not-armed`, `replication-port-taken`.
        """
        with files_told():
            files.remove_lock_files(self.directory)
        attributes = {
            MODE: SLAVE,
            NAME: str(self.directory),  # the name by which the replica closes itself, when it is told to stop or breaks
            "slaveHost": self.address,
            "slavePort": str(self.port),
        }
        ends = time.monotonic() + deadline_s
        self._pending = self.session.begin(self._connection, str(self.directory), **attributes)
        while not self.session.server_listens(self.port):
            if time.monotonic() > ends:
                raise self._not_armed()
            if self._pending.done():
                # A server that has only just let go of the database refuses for a moment.
                if not self._refused_for_now():
                    must_be_free(self.port)
                    raise self._not_armed()
                time.sleep(_AGAIN_S)
                self._pending = self.session.begin(self._connection, str(self.directory), **attributes)
            time.sleep(STEP_S)
        with contextlib.suppress(OSError, ValueError):
            sockets.no_delay(self._server(), local_port=self.port)

    def _not_armed(self) -> Stopped:
        assert self._pending is not None
        return Stopped("replica-not-armed", f"the replica does not listen: {answer_of(self._pending)}", hint=_SEE)

    def _server(self) -> int:
        pid = self.session.server_pid
        if pid is None:
            raise Stopped("engine-down", "the replica's Derby server is gone", hint="start it")
        return pid

    def _refused_for_now(self) -> bool:
        try:
            assert self._pending is not None
            self._pending.wait(0)
        except SqlError as error:
            return "08004" in error.sqlstates
        except (ClientDied, ClientError):
            return False
        return False

    def connect(self, position: LogPosition, deadline_s: float = 10) -> Feeding:
        """Connect to the replica, which was booted with its log ending there.

        Raises `replica-out-of-step`: then it has shut down. Raises `replica-lost`.
        """
        with peer_told():
            return Feeding.begin(self.address, self.port, position, deadline_s=deadline_s)

    def stop(self, feeding: Feeding | None = None, deadline_s: float = 60) -> LogPosition:
        """Take the replica down, all it has received written out; fine when it is down. Returns where its log ends.

        Raises `replica-not-stopped`.
        """
        if feeding is not None:
            with contextlib.suppress(PeerLost, NotDerby):
                feeding.stop(deadline_s)
        ends = time.monotonic() + deadline_s
        began_s = time.monotonic()
        while self.booted:
            if time.monotonic() > ends:
                what = "the server keeps the replica open"
                raise Stopped("replica-not-stopped", what, hint="restart the Derby server there")
            if feeding is None or time.monotonic() - began_s > _LEAVES_S:
                self._push_out()
            time.sleep(STEP_S)
        return self.end()

    def _push_out(self) -> None:
        """Without its listening socket a replica whose feed is gone shuts down by itself, and writes its log out."""
        pid, port = self.session.server_pid, self.port
        if pid is None:
            return
        with contextlib.suppress(OSError):
            sockets.cut(pid, local_port=port)
            if sockets.stop_listening(pid, port):
                return
        with contextlib.suppress(SqlError, SqlTimeout, ClientDied):
            self.session.connect("replica-stop", 10, str(self.directory), stopSlave="true")

    def promote(self, feeding: Feeding, deadline_s: float = 300) -> None:
        """Replay what was received and become an ordinary database, open for clients: there is no way back.

        Raises `promote-failed`.
        """
        ends = time.monotonic() + deadline_s
        try:
            feeding.failover(deadline_s)
        except (PeerLost, PeerRefused, NotDerby) as error:
            raise Stopped("promote-failed", f"the replica did not take over: {error}", hint=_SEE) from error
        while True:  # it answers before it lets anybody in
            try:
                return self.session.connect(self._connection, max(0.1, ends - time.monotonic()), str(self.directory))
            except (SqlError, SqlTimeout, ClientDied) as error:
                if time.monotonic() > ends or "slave" not in str(error).lower():
                    what = f"the replica took over, but does not open: {error}"
                    raise Stopped("promote-failed", what, hint=_SEE) from error
                time.sleep(STEP_S)


@contextlib.contextmanager
def peer_told() -> Iterator[None]:
    """Turn what goes wrong between a feed and its replica into an error of ours."""
    try:
        yield
    except OutOfStep as error:
        what = f"the replica's log goes on at {error.theirs}, the feed at {error.ours}"
        raise Stopped(
            "replica-out-of-step", what, hint="boot the replica again, and feed from its log's end"
        ) from error
    except (PeerLost, PeerRefused, NotDerby) as error:
        raise Stopped("replica-lost", str(error), hint=_SEE) from error
