"""Where a run's words go: the live screen or plain lines on stderr, events to a file. Data on stdout is `app`'s."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

from snaprep.core.document import changes
from snaprep.core.errors import UsageError
from snaprep.core.report import Report
from snaprep.view.console import Talk, wants_screen
from snaprep.view.json import event_line
from snaprep.view.lines import Lines

FIGURES_EVERY_S = 1.0  # at most, for events that only carry new figures


class View(Protocol):
    def report(self, report: Report) -> None: ...
    def note(self, text: str) -> None: ...
    def now(self) -> None: ...
    def close(self) -> None: ...


class Follower(Protocol):
    """Who is told of every report besides the operator. It never raises."""

    def report(self, report: Report) -> None: ...


class Output:
    """The `Sink` of a verb. It can be called from any thread and never raises because nobody listens."""

    def __init__(
        self,
        *,
        stdout: IO[str],
        stderr: IO[str],
        secrets: tuple[str, ...] = (),
        events: str = "",
        color: bool = True,
        progress: bool = True,
        show_commands: bool = False,
        verbose: bool = False,
    ) -> None:
        self.show_commands = show_commands
        self.last: Report | None = None
        self._lock = threading.Lock()
        self._verbose = verbose
        self._figures_s = 0.0
        self._talk = Talk(stderr, secrets)
        self._events = Talk(_event_stream(events, stdout), secrets) if events else None
        self._closes = events not in ("", "-")
        self._color = color
        self._screen_wanted = progress and wants_screen(self._talk)
        self._view: View | None = None
        self._followers: list[Follower] = []

    def tell(self, follower: Follower) -> None:
        self._followers.append(follower)

    def report(self, report: Report, /) -> None:
        with self._lock:
            for change in changes(self.last, report):
                if change.event != "forecast":
                    self._write_event(change.event, {"run": report.run, **change.fields})
            self._figures(report)
            self.last = report
            self._drawn().report(report)
            for follower in self._followers:
                follower.report(report)

    def event(self, event: Mapping[str, object], /) -> None:
        with self._lock:
            kind = str(event.get("event", "event"))
            self._write_event(kind, event)
            if kind == "command":
                if self.show_commands:
                    self._drawn().note(f"{event.get('host', '')}$ {event.get('line', '')}")
            elif self._verbose:
                told = "  ".join(f"{k}={v}" for k, v in event.items() if k != "event")
                self._drawn().note(f"{kind}  {told}")

    def note(self, text: str, /) -> None:
        with self._lock:
            self._write_event("note", {"text": text})
            self._drawn().note(text)

    def now(self) -> None:
        """The state in one line, at once."""
        with self._lock:
            self._drawn().now()

    def pause(self) -> None:
        """Take the screen away: something is asked, or the end is told. The next report brings it back."""
        with self._lock:
            if self._view is not None:
                self._view.close()
            self._view = None

    def close(self) -> None:
        self.pause()
        if self._closes and self._events is not None:
            self._events.stream.close()
            self._events = None

    def _drawn(self) -> View:
        """The view, made when there is something to draw: verbs that only answer never touch the terminal."""
        if self._view is None:
            if self._screen_wanted:
                from snaprep.view.live import Screen  # noqa: PLC0415 (rich.live is slow to import)

                self._view = Screen(self._talk, color=self._color)
            else:
                self._view = Lines(self._talk)
        return self._view

    def _figures(self, report: Report) -> None:
        now_s = time.monotonic()
        if self._events is None or now_s - self._figures_s < FIGURES_EVERY_S:
            return
        self._figures_s = now_s
        fields = {"run": report.run, "elapsed_ms": report.elapsed_ms, "forecast": report.forecast}
        self._write_event("progress", {**fields, "round": report.current, "feed": report.feed})

    def _write_event(self, kind: str, fields: Mapping[str, object]) -> None:
        if self._events is not None:
            self._events.write(event_line(kind, fields))
            self._events.flush()


def _event_stream(where: str, stdout: IO[str]) -> IO[str]:
    if where == "-":
        return stdout
    try:
        return Path(where).open("a", encoding="utf-8")
    except OSError as error:
        what = f"events cannot be written to {where}: {error.strerror}"
        hint = "choose a place where you may write, or - for stdout"
        raise UsageError("events-unwritable", what, hint=hint, serving="nothing was touched") from error
