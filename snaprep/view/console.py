"""The one place that decides about terminals and colours."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import IO, TypeAlias, cast

from rich.console import Console
from rich.text import Text

from snaprep.journal import mask
from snaprep.view.text import WIDTH


def console_for(stream: Writable, *, color: bool = True) -> Console:
    """A console that neither parses nor highlights anything. Colour needs a terminal and no NO_COLOR."""
    return Console(
        file=cast("IO[str]", stream),
        markup=False,
        emoji=False,
        highlight=False,
        no_color=not color or None,
        soft_wrap=False,
    )


def wants_screen(stream: Writable, environment: Mapping[str, str] = os.environ) -> bool:
    """A live screen is drawn only where it can be: on a terminal that moves its cursor, unless it was declined."""
    if environment.get("SNAPREP_NO_PROGRESS") or environment.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    return stream.isatty()


def show(lines: Iterable[Text], stream: Writable, *, color: bool = True) -> None:
    """Print lines as they are. Raises BrokenPipeError when nobody reads them any more."""
    console = console_for(stream, color=color)
    for line in lines:
        console.print(line, soft_wrap=True)
    stream.flush()


class Masked:
    """A stream in which secrets are masked, whatever text they stand in."""

    def __init__(self, stream: IO[str], secrets: Iterable[str] = ()) -> None:
        self.stream = stream
        self.secrets = tuple(form for s in secrets for form in {s, json.dumps(s)[1:-1]})

    def write(self, text: str) -> int:
        self.stream.write(mask(text, self.secrets))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "utf-8"


class Talk(Masked):
    """A stream that is only talk: when nobody hears it any more, or it cannot be written, the run goes on."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return super().isatty()
        return False


Writable: TypeAlias = IO[str] | Masked


def plain_text(lines: Iterable[Text]) -> str:
    return "".join(line.plain.rstrip() + "\n" for line in lines)


__all__ = ["WIDTH", "Masked", "Talk", "Writable", "console_for", "plain_text", "show", "wants_screen"]
