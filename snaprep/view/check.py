"""`snaprep check`: what would stop a run, host by host."""

from __future__ import annotations

import textwrap

from rich.text import Text

from snaprep.core.model import Finding
from snaprep.core.report import CheckReport, HostChecks
from snaprep.view.text import WIDTH, inner_hint, paragraph, safe

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def check_lines(report: CheckReport) -> list[Text]:
    hosts = [h for h in report.hosts if h.findings]
    names = [safe(f"{h.role} {h.host}".strip()) or "both" for h in hosts]
    width = max((len(n) for n in names), default=0)
    lines: list[Text] = []
    for name, host in zip(names, hosts, strict=True):
        lines += _host(name, host, width)
    counted = ", ".join(
        (
            f"{report.count('ok')} ok",
            _counted(report.count("warn"), "warning"),
            _counted(report.count("fail"), "failure"),
        )
    )
    return [*lines, Text(f"{counted}. Nothing was changed."), *paragraph("", report.serving, indent=0)]


def _host(name: str, host: HostChecks, width: int) -> list[Text]:
    lines: list[Text] = []
    for number, finding in enumerate(host.findings):
        lines += _finding(name if number == 0 else "", finding, width)
    return lines


def _finding(name: str, finding: Finding, width: int) -> list[Text]:
    mark, style = _MARKS[finding.level]
    indent = width + 2 + len(mark) + 1
    told = f"{finding.what} [{finding.id}]" if finding.level != "ok" else finding.what
    words = textwrap.wrap(safe(told), WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    first = Text.assemble(f"{name:<{width}}  ", (mark, style), " ", words[0] if words else "")
    rest = [Text(" " * indent + line) for line in words[1:]]
    return [first, *rest, *inner_hint(finding.hint, indent)]


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
