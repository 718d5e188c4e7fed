"""A run as plain lines for logs, pipes and CI: every change at once, figures ever more rarely."""

from __future__ import annotations

from snaprep.core.document import changes
from snaprep.core.report import Report
from snaprep.view.console import Writable
from snaprep.view.run import lane_words, line, round_line
from snaprep.view.text import clock, safe

_CADENCE = ((10_000, 1_000), (180_000, 5_000))  # until this time, a line every so often
_CADENCE_LATER_MS = 30_000


def due(elapsed_ms: float, last_ms: float | None) -> bool:
    """Whether a line is due although nothing but figures has changed."""
    every_ms = next((every for until, every in _CADENCE if elapsed_ms < until), _CADENCE_LATER_MS)
    return last_ms is None or elapsed_ms - last_ms >= every_ms


class Lines:
    """`last` is the report that the last line was drawn from."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream
        self._drawn: Report | None = None
        self._last: Report | None = None

    def report(self, report: Report) -> None:
        changed = changes(self._last, report)
        self._last = report
        for change in changed:
            if change.event == "round" and change.fields["state"] in ("done", "failed"):
                ended = next(
                    r for r in report.rounds if r.number == change.fields["number"] and r.kind == change.fields["kind"]
                )
                self._say(round_line(report, ended))
        if report.lane is not None and any(c.event == "lane" for c in changed):
            self._say(safe(f"{clock(report.elapsed_ms)}  lane {lane_words(report.lane)}"))
        told = any(c.event in ("state", "serving") for c in changed)
        if told or due(report.elapsed_ms, self._drawn.elapsed_ms if self._drawn else None):
            self._say(line(report))
            self._drawn = report

    def note(self, text: str) -> None:
        self._say(safe(text))

    def now(self) -> None:
        """One line at once, asked for by SIGUSR1."""
        self._say(line(self._last) if self._last else "nothing is known yet")

    def close(self) -> None:
        """Nothing to put back."""

    def _say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
