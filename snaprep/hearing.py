"""What a second terminal says to a run, and the way for streams on which it is heard meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

from snaprep.act.context import Memory
from snaprep.act.interpreter import Interpreter
from snaprep.control import Control, Sink
from snaprep.core.errors import SnaprepError
from snaprep.core.model import Facts, Policy
from snaprep.journal import Journal
from snaprep.session import Session
from snaprep.telling import Telling

_POLL_S = 0.5


class Hearing(Telling):
    """The part of a run that listens."""

    def __init__(
        self, session: Session, policy: Policy, sink: Sink, memory: Memory, control: Control, journal: Journal
    ) -> None:
        super().__init__(session, policy, sink, memory)
        self.control = control
        self.journal = journal
        self.interpreter = Interpreter(session, self._on_event)

    @contextlib.contextmanager
    def linked(self, sender: str, receiver: str) -> Iterator[None]:
        """A way for streams from sender to receiver; commands are heard while it is used."""
        self.session.link(sender, receiver, self.journal.run, self.policy.limit_bytes_per_s)
        with self.heard(sender):
            yield

    @contextlib.contextmanager
    def heard(self, sender: str) -> Iterator[None]:
        """Commands of a second terminal are heard meanwhile."""
        over = threading.Event()
        listener = threading.Thread(target=self._poll, args=(sender, over), daemon=True)
        listener.start()
        try:
            yield
        finally:
            over.set()
            listener.join(5)

    def _poll(self, name: str, over: threading.Event) -> None:
        while not over.wait(_POLL_S):
            self._hear(name)  # never reaches for a host anew: that is the loop's
            if self.control.asked:
                self.interpreter.cancel()

    def _listen(self, facts: Facts) -> None:
        for host in facts.hosts:
            if not host.error:
                self._hear(host.name)
        history = self.memory.history
        if self.control.abort.is_set() and not history.abort:
            self.memory.history = replace(history, abort=True)

    def _hear(self, name: str) -> None:
        host = self.session.live(name)
        if host is not None:
            with contextlib.suppress(SnaprepError):
                self._obey(host.call("commands", {}, list[str], deadline_s=10))

    def _obey(self, commands: list[str]) -> None:
        for command in commands:
            word, _, value = command.partition(" ")
            self.journal.append("command", command=command)
            if word == "cutover":
                self.memory.history = replace(self.memory.history, release=True)
                self.control.changed.set()
            elif word == "abort":
                self.control.ask_abort()
            elif word == "refresh" and self.session.pair.relay:
                self.sink.note("the common base stays: a feed through the operator leaves no way for it")
            elif word == "refresh":
                self.memory.history = replace(self.memory.history, refresh=True)
            elif word == "limit":
                rate = int(value) or None
                self.policy = replace(self.policy, limit_bytes_per_s=rate)
                for host in filter(None, (self.session.live(h.name) for h in self.session.pair.hosts)):
                    host.call("limit", {"bytes_per_s": rate}, type(None), deadline_s=10)
                self._say(limit_bytes_per_s=rate)
