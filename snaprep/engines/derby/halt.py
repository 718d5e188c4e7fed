"""Holding the clients of a database, and letting them go on: freeze and thaw, the gate, shutting down."""

from __future__ import annotations

import contextlib
import time

from snaprep.agent.process import patient_s
from snaprep.core.errors import Stopped
from snaprep.engines.base import Quiesced
from snaprep.engines.derby import files, gate, sockets
from snaprep.engines.derby.client import ClientDied, ClientError, DerbyClient, SqlError, SqlTimeout
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.session import ADMIN, SPARE, InFlight, Session, files_told, told

_FREEZE = "CALL SYSCS_UTIL.SYSCS_FREEZE_DATABASE()"
_THAW = "CALL SYSCS_UTIL.SYSCS_UNFREEZE_DATABASE()"
_CHECKPOINT = "CALL SYSCS_UTIL.SYSCS_CHECKPOINT_DATABASE()"
_FILLER = "snaprep.filler"
_FILL_CHARS = 30_000
# What a primary has in memory, ten buffers of 32 KiB, it sends when nearly all are full; else only every 5 s.
_PUSHES_BYTES = 640 << 10
_FILLS_MOST = 100  # each is some 40 KiB of log; files have 1 MiB, unless the site has set more
_BOOTS_MOST = 3  # one is usual; `attach` refuses a log that still does not rest
_AT_WORK_S = 0.3  # for statements to end; clients are not heard any more
_LOOKER = "looker"
_LOOK_S, _ANSWERS_S = 0.005, 5.0
# Of a transaction that is prepared a transaction manager knows the end; nobody here rolls it back.
_WRITING = (
    "SELECT XID FROM SYSCS_DIAG.TRANSACTION_TABLE "
    "WHERE TYPE = 'UserTransaction' AND FIRST_INSTANT IS NOT NULL AND STATUS <> 'PREPARED'"
)
_SHUT_DOWN = frozenset({"08006", "XJ015"})


