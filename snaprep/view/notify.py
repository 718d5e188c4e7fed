"""What systemd wants to know of a service: that it is ready, what it does, that it ends. See sd_notify(3)."""

from __future__ import annotations

import contextlib
import socket

from snaprep.core.report import Report
from snaprep.view.run import feed_words
from snaprep.view.text import safe


class Notify:
    """Ready is a replica that is fed."""

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._ready = False
        self._said = ""

    def report(self, report: Report) -> None:
        words = []
        if not self._ready and report.feed is not None and report.feed.lag_ms is not None:
            self._ready = True
            words.append("READY=1")
        if (status := _status(report)) != self._said:
            self._said = status
            words.append(f"STATUS={status}")
        if report.final:
            words.append("STOPPING=1")
        if words:
            self._send("\n".join(words))

    def _send(self, text: str) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(text.encode(), self._address)


def _status(report: Report) -> str:
    if report.feed is not None and not report.final:
        return f"{report.source} feeds {report.target}: {feed_words(report.feed)}"
    return safe(f"{report.state.words}: {report.reason}" if report.reason else report.state.words)
