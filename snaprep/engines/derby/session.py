"""Connections of ours to one database: the client, its URLs, and what its errors mean.

Derby opens a database for the first session that asks, and opening a copy changes it. So nothing connects before the
files have said that a server has the database open (`dbex.lck`), except where opening is the purpose. For the same
reason a replica does not stand at the path that clients know: a client that tries this host, or comes before the server
was told that it is a replica, finds no database, instead of opening a second primary. A take-over moves it there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from snaprep.agent import process
from snaprep.core.errors import CheckFailed, SnaprepError, Stopped
from snaprep.core.spec import DerbySpec
from snaprep.engines.derby import files, sockets
from snaprep.engines.derby.client import ClientDied, ClientError, DerbyClient, Pending, SqlError, SqlTimeout
from snaprep.engines.derby.log import scan as log

ADMIN = "admin"  # the connection for everything that has no reason to use another
SPARE = "spare"  # a second one, for when the first hangs
SOMEBODY_OPENED = "somebody opened the source or the copy in between; run it again"
STEP_S = 0.005  # how often files and sockets are looked at while a server gets there


class InFlight(Stopped):
    """A statement did not come back in time, and goes on in the server. `pending` tells when it has."""

    def __init__(self, id: str, what: str, pending: Pending, *, hint: str = "restart the Derby server") -> None:
        super().__init__(id, what, hint=hint)
        self.pending = pending


class Session:
    """One database of one server. Any thread may call."""

    def __init__(self, spec: DerbySpec) -> None:
        self.spec = spec
        self.served = Path(spec.database)
        self.replica = Path(spec.replica_database or spec.database)
        self._client: DerbyClient | None = None

    @property
    def alive(self) -> bool:
        """Our client runs; asking does not start one."""
        return self._client is not None and self._client.alive

    @property
    def server_pid(self) -> int | None:
        return sockets.listener(self.spec.port)

    def server_listens(self, port: int) -> bool:
        """The server itself waits there, for a primary or a feed; a stranger on the port does not count."""
        if not sockets.listens(port):
            return False  # looking for who listens walks through every process
        pid = self.server_pid
        return pid is not None and sockets.listener(port) == pid

    @property
    def directory(self) -> Path:
        """Where the database is now: at the path that clients know, or at the replica's."""
        return self.replica if files.is_database(self.replica) else self.served

    @property
    def client(self) -> DerbyClient:
        if self._client is None or not self._client.alive:
            self._client = DerbyClient.start(self.equipment(), java=self.spec.java)
        return self._client

    def equipment(self) -> tuple[str, ...]:
        """The jars of our client. Raises `no-java`, `no-derby-client`: nothing can be done here without them."""
        if shutil.which(self.spec.java, path=process.environment()["PATH"]) is None:
            what = f"there is no {self.spec.java} on this host"
            raise CheckFailed("no-java", what, hint="install a JRE, or set derby.java to its path")
        try:
            return files.classpath(self.spec.classpath)
        except FileNotFoundError as error:
            hint = "install Derby's client, or set derby.classpath"
            raise CheckFailed("no-derby-client", str(error), hint=hint) from error

    def close(self) -> None:
        if self._client is not None:
            self._client.shutdown()
            self._client = None

    def url(self, database: str = "", **attributes: str) -> str:
        """The client's URL; a path may be absolute, which gives two slashes after the port."""
        tail = "".join(f";{key}={value}" for key, value in attributes.items())
        return f"jdbc:derby://{self.spec.host}:{self.spec.port}/{database or self.directory}{tail}"

    def begin(self, name: str, database: str = "", **attributes: str) -> Pending:
        """Begin to connect; the answer comes by itself."""
        return self.client.begin_open(name, self.url(database, **attributes), self.spec.user, self.spec.password)

    def connect(self, name: str, deadline_s: float, database: str = "", **attributes: str) -> None:
        self.begin(name, database, **attributes).wait(deadline_s)

    def admin(self, deadline_s: float = 10) -> str:
        """An open connection of ours. Opens the database when it is closed, so call it only where that is meant."""
        with told("engine-refused", "the database does not let us in"):
            if not self.usable(ADMIN):
                self.connect(ADMIN, deadline_s)
        return ADMIN

    def usable(self, name: str) -> bool:
        try:
            self.client.execute(name, "VALUES 1", deadline_s=3)
        except (SqlError, ClientError, SqlTimeout, ClientDied):
            return False
        return True


def must_be_free(port: int) -> None:
    """Nobody may hold the port on which a replica will wait. Raises `replication-port-taken`."""
    if sockets.listens(port):
        what = f"process {sockets.listener(port)} listens on port {port}, where the replica has to wait"
        raise CheckFailed("replication-port-taken", what, hint="end it, or choose another derby.replication.port")


def answer_of(pending: Pending) -> str:
    """What the boot of a replica, which is answered when its replication ends, has said so far."""
    if not pending.done():
        return "it says nothing"
    try:
        pending.wait(0)
    except (SqlError, ClientDied, ClientError) as error:
        return str(error)
    return "it opened as an ordinary database"


@contextlib.contextmanager
def files_told() -> Iterator[None]:
    """Turn what is wrong with a database's files into an error of ours."""
    try:
        yield
    except (log.LogDamaged, log.LogGone) as error:
        raise CheckFailed("log-damaged", str(error), hint="look at derby.log; see docs/what-if.md") from error
    except files.NotADatabase as error:
        raise CheckFailed("not-a-database", str(error), hint="check derby.database") from error
    except BlockingIOError as error:
        raise Stopped("copy-opened", f"the copy is open already: {error}", hint="see who opened it") from error


@contextlib.contextmanager
def told(id: str, what: str) -> Iterator[None]:
    """Turn what the client says into an error of ours."""
    try:
        yield
    except (SqlError, SqlTimeout, ClientDied, ClientError) as error:
        raise _error(id, what, error) from error


def _error(id: str, what: str, error: Exception) -> SnaprepError:
    states = error.sqlstates if isinstance(error, SqlError) else ()
    if "08004" in states and "authentication" in str(error).lower():
        return CheckFailed(
            "login-refused-by-engine", f"Derby refused our login: {error}", hint="check derby.user and password_file"
        )
    if "08001" in states:
        return CheckFailed("engine-down", f"the Derby server does not answer: {error}", hint="start it")
    return Stopped(id, f"{what}: {error}")
