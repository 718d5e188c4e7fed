"""A feed in this agent: the loop of its side in a thread of its own, beside everything else that the agent does.

While one runs, a lock tells the other agents of this host, which must not open the replica meanwhile, and beside the
lock lies how far it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from snaprep.agent import locks
from snaprep.agent.link import Link
from snaprep.agent.streams import Streams
from snaprep.core.codec import decode, encode
from snaprep.core.errors import ErrorInfo, SnaprepError, Stopped
from snaprep.core.model import FeedFacts, RunInfo
from snaprep.engines.derby.feed.ends import FeedProgress, FeedSource, FeedTarget
from snaprep.engines.derby.feed.link import Finish, Player, Sender, Wire

LINK_S = 60.0  # how long the target waits for the source's connection
_END_S = 10.0
_RATE_S = 2.0  # over which a rate is measured


class Feeds:
    """The feed of this agent, one at most, on either side."""

    def __init__(self, key: str, streams: Streams) -> None:
        """`key` names this host's part of the pair among all feeds of the host."""
        self._key, self._streams = key, streams
        self._now: _Feed | None = None

    # -- beginning -----------------------------------------------------------------------------------------------

    def send(self, stream: str, source: FeedSource) -> None:
        """On the source: connect to the target and begin to feed. Raises `link-lost` and its kin, `locked`."""
        feed = self._begun(stream)
        try:
            link = self._streams.feed_out(stream)
        except SnaprepError:
            feed.release()
            raise
        wire = Wire(link.read_fd, link.write_fd)
        sender = Sender(source, wire, feed.hear, self._streams.pay)
        feed.sender = sender
        feed.start(lambda: _sent(feed, sender), wire, link)

    def play(self, stream: str, target: FeedTarget) -> None:
        """On the target: expect the feed, and play it to the replica. Raises `locked`."""
        feed = self._begun(stream)

        def run() -> None:
            link = self._streams.feed_in(stream, feed.cancelled, LINK_S)
            try:
                wire = Wire(link.read_fd, link.write_fd)
                feed.begun(wire)
                Player(target, wire).run()
            finally:
                link.close(well=True)

        feed.start(run)

    def _begun(self, stream: str) -> _Feed:
        self.end()
        self._now = feed = _Feed(stream, self._key)
        return feed

    # -- what is asked of it -------------------------------------------------------------------------------------

    @property
    def facts(self) -> FeedFacts:
        """How far it is, or how it ended. Raises `not-feeding`."""
        return self._running().facts

    def finish(self, how: Finish, at: int | None, deadline_s: float) -> int:
        """On the source: feed on to the end of the log, then end so. Returns the replica's position.

        Raises what ended the feed, `feed-late` when it does not end in time, `not-feeding`.
        """
        feed = self._running()
        assert feed.sender is not None
        feed.sender.finish(how, at)
        self.wait(deadline_s)
        return feed.sender.progress.received

    def wait(self, deadline_s: float) -> None:
        """Until the feed has ended; on the target after the source said how. Raises what ended it, `feed-late`."""
        feed = self._running()
        if not feed.join(deadline_s):
            raise Stopped("feed-late", f"the feed did not end within {deadline_s:g} s", hint="see `snaprep status`")
        if feed.error is not None:
            raise feed.error

    def _running(self) -> _Feed:
        if self._now is None:
            raise Stopped("not-feeding", "no feed was begun here")
        return self._now

    def end(self) -> None:
        """Break the feed off; fine when there is none. The replica then waits."""
        feed, self._now = self._now, None
        if feed is not None:
            feed.end()


class _Feed:
    """One feed: its thread, its lock, how far it is."""

    def __init__(self, stream: str, key: str) -> None:
        info = RunInfo(run=stream, verb="feed", operator="the agent", pid=os.getpid())
        self._lock = locks.Lock("feed", key, info)
        self._place = _place(key)
        self.sender: Sender | None = None
        self.error: SnaprepError | None = None
        self.cancelled = threading.Event()
        self._wire: Wire | None = None
        self._thread: threading.Thread | None = None
        self._rates: list[tuple[float, int]] = []
        self.facts = FeedFacts(stream=stream, phase="waiting", since_s=time.time(), at_s=time.time())
        self._tell(self.facts)

    def start(self, loop: Callable[[], object], wire: Wire | None = None, link: Link | None = None) -> None:
        if wire is not None:
            self.begun(wire)

        def run() -> None:
            try:
                loop()
            except SnaprepError as error:
                self._ended(error)
            except Exception as error:  # noqa: BLE001 (nobody else would hear of it)
                what = f"the feed: {type(error).__name__}: {error}"
                self._ended(SnaprepError("bug", what, hint="please report this"))
            else:
                self._ended(None)
            finally:
                if link is not None:
                    link.close()
                self.release()

        self._thread = threading.Thread(target=run, name=f"feed {self.facts.stream}", daemon=True)
        self._thread.start()

    def begun(self, wire: Wire) -> None:
        self._wire = wire
        if self.cancelled.is_set():
            wire.give_up()
        self._tell(replace(self.facts, phase="feeding"))

    def hear(self, progress: FeedProgress) -> None:
        """What the source's loop reports, twice a second."""
        now_s = time.monotonic()
        self._rates = [*(r for r in self._rates if now_s - r[0] < _RATE_S), (now_s, progress.sent_bytes)]
        took_s, sent = now_s - self._rates[0][0], progress.sent_bytes - self._rates[0][1]
        self._tell(
            replace(
                self.facts,
                at_s=time.time(),
                position=progress.read,
                sent=progress.sent,
                received=progress.received,
                stored=progress.stored,
                sent_bytes=progress.sent_bytes,
                rate_bytes_per_s=sent / took_s if took_s else 0.0,
                delta_bytes=progress.delta_bytes,
                lag_bytes=progress.lag_bytes,
                lag_s=progress.lag_s,
            )
        )

    def _ended(self, error: SnaprepError | None) -> None:
        self.error = error
        info: ErrorInfo | None = error.info if error is not None else None
        self._tell(replace(self.facts, at_s=time.time(), phase="failed" if error else "finished", error=info))

    def _tell(self, facts: FeedFacts) -> None:
        self.facts = facts
        fresh = self._place.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(encode(facts)))
        fresh.replace(self._place)

    def join(self, deadline_s: float) -> bool:
        assert self._thread is not None
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def end(self) -> None:
        self.cancelled.set()
        if self._wire is not None:
            self._wire.give_up()
        if self._thread is not None:
            self.join(_END_S)

    def release(self) -> None:
        self._place.unlink(missing_ok=True)
        self._lock.release()


def _sent(feed: _Feed, sender: Sender) -> None:
    feed.hear(sender.run())


def _place(key: str) -> Path:
    return locks.lock_path("feed", key).with_suffix(".progress")


def under_way(key: str) -> FeedFacts | None:
    """The feed that some agent of this host has under way; None when none has."""
    if locks.holder("feed", key) is None:
        return None
    with contextlib.suppress(FileNotFoundError, ValueError):
        return decode(FeedFacts, json.loads(_place(key).read_text()))
    return FeedFacts(stream="", phase="waiting", since_s=time.time(), at_s=time.time())
