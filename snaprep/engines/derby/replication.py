"""Derby's own replication: arming a replica, attaching it to its primary, taking either away, and the take-over."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from snaprep.agent.process import patient_s
from snaprep.core.errors import CheckFailed, Stopped
from snaprep.core.model import EngineState
from snaprep.engines.base import Quiesced
from snaprep.engines.derby import files, sockets
from snaprep.engines.derby.client import ClientDied, ClientError, Pending, SqlError, SqlTimeout
from snaprep.engines.derby.halt import Halt
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.session import ADMIN, STEP_S, InFlight, Session, answer_of, must_be_free

_COMES_S = 2.0  # a tunnel that is being built again; a replica that was seen to listen and does not has died
_ANSWERS_S = 0.5  # a handshake takes milliseconds
_LEAVES_S = 1.0  # a replica whose primary said stop goes by itself, within some 50 ms
_SEE_REPLICA = "look at the replica's derby.log, and at the way between the two: docs/derby.md"
_NO_MASTER = "XRE07"
_FAILED_OVER = "XRE20"
_PEER_LIVES = "XRE41"
_NOBODY_LISTENS = "XRE04"


class Replication:
    """The replication of one database, seen from either side."""

    def __init__(self, session: Session, halt: Halt) -> None:
        self.session = session
        self._halt = halt
        self._armed: Pending | None = None
        self._attaching: Pending | None = None
        self._given_up = False  # somebody has cut the attach: it must not begin anew

    @property
    def is_replica(self) -> bool:
        """The database stands where a replica does; another pair of this server may use the same ports."""
        return self.session.directory == self.session.replica

    @property
    def connected(self) -> bool:
        """A connection between a primary and its replica stands, whichever this side is."""
        pid, spec = self.session.server_pid, self.session.spec
        if pid is None:
            return False
        local = spec.listen_port if self.is_replica else None
        remote = None if self.is_replica else spec.peer_port
        return sockets.connected(pid, local_port=local, remote_port=remote)

    def arm(self, deadline_s: float = 15) -> None:
        """Boot the copy as a replica that waits for its primary, and see it listen without connecting to it.

        The copy's log must have been proven to end where the source's does, cleanly: this boot rolls back on disk
        whatever is open in the files. Raises `replica-not-armed`.
        """
        files.bring_back(self.session.directory)
        listening = {"slaveHost": self.session.spec.listen_address, "slavePort": str(self.session.spec.listen_port)}
        url = self.session.url(startSlave="true", **listening)
        self._armed = self.session.client.begin_open("replica", url, self.session.spec.user, self.session.spec.password)
        ends = time.monotonic() + patient_s(deadline_s)
        while not self.session.server_listens(self.session.spec.listen_port):
            if self._armed.done() or time.monotonic() > ends:
                what = f"the replica does not listen: {answer_of(self._armed)}"
                raise Stopped(
                    "replica-not-armed", what, hint="see its derby.log, and `replication_address` of that host"
                )
            time.sleep(STEP_S)
        _quicken(self.session.server_pid, local_port=self.session.spec.listen_port)

    def must_be_free(self) -> None:
        """Nobody may hold the port on which a replica will wait. Raises `replication-port-taken`."""
        must_be_free(self.session.spec.listen_port)

    def attach(self, deadline_s: float = 10) -> None:
        """`startMaster`: boots the database and connects to the replica. Nothing may commit until this returns.

        Raises `attach-failed`, and soon when nobody listens: then the database is open without replication. Raises
        InFlight when `startMaster` does not return although its connection was cut.
        """
        ends = time.monotonic() + deadline_s
        comes = min(ends, time.monotonic() + patient_s(_COMES_S))
        spec = self.session.spec
        peer = {"slaveHost": spec.peer_address, "slavePort": str(spec.peer_port)}
        self._given_up = False
        while True:
            self._attaching = pending = self.session.begin(ADMIN, startMaster="true", **peer)
            try:
                self._quicken_until(pending, ends)
                pending.wait(max(0.01, ends - time.monotonic()))
            except SqlError as error:
                late = self._given_up or time.monotonic() > comes
                if late or _NOBODY_LISTENS not in error.sqlstates:
                    raise Stopped("attach-failed", f"replication did not start: {error}", hint=_SEE_REPLICA) from error
                time.sleep(0.02)
            except SqlTimeout as error:
                self.cut_until_attached_ends()
                what = f"the replica accepted but said nothing in {deadline_s:g} s"
                raise Stopped("attach-failed", what, hint=_SEE_REPLICA) from error
            except ClientDied as error:
                raise Stopped("attach-failed", str(error), hint="look at the agent's messages") from error
            else:
                if self._given_up:  # the replica was connected, and its connection was cut since
                    what = "replication began too late: the lease had passed"
                    raise Stopped("attach-failed", what, hint="the hosts were too slow; raise rounds.budget")
                return

    def _quicken_until(self, pending: Pending, ends_s: float) -> None:
        """As soon as the connection to the replica exists, keep it from waiting for acknowledgements: 150 ms less."""
        pid = self.session.server_pid
        while not pending.done() and time.monotonic() < ends_s:
            if _quicken(pid, remote_port=self.session.spec.peer_port):
                return
            time.sleep(0.002)

    def cut_until_attached_ends(self, deadline_s: float = 10) -> None:
        """Cut the replication connection until `startMaster` has returned; fine when none is in flight.

        Opening the gate before it has would destroy the database, so one that cannot be cut is waited for like one that
        does not return. Raises InFlight `attach-hangs`.
        """
        self._given_up = True
        pending = self._attaching
        if pending is None:
            self.cut()
            return
        ends = time.monotonic() + deadline_s
        # A replica that lives answers at once. Cut before it has, `startMaster` waits 30 s for the answer all the same.
        _wait(pending, patient_s(_ANSWERS_S))
        while True:
            with contextlib.suppress(OSError):
                self.cut()
            if pending.done():
                return
            if time.monotonic() > ends:
                break
            _wait(pending, 0.05)
        raise InFlight("attach-hangs", "startMaster does not return", pending)

    def cut(self) -> None:
        """Break the connection between this server and its peer, without touching either process."""
        pid = self.session.server_pid
        if pid is not None:
            sockets.cut(pid, remote_port=self.session.spec.peer_port)

    def detach(self, deadline_s: float = 20) -> None:
        """Give up the primary's role in a replication; fine when there is none. Its replica shuts down."""
        try:
            self.session.connect("detach", deadline_s, stopMaster="true")
        except (SqlError, SqlTimeout, ClientDied) as error:
            if not (isinstance(error, SqlError) and _NO_MASTER in error.sqlstates):
                what = f"replication did not stop: {error}"
                raise Stopped("detach-failed", what, hint="look at derby.log of the primary") from error
        finally:
            with contextlib.suppress(SqlError, SqlTimeout, ClientDied, ClientError):
                self.session.client.close("detach", 5)

    def stop(self, deadline_s: float = 30) -> None:
        """Take a waiting or running replica down, so that its files can be unmounted; fine when there is none."""
        began_s = time.monotonic()
        ends = began_s + deadline_s
        while files.locked_by(self.session.directory) is not None:
            if time.monotonic() > ends:
                raise Stopped(
                    "replica-not-stopped", "the server keeps the replica open", hint="restart the Derby server there"
                )
            if time.monotonic() - began_s > _LEAVES_S or self.waits():
                self._push_replica_out()
            time.sleep(0.02)
        self._armed = None

    def replayed(self, position: int, deadline_s: float = 10) -> bool:
        """Wait until this replica has replayed its log up to a checkpoint; false when it has not in time."""
        ends = time.monotonic() + deadline_s
        while True:
            with contextlib.suppress(log.LogDamaged):  # it is being written
                if log.checkpoint(files.log_directory(self.session.directory)).instant >= position:
                    return True
            if time.monotonic() > ends:
                return False
            time.sleep(0.02)

    def waits(self) -> bool:
        """Armed, and no primary has connected: it would wait for ever."""
        spec, pid = self.session.spec, self.session.server_pid
        if pid is None or not self.is_replica or sockets.listener(spec.listen_port) != pid:
            return False
        return not sockets.connected(pid, local_port=spec.listen_port)

    def _push_replica_out(self) -> None:
        """A waiting replica goes when its listening ends; a running one when it is told so and its peer is gone."""
        pid, port = self.session.server_pid, self.session.spec.listen_port
        if pid is None or not self.is_replica:
            return
        if sockets.listener(port) == pid or sockets.connected(pid, local_port=port):
            sockets.cut(pid, local_port=port)
            if sockets.stop_listening(pid, port):
                return  # it goes by itself; a session of ours would only hang beside it
        with contextlib.suppress(SqlError, SqlTimeout, ClientDied):
            self.session.connect("replica-stop", 10, stopSlave="true")

    def promote(self, from_state: str, deadline_s: float = 60) -> Quiesced:
        """Make this copy an ordinary database, and leave it shut down, so that it can be moved to where clients look.

        A running replica is told to take over first: it replays what it has received. The position is the last one that
        the former primary is known to share.
        """
        if from_state == EngineState.REPLICA:
            self._fail_over(deadline_s)
        elif from_state == EngineState.WAITING:
            self.stop()
        if files.locked_by(self.session.directory) is not None:  # taken over now, or by a run that died since
            self._halt.shut_down()
        end = _last_commit(self.session.directory / "log")
        return Quiesced(position=end.instant, position_text=str(end))

    def _fail_over(self, deadline_s: float) -> None:
        try:
            self.session.connect("failover", deadline_s, failover="true")
        except SqlError as error:
            if _PEER_LIVES in error.sqlstates:
                # An open connection proves nothing: after a power cut it stands for hours. Derby has asked the primary.
                raise CheckFailed(
                    "primary-answers",
                    "the replica's primary is alive: it has just answered it",
                    serving="the primary serves, out of your sight",
                    hint="repair your way to it",
                ) from error
            if _FAILED_OVER not in error.sqlstates:
                raise _not_promoted(error) from error
        except (SqlTimeout, ClientDied) as error:
            raise _not_promoted(error) from error


def _not_promoted(error: Exception) -> Stopped:
    what = f"the replica did not take over: {error}"
    return Stopped("promote-failed", what, hint="its primary may still be connected; look at derby.log, run it again")


def _last_commit(logs: Path) -> log.LogPosition:
    """Just behind the last commit in the log: all of a copy that nobody has written to came from its primary.

    What it wrote by itself since, rolling back what was open and shutting down, holds no commit.
    """
    for number in reversed(log.log_files(logs)):
        last = log.count_commits(logs, log.LogPosition(number, log.HEADER_BYTES)).last
        if last is not None:
            return log.LogPosition(last.file, last.offset + 1)
    return log.LogPosition(log.log_files(logs)[0], log.HEADER_BYTES)


def _wait(pending: Pending, deadline_s: float) -> None:
    """Until it has ended, well or not, or the time is over."""
    with contextlib.suppress(SqlTimeout, SqlError, ClientDied):
        pending.wait(deadline_s)


def _quicken(pid: int | None, **ports: int) -> int:
    """TCP_NODELAY on another process's sockets; only a matter of speed, so what forbids it is no error."""
    try:
        return sockets.no_delay(pid, **ports) if pid is not None else 0
    except (OSError, ValueError):
        return 0
