"""What stays on the screen when a verb has ended."""

from __future__ import annotations

from rich.text import Text

from snaprep.core.report import Kept, Lost, Report, RunState
from snaprep.view.error import error_lines
from snaprep.view.run import lane_words, state_words
from snaprep.view.text import clock, duration, hint, paragraph, paragraphs, rate, safe, size


def summary_lines(report: Report) -> list[Text]:
    lines = [_title(report)]
    lines += paragraph("state", "" if report.final else state_words(report))
    lines += paragraph("moved", _moved(report))
    lines += paragraph("lane", lane_words(report.lane) if report.lane is not None else "")
    lines += paragraph("clients", _clients(report))
    lines += paragraph("verified", "; ".join(report.verified))
    for lost in report.lost:
        lines += paragraph("unshipped", _lost(lost), "yellow")
    lines += paragraphs("note", report.notes)
    for kept in report.kept:
        lines += paragraph("kept", _kept(kept))
    if report.base is not None:
        lines += paragraph("base", f"{report.base.name} (guid {report.base.guid})")
    lines += paragraph("journal", report.journal)
    if report.error is not None:
        return [*lines, Text(""), *error_lines(report.error), *(hint(report.hint) if not report.error.hint else [])]
    return [*lines, *hint(report.hint)]


def _title(report: Report) -> Text:
    if not report.final:
        way = f"{report.source} -> {report.target}" if report.source else report.pair
        told = "  ".join(p for p in (report.verb, way, clock(report.elapsed_ms), report.serving) if p)
        return Text.assemble((safe(report.run or report.pair), "bold"), "  ", safe(told))
    name = safe(" ".join(p for p in (report.run or report.pair, report.verb) if p))
    style = {RunState.DONE: "green", RunState.FAILED: "bold red"}.get(report.state, "yellow")
    after = f" after {duration(report.elapsed_ms)}" if report.state is not RunState.DONE else ""
    took = f" in {duration(report.elapsed_ms)}" if report.state is RunState.DONE and report.elapsed_ms else ""
    reason = f" ({safe(report.reason)})" if report.reason and report.error is None else ""
    serving = f" {safe(report.serving)}." if report.serving else ""
    return Text.assemble((name, "bold"), " ", (report.state.words, style), f"{took}{after}{reason}.{serving}")


def _moved(report: Report) -> str:
    ended = [r for r in report.rounds if r.state == "done"]
    if not ended:
        return ""
    moved = sum(r.sent_bytes for r in ended)
    seconds = sum(r.elapsed_ms for r in ended) / 1000
    full = sum(r.kind == "full" for r in ended)
    deltas = len(ended) - full
    parts = [f"{full} full send"] if full else []
    parts += [f"{deltas} round" if deltas == 1 else f"{deltas} rounds"] if deltas else []
    average = f", average {rate(moved / seconds)}" if seconds > 0 else ""
    return f"{size(moved)} in {' + '.join(parts)}{average}"


def _clients(report: Report) -> str:
    frozen = [r.freeze_ms for r in report.rounds if r.freeze_ms is not None]
    parts = [f"waited {duration(max(frozen))} at the longest freeze"] if frozen else []
    cutover = report.cutover
    if cutover is not None:
        predicted = ""
        if cutover.p50_ms is not None and cutover.p90_ms is not None:
            predicted = f"; predicted {duration(cutover.p50_ms)}, P90 {duration(cutover.p90_ms)}"
        allowed = f", budget {duration(report.forecast.budget_ms)}" if report.forecast else ""
        undone = "" if cutover.ok else f", undone: {cutover.reason}"
        parts.append(f"were cut off for {duration(cutover.blocked_ms)} (cutover{predicted}{allowed}{undone})")
    return ", ".join(parts)


def _lost(lost: Lost) -> str:
    counted = "commits not counted" if lost.commits is None else f"{lost.commits} commits"
    amount = f", {size(lost.tail_bytes)} of log" if lost.tail_bytes is not None else ""
    span = f" from {lost.since} to {lost.until}" if lost.since or lost.until else ""
    return f"{counted}{amount}{span}, in {lost.where} on {lost.host}"


def _kept(kept: Kept) -> str:
    return f"{kept.host}: {kept.name}: {kept.why}"
