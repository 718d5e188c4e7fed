"""The pages on output are compared with what the program draws."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from snaprep.core import report
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import Finding, RunInfo

DOCS = Path(__file__).parents[2] / "docs"
GOLDEN = Path(__file__).parent / "golden"
SHAPES = (
    report.Report, report.RoundReport, report.Forecast, report.CutoverReport, report.BaseReport, report.Kept,
    report.Lost, report.Plan, report.PlanStep, report.Fact, report.Status, report.HostStatus, report.CheckReport,
    report.HostChecks, report.LaneReport, ErrorInfo, Finding, RunInfo,
)  # fmt: skip


def test_every_field_is_promised() -> None:
    """docs/json.md names every field of every document, and every state."""
    named = set(re.findall(r"`([a-z0-9_-]+)", (DOCS / "json.md").read_text()))
    written = {f.name for shape in SHAPES for f in fields(shape)} | {s.value for s in report.RunState}
    assert written <= named


def test_no_unit_is_missing() -> None:
    """No duration or size of a document hides its unit: seconds do not occur, and figures end in their unit."""
    plain = {"number", "generation", "guid", "commits", "pid", "exit_code"}
    for shape in SHAPES:
        for field in fields(shape):
            assert not field.name.endswith("_s") or field.name.endswith("_per_s")
            if re.match(r"(int|float)\b", str(field.type)) and field.name not in plain:
                assert field.name.endswith(("_bytes", "_bytes_per_s", "_ms", "_at")), field.name


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("json.md", "status.json"),
        ("reading-the-output.md", "screen.txt"),
        ("reading-the-output.md", "lines.txt"),
        ("reading-the-output.md", "error.txt"),
    ],
)
def test_examples_are_real(page: str, name: str) -> None:
    """Examples on the pages are what the program writes."""
    blocks = re.findall(r"```[a-z]+\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert (GOLDEN / name).read_text() in blocks
