"""A Derby database on this host: its rooms put together, and the proofs on copies of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from snaprep.agent import process
from snaprep.core.errors import CheckFailed, Stale, Stopped, VerifyFailed
from snaprep.core.model import REPLICA_STATES, EngineFacts, EngineState, Finding
from snaprep.core.spec import DerbySpec
from snaprep.engines.base import Quiesced, Tail
from snaprep.engines.derby import check, digest, files, server, sockets
from snaprep.engines.derby.client import SqlError
from snaprep.engines.derby.feed import handover
from snaprep.engines.derby.feed.ends import FeedSource, FeedTarget, log_told, settle_end
from snaprep.engines.derby.feed.replica import FedReplica
from snaprep.engines.derby.forgotten import close_forgotten
from snaprep.engines.derby.halt import Halt
from snaprep.engines.derby.log import archive
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.replication import Replication
from snaprep.engines.derby.session import ADMIN, SOMEBODY_OPENED, STEP_S, Session, files_told, told
from snaprep.engines.derby.state import State

_CLOSES_S = 0.2  # a server that has shut a database down needs a moment; what is open then, it has forgotten
_OPENS_S = 600.0  # a copy taken at work recovers first


class DerbyHost:
    """One database: `halt` holds its clients, `replication` is what it has of a pair, `state` looks."""

    def __init__(self, spec: DerbySpec) -> None:
        self.spec = spec
        self.session = Session(spec)
        self.halt = Halt(self.session)
        self.replication = Replication(self.session, self.halt)
        self.state = State(self.session, self.halt, self.replication)

    @property
    def key(self) -> str:
        """Names this database on this host, for locks."""
        return os.path.realpath(self.session.served)

    @property
    def directory(self) -> Path:
        """Where the database is now: at the path that clients know, or at the replica's."""
        return self.session.directory

    def facts(self, guarded: str = "") -> EngineFacts:
        """What the database is doing, without opening it when nobody has."""
        return self.state.facts(guarded)

    def outside(self) -> EngineFacts:
        """What can be told where `facts` has refused to look."""
        return self.state.outside()

    def check(self, *, as_target: bool) -> list[Finding]:
        """What of the server and the database could stop a run. Changes nothing, opens nothing."""
        return check.findings(self.state, as_target=as_target)

    @property
    def places(self) -> tuple[Path, ...]:
        """Everything that belongs to the database, wherever links and a logDevice lead."""
        return files.places(self.session.directory)

    def traits(self) -> dict[str, str]:
        """What should be equal on both hosts, by name."""
        return check.traits(self.spec)

    # -- opening and letting go --------------------------------------------------------------------------------

    def open(self, deadline_s: float = 120) -> None:
        """Open the database at its path; its recovery may take a while."""
        files.bring_back(self.session.directory)
        with told("open-failed", "the database did not open"):
            self.session.connect(ADMIN, deadline_s)

    def let_go(self, deadline_s: float = 20) -> None:
        """Shut the database down when somebody has it open, so that its files can be unmounted.

        Raises `database-kept-open` when the server does not close them.
        """
        ends = time.monotonic() + deadline_s
        if files.locked_by(self.session.directory) is not None:
            state = self.facts().state
            if state in REPLICA_STATES or (state is EngineState.UNKNOWN and self.replication.is_replica):
                self.replication.stop(deadline_s)
            else:
                self.halt.shut_down(deadline_s)
        self.must_close(max(0.0, ends - time.monotonic()))

    def must_close(self, deadline_s: float) -> None:
        """Wait until the server has closed the last file of a database that was shut down: it lets go of it before.

        Raises `database-kept-open`.
        """
        began_s, pid, asked = time.monotonic(), self.session.server_pid, False
        while pid is not None and (held := files.held_open(pid, self.session.directory)):
            took_s = time.monotonic() - began_s
            if took_s > _CLOSES_S and not asked:
                asked = True
                close_forgotten(self.session)
            elif took_s > deadline_s:
                what = f"the server (pid {pid}) keeps files of {self.session.directory} open, {held} among them"
                raise Stopped("database-kept-open", what, hint="restart the Derby server there")
            time.sleep(STEP_S)

    def reopen(self, deadline_s: float = 20) -> None:
        """What the guard does, when there is no guard any more: thaw, cut what `startMaster` waits for, open.

        The session of a client that died stays in the server as long as its statement runs. While there is such a one,
        it may be a `startMaster`: it is cut and waited for. Or it is a freeze: then the first thaw has come too early.
        A thaw is right at any moment, and what waits for one does not end without it.
        """
        self._thaw()
        ends = time.monotonic() + deadline_s
        pid = self.session.server_pid
        while pid is not None and sockets.orphans(pid, self.spec.port) and time.monotonic() < ends:
            self.replication.cut()
            time.sleep(STEP_S)
        self._thaw()
        self.halt.gate_open()

    def _thaw(self) -> None:
        if files.locked_by(self.directory) is not None:
            self.halt.thaw_anew()

    # -- the feed ----------------------------------------------------------------------------------------------

    def feed_source(self) -> FeedSource:
        """The log of this database, to be fed from. Raises `encrypted`, `durability-test`, `not-a-database`."""
        return FeedSource(self.session.directory, self._server_version())

    def feed_target(self, *, replication: bool) -> FeedTarget:
        """The replica on this host, to be fed. It listens on loopback; with `replication` where its primary looks."""
        address = self.spec.listen_address if replication else "127.0.0.1"
        return FeedTarget(FedReplica(self.session, address=address), self._server_version())

    def _server_version(self) -> str:
        up = server.running(self.spec.port)
        return up.version if up is not None else ""

    def settled_end(self) -> int:
        """Where the log of a copy ends that nobody has booted yet. Raises `log-damaged`."""
        with log_told():
            return settle_end(files.log_directory(self.session.directory)).instant

    def ship_mark(self) -> Quiesced:
        """With the gate closed: shut down, and commit once as a primary. The replica is to be fed up to there.

        What clients had open is rolled back by the boot in between. Raises `handover-failed`, and InFlight.
        """
        self.halt.shut_down()
        position = handover.ship_mark(self.session)
        return Quiesced(position=position, position_text=str(log.LogPosition.from_instant(position)))

    def must_go_on_from(self, position: int) -> None:
        """A base whose log ends there can be fed. Raises `feed-base-old`: a new base is needed."""
        kept = archive.state(self.session)
        if kept.since is None or kept.since > position:
            since = log.LogPosition.from_instant(kept.since) if kept.since is not None else "never"
            what = f"the base ends at {log.LogPosition.from_instant(position)}; all of the log is there since: {since}"
            raise Stale("feed-base-old", what, hint="a new base is made")

    def keeps_log(self) -> bool:
        """Whether everything is logged and all log kept; notes since when, if that came since somebody asked for it."""
        return archive.confirm(self.session)

    def keep_log(self, how: str) -> None:
        """Have everything logged and all log kept, from the next restart on, by a bounce, or by an online backup.

        Raises `archive-failed`, `archive-no-room`.
        """
        if how == "bounce":
            archive.bounce(self.session, self.halt)
        elif how == "backup":
            self._backup()
        else:
            archive.ask_for(self.session)

    def back_up(self, folder: Path) -> None:
        """Put a copy of the database into a folder while its writers go on. From its end on all log is kept.

        Raises `archive-failed`, `backup-held`.
        """
        if archive.confirm(self.session):
            archive.copy(self.session, folder)
        else:
            archive.by_backup(self.session, folder)

    def _backup(self) -> None:
        """Derby switches the mode on at work only together with a backup; nobody needs the copy."""
        database = self.session.directory
        folder = database.with_name(f".{database.name}.backup")
        archive.must_have_room(database, 2 * files.occupied_bytes(database))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            owner = database.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)
            archive.by_backup(self.session, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def restart_server(self, deadline_s: float = 60) -> None:
        """Run the configured command that restarts the server; the last resort when it has wedged."""
        if not self.spec.restart_command:
            raise CheckFailed(
                "no-restart-command", "no restart_command is configured", hint="restart the server by hand"
            )
        try:
            process.run(list(self.spec.restart_command), deadline_s=deadline_s)
        except process.CommandFailed as error:
            raise Stopped("restart-failed", str(error), hint="restart the server by hand") from error
        ends = time.monotonic() + deadline_s
        while self.session.server_pid is None and time.monotonic() < ends:
            time.sleep(0.05)
        self.session.close()

    def close(self) -> None:
        """End our client."""
        self.session.close()

    # -- proofs ------------------------------------------------------------------------------------------------

    def prove(self, position: int) -> None:
        """The copy's log ends exactly where the source's does. Raises `log-ends-differ`."""
        with files_told():
            files.remove_lock_files(self.session.directory)
            end = log.log_end(self.session.directory / "log")
        if end.instant != position:
            there = log.LogPosition.from_instant(position)
            what = f"the source's log ends at {there}, the copy's at {end}"
            raise VerifyFailed("log-ends-differ", what, hint=SOMEBODY_OPENED)

    def tail(self, database: Path, since: int) -> Tail:
        """What a database that is not open holds beyond a position: the commits that nobody else got."""
        directory = database / "log"
        start = log.LogPosition.from_instant(since)
        with files_told():
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
        with files_told():
            files.remove_lock_files(directory)
        began = time.monotonic()
        with told("warm-failed", "a copy of the last round does not open"):
            self.session.connect("warm", deadline_s, str(directory))
            took_s = time.monotonic() - began
            with contextlib.suppress(SqlError):  # so Derby says that it has shut it down
                self.session.connect("warm", deadline_s, str(directory), shutdown="true")
        return took_s

    def digest(self, directory: Path, deadline_s: float = 24 * 3600) -> dict[str, str]:
        """Table -> "rows:sum:checked" of a throw-away copy, which this server opens and shuts down again."""
        with files_told():
            files.remove_lock_files(directory)
        with told("digest-failed", "a copy of the common point cannot be read"):
            self.session.connect("digest", _OPENS_S, str(directory))
            try:
                return digest.digest(self.session.client, "digest", deadline_s)
            finally:
                with contextlib.suppress(SqlError):
                    self.session.connect("digest", 60, str(directory), shutdown="true")
