"""Drawing plans, reports and errors. A view holds no state beyond the last report."""

from __future__ import annotations

from rich.text import Text

from snaprep.core.document import Document
from snaprep.core.errors import ErrorInfo
from snaprep.core.report import CheckReport, Plan, Report
from snaprep.view.check import check_lines
from snaprep.view.console import Writable, show
from snaprep.view.error import error_lines
from snaprep.view.json import document
from snaprep.view.plan import plan_lines
from snaprep.view.status import status_lines
from snaprep.view.summary import summary_lines


def document_lines(value: Document) -> list[Text]:
    """A document for people."""
    if isinstance(value, Report):
        return summary_lines(value)
    if isinstance(value, Plan):
        return plan_lines(value)
    if isinstance(value, CheckReport):
        return check_lines(value)
    return status_lines(value)


def show_document(value: Document, stdout: Writable, *, json: bool, color: bool) -> None:
    """Write it on stdout, for people or as JSON. Raises BrokenPipeError."""
    if json:
        stdout.write(document(value))
        stdout.flush()
    else:
        show(document_lines(value), stdout, color=color)


def show_error(error: ErrorInfo, stdout: Writable, stderr: Writable, *, json: bool, color: bool) -> None:
    """Write it on stderr, and on stdout when a JSON document is promised there. Raises BrokenPipeError for stdout."""
    show(error_lines(error), stderr, color=color)
    if json:
        stdout.write(document(error))
        stdout.flush()


__all__ = ["document_lines", "show_document", "show_error"]
