"""The guard: a small process of its own session that keeps the lease on a freeze or a gate.

It makes the dangerous calls itself, with its own client, on behalf of the agent, so it always knows what is in flight;
it outlives the agent, and puts the database back when the agent is gone or the lease has passed. What to do when is
decided by `core.guard`; this module does it and reports back.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from snaprep.agent import locks, serve
from snaprep.core import guard as mind
from snaprep.core.errors import Locked, SnaprepError, Stopped
from snaprep.core.guard import Begins, DidIt, Do, Leaves, OwnerGone, Returns, Tick, Wanted, Work
from snaprep.core.model import EngineState, RunInfo
from snaprep.core.spec import DerbySpec
from snaprep.engines.base import Quiesced
from snaprep.engines.derby.client import Pending, SqlError, SqlTimeout
from snaprep.engines.derby.host import DerbyHost
from snaprep.engines.derby.session import InFlight

_TICK_S = 0.02
_OPEN_BOUND_S = 60.0
_AWAKE_S = 10.0


class Guard:
    """The process: feeds events to the mind, and does what it answers."""

    def __init__(self) -> None:
        self._engine: DerbyHost | None = None
        self._mind = mind.Guard()
        self._changed = threading.Condition()
        self._to_do: list[Do] = []
        self._failure: SnaprepError | None = None  # of the last try to thaw or open
        self._no_restart: SnaprepError | None = None  # why what does not return could not be ended
        self._client_lost = False  # what it had begun may go on in the server
        self._held: locks.Lock | None = None  # tells other agents of this host what is held, and keeps them away
        self._over = threading.Event()

    # -- what the agent asks -------------------------------------------------------------------------------------

    def configure(self, spec: DerbySpec) -> None:
        """Say which database, before anything is held."""
        self._engine = DerbyHost(spec)

    def ready(self) -> int:
        """Have the client up and the thaw prepared on two connections. Returns the client's pid."""
        self.engine.halt.ready_to_thaw()
        return self.engine.session.client.pid

    def freeze(self, lease_ms: int) -> None:
        self.engine.halt.ready_to_thaw()
        with self._flight(Work.FREEZE, lease_ms):
            self.engine.halt.freeze()

    def gate_close(self, lease_ms: int) -> None:
        with self._flight(Work.CLOSE, lease_ms):
            self.engine.halt.gate_close()

    def awake(self) -> int:
        """Have the client up without looking at the database, which may be a replica. Returns the client's pid."""
        client = self.engine.session.client
        with contextlib.suppress(SqlError, SqlTimeout):  # there is none of this name: what the answer needs is loaded
            self.engine.session.connect("nothing", _AWAKE_S, "snaprep-nothing")
        return client.pid

    def gate_keep(self, lease_ms: int) -> None:
        """Keep the lease on a gate that is closed already: by its source, in the log that both have."""
        with self._flight(Work.CLOSE, lease_ms):
            self.engine.halt.open_shut()

    def open_shut(self) -> None:
        """Open a copy whose gate is closed, on the connection on which it is attached later."""
        self.engine.halt.open_shut()

    def leave(self) -> None:
        """The database is taken away; it is not opened here any more. Raises `lease-passed`."""
        if refused := self._take(Leaves()):
            raise Stopped("lease-passed", f"it is not let go of: {refused}", hint="the database is being opened again")

    def retire(self) -> Quiesced:
        with self._flight(Work.QUIESCE):
            return self.engine.halt.retire()

    def quiesce(self) -> Quiesced:
        with self._flight(Work.QUIESCE):
            return self.engine.halt.quiesce()

    def bounce(self) -> None:
        """Shut down and open, so that the log is kept from now on; with the gate closed."""
        with self._flight(Work.QUIESCE):
            self.engine.keep_log("bounce")

    def ship_mark(self) -> Quiesced:
        """Shut down once, and leave the place in the log that a fed replica and its primary both know."""
        with self._flight(Work.QUIESCE):
            return self.engine.ship_mark()

    def attach(self, deadline_s: float) -> None:
        with self._flight(Work.ATTACH):
            left_s = self._mind.lease_until_s - time.monotonic()
            self.engine.replication.attach(min(deadline_s, max(0.1, left_s)))

    def put_back(self) -> None:
        """Thaw and open, whatever is held; a step in flight is cut and waited for first. Raises why it could not.

        What another guard holds is left to it: it may be in the middle of a shutdown.
        """
        if not self._mind.halted:
            locks.await_guard(self.engine.key, _OPEN_BOUND_S)
            self.engine.halt.gate_open()
            return
        self._failure = None
        self._take(Wanted())
        with self._changed:
            done = self._changed.wait_for(lambda: not self._mind.halted or self._failure is not None, _OPEN_BOUND_S)
        if self._failure is not None:
            raise self._failure
        if not done:
            late = Stopped("gate-failed", f"not open after {_OPEN_BOUND_S:g} s", hint="restart the Derby server")
            raise self._no_restart or late

    @property
    def engine(self) -> DerbyHost:
        if self._engine is None:
            raise Stopped("guard-not-ready", "the guard was not told which database it keeps")
        return self._engine

    # -- events in, deeds out ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _flight(self, work: Work, lease_ms: int = 0) -> Iterator[None]:
        """A statement is on its way. It has returned when the server has answered, not when we stop waiting for it."""
        self._hold(EngineState.FROZEN if work is Work.FREEZE else EngineState.GATED)
        refused = self._take(Begins(work, lease_ms / 1000))
        if refused:
            raise Stopped("lease-passed", f"{work} is refused: {refused}", hint="the database is being opened again")
        client = self.engine.session.client
        try:
            yield
        except InFlight as late:
            threading.Thread(target=self._returns_later, args=(work, late.pending), daemon=True).start()
            raise
        except BaseException:
            self._client_lost = self._client_lost or not client.alive
            self._take(Returns(work, ok=False))
            raise
        self._take(Returns(work))

    def _returns_later(self, work: Work, pending: Pending) -> None:
        while not pending.done():
            time.sleep(_TICK_S)
        self._client_lost = self._client_lost or not self.engine.session.alive
        self._take(Returns(work, ok=False))

    def _take(self, event: mind.Event) -> str:
        with self._changed:
            answer = mind.step(self._mind, event, time.monotonic())
            self._mind = answer.guard
            self._to_do += answer.do
            if not self._mind.halted and self._held is not None:
                self._held.release()
                self._held = None
            self._changed.notify_all()
        return answer.refused

    def _hold(self, how: EngineState) -> None:
        """Raises `guard-at-work`: two pairs that follow one database may come at once."""
        if self._held is not None:
            return
        info = RunInfo(run="", verb=how.value, operator="the guard", pid=os.getpid())
        try:
            self._held = locks.Lock("guard", self.engine.key, info)
        except Locked as error:
            hint = "it opens the database when its lease ends"
            raise Stopped("guard-at-work", "another guard keeps this database halted", hint=hint) from error

    def watch(self) -> None:
        """Runs beside the session until the mind says exit."""
        while True:
            with self._changed:
                if not self._to_do:
                    self._changed.wait(self._wait_s())
                work = self._to_do.pop(0) if self._to_do else None
            if work is None:
                self._take(Tick())
            elif work is Do.EXIT:
                self._over.set()
                return
            else:
                self._do(work)

    def _wait_s(self) -> float | None:
        wake_at_s = self._mind.wake_at_s
        return None if wake_at_s is None else max(0.001, min(_TICK_S, wake_at_s - time.monotonic()))

    def _do(self, work: Do) -> None:
        """Whatever goes wrong is reported to the mind, which tries again: nobody else is left to."""
        halt, lost = self.engine.halt, self._client_lost
        deeds: dict[Do, Callable[[], None]] = {
            Do.CUT: self.engine.replication.cut_until_attached_ends,
            Do.THAW: self.engine.reopen if lost else halt.thaw,
            Do.OPEN: self.engine.reopen if lost else halt.gate_open,
            Do.RESTART: self.engine.restart_server,
        }
        try:
            deeds[work]()
        except SnaprepError as error:
            self._failed(work, error)
        except Exception as error:  # noqa: BLE001 (see above)
            self._failed(work, Stopped("guard-failed", f"{type(error).__name__}: {error}", hint="see derby.log"))
        else:
            self._take(DidIt(work))

    def _failed(self, work: Do, error: SnaprepError) -> None:
        if work is Do.RESTART:  # what is in flight may still return by itself
            self._no_restart = error
        else:
            self._failure = error
        self._take(DidIt(work, ok=False))
        serve.mutter(f"snaprep guard: {work}: {error.info.what}")

    def owner_gone(self) -> None:
        """The agent ended: put everything back, then end. Nobody else is left to do it, so try until it is done."""
        self._take(OwnerGone())
        self._over.wait()
        if self._engine is not None:
            self._engine.close()


def main() -> None:
    """The guard process, on its own stdio."""
    guard = Guard()
    threading.Thread(target=guard.watch, daemon=True, name="watch").start()
    operations = (
        guard.attach, guard.awake, guard.bounce, guard.configure, guard.freeze, guard.gate_close, guard.gate_keep,
        guard.leave, guard.open_shut, guard.put_back, guard.quiesce, guard.ready, guard.retire, guard.ship_mark,
    )  # fmt: skip
    serve.run({f.__name__: f for f in operations}, on_close=[], on_gone=[guard.owner_gone])
