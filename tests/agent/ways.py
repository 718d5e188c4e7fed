"""Links for tests: through a real sshd with a one-run key, or through plain pipes where ssh does not matter."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from snaprep.agent import keys, pump
from snaprep.agent.link import Dialer, Link, Listener, StreamHeader
from snaprep.core.errors import SnaprepError
from tests.host.sshd import USER, Sshd


@dataclass(slots=True)
class Target:
    """What the target's end of a stream made of it."""

    received: pump.Received | None = None
    error: SnaprepError | None = None
    thread: threading.Thread = field(default_factory=threading.Thread)

    def join(self) -> Target:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self


def header(stream: str = "s1", run: str = "run-1", parts: tuple[str, ...] = ("",)) -> StreamHeader:
    return StreamHeader(
        run=run, stream=stream, image="tank/db", parts=parts, base_guid=2**64 - 1, head="snap", head_guid=2**63
    )


def receive(
    take: Callable[[], Link],
    open_receiver: Callable[[StreamHeader, str], list[str]],
    limits: pump.Limits | None = None,
    cancelled: threading.Event | None = None,
) -> Target:
    """The target's side, in a thread."""
    target = Target()

    def work() -> None:
        try:
            target.received = pump.receive_stream(
                take(), open_receiver, limits=limits or pump.Limits(), cancelled=cancelled
            )
        except SnaprepError as error:
            target.error = error

    target.thread = threading.Thread(target=work, daemon=True)
    target.thread.start()
    return target


def pipe_pair() -> tuple[Link, Link]:
    """Two ends of a link without ssh."""
    there, back = os.pipe(), os.pipe()
    source = Link(back[0], there[1], why=lambda: "", on_close=lambda _: None)
    return source, Link(there[0], back[1], why=lambda: "", on_close=lambda _: None)


@dataclass(slots=True)
class Laid:
    dialer: Dialer
    listener: Listener
    server: Sshd


@contextlib.contextmanager
def laid(server: Sshd, run: str = "run-1", *, lifetime_s: float = 600, host_key: str | None = None) -> Iterator[Laid]:
    """The direct way of a run, as the agents lay it."""
    dialer = Dialer(run)
    listener = Listener(run, USER, greets=True)
    line = keys.authorized_line(dialer.public_key, run, listener.command, lifetime_s=lifetime_s)
    authorized = keys.authorize(line, run, USER, str(server.authorized_keys))
    try:
        dialer.aim(server.way(host_key=host_key))
        yield Laid(dialer, listener, server)
    finally:
        keys.withdraw(authorized)
        dialer.close()
        listener.close()


def folders(run: str) -> list[str]:
    path = Path("/run/snaprep") / run
    return [entry.name for entry in path.iterdir()] if path.exists() else []
