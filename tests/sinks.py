"""Where tests let a verb tell what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snaprep.core.report import Report


class Notes:
    """Keeps what is noted, and nothing else."""

    show_commands = False

    def __init__(self) -> None:
        self.notes: list[str] = []

    def report(self, report: Report, /) -> None: ...

    def event(self, event: Mapping[str, object], /) -> None: ...

    def note(self, text: str, /) -> None:
        self.notes.append(text)
