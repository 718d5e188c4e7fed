"""What a second terminal says to a run, and the way for streams on which it is heard meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

from snaprep.core.errors import SnaprepError
from snaprep.core.model import Facts
from snaprep.loop.state import Run

_POLL_S = 0.5


@contextlib.contextmanager
def linked(run: Run, sender: str, receiver: str) -> Iterator[None]:
    """A way for streams from sender to receiver; commands are heard while it is used."""
    run.session.link(sender, receiver, run.journal.run, run.policy.limit_bytes_per_s)
    with heard(run, sender):
        yield


@contextlib.contextmanager
def heard(run: Run, sender: str) -> Iterator[None]:
    """Commands of a second terminal are heard meanwhile."""
    over = threading.Event()
    listener = threading.Thread(target=_poll, args=(run, sender, over), daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join(5)


def _poll(run: Run, name: str, over: threading.Event) -> None:
    while not over.wait(_POLL_S):
        _hear(run, name)  # never reaches for a host anew: that is the loop's
        if run.control.asked:
            run.interpreter.cancel()


def listen(run: Run, facts: Facts) -> None:
    """What was said since the last look."""
    for host in facts.hosts:
        if not host.error:
            _hear(run, host.name)
    if run.control.abort.is_set() and not run.history.abort:
        run.learn(abort=True)


def _hear(run: Run, name: str) -> None:
    host = run.session.live(name)
    if host is not None:
        with contextlib.suppress(SnaprepError):
            _obey(run, host.call("commands", {}, list[str], deadline_s=10))


def _obey(run: Run, commands: list[str]) -> None:
    for command in commands:
        word, _, value = command.partition(" ")
        run.journal.append("command", command=command)
        if word == "cutover":
            run.learn(release=True)
            run.control.changed.set()
        elif word == "abort":
            run.control.ask_abort()
        elif word == "refresh" and run.session.pair.relay:
            run.sink.note("the common base stays: a feed through the operator leaves no way for it")
        elif word == "refresh":
            run.learn(refresh=True)
        elif word == "limit":
            _limit(run, None if value == "none" else int(value))


def _limit(run: Run, bytes_per_s: int | None) -> None:
    run.policy = replace(run.policy, limit_bytes_per_s=bytes_per_s)
    for host in filter(None, (run.session.live(h.name) for h in run.session.pair.hosts)):
        with contextlib.suppress(SnaprepError):  # one that is lost is told when its next way is opened
            host.call("limit", {"bytes_per_s": bytes_per_s}, type(None), deadline_s=10)
    run.say(limit_bytes_per_s=bytes_per_s)
