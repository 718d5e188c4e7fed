"""The guard: a small process of its own session that keeps the lease on a freeze or a gate.

It makes the dangerous calls itself, with its own client, on behalf of the agent, so it always knows what is in flight;
it outlives the agent, and puts the database back when the agent is gone or the lease has passed. What to do when is
decided by `core.guard`; this module does it and reports back.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from snaprep.agent import serve
from snaprep.core import guard as mind
from snaprep.core.errors import SnaprepError, Stopped
from snaprep.core.guard import Begins, DidIt, Do, OwnerGone, Returns, Tick, Wanted, Work
from snaprep.core.spec import DerbySpec
from snaprep.engines.base import Quiesced
from snaprep.engines.derby.host import DerbyHost

_TICK_S = 0.02
_OPEN_BOUND_S = 60.0
ENTRY = "snaprep.agent.guard:main"


class Guard:
    """The process: feeds events to the mind, and does what it answers."""

    def __init__(self) -> None:
        self._engine: DerbyHost | None = None
        self._mind = mind.Guard()
        self._changed = threading.Condition()
        self._to_do: list[Do] = []
        self._failure: SnaprepError | None = None  # of the last try to thaw or open
        self._over = threading.Event()

    # -- what the agent asks -------------------------------------------------------------------------------------

    def configure(self, spec: DerbySpec) -> None:
        """Say which database, before anything is held."""
        self._engine = DerbyHost(spec)

    def ready(self) -> int:
        """Have the client up and the thaw prepared on two connections. Returns the client's pid."""
        self.engine.halt.ready_to_thaw()
        return self.engine.session.client.pid

    def held(self) -> str:
        """What is held at present: frozen, gated, ending, attaching; empty when nothing is."""
        phase = self._mind.phase
        return "" if phase == "idle" else phase

    def freeze(self, lease_ms: int) -> None:
        self.engine.halt.ready_to_thaw()
        with self._flight(Work.FREEZE, lease_ms):
            self.engine.halt.freeze()

    def gate_close(self, lease_ms: int) -> None:
        with self._flight(Work.CLOSE, lease_ms):
            self.engine.halt.gate_close()

    def quiesce(self) -> Quiesced:
        with self._flight(Work.QUIESCE):
            return self.engine.halt.quiesce()

    def attach(self, deadline_s: float) -> None:
        with self._flight(Work.ATTACH):
            self.engine.replication.attach(deadline_s)

    def put_back(self) -> None:
        """Thaw and open, whatever is held; a step in flight is cut and waited for first. Raises why it could not."""
        if not self._mind.halted:
            self.engine.halt.gate_open()
            return
        self._failure = None
        self._take(Wanted())
        with self._changed:
            done = self._changed.wait_for(lambda: not self._mind.halted or self._failure is not None, _OPEN_BOUND_S)
        if self._failure is not None:
            raise self._failure
        if not done:
            raise Stopped("gate-failed", f"not open after {_OPEN_BOUND_S:g} s", hint="restart the Derby server")

    @property
    def engine(self) -> DerbyHost:
        if self._engine is None:
            raise Stopped("guard-not-ready", "the guard was not told which database it keeps")
        return self._engine

    # -- events in, deeds out ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _flight(self, work: Work, lease_ms: int = 0) -> Iterator[None]:
        refused = self._take(Begins(work, lease_ms / 1000))
        if refused:
            raise Stopped("lease-passed", f"{work} is refused: {refused}", hint="the database is being opened again")
        ok = False
        try:
            yield
            ok = True
        finally:
            self._take(Returns(work, ok=ok))

    def _take(self, event: mind.Event) -> str:
        with self._changed:
            answer = mind.step(self._mind, event, time.monotonic())
            self._mind = answer.guard
            self._to_do += answer.do
            self._changed.notify_all()
        return answer.refused

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
        deeds: dict[Do, Callable[[], None]] = {
            Do.CUT: self.engine.replication.cut_until_attached_ends,
            Do.THAW: self.engine.halt.thaw,
            Do.OPEN: self.engine.halt.gate_open,
            Do.RESTART: self.engine.restart_server,
        }
        try:
            deeds[work]()
        except SnaprepError as error:
            print(f"snaprep guard: {work}: {error.info.what}", file=sys.stderr)  # noqa: T201 (the agent keeps it)
            self._failure = error
            self._take(DidIt(work, ok=False))
        else:
            self._take(DidIt(work))

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
        guard.attach, guard.configure, guard.freeze, guard.gate_close, guard.held, guard.put_back, guard.quiesce,
        guard.ready,
    )  # fmt: skip
    serve.run({f.__name__: f for f in operations}, on_close=[guard.owner_gone], on_renew=[])
