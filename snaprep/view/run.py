"""What the live screen and the plain lines have in common: the rows of a run, and its state in one line."""

from __future__ import annotations

from rich.text import Text

from snaprep.core.report import FeedReport, Forecast, LaneReport, Report, RoundReport, RunState
from snaprep.view.text import bar, clock, duration, paragraph, paragraphs, rate, safe, share, size, table

ROUNDS_SHOWN = 10
_STYLES = {
    RunState.DONE: "green", RunState.FAILED: "red", RunState.HELD: "yellow", RunState.STOPPED: "yellow",
    RunState.ABORTED: "yellow", RunState.CUTTING_OVER: "bold", RunState.TAKING_OVER: "bold",
}  # fmt: skip


def screen(report: Report, silent_s: float = 0.0) -> list[Text]:
    """The whole state on a few lines. `silent_s` is how long nothing has been heard of the run."""
    lines = [_title(report)]
    if report.rounds:
        left_out = report.rounds[1:-ROUNDS_SHOWN] if len(report.rounds) > ROUNDS_SHOWN + 1 else ()
        shown = [r for r in report.rounds if r not in left_out]
        heads = ("round", "delta", "sent", "rate", "time", "frozen", "blocked", "")
        rows = [_row(r) for r in shown]
        lines += table(heads, rows, frozenset({1, 2, 3, 4, 5, 6}))
        if left_out:
            lines.insert(3, Text(f"  ... {len(left_out)} rounds between"))
    if report.lane is not None:
        lines += paragraph("lane", lane_words(report.lane))
    if report.feed is not None:
        lines += paragraph("replica", feed_words(report.feed))
    if report.cutover is not None and report.cutover.ok:
        lines += paragraph("cutover", f"done, blocked {duration(report.cutover.blocked_ms)}")
    else:
        lines += paragraph("cutover", _forecast(report.forecast))
    lines += paragraph("space", _space(report))
    lines += paragraphs("note", report.notes[-3:])
    lines += paragraph("state", state_words(report), _STYLES.get(report.state, ""))
    if silent_s >= 3:
        lines += paragraph("", f"nothing heard of the run for {silent_s:.0f} s", "yellow")
    return lines


def line(report: Report) -> str:
    """The state on one line, for logs and for SIGUSR1."""
    parts = [clock(report.elapsed_ms)]
    if report.current is not None:
        parts += [_round_name(report.current), *_progress(report.current)]
    told = report.forecast
    if report.feed is not None and report.state is RunState.FOLLOWING:
        parts.append(feed_words(report.feed))
    if report.cutover is not None and report.cutover.ok:
        parts.append(f"cutover done, blocked {duration(report.cutover.blocked_ms)}")
    elif told is not None and told.p50_ms is not None:
        parts.append(f"cutover ~{duration(told.p50_ms)} (P90 {duration(told.p90_ms)} of {duration(told.budget_ms)})")
    parts.append(f"state {state_words(report)}")
    if report.serving:
        parts.append(report.serving)
    return safe("  ".join(parts))


def round_line(report: Report, done: RoundReport) -> str:
    """A round that has ended."""
    parts = [clock(report.elapsed_ms), _round_name(done), done.state, size(done.sent_bytes)]
    parts += [f"in {duration(done.elapsed_ms)}", rate(done.rate_bytes_per_s), *_goes_on(done)]
    parts += [f"frozen {duration(done.freeze_ms)}"] if done.freeze_ms is not None else []
    parts += [f"blocked {duration(done.blocked_ms)}"] if done.blocked_ms is not None else []
    return "  ".join(parts)


def lane_words(lane: LaneReport) -> str:
    """Which it is, and why."""
    return f"{lane.name}: {lane.why}"


def feed_words(feed: FeedReport) -> str:
    """How far a replica lags."""
    if feed.lag_bytes is None:
        return "the replica is booted, or waits for its feed"
    told = [f"lags {size(feed.lag_bytes)}, {duration(feed.lag_ms)}", f"fed {size(feed.sent_bytes)}"]
    told += [rate(feed.rate_bytes_per_s)] if feed.rate_bytes_per_s is not None else []
    return ", ".join(told)


def state_words(report: Report) -> str:
    words, reason = report.state.words, report.reason
    if not reason or reason.startswith(words):
        return reason or words
    return f"{words}: {reason}"


def _title(report: Report) -> Text:
    way = f"{report.source} -> {report.target}" if report.source else report.pair
    parts = [safe(p) for p in (report.verb, way, clock(report.elapsed_ms), report.serving) if p]
    return Text.assemble((safe(report.run or report.pair), "bold"), "  ", "  ".join(parts))


def _row(one: RoundReport) -> tuple[str, ...]:
    live = one.state not in ("done", "failed")
    return (
        _round_name(one).removeprefix("round "),
        size(one.expected_bytes if live else (one.arrived_bytes or 0) + one.sent_bytes),
        size(one.sent_bytes),
        rate(one.rate_bytes_per_s),
        duration(one.elapsed_ms),
        "-" if one.freeze_ms is None else duration(one.freeze_ms),
        "-" if one.blocked_ms is None else duration(one.blocked_ms),
        "  ".join([*([_drawn(one)] if live else []), *(["failed"] if one.state == "failed" else []), *_goes_on(one)]),
    )


def _drawn(one: RoundReport) -> str:
    part = share(one.sent_bytes, one.expected_bytes)
    return one.state if part is None else f"{100 * part:3.0f} %  {bar(part)}"


def _round_name(one: RoundReport) -> str:
    return {"full": "full send", "refresh": "refresh"}.get(one.kind, f"round {one.number}")


def _progress(one: RoundReport) -> list[str]:
    part = share(one.sent_bytes, one.expected_bytes)
    known = [f"of {size(one.expected_bytes)}", f"{100 * part:.0f} %"] if part is not None else []
    return [one.state, size(one.sent_bytes), *known, rate(one.rate_bytes_per_s), *_goes_on(one)]


def _goes_on(one: RoundReport) -> list[str]:
    """From where a stream that broke is gone on with."""
    if one.arrived_bytes is None:
        return []
    return [f"{'went' if one.state in ('done', 'failed') else 'goes'} on after {size(one.arrived_bytes)}"]


def _forecast(told: Forecast | None) -> str:
    if told is None:
        return ""
    if told.p50_ms is None:
        return f"not known yet; budget {duration(told.budget_ms)}"
    return (
        f"now would block about {duration(told.p50_ms)}, in nine of ten cases under {duration(told.p90_ms)}; "
        f"budget {duration(told.budget_ms)}, {duration(told.undo_ms)} of it for an undo"
    )


def _space(report: Report) -> str:
    parts = []
    if report.source_free_bytes is not None:
        parts.append(f"{report.source} {size(report.source_free_bytes)} free")
    if report.target_free_bytes is not None:
        parts.append(f"{report.target} {size(report.target_free_bytes)} free")
    if report.pinned_bytes:
        parts.append(f"the base pins {size(report.pinned_bytes)}")
    if report.limit_bytes_per_s is not None:
        parts.append(f"limit {rate(report.limit_bytes_per_s)}")
    return ", ".join(parts)
