"""What a database is doing, found without opening it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from snaprep.core.errors import SnaprepError
from snaprep.core.model import EngineFacts, EngineState, KeptLog, Transactions
from snaprep.core.spec import DerbySpec
from snaprep.engines.derby import files, gate, server, sockets
from snaprep.engines.derby.client import ClientDied, SqlError, SqlTimeout
from snaprep.engines.derby.halt import Halt
from snaprep.engines.derby.log import archive
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.replication import Replication
from snaprep.engines.derby.session import ADMIN, Session, files_told

_REFUSED = "08004"
_TRANSACTIONS = (
    "SELECT GLOBAL_XID, USERNAME, TYPE, STATUS, FIRST_INSTANT, XID FROM SYSCS_DIAG.TRANSACTION_TABLE "
    "WHERE TYPE = 'UserTransaction'"
)


class State:
    """Looks at one database. Remembers since when it has seen which transaction open, which Derby does not say, and
    how much log was written meanwhile.
    """

    def __init__(self, session: Session, halt: Halt, replication: Replication) -> None:
        self.session = session
        self.halt = halt
        self.replication = replication
        self._seen: dict[str, float] = {}
        self._end: log.LogPosition | None = None
        self._logged_bytes = 0
        self._version: tuple[int, str] = (0, "")

    def facts(self, guarded: str = "") -> EngineFacts:
        """What the database is doing, without opening it when nobody has.

        `guarded` says what a guard does with it at present: frozen or gated. Then nobody connects, because between its
        two shutdowns that would open it.
        """
        self.session.equipment()  # what could not be gone on with later is told now
        server_pid = self.session.server_pid
        if not files.is_database(self.session.directory):
            return EngineFacts(
                state=EngineState.ABSENT,
                server_up=server_pid is not None,
                server_pid=server_pid,
                server_version=self._server_version(server_pid),
            )
        files.refuse_unsupported(self.session.directory)
        with files_told():
            end = log.log_end(self.session.directory / "log")
        base = EngineFacts(
            state=EngineState.CLOSED,
            server_up=server_pid is not None,
            server_pid=server_pid,
            server_version=self._server_version(server_pid),
            position=end.instant,
            position_text=str(end),
            logged_bytes=self._logged(end),
            replicating=self.replication.connected,
        )
        if guarded:
            return replace(base, state=EngineState(guarded))
        if files.locked_by(self.session.directory) is None:
            away = files.is_away(self.session.directory)
            return replace(base, state=EngineState.GATED, gate_saved=True) if away else base
        return self._open_facts(base)

    def outside(self) -> EngineFacts:
        """What the lock tells of a database that `facts` refuses to look into: whether it is open, in which process.

        Nobody connects: where it is closed, that would open it, or try to.
        """
        server_pid, opened_by = self.session.server_pid, files.locked_by(self.session.directory)
        if not files.is_database(self.session.directory):
            return EngineFacts(server_up=server_pid is not None, server_pid=server_pid)
        note = ""
        if opened_by is not None:
            note = f"process {opened_by} has it open" if opened_by else "a process that cannot be seen has it open"
        if opened_by is not None and opened_by == server_pid:
            note += f" and listens on port {self.session.spec.port}"
        return EngineFacts(
            state=EngineState.CLOSED if opened_by is None else EngineState.UNKNOWN,
            server_up=server_pid is not None,
            server_pid=server_pid,
            note=note,
        )

    def _server_version(self, pid: int | None) -> str:
        """Looked up once for each process: it is read from its jar."""
        if pid is not None and self._version[0] != pid:
            self._version = pid, server.read(pid).version
        return self._version[1] if pid is not None else ""

    def _logged(self, end: log.LogPosition) -> int:
        """Bytes of log since the first look."""
        if self._end is not None:
            self._logged_bytes += log.written_bytes(self.session.directory / "log", self._end, end)
        self._end = end
        return self._logged_bytes

    def _open_facts(self, base: EngineFacts) -> EngineFacts:
        if self.replication.waits():
            # Sessions would hang until its primary comes, those of an operator who died included.
            return replace(base, state=EngineState.WAITING)
        boot = files.boot(self.session.directory)
        try:
            if not self.session.usable(ADMIN):
                self.session.connect(ADMIN, 5)
            if self.replication.is_replica and files.boot(self.session.directory) != boot:
                # It ended in this very moment, and our session has opened it, as an ordinary database.
                self.halt.shut_down()
                return base
            state = gate.state(self.session.client, ADMIN, 5)
            stamped = gate.get_property(self.session.client, ADMIN, gate.GENERATION, 5)
            transactions = self._transactions()
        except SqlError as error:
            return replace(base, state=self._refused_state(error), note=str(error))
        except (SqlTimeout, ClientDied) as error:
            return replace(base, state=EngineState.UNKNOWN, note=str(error))
        return replace(
            base,
            state=EngineState.GATED if state.closed else EngineState.PRIMARY,
            kept_log=self._kept_log(),
            gate_saved=state.saved,
            generation=int(stamped) if stamped else None,
            transactions=transactions,
        )

    def _kept_log(self) -> KeptLog | None:
        """None when it cannot be seen."""
        try:
            found = archive.state(self.session)
        except SnaprepError:
            return None
        return KeptLog(
            wanted=found.wanted,
            due=found.due,
            since=found.since,
            ours=found.ours,
            first=log.LogPosition(found.first_file, log.HEADER_BYTES).instant,
        )

    def _refused_state(self, error: SqlError) -> EngineState:
        if not (_REFUSED in error.sqlstates and "slave" in str(error).lower()):
            return EngineState.UNKNOWN
        pid = self.session.server_pid
        connected = pid is not None and sockets.connected(pid, local_port=self.session.spec.listen_port)
        waiting = sockets.listener(self.session.spec.listen_port) is not None and not connected
        return EngineState.WAITING if waiting else EngineState.REPLICA

    def _transactions(self) -> Transactions:
        """Open work of others. Derby does not say when a transaction began; the age is how long we have seen it."""
        rows = self.session.client.execute(ADMIN, _TRANSACTIONS, deadline_s=5).rows
        now = time.monotonic()
        mine = [(r[1] or "").upper() == self.session.spec.user.upper() for r in rows]
        others = [r for r, is_mine in zip(rows, mine, strict=True) if r[4] is not None and not is_mine]
        ids = {str(r[5]) for r in others}
        self._seen = {i: self._seen.get(i, now) for i in ids}
        return Transactions(
            open=len(others),
            oldest_s=max((now - t for t in self._seen.values()), default=0.0),
            in_doubt=sum(1 for r in rows if (r[3] or "").upper() == "PREPARED"),
            of_our_user=_foreign_sessions(self.session.spec, sum(mine)),
        )


def _foreign_sessions(spec: DerbySpec, sessions: int) -> int:
    """Of so many sessions under our user's name, those that no client of ours on this host holds.

    The gate is a list of user names, so it would let them pass.
    """
    if sessions <= 1:  # the one that asked
        return 0
    ours = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _is_helper(entry):
            ours += len(sockets.connections(int(entry.name), remote_port=spec.port))
    return max(0, sessions - ours)


def _is_helper(entry: Path) -> bool:
    try:
        return (entry / "cmdline").read_bytes().rstrip(b"\0").endswith(b"\0SnaprepSql")
    except OSError:
        return False