class Halt:
    """The dangerous calls are made by one guard at a time; the others may come from anywhere."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._ready: DerbyClient | None = None  # the client on which the thaw stands prepared
        self._flushed: log.LogPosition | None = None  # where the log ended when nothing was dirty

    def ready_to_thaw(self) -> None:
        """Two connections with the thaw prepared and run once, before anything is frozen."""
        client = self.session.client
        if self._ready is client and self.session.usable(ADMIN) and self.session.usable(SPARE):
            return
        self.session.admin()
        for name in (ADMIN, SPARE):
            if not self.session.usable(name):
                self.session.connect(name, 10)
            self.session.client.prepare(name, "thaw", _THAW, 10)
            self.session.client.run(name, "thaw", 10)
        self.session.client.prepare(ADMIN, "freeze", _FREEZE, 10)
        self.session.client.set_last_words([(SPARE, "thaw"), (ADMIN, "thaw")], bound_s=5)
        self._ready = client

    def freeze(self, deadline_s: float = 20) -> None:
        """Flush and hold all commits. Raises `freeze-failed`, or InFlight: a thaw that overtakes its freeze is lost."""
        pending = self.session.client.begin_run(ADMIN, "freeze")
        try:
            pending.wait(deadline_s)
        except SqlTimeout as error:
            what = f"the database did not freeze within {deadline_s:g} s"
            raise InFlight("freeze-failed", what, pending, hint="it flushes much: see docs/derby.md") from error
        except (SqlError, ClientDied, ClientError) as error:
            raise Stopped("freeze-failed", f"the database did not freeze: {error}", hint="look at derby.log") from error

    def thaw(self, deadline_s: float = 5) -> None:
        """Let commits go on; fine when nothing is frozen. Raises `thaw-failed` when no connection answers."""
        for name in (SPARE, ADMIN):
            try:
                self.session.client.run(name, "thaw", deadline_s)
            except (SqlError, SqlTimeout, ClientDied, ClientError):
                continue
            return
        self.thaw_anew()

    def thaw_anew(self) -> None:
        """Thaw without anything prepared."""
        with told("thaw-failed", "the database could not be thawed"):
            self.session.client.execute(self.session.admin(), _THAW, deadline_s=10)

    def checkpoint(self) -> None:
        """Flush what is dirty; nothing is when the log has not moved since the last time."""
        with files_told():
            end = log.log_end(self.session.directory / "log")
        if end == self._flushed:
            return
        with told("checkpoint-failed", "the checkpoint failed"):
            self.session.client.execute(self.session.admin(), _CHECKPOINT, deadline_s=60)
        with files_told():
            self._flushed = log.log_end(self.session.directory / "log")

    def roll_log(self, deadline_s: float = 20) -> int:
        """Checkpoint, and make the log go on in a new file; returns the checkpoint's place, as an instant.

        A replica replays a file when the next one has begun; what is left it replays while clients wait. Derby switches
        files by their size alone, so this one is filled: a property of ours is set until it is long enough, and until
        so much of the next is written that the primary sends its beginning at once. Where files are very long it is
        left as it is.
        """
        ends = time.monotonic() + deadline_s
        self.checkpoint()
        with files_told():
            directory = files.log_directory(self.session.directory)
            place, first = log.checkpoint(directory), log.log_end(directory)
            with told("checkpoint-failed", "the log could not be made to go on in a new file"):
                for _ in range(_FILLS_MOST):
                    end = log.log_end(directory)
                    pushed = end.file > first.file and end.offset >= _PUSHES_BYTES
                    if pushed or time.monotonic() > ends:
                        break
                    gate.set_property(self.session.client, ADMIN, _FILLER, "x" * _FILL_CHARS, 10)
                gate.set_property(self.session.client, self.session.admin(), _FILLER, None, 10)
        return place.instant

    def gate_prepare(self) -> None:
        """Store the gate's former values while clients still work, and flush what a shutdown would have to."""
        with told("gate-failed", "the gate could not be prepared"):
            gate.save(self.session.client, self.session.admin(), 10)
        self.checkpoint()

    def gate_close(self) -> None:
        with told("gate-failed", "the gate could not be closed"):
            name = self.session.admin()
            gate.save(self.session.client, name, 10)
            gate.close(self.session.client, name, self.session.spec.user, 5)

    def gate_open(self, deadline_s: float = 15) -> None:
        """Open the database if it is closed, and put the gate's former values back; fine when they are back."""
        files.bring_back(self.session.directory)
        with told("gate-failed", "the gate could not be opened"):
            gate.open_again(self.session.client, self.session.admin(deadline_s), deadline_s)

    def stamp(self, generation: int) -> None:
        with told("stamp-failed", "the generation could not be stamped"):
            gate.set_property(self.session.client, self.session.admin(), gate.GENERATION, str(generation), 10)

    def quiesce(self, deadline_s: float = 10) -> Quiesced:
        """Shut down, open once so that open transactions are rolled back, shut down again, until the log rests.

        One shutdown is not enough: it leaves what other sessions had open in the files. The second is not enough when
        the log goes on in a new file in the middle of it: a boot writes a checkpoint when the last one lies in another
        file than the end of the log.
        """
        directory = self.session.directory / "log"
        self.shut_down(deadline_s)
        for _ in range(_BOOTS_MOST):
            self._open_between(deadline_s)
            self.shut_down(deadline_s)
            with files_told():
                last = log.checkpoint(directory)  # before the end: a client that boots it now writes one of its own
                end = log.log_end(directory)
            if last.file == end.file:
                break
        return Quiesced(position=end.instant, position_text=str(end))

    def _open_between(self, deadline_s: float) -> None:
        pending = self.session.begin(ADMIN)
        what = "the database did not open between its two shutdowns"
        try:
            with told("quiesce-failed", what):
                pending.wait(deadline_s)
        except Stopped as error:
            if pending.done():
                raise
            raise InFlight("quiesce-failed", what, pending) from error

    def retire(self, deadline_s: float = 10) -> Quiesced:
        """Shut down so that clients cannot boot it again: what was open stays open in the files, for who goes on.

        A replica gets all of the log before its primary has shut down.
        """
        directory = self.session.directory
        files.put_away(directory)
        self.shut_down(deadline_s)
        with files_told():
            end = log.log_end(files.log_directory(directory))
        return Quiesced(position=end.instant, position_text=str(end))

    def open_shut(self, deadline_s: float = 60) -> None:
        """Open a database whose gate is closed; recovery rolls back what is open in its files.

        Raises `gate-open`: then it is shut down again.
        """
        with told("open-failed", "the database did not open"):
            name = self.session.admin(deadline_s)
            closed = gate.state(self.session.client, name, 10).closed
        if not closed:
            self.shut_down()
            what = "the gate of the copy is not closed, as that of its source is"
            raise Stopped(
                "gate-open", what, hint="somebody has changed its properties: `snaprep rebuild` makes it anew"
            )

    def shut_down(self, deadline_s: float = 10) -> None:
        """Shut the database down; fine when it is. Sessions of others end with 08006 or 58009."""
        self._ready = None
        pid = self.session.server_pid
        if pid is not None:
            _send_away(pid, self.session, deadline_s)
        pending = self.session.begin("shutdown", shutdown="true")
        hint = f"look at derby.log; a server that hangs has to be restarted (pid {pid})"
        try:
            pending.wait(deadline_s)
        except SqlError as error:
            if not _SHUT_DOWN & set(error.sqlstates):
                raise Stopped("shutdown-failed", f"the database did not shut down: {error}", hint=hint) from error
        except SqlTimeout as error:
            what = f"the database did not shut down within {deadline_s:g} s"
            raise InFlight("shutdown-failed", what, pending, hint=hint) from error
        except ClientDied as error:
            raise Stopped("shutdown-failed", f"the database did not shut down: {error}", hint=hint) from error


