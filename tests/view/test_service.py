"""What a fed replica tells besides the screen: figures for Prometheus, and readiness for systemd."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from snaprep.core.report import FeedReport, Report, RunState
from snaprep.view.metrics import Metrics
from snaprep.view.notify import Notify

WAITS = Report(pair="bank", verb="follow", source="db1", target="db2", source_free_bytes=7 << 30, feed=FeedReport())
FED = replace(
    WAITS,
    state=RunState.FOLLOWING,
    feed=FeedReport(seen_at=1000.0, sent_bytes=5000, lag_bytes=300, lag_ms=250.0, delta_bytes=900),
)
ENDED = replace(FED, state=RunState.STOPPED, reason="stopped as asked")


def figures(path: Path) -> dict[str, float]:
    families = text_string_to_metric_families(path.read_text())
    return {s.name: s.value for family in families for s in family.samples if s.labels == {"pair": "bank"}}


def test_figures_of_a_fed_replica(tmp_path: Path) -> None:
    """Lag in bytes and seconds, in base units, under the pair's name."""
    path = tmp_path / "bank.prom"
    Metrics(path).report(FED)
    assert figures(path) == {
        "snaprep_feed_up": 1,
        "snaprep_feed_lag_bytes": 300,
        "snaprep_feed_lag_seconds": 0.25,
        "snaprep_feed_delta_bytes": 900,
        "snaprep_feed_sent_bytes": 5000,
        "snaprep_feed_seen_timestamp_seconds": 1000,
        "snaprep_source_free_bytes": 7 << 30,
    }


def test_a_lag_that_is_not_known_is_left_out(tmp_path: Path) -> None:
    """Before the replica has said where it is, and after the feed has ended, there is no lag and the feed is down."""
    for report in (WAITS, ENDED, replace(WAITS, feed=None)):
        path = tmp_path / "bank.prom"
        Metrics(path).report(report)
        found = figures(path)
        assert found["snaprep_feed_up"] == 0
        assert "snaprep_feed_lag_bytes" not in found


def test_figures_are_written_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    """A report that follows at once is not written, the last one always is; a directory that goes ends nothing."""
    path = tmp_path / "at" / "bank.prom"
    path.parent.mkdir()
    metrics = Metrics(path)
    metrics.report(FED)
    metrics.report(replace(FED, source_free_bytes=1))
    assert figures(path)["snaprep_source_free_bytes"] == 7 << 30
    metrics.report(ENDED)
    assert figures(path)["snaprep_feed_up"] == 0
    path.unlink()
    path.parent.rmdir()
    metrics.report(ENDED)
    with pytest.raises(OSError, match="No such file"):
        Metrics(path)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_when_the_replica_is_fed(tmp_path: Path, *, abstract: bool) -> None:
    """Ready is said once, when the lag is known; the state in words when it changes; stopping at the end."""
    address = f"@snaprep-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{address[1:]}" if abstract else address)
        listener.settimeout(5)
        notify = Notify(address)
        for report in (WAITS, FED, FED, ENDED):
            notify.report(report)
        heard = [listener.recv(4096).decode().split("\n") for _ in range(3)]
    assert [line[0] for line in heard] == [heard[0][0], "READY=1", heard[2][0]]
    assert heard[0][0].startswith("STATUS=db1 feeds db2: ")
    assert "lags" in heard[1][1]
    assert heard[2] == ["STATUS=stopped: stopped as asked", "STOPPING=1"]


def test_nobody_listens(tmp_path: Path) -> None:
    """A manager that is gone ends nothing."""
    Notify(str(tmp_path / "nobody")).report(FED)
