"""A run on a terminal: one live screen, redrawn from the last report four times a second."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from snaprep.core.report import Report
from snaprep.view.console import Writable, console_for
from snaprep.view.run import line, screen
from snaprep.view.text import safe

REDRAWN_HZ = 4


class Screen:
    """The last report, and when it came: a run that says nothing any more can be seen."""

    def __init__(self, stream: Writable, *, color: bool = True) -> None:
        self._console: Console = console_for(stream, color=color)
        self._last: Report | None = None
        self._heard_s = time.monotonic()
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=REDRAWN_HZ,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def report(self, report: Report) -> None:
        self._last = report
        self._heard_s = time.monotonic()

    def note(self, text: str) -> None:
        self._console.print(Text(safe(text)))

    def now(self) -> None:
        self.note(line(self._last) if self._last else "nothing is known yet")

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> Group:
        report = self._last
        if report is None:
            return Group(Text("looking at both hosts ..."))
        return Group(*screen(report, time.monotonic() - self._heard_s))
