"""`snaprep plan`: what a rebuild would do, and what it would cost."""

from __future__ import annotations

from rich.text import Text

from snaprep.core.report import Plan, PlanStep
from snaprep.view.error import error_lines
from snaprep.view.run import lane_words
from snaprep.view.text import duration, hint, paragraph, paragraphs, safe, size, table

_NUMBERS = frozenset({0, 3, 4, 5})


def plan_lines(plan: Plan) -> list[Text]:
    lines = [_title(plan), *paragraph("serves", plan.serving)]
    for fact in plan.facts:
        lines += paragraph(fact.label, fact.what)
    if plan.lane is not None:
        lines += paragraph("lane", lane_words(plan.lane))
    if plan.steps:
        lines.append(Text(""))
        rows = [_row(number, step) for number, step in enumerate(plan.steps, start=1)]
        lines += table(("#", "step", "what", "bytes", "time", "blocked", ""), rows, _NUMBERS)
        lines.append(Text(""))
    lines += _forecast(plan)
    lines += paragraphs("keeps", plan.keeps)
    lines += paragraphs("warning", plan.warnings, "yellow")
    if plan.error is not None:
        return [*lines, Text(""), *error_lines(plan.error), Text(""), Text("Nothing was changed.")]
    return [*lines, Text(""), Text("Nothing was changed."), *hint(plan.hint)]


def _title(plan: Plan) -> Text:
    title = Text(safe(plan.pair), "bold")
    title.append(f"  {safe(plan.engine)}" if plan.engine else "", "default")
    if plan.source:
        ends = f"  {_place(plan.source, plan.source_dataset)} (source)  ->  "
        title.append(f"{safe(ends)}{safe(_place(plan.target, plan.target_dataset))} (target)", "default")
    return title


def _place(host: str, dataset: str) -> str:
    return f"{host}:{dataset}" if dataset else host


def _row(number: int, step: PlanStep) -> tuple[str, ...]:
    return (
        str(number),
        step.name,
        step.what,
        "" if step.step_bytes == 0 else size(step.step_bytes),
        "" if step.time_ms == 0 else _about(step.time_ms),
        "" if step.blocked_ms == 0 else _about(step.blocked_ms),
        step.effect,
    )


def _about(value_ms: float | None) -> str:
    return "unknown" if value_ms is None else f"~{duration(value_ms)}"


def _forecast(plan: Plan) -> list[Text]:
    if plan.forecast is None:
        return []
    told = plan.forecast
    if told.p50_ms is None or told.p90_ms is None:
        return paragraph("cutover", f"not known before rounds are measured; budget {duration(told.budget_ms)}")
    text = (
        f"about {duration(told.p50_ms)}, in nine of ten cases under {duration(told.p90_ms)}; "
        f"budget {duration(told.budget_ms)}, {duration(told.undo_ms)} of it for an undo"
    )
    return paragraph("cutover", text)
