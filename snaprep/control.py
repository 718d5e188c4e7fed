"""What the terminal and the loop say to each other while a run is on its way."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from snaprep.core.report import Report


class Sink(Protocol):
    """Where a run tells what it does. None of these raises, and none of them waits for a reader."""

    @property
    def show_commands(self) -> bool:
        """The operator wants to see the commands that the hosts run, as events of the kind `command`."""
        ...

    def report(self, report: Report, /) -> None:
        """The whole state, sampled once. Say it as often as it changes; the views thin it out."""
        ...

    def event(self, event: Mapping[str, object], /) -> None:
        """Something that happened, with its kind under `event`."""
        ...

    def note(self, text: str, /) -> None:
        """One sentence for the operator."""
        ...


@dataclass(frozen=True, slots=True)
class Control:
    """What the operator asks of a run that is on its way. The loop looks at it between steps and while it waits."""

    stop: threading.Event = field(default_factory=threading.Event)  # finish the step, then stop; it can be resumed
    abort: threading.Event = field(default_factory=threading.Event)  # put things back as they were, then end
    changed: threading.Event = field(default_factory=threading.Event)  # one of the two was asked

    @property
    def asked(self) -> bool:
        return self.stop.is_set() or self.abort.is_set()

    def ask_stop(self) -> None:
        self.stop.set()
        self.changed.set()

    def ask_abort(self) -> None:
        self.stop.set()
        self.abort.set()
        self.changed.set()

    def wait(self, seconds: float) -> bool:
        """Wait until something is asked, at most `seconds`. True when something was."""
        told = self.changed.wait(seconds)
        self.changed.clear()
        if self.asked:  # it stays asked; looked at after the clearing, so that nothing said meanwhile is lost
            self.changed.set()
        return told
