"""The words and columns that all views share: figures with their unit, foreign text made harmless, tables, paragraphs.

Everything is built from rich's `Text` with styles beside it, never from markup: a dataset called `[red]` stays `[red]`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich.text import Text

from snaprep.core import words

WIDTH = 100
LABEL_WIDTH = 12


def safe(text: str) -> str:
    """The text on one line, with everything that a terminal would act on written out."""
    spaced = " ".join(text.split("\n")) if "\n" in text else text
    if spaced.isprintable():
        return spaced
    return "".join(c if c.isprintable() else _written_out(c) for c in spaced)


def _written_out(char: str) -> str:
    return " " if char in "\t\r" else char.encode("unicode_escape").decode("ascii")


def size(value: float | None) -> str:
    return "unknown" if value is None else words.size(value)


def rate(value: float | None) -> str:
    return "-" if value is None else f"{size(value)}/s"


def duration(value_ms: float | None) -> str:
    """A time as "380 ms", "2.4 s", "22:51 min" or "1:02:51"."""
    if value_ms is None:
        return "unknown"
    if value_ms < 999.5:
        return f"{value_ms:.0f} ms" if value_ms >= 9.95 or value_ms == 0 else f"{value_ms:.1f} ms"
    if value_ms < 59_950:
        return f"{value_ms / 1000:.1f} s" if value_ms >= 9_995 else f"{value_ms / 1000:.2f} s"
    minutes, seconds = divmod(round(value_ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02} min"


def clock(value_ms: float) -> str:
    """Time since the run began: "00:26:14"."""
    minutes, seconds = divmod(int(value_ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"


def share(done: float, expected: float | None) -> float | None:
    """How much is done, never more than 1: what is expected is an estimate."""
    return min(1.0, done / expected) if expected else None


def bar(part: float, width: int = 12) -> str:
    filled = int(part * width)
    return "#" * filled + "-" * (width - filled)


def paragraph(label: str, text: str, style: str = "", indent: int = 2) -> list[Text]:
    """A labelled sentence, wrapped at 100 columns; a label without text gives nothing."""
    if not text:
        return []
    hang = indent + LABEL_WIDTH - 1 if label else indent
    first = " " * indent + (f"{label:<{LABEL_WIDTH - 2}} " if label else "")
    lines = textwrap.wrap(
        safe(text),
        WIDTH,
        initial_indent=" " * hang,
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if not lines:
        return []
    head = Text(first)
    head.append(lines[0].strip(), style)
    return [head, *(Text(line, style) for line in lines[1:])]


def paragraphs(label: str, texts: Iterable[str], style: str = "", indent: int = 2) -> list[Text]:
    """The same for several sentences, with the label on each so that it can be searched for."""
    return [line for text in texts for line in paragraph(label, text, style, indent)]


def hint(text: str) -> list[Text]:
    """An empty line, then what to do."""
    return [Text(""), *_hinted(text, 0)] if text else []


def _hinted(text: str, indent: int) -> list[Text]:
    lines = textwrap.wrap(safe(text), WIDTH - indent - 6, break_long_words=False, break_on_hyphens=False)
    first = Text(" " * indent + "hint: ", "cyan")
    first.append(lines[0], "default")
    return [first, *(Text(" " * (indent + 6) + line) for line in lines[1:])]


def inner_hint(text: str, indent: int) -> list[Text]:
    """What to do about one line of a list."""
    return _hinted(text, indent) if text.strip() else []


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int], indent: int = 2) -> list[Text]:
    """Columns as wide as their content; the columns in `numbers` are aligned to the right."""
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(heads), *cells]) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        parts = [c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return (" " * indent + "  ".join(parts)).rstrip()

    return [Text(line(heads), "dim"), *(Text(line(row)) for row in cells)]
