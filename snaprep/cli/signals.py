"""Signals as an orderly stop: the first asks a run to finish its step, the second to put things back.

What holds a freeze or a gate is on the hosts and ends by its lease, so even the third, which simply ends this program,
leaves no database closed for good.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snaprep.control import Control

_SAY_S = 1.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ended a verb that cannot be stopped in steps. No error: nothing but `main` may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Listener:
    """What signals do at present.

    A handler only sets flags; words come from a thread, because a handler may have interrupted a write.
    """

    def __init__(self, say: Callable[[str], None], now: Callable[[], None]) -> None:
        self._say = say
        self._now = now
        self._asked = 0
        self.control: Control | None = None  # None: a signal ends the verb at once
        self.finishing = ""  # why the first signal is not obeyed
        self._talking: list[threading.Thread] = []

    def on_stop(self, number: int, _frame: FrameType | None) -> None:
        self._asked += 1
        name = signal.Signals(number).name
        if self.control is not None and self._asked == 1:
            self.control.ask_stop()
            self._later(f"{name}: finishing this step, then stopping; again to abort")
        elif self.control is not None and self._asked == 2:
            self.control.ask_abort()
            self._later(f"{name}: aborting: putting things back; again to leave at once")
        elif self.finishing and self._asked == 1:
            self._later(f"{name}: {self.finishing}")
        else:
            raise Interrupted(number)

    def on_look(self, _number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=self._now, daemon=True).start()

    def _later(self, text: str) -> None:
        thread = threading.Thread(target=self._say, args=(text,), daemon=True)
        self._talking.append(thread)
        thread.start()

    def finish(self) -> None:
        """Let what is being said be heard, although the run may have ended since."""
        for thread in self._talking:
            thread.join(_SAY_S)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[Listener]:
    """Handle signals while the block runs, in the main thread; elsewhere they stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield listener
        return
    handlers = dict.fromkeys(STOPPING, listener.on_stop) | {signal.SIGUSR1: listener.on_look}
    kept = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if kept[number] is not signal.SIG_IGN:  # nohup
            signal.signal(number, handler)
    try:
        yield listener
    finally:
        for number, former in kept.items():
            signal.signal(number, former)
        listener.finish()
