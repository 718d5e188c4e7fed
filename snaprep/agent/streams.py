"""Streams of this host: storage at one end, the link at the other."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from snaprep.agent import flow, keys, pump
from snaprep.agent.identity import login_user
from snaprep.agent.link import Dialer, Link, Listener, StreamHeader, Way
from snaprep.agent.pipe import HEADER, header_bytes
from snaprep.core.errors import SnaprepError, Stopped
from snaprep.core.volume import Point
from snaprep.volumes.base import Volume

PROBE_BYTES = 64 << 20
PROBE_S = 2.0
# Random, so that nothing on the way can compress it; a block is made once, for making it is slow.
_PROBE = """\
import os,sys,time
left,until=int(sys.argv[1]),time.monotonic()+float(sys.argv[2])
block=os.urandom(1<<20)
while left>0 and time.monotonic()<until:
 left-=os.write(1,block)
"""
PROBE_SINK = ["dd", "of=/dev/null", "bs=1M", "status=none"]
_TAKE_TICK_S = 0.5
_RELAYED_S = 30.0
_CANCEL_S = 10.0
KEY_LIFE_S = 30 * 24 * 3600  # longer than any stream; the key goes when the run ends, and is renewed until then


@dataclass(frozen=True, slots=True)
class Sent:
    bytes: int
    seconds: float
    sha256: tuple[str, ...]  # one a part


@dataclass(slots=True)
class _Receiving:
    """A stream that is expected or on its way in."""

    thread: threading.Thread
    cancelled: threading.Event = field(default_factory=threading.Event)
    point: Point | None = None
    error: SnaprepError | None = None


class Streams:
    """What this host sends and receives in a run. One stream of a name at a time."""

    def __init__(self) -> None:
        self._throttle = flow.Throttle()
        self._listener: Listener | None = None
        self._authorized: keys.Authorized | None = None
        self._dialer: Dialer | None = None
        self._outlet: Listener | None = None  # where links come that the operator joins
        self._receiving: dict[str, _Receiving] = {}
        self._progress: Callable[[object], None] = lambda _: None
        self._cancelled: threading.Event | None = None
        self.run = ""

    def watch(self, progress: Callable[[object], None], cancelled: threading.Event) -> None:
        """Where to tell of bytes, and what ends a stream that is sent, for the call that begins now."""
        self._progress, self._cancelled = progress, cancelled

    def limit(self, bytes_per_s: int | None) -> None:
        self._throttle.bytes_per_s = bytes_per_s

    # -- the way -------------------------------------------------------------------------------------------------

    def open_key(self, run: str) -> str:
        """On the source: a key for this run. Returns its public half."""
        if self._dialer is None:
            self.run = run
            self._dialer = Dialer(run)
        return self._dialer.public_key

    def listen(self, run: str, public_key: str) -> str:
        """On the target: let that key in, to our socket and nothing else. Returns the user to log in as.

        It takes the place of the one before: a source's agent that succeeds another has a key of its own, and one that
        lives for weeks asks anew before its key expires.
        """
        user = login_user()
        if self._listener is None:
            self.run = run
            self._listener = Listener(run, user, greets=True)
        if self._authorized is not None:
            keys.withdraw(self._authorized)
        line = keys.authorized_line(public_key, run, self._listener.command, lifetime_s=KEY_LIFE_S)
        self._authorized = keys.authorize(line, run, user)
        return user

    def relay(self, run: str, *, sends: bool) -> list[str]:
        """Be reached through the operator: returns the program that the operator's own ssh must run here."""
        if sends:
            if self._outlet is None:
                self.run = run
                self._outlet = Listener(run, login_user(), greets=False)
            return self._outlet.command
        if self._listener is None:
            self.run = run
            self._listener = Listener(run, login_user(), greets=True)
        return self._listener.command

    def aim(self, way: Way) -> None:
        """On the source: say where the target is, and see that it can be reached. Raises `link-lost` and its kin."""
        if self._dialer is None:
            raise Stopped("link-not-open", "no key was made for this run")
        self._dialer.aim(way)
        self._dialer.ensure()

    # -- out -----------------------------------------------------------------------------------------------------

    def send(
        self, volume: Volume, header: StreamHeader, base_name: str, flags: tuple[str, ...], token: str | None = None
    ) -> Sent:
        """Send a point, or with `token` what is missing of it; returns when the target has taken it all.

        Raises what `pump.send_stream` raises.
        """
        parts = volume.open_send(
            header.image, header.head, header.base_guid, base_name=base_name, flags=flags, token=token
        )
        try:
            sent = pump.send_stream(
                self._link(),
                header,
                parts,
                throttle=self._throttle,
                on_progress=lambda m: self._progress(
                    {"sent_bytes": m.total_bytes, "rate_bytes_per_s": m.rate_bytes_s, "elapsed_ms": 1000 * m.seconds}
                ),
                cancelled=self._cancelled,
            )
        except SnaprepError as error:
            raise _explained(volume, error) from error
        if self._dialer is not None:
            self._dialer.prepare()
        return Sent(bytes=sent.bytes, seconds=sent.seconds, sha256=tuple(p.sha256 for p in sent.parts))

    def probe(self, stream: str) -> Sent:
        """Send throw-away bytes, at most 64 MiB or for 2 s, to learn what the link carries."""
        header = StreamHeader(
            run=self.run, stream=stream, image="", parts=(), base_guid=None, head="probe", head_guid=0
        )
        program = [sys.executable, "-I", "-S", "-c", _PROBE, str(PROBE_BYTES), str(PROBE_S)]
        sent = pump.send_stream(self._link(), header, [("", program)], throttle=self._throttle)
        if self._dialer is not None:
            self._dialer.prepare()
        return Sent(bytes=sent.bytes, seconds=sent.seconds, sha256=tuple(p.sha256 for p in sent.parts))

    def feed_out(self, stream: str) -> Link:
        """A link for a feed, both ways, over which its name was said. It is the caller's to close."""
        header = StreamHeader(run=self.run, stream=stream, image="", parts=(), base_guid=None, head="feed", head_guid=0)
        link = self._link()
        try:
            link.send(HEADER, header_bytes(header))
        except SnaprepError:
            link.close()
            raise
        return link

    def feed_in(self, stream: str, cancelled: threading.Event, deadline_s: float) -> Link:
        """On the target: the link on which this feed's name comes. Raises `link-lost` when none does."""
        if self._listener is None:
            raise Stopped("link-not-open", "this host was not told to listen")
        return _await_link(self._listener, stream, cancelled, deadline_s)

    def pay(self, count: int) -> float:
        """How long to wait after so many bytes, to keep to the limit. Seconds."""
        return self._throttle.pay(count)

    def ready(self) -> None:
        """See the way open before it is needed in a hurry. Raises `link-lost` and its kin."""
        if self._dialer is not None:
            self._dialer.ensure()

    def reach(self) -> None:
        """See a connection to the target's agent stand, and let it go again."""
        self._link().close(well=True)

    def _link(self) -> Link:
        if self._outlet is not None:
            return self._outlet.take(None, deadline_s=_RELAYED_S)
        if self._dialer is None:
            raise Stopped("link-not-open", "the way to the target was not opened")
        return self._dialer.take()

    # -- in ------------------------------------------------------------------------------------------------------

    def receive_begin(self, stream: str, programs: Mapping[str, list[str]], landed: Callable[[], Point | None]) -> None:
        """Expect a stream, whose parts these programs will read; it is received as soon as it comes.

        Then `landed` looks at what it has become, while the sender hears that all is there.
        """
        listener = self._listener
        if listener is None:
            raise Stopped("link-not-open", "this host was not told to listen")
        self.receive_cancel(stream)
        receiving = _Receiving(threading.Thread(target=lambda: None))

        def receive() -> None:
            try:
                link = _await_link(listener, stream, receiving.cancelled)
                pump.receive_stream(link, lambda _header, part: programs[part], cancelled=receiving.cancelled)
                receiving.point = landed()
            except SnaprepError as error:
                receiving.error = error

        receiving.thread = threading.Thread(target=receive, name=f"receive {stream}", daemon=True)
        self._receiving[stream] = receiving
        receiving.thread.start()

    def receive_end(self, stream: str, deadline_s: float) -> Point | None:
        """Wait until the stream is in and was looked at. Raises what ended it."""
        receiving = self._receiving.get(stream)
        if receiving is None:
            raise Stopped("not-receiving", f"no stream {stream} is expected")
        receiving.thread.join(deadline_s)
        if receiving.thread.is_alive():
            self.receive_cancel(stream)
            what = f"stream {stream} was not in after {deadline_s:g} s"
            raise Stopped("receive-late", what, hint="see what keeps the target's pool busy; the round is repeated")
        del self._receiving[stream]
        if receiving.error is not None:
            raise receiving.error
        return receiving.point

    def receive_cancel(self, stream: str) -> None:
        """Stop expecting or receiving a stream; fine when there is none."""
        receiving = self._receiving.pop(stream, None)
        if receiving is not None:
            receiving.cancelled.set()
            receiving.thread.join(_CANCEL_S)

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take the key back, end what is under way, remove the folders."""
        for stream in list(self._receiving):
            self.receive_cancel(stream)
        if self._authorized is not None:
            with contextlib.suppress(SnaprepError, OSError):
                keys.withdraw(self._authorized)
        for listener in (self._listener, self._outlet):
            if listener is not None:
                listener.close()
        if self._dialer is not None:
            self._dialer.close()


def _explained(volume: Volume, error: SnaprepError) -> SnaprepError:
    """What the filesystem's own words mean, where a program of either side ended the stream."""
    if error.id not in ("send-failed", "receive-failed"):
        return error
    meant = volume.stream_failed(1, "\n".join(error.info.details))
    side = "the target" if error.id == "receive-failed" else "the source"
    return Stopped(meant.id, f"{side}: {meant.info.what}", hint=meant.info.hint, details=error.info.details)


def _await_link(listener: Listener, stream: str, cancelled: threading.Event, deadline_s: float = math.inf) -> Link:
    """The link on which a stream's header comes. Raises `link-lost` when it is cancelled, or does not come in time."""
    until = time.monotonic() + deadline_s
    while True:
        try:
            return listener.take(stream, deadline_s=_TAKE_TICK_S)
        except SnaprepError as error:
            if error.id != "link-lost" or cancelled.is_set() or time.monotonic() > until:
                raise