def _send_away(pid: int, session: Session, deadline_s: float) -> None:
    """End the sessions of clients before a shutdown would, so that none is at work when it comes.

    A shutdown ends what it meets at its next step, in the middle of splitting a page, too. Nobody lets go of that page
    any more, the shutdown waits for it for ever, and only a kill of the server helps. A session that hears no more of
    its client ends its statement first, and tells how it ended. One whose statement takes long is left to the shutdown,
    and so are all of a server that has other databases open, for nothing shows which session belongs to which, and of
    one whose sockets we may not touch.
    """
    if files.booted_by(pid) != {str(session.directory.resolve())}:
        return
    port, before = session.spec.port, _our_ports(session)
    with contextlib.suppress(SqlError, SqlTimeout, ClientDied, ClientError):  # the shutdown will tell what is wrong
        session.connect(_LOOKER, _ANSWERS_S)
        _writing(session)  # once before anybody waits for it
    with contextlib.suppress(PermissionError, ProcessLookupError):
        lookers = _our_ports(session) - before
        at_work = sockets.end_sessions(pid, port, patient_s(_AT_WORK_S), but=lookers)
        _await_rollbacks(session, at_work, deadline_s)


def _our_ports(session: Session) -> set[int]:
    """From which our client is connected to the server."""
    return {found.local_port for found in sockets.connections(session.client.pid, remote_port=session.spec.port)}


def _await_rollbacks(session: Session, at_work: int, deadline_s: float) -> None:
    """Wait until what ended sessions had open is rolled back; that begins only when their sockets are closed.

    A shutdown in the middle of it is taken for a broken store: Derby ends without a checkpoint, and with errors in its
    log that no DBA should have to read. Nobody waits longer for it: what is not rolled back now, the next boot does.
    """
    ends = time.monotonic() + deadline_s
    with contextlib.suppress(SqlError, SqlTimeout, ClientDied, ClientError):
        ended = left = _writing(session)
        while len(ended & left) > at_work and time.monotonic() < ends:
            time.sleep(_LOOK_S)
            left = _writing(session)


def _writing(session: Session) -> set[str | None]:
    return {row[0] for row in session.client.execute(_LOOKER, _WRITING, deadline_s=_ANSWERS_S).rows}
