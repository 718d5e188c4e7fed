"""A Derby database on this host, driven through its network server by the helper's client.

Derby opens a database for the first session that asks, and opening a copy changes it. So nothing here connects before the
files have said that a server has the database open (`dbex.lck`), except where opening is the purpose. For the same reason
a replica does not stand at the path that clients know: a client that tries this host, or comes before the server was told
that it is a replica, finds no database, instead of opening a second primary. A take-over moves it there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import replace
from collections.abc import Iterator
from pathlib import Path

from snaprep.agent import process
from snaprep.core.errors import CheckFailed, SnaprepError, Stopped, VerifyFailed
from snaprep.core.model import EngineFacts, EngineState, Finding, Transactions
from snaprep.core.spec import DerbySpec
from snaprep.engines.base import Quiesced, Tail
from snaprep.engines.derby import check, digest, files, gate, log, sockets
from snaprep.engines.derby.client import ClientDied, ClientError, DerbyClient, Pending, SqlError, SqlTimeout

_ADMIN = "admin"
_SPARE = "spare"
_FREEZE = "CALL SYSCS_UTIL.SYSCS_FREEZE_DATABASE()"
_THAW = "CALL SYSCS_UTIL.SYSCS_UNFREEZE_DATABASE()"
_CHECKPOINT = "CALL SYSCS_UTIL.SYSCS_CHECKPOINT_DATABASE()"
_TRANSACTIONS = (
    "SELECT GLOBAL_XID, USERNAME, TYPE, STATUS, FIRST_INSTANT, XID FROM SYSCS_DIAG.TRANSACTION_TABLE "
    "WHERE TYPE = 'UserTransaction'"
)
_LEAVES_S = 1.0  # a replica whose primary said stop goes by itself, within some 50 ms
_OPENS_S = 600.0  # a copy taken at work recovers first
_STEP_S = 0.005  # how often files and sockets are looked at while a server gets there
_SHUT_DOWN = frozenset({"08006", "XJ015"})
_ATTACHED = "XRE08"
_FAILED_OVER = "XRE20"
_PEER_LIVES = "XRE41"
_NOBODY_LISTENS = "XRE04"
_REFUSED = "08004"
_WRONG_PLACES = frozenset({"XRE05"})


class DerbyHost:
    """One database. Any thread may call; the dangerous calls are made by one guard at a time."""

    def __init__(self, spec: DerbySpec) -> None:
        self.spec = spec
        self.served = Path(spec.database)
        self.replica = Path(spec.replica_database or spec.database)
        self._client: DerbyClient | None = None
        self._armed: Pending | None = None
        self._attaching: Pending | None = None
        self._seen: dict[str, float] = {}  # open transactions, by id: when we first saw them
        self._thaw_ready = False

    @property
    def directory(self) -> Path:
        """Where the database is now: at the path that clients know, or at the replica's."""
        return self.replica if (self.replica / "service.properties").is_file() else self.served

    # -- the client ----------------------------------------------------------------------------------------------

    @property
    def client(self) -> DerbyClient:
        if self._client is None or not self._client.alive:
            try:
                self._client = DerbyClient.start(files.classpath(self.spec.classpath), java=self.spec.java)
            except process.CommandMissing as error:
                what = f"there is no {self.spec.java} on this host"
                raise CheckFailed("no-java", what, hint="install a JRE, or set derby.java to its path") from error
            except FileNotFoundError as error:
                hint = "install Derby's client, or set derby.classpath"
                raise CheckFailed("no-derby-client", str(error), hint=hint) from error
            self._thaw_ready = False
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.shutdown()
            self._client = None

    def url(self, database: str = "", **attributes: str) -> str:
        """The client's URL; a path may be absolute, which gives two slashes after the port."""
        tail = "".join(f";{key}={value}" for key, value in attributes.items())
        return f"jdbc:derby://{self.spec.host}:{self.spec.port}/{database or self.directory}{tail}"

    def _connect(self, name: str, deadline_s: float, database: str = "", **attributes: str) -> None:
        self.client.open(name, self.url(database, **attributes), self.spec.user, self.spec.password, deadline_s)

    def admin(self, deadline_s: float = 10) -> str:
        """An open connection of ours. Opens the database when it is closed, so call it only where that is meant."""
        with _told("engine-refused", "the database does not let us in"):
            if not self._usable(_ADMIN):
                self._connect(_ADMIN, deadline_s)
        return _ADMIN

    def _usable(self, name: str) -> bool:
        try:
            self.client.execute(name, "VALUES 1", deadline_s=3)
        except (SqlError, ClientError, SqlTimeout, ClientDied):
            return False
        return True

    # -- facts ---------------------------------------------------------------------------------------------------

    def facts(self) -> EngineFacts:
        """What the database is doing, without opening it when nobody has."""
        server_pid = sockets.listener(self.spec.port)
        if not (self.directory / "service.properties").is_file():
            return EngineFacts(state=EngineState.ABSENT, server_up=server_pid is not None, server_pid=server_pid)
        check.refuse_unsupported(self.directory)
        end = log.log_end(self.directory / "log")
        base = EngineFacts(
            state=EngineState.CLOSED,
            version=files.version(self.directory),
            server_up=server_pid is not None,
            server_pid=server_pid,
            position=end.instant,
            position_text=str(end),
            database_bytes=files.occupied_bytes(self.directory),
            replicating=server_pid is not None and self._replicating(server_pid),
        )
        if files.locked_by(self.directory) is None:
            return base
        return self._open_facts(base)

    def _replicating(self, server_pid: int) -> bool:
        as_source = sockets.connected(server_pid, remote_port=self.spec.peer_port)
        return as_source or sockets.connected(server_pid, local_port=self.spec.listen_port)

    def _open_facts(self, base: EngineFacts) -> EngineFacts:
        try:
            if not self._usable(_ADMIN):
                self._connect(_ADMIN, 5)
            state = gate.state(self.client, _ADMIN, 5)
            stamped = gate.get_property(self.client, _ADMIN, gate.GENERATION, 5)
            transactions = self._transactions()
        except SqlError as error:
            return replace(base, state=self._refused_state(error), note=str(error))
        except (SqlTimeout, ClientDied) as error:
            return replace(base, state=EngineState.UNKNOWN, note=str(error))
        return replace(
            base,
            state=EngineState.GATED if state.closed else EngineState.PRIMARY,
            gate_saved=state.saved,
            generation=int(stamped) if stamped else None,
            transactions=transactions,
        )

    def _refused_state(self, error: SqlError) -> EngineState:
        if not (_REFUSED in error.sqlstates and "slave" in str(error).lower()):
            return EngineState.UNKNOWN
        pid = sockets.listener(self.spec.port)
        connected = pid is not None and sockets.connected(pid, local_port=self.spec.listen_port)
        waiting = sockets.listener(self.spec.listen_port) is not None and not connected
        return EngineState.WAITING if waiting else EngineState.REPLICA

    def _transactions(self) -> Transactions:
        """Open work of others. Derby does not say when a transaction began; the age is how long we have seen it."""
        rows = self.client.execute(_ADMIN, _TRANSACTIONS, deadline_s=5).rows
        now = time.monotonic()
        mine = [(r[1] or "").upper() == self.spec.user.upper() for r in rows]
        others = [r for r, is_mine in zip(rows, mine, strict=True) if r[4] is not None and not is_mine]
        ids = {str(r[5]) for r in others}
        self._seen = {i: self._seen.get(i, now) for i in ids}
        return Transactions(
            open=len(others),
            oldest_s=max((now - t for t in self._seen.values()), default=0.0),
            in_doubt=sum(1 for r in rows if (r[3] or "").upper() == "PREPARED"),
        )

            of_our_user=check.foreign_sessions(self.spec, sum(mine)),
    # -- freeze --------------------------------------------------------------------------------------------------

    def check(self, *, as_target: bool) -> list[Finding]:
        """What of the server and the database could stop a run. Changes nothing, opens nothing."""
        return check.findings(self, as_target=as_target)

    @property
    def places(self) -> tuple[Path, ...]:
        """Everything that belongs to the database, wherever links and a logDevice lead."""
        return check.places(self.directory)

    def traits(self) -> dict[str, str]:
        """What should be equal on both hosts, by name."""
        return check.traits(self)

    def ready_to_thaw(self) -> None:
        """Two connections with the thaw prepared and run once, before anything is frozen."""
        if self._thaw_ready and self._usable(_ADMIN) and self._usable(_SPARE):
            return
        self.admin()
        for name in (_ADMIN, _SPARE):
            if not self._usable(name):
                self._connect(name, 10)
            self.client.prepare(name, "thaw", _THAW, 10)
            self.client.run(name, "thaw", 10)
        self.client.prepare(_ADMIN, "freeze", _FREEZE, 10)
        self.client.set_last_words([(_SPARE, "thaw"), (_ADMIN, "thaw")], bound_s=5)
        self._thaw_ready = True

    def freeze(self, deadline_s: float = 5) -> None:
        """Flush and hold all commits. Raises `freeze-failed` after a thaw."""
        try:
            self.client.run(_ADMIN, "freeze", deadline_s)
        except (SqlError, SqlTimeout, ClientDied, ClientError) as error:
            self.thaw()
            raise Stopped("freeze-failed", f"the database did not freeze: {error}", hint="look at derby.log") from error

    def thaw(self, deadline_s: float = 5) -> None:
        """Let commits go on; fine when nothing is frozen. Raises `thaw-failed` when neither connection answers."""
        failed: Exception | None = None
        for name in (_SPARE, _ADMIN):
            try:
                self.client.run(name, "thaw", deadline_s)
            except (SqlError, SqlTimeout, ClientDied, ClientError) as error:
                failed = error
            else:
                return
        raise Stopped("thaw-failed", f"the database could not be thawed: {failed}", hint="restart the Derby server")

    def checkpoint(self) -> None:
        with _told("checkpoint-failed", "the checkpoint failed"):
            self.client.execute(self.admin(), _CHECKPOINT, deadline_s=60)

    # -- the gate ------------------------------------------------------------------------------------------------

    def gate_prepare(self) -> None:
        """Store the gate's former values while clients still work, and flush what a shutdown would have to."""
        with _told("gate-failed", "the gate could not be prepared"):
            gate.save(self.client, self.admin(), 10)
        self.checkpoint()

    def gate_close(self) -> None:
        with _told("gate-failed", "the gate could not be closed"):
            name = self.admin()
            gate.save(self.client, name, 10)
            gate.close(self.client, name, self.spec.user, 5)

    def gate_open(self, deadline_s: float = 15) -> None:
        """Open the database if it is closed, and put the gate's former values back; fine when they are back."""
        with _told("gate-failed", "the gate could not be opened"):
            gate.open_again(self.client, self.admin(deadline_s), deadline_s)

    def stamp(self, generation: int) -> None:
        with _told("stamp-failed", "the generation could not be stamped"):
            gate.set_property(self.client, self.admin(), gate.GENERATION, str(generation), 10)

    # -- shutting down -------------------------------------------------------------------------------------------

    def quiesce(self, deadline_s: float = 10) -> Quiesced:
        """Shut down, open once so that open transactions are rolled back, shut down again.

        One shutdown is not enough: it leaves what other sessions had open in the files.
        """
        self.shut_down(deadline_s)
        with _told("quiesce-failed", "the database did not open between its two shutdowns"):
            self._connect(_ADMIN, deadline_s)
        self.shut_down(deadline_s)
        end = log.log_end(self.directory / "log")
        return Quiesced(position=end.instant, position_text=str(end))

    def shut_down(self, deadline_s: float = 10) -> None:
        """Shut the database down; fine when it is. Sessions of others end with 08006 or 58009."""
        self._thaw_ready = False
        try:
            self._connect("shutdown", deadline_s, shutdown="true")
        except SqlError as error:
            if not _SHUT_DOWN & set(error.sqlstates):
                raise Stopped("shutdown-failed", f"the database did not shut down: {error}") from error
        except (SqlTimeout, ClientDied) as error:
            raise Stopped("shutdown-failed", f"the database did not shut down: {error}") from error

    # -- replication ---------------------------------------------------------------------------------------------

    def arm_replica(self, deadline_s: float = 15) -> None:
        """Boot the copy as a replica that waits for its primary, and see it listen without connecting to it.

        The copy's log must have been proven to end where the source's does, cleanly: this boot rolls back on disk whatever
        is open in the files. Raises `replica-not-armed`.
        """
        listening = {"slaveHost": self.spec.listen_address, "slavePort": str(self.spec.listen_port)}
        url = self.url(startSlave="true", **listening)
        self._armed = self.client.begin_open("replica", url, self.spec.user, self.spec.password)
        ends = time.monotonic() + deadline_s
        while sockets.listener(self.spec.listen_port) is None:
            if self._armed.done() or time.monotonic() > ends:
                raise Stopped("replica-not-armed", f"the replica does not listen: {self._said(self._armed)}")
            time.sleep(_STEP_S)
        _quicken(sockets.listener(self.spec.port), local_port=self.spec.listen_port)

    def attach(self, deadline_s: float = 10) -> None:
        """`startMaster`: boots the database and connects to the replica. Nothing may commit until this returns.

        Raises `attach-failed`; then the database is open without replication. The caller cuts a call that hangs.
        """
        ends = time.monotonic() + deadline_s
        peer = {"slaveHost": self.spec.peer_address, "slavePort": str(self.spec.peer_port)}
        while True:
            self._attaching = pending = self.client.begin_open(
                _ADMIN, self.url(startMaster="true", **peer), self.spec.user, self.spec.password
            )
            try:
                self._quicken_until(pending, ends)
                pending.wait(max(0.01, ends - time.monotonic()))
            except SqlError as error:
                if _NOBODY_LISTENS not in error.sqlstates or time.monotonic() > ends:
                    raise Stopped("attach-failed", f"replication did not start: {error}") from error
                time.sleep(0.02)
            except SqlTimeout as error:
                self._attaching = pending
                self.cut_until_attached_ends()
                raise Stopped("attach-failed", f"the replica accepted but said nothing in {deadline_s:g} s") from error
            except ClientDied as error:
                raise Stopped("attach-failed", str(error)) from error
            else:
                return

    def _quicken_until(self, pending: Pending, ends_s: float) -> None:
        """As soon as the connection to the replica exists, end its waiting for delayed acknowledgements: 150 ms less."""
        pid = sockets.listener(self.spec.port)
        while not pending.done() and time.monotonic() < ends_s:
            if _quicken(pid, remote_port=self.spec.peer_port):
                return
            time.sleep(0.002)

    def cut_until_attached_ends(self, deadline_s: float = 10) -> None:
        """Cut the replication connection until `startMaster` has returned: opening the gate before destroys the database.

        Raises `attach-hangs`. Fine when none is in flight.
        """
        pending = self._attaching
        if pending is None:
            self.cut()
            return
        ends = time.monotonic() + deadline_s
        while not pending.done() and time.monotonic() < ends:
            self.cut()
            with contextlib.suppress(SqlTimeout, SqlError, ClientDied):
                pending.wait(0.1)
        if not pending.done():
            raise Stopped("attach-hangs", "startMaster does not return", hint="restart the Derby server")

    def cut(self) -> None:
        """Break the connection between this server and its peer, without touching either process."""
        pid = sockets.listener(self.spec.port)
        if pid is not None:
            sockets.cut(pid, remote_port=self.spec.peer_port)

    def detach(self, deadline_s: float = 20) -> None:
        """Give up the primary's role in a replication; fine when there is none. Its replica shuts down."""
        try:
            self._connect("detach", deadline_s, stopMaster="true")
        except SqlError as error:
            if "XRE07" not in error.sqlstates:
                raise Stopped("detach-failed", f"replication did not stop: {error}") from error
        except (SqlTimeout, ClientDied) as error:
            raise Stopped("detach-failed", f"replication did not stop: {error}") from error
        finally:
            with contextlib.suppress(SqlError, SqlTimeout, ClientDied, ClientError):
                self.client.close("detach", 5)

    def stop_replica(self, deadline_s: float = 30) -> None:
        """Take a waiting or running replica down, so that its files can be unmounted; fine when there is none."""
        began_s = time.monotonic()
        ends = began_s + deadline_s
        while files.locked_by(self.directory) is not None:
            if time.monotonic() > ends:
                raise Stopped(
                    "replica-not-stopped", "the server keeps the replica open", hint="restart the Derby server there"
                )
            if time.monotonic() - began_s > _LEAVES_S or self._waits():
                self._push_replica_out()
            time.sleep(0.02)
        self._armed = None

    def _waits(self) -> bool:
        """Armed, and no primary has connected: it would wait for ever."""
        pid = sockets.listener(self.spec.port)
        listens = sockets.listens(self.spec.listen_port)
        return listens and pid is not None and not sockets.connected(pid, local_port=self.spec.listen_port)

    def _push_replica_out(self) -> None:
        """A waiting replica goes when its listening socket does; a running one when it is told so and its peer is gone."""
        pid = sockets.listener(self.spec.port)
        if pid is None:
            return
        if sockets.listener(self.spec.listen_port) is not None or sockets.connected(
            pid, local_port=self.spec.listen_port
        ):
            sockets.cut(pid, local_port=self.spec.listen_port)
            self._end_waiting()
        with contextlib.suppress(SqlError, SqlTimeout, ClientDied):
            self._connect("replica-stop", 10, stopSlave="true")

    def promote(self, from_state: str, deadline_s: float = 60) -> Quiesced:
        """Make this copy an ordinary database, and leave it shut down, so that it can be moved to where clients look.

        A running replica is told to take over first: it replays what it has received. The position is the last one that
        the former primary is known to share.
        """
        end = log.log_end(self.directory / "log")
        if from_state == EngineState.REPLICA:
            end = self._fail_over(deadline_s)
            self.shut_down()
        elif from_state == EngineState.WAITING:
            self.stop_replica()
        return Quiesced(position=end.instant, position_text=str(end))

    def open(self, deadline_s: float = 120) -> None:
        """Open the database at its path; its recovery may take a while."""
        with _told("open-failed", "the database did not open"):
            self._connect(_ADMIN, deadline_s)

    def _fail_over(self, deadline_s: float) -> log.LogPosition:
        try:
            self._connect("failover", deadline_s, failover="true")
        except SqlError as error:
            if _PEER_LIVES in error.sqlstates:
                what = "the replica still receives from its primary, which is alive"
                raise CheckFailed("primary-answers", what, hint="repair the way to the primary") from error
            if _FAILED_OVER not in error.sqlstates:
                raise Stopped("promote-failed", f"the replica did not take over: {error}") from error
        except (SqlTimeout, ClientDied) as error:
            raise Stopped("promote-failed", f"the replica did not take over: {error}") from error
        return log.log_end(self.directory / "log")

    # -- proofs --------------------------------------------------------------------------------------------------

    def prove(self, position: int) -> None:
        """The copy's log ends exactly where the source's does. Raises `log-ends-differ`."""
        files.remove_lock_files(self.directory)
        end = log.log_end(self.directory / "log")
        if end.instant != position:
            there = log.LogPosition.from_instant(position)
            raise VerifyFailed("log-ends-differ", f"the source's log ends at {there}, the copy's at {end}")

    def tail(self, database: Path, since: int) -> Tail:
        """What a database that is not open holds beyond a position: the commits that nobody else got."""
        directory = database / "log"
        start = log.LogPosition.from_instant(since)
        commits = log.count_commits(directory, start)
        return Tail(
            since_text=str(start),
            end_text=str(commits.end),
            commits=commits.count,
            bytes=log.bytes_between(directory, start, commits.end),
        )

    def warm(self, directory: Path, deadline_s: float = 60) -> float:
        """Boot a throw-away copy in this server and shut it down: its classes are loaded when it matters.

        Returns the seconds that the boot took.
        """
        files.remove_lock_files(directory)
        began = time.monotonic()
        with _told("warm-failed", "a copy of the last round does not open"):
            self._connect("warm", deadline_s, str(directory))
        took_s = time.monotonic() - began
        with contextlib.suppress(SqlError):
            self._connect("warm", deadline_s, str(directory), shutdown="true")
        return took_s

    def digest(self, directory: Path, deadline_s: float = 24 * 3600) -> dict[str, str]:
        """Table -> "rows:sum:checked" of a throw-away copy, which this server opens and shuts down again."""
        files.remove_lock_files(directory)
        with _told("digest-failed", "a copy of the common point cannot be read"):
            self._connect("digest", _OPENS_S, str(directory))
            try:
                return digest.digest(self.client, "digest", deadline_s)
            finally:
                with contextlib.suppress(SqlError):
                    self._connect("digest", 60, str(directory), shutdown="true")

    def let_go(self, deadline_s: float = 20) -> None:
        """Shut the database down when somebody has it open, so that its files can be unmounted."""
        if files.locked_by(self.directory) is None:
            return
        state = self.facts().state
        if state in (EngineState.REPLICA, EngineState.WAITING):
            self.stop_replica(deadline_s)
        else:
            self.shut_down(deadline_s)

    def reopen(self) -> None:
        """What the guard does, when there is no guard: cut what `startMaster` waits for, thaw, open."""
        self.cut()
        self.thaw_anew()
        self.gate_open()

    def thaw_anew(self) -> None:
        """Thaw without anything prepared."""
        with _told("thaw-failed", "the database could not be thawed"):
            self.client.execute(self.admin(), _THAW, deadline_s=10)

    def restart_server(self, deadline_s: float = 60) -> None:
        """Run the configured command that restarts the server; the last resort when it has wedged."""
        if not self.spec.restart_command:
            raise CheckFailed(
                "no-restart-command", "no restart_command is configured", hint="restart the server by hand"
            )
        try:
            process.run(list(self.spec.restart_command), deadline_s=deadline_s)
        except process.CommandFailed as error:
            raise Stopped("restart-failed", str(error)) from error
        ends = time.monotonic() + deadline_s
        while sockets.listener(self.spec.port) is None and time.monotonic() < ends:
            time.sleep(0.05)
        self.close()

    def _end_waiting(self) -> None:
        """A replica that waits for its primary accepts one connection; one that ends at once ends the waiting."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection((self.spec.listen_address or "127.0.0.1", self.spec.listen_port), timeout=2),
        ):
            pass

    def _said(self, pending: Pending) -> str:
        if not pending.done():
            return "it says nothing"
        try:
            pending.wait(0)
        except (SqlError, ClientDied, ClientError) as error:
            return str(error)
        return "it opened as an ordinary database"


@contextlib.contextmanager
def _told(id: str, what: str) -> Iterator[None]:
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


def _quicken(pid: int | None, **ports: int) -> int:
    """TCP_NODELAY on another process's sockets; only a matter of speed, so what forbids it is no error."""
    try:
        return sockets.no_delay(pid, **ports) if pid is not None else 0
    except (OSError, ValueError):
        return 0


def _version(directory: Path) -> str:
    return ".".join(map(str, log.control(directory / "log").version))


def owner_of(path: Path) -> tuple[int, int]:
    """uid and gid of a file."""
    found = os.stat(path)
    return found.st_uid, found.st_gid
