"""A fed replica in figures, as a file for Prometheus' node exporter (its textfile collector)."""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from snaprep.core.report import Report

EVERY_S = 5.0

_FIGURES = {
    "snaprep_feed_up": "1 while the replica is fed.",
    "snaprep_feed_lag_bytes": "Log that the replica has not received: a take-over now would lack it.",
    "snaprep_feed_lag_seconds": "Age of the oldest log that the replica has not received.",
    "snaprep_feed_delta_bytes": "Log that is not on the replica's disk.",
    "snaprep_feed_sent_bytes": "Log sent since this feed began.",
    "snaprep_feed_seen_timestamp_seconds": "When the figures of the feed were measured.",
    "snaprep_source_free_bytes": "Free space of the source's pool.",
}


class Metrics:
    """Written anew every few seconds, by renaming: a reader never sees half a file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when it cannot be written."""
        self._path = path
        self._written_s = 0.0
        write_to_textfile(str(path), CollectorRegistry())

    def report(self, report: Report) -> None:
        now_s = time.monotonic()
        if not report.final and now_s - self._written_s < EVERY_S:
            return
        self._written_s = now_s
        try:
            write_to_textfile(str(self._path), registry(report))
        except OSError:
            return  # its age tells: a full disk there must not end the feed


def registry(report: Report) -> CollectorRegistry:
    """What is known. A figure that is not known is left out, as a lag of 0 would be a lie."""
    found = CollectorRegistry()
    feed = None if report.final else report.feed
    lag_ms = feed.lag_ms if feed is not None else None
    values: dict[str, float | None] = {"snaprep_feed_up": float(lag_ms is not None)}
    if feed is not None:
        values |= {
            "snaprep_feed_lag_bytes": feed.lag_bytes,
            "snaprep_feed_lag_seconds": lag_ms / 1000 if lag_ms is not None else None,
            "snaprep_feed_delta_bytes": feed.delta_bytes,
            "snaprep_feed_sent_bytes": feed.sent_bytes,
            "snaprep_feed_seen_timestamp_seconds": feed.seen_at,
        }
    values["snaprep_source_free_bytes"] = report.source_free_bytes
    for name, value in values.items():
        if value is not None:
            Gauge(name, _FIGURES[name], ["pair"], registry=found).labels(report.pair).set(value)
    return found
