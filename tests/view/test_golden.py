"""Screens as files. After a wanted change: SNAPREP_WRITE_GOLDEN=1 pytest tests/view, then read the difference."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from snaprep.core.report import RunState
from snaprep.view import document_lines
from snaprep.view.console import console_for, plain_text, show, wants_screen
from snaprep.view.error import error_lines
from snaprep.view.json import document
from snaprep.view.lines import Lines
from snaprep.view.live import Screen
from snaprep.view.run import screen
from snaprep.view.text import WIDTH, duration, safe, size
from tests.view import samples

GOLDEN = Path(__file__).parent / "golden"


def compare(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("SNAPREP_WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", samples.DOCUMENTS)
def test_documents_for_people(name: str) -> None:
    """Each document is drawn as it was agreed, in 100 columns."""
    text = plain_text(document_lines(samples.DOCUMENTS[name]))
    compare(f"{name}.txt", text)
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("name", samples.DOCUMENTS)
def test_documents_for_programs(name: str) -> None:
    """Each document is written as docs/json.md promises."""
    compare(f"{name}.json", document(samples.DOCUMENTS[name]))


def test_live_screen() -> None:
    """The live screen shows every figure in words, the bar beside them, and the reason for waiting."""
    text = plain_text(screen(samples.RUNNING, silent_s=7))
    compare("screen.txt", text)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_many_rounds_stay_on_the_screen() -> None:
    """Of many rounds the first and the last are shown, and how many lie between."""
    rounds = tuple(replace(samples.ROUNDS[1], number=n) for n in range(1, 41))
    text = plain_text(screen(replace(samples.RUNNING, rounds=(samples.FULL, *rounds))))
    assert len(text.splitlines()) < 24
    assert "... 30 rounds between" in text
    compare("screen-many.txt", text)


def test_error() -> None:
    """An error shows its id, what happened, who serves, and what to do."""
    compare("error.txt", plain_text(error_lines(samples.ERROR)))


def test_foreign_text_does_nothing_to_a_terminal() -> None:
    """A name like [red] stays itself, and control characters are written out, with colour on."""
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    show([*document_lines(samples.CHECK), *error_lines(samples.ERROR)], stream)
    text = stream.getvalue()
    assert "tank/[red]bank" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert safe("a\x1b]0;x\x07\udcff") == "a\\x1b]0;x\\x07\\udcff"


def test_lines_thin_out() -> None:
    """Changes are told at once; figures each second at first, then each 5 s, then each 30 s."""
    stream = io.StringIO()
    view = Lines(stream)
    start = replace(samples.RUNNING, state=RunState.ROUND, reason="", notes=())
    for second in range(600):
        view.report(replace(start, elapsed_ms=second * 1000))
    lines = [s for s in stream.getvalue().splitlines() if "state" in s]
    assert len([s for s in lines if s < "00:00:10"]) == 10
    assert len([s for s in lines if "00:00:10" <= s < "00:03:00"]) == 34
    assert len([s for s in lines if s >= "00:03:00"]) == 14
    view.report(replace(start, elapsed_ms=600_500, state=RunState.CUTTING_OVER))
    assert "cutting over" in stream.getvalue().splitlines()[-1]


def test_lines_of_a_run() -> None:
    """Rounds that end, states and their reasons, and notes are lines of their own."""
    stream = io.StringIO()
    view = Lines(stream)
    view.report(replace(samples.RUNNING, rounds=samples.ROUNDS[:1], elapsed_ms=1_371_500))
    view.report(samples.RUNNING)
    view.note("a note\nin two lines")
    view.report(samples.DONE)
    view.now()
    compare("lines.txt", stream.getvalue())


def test_screen_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The live screen redraws from the last report, says notes above itself, and goes away at the end."""
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    view = Screen(stream)
    view.report(samples.RUNNING)
    view.note("[red]note")
    view.now()
    view.close()
    text = stream.getvalue()
    assert "[red]note" in text
    assert "held: `snaprep cutover`" in text
    assert text.rstrip().endswith("\x1b[2K") or "\x1b[?25h" in text


def test_screen_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """No live screen without a terminal, on a dumb one, or when it is declined; no colour with NO_COLOR."""
    stream = io.StringIO()
    assert not wants_screen(stream, {"TERM": "xterm"})
    stream.isatty = lambda: True  # type: ignore[method-assign]
    assert wants_screen(stream, {"TERM": "xterm"})
    assert not wants_screen(stream, {"TERM": "dumb"})
    assert not wants_screen(stream, {"TERM": "xterm", "SNAPREP_NO_PROGRESS": "1"})
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    show(error_lines(samples.ERROR), stream)
    assert "\x1b[31m" not in stream.getvalue()
    assert "\x1b[1;31m" not in stream.getvalue()
    assert console_for(stream).no_color


def test_figures() -> None:
    """Figures keep three digits and their unit; what is unknown is called so."""
    assert [size(n) for n in (0, 999, 1000, 1 << 20, 12 * (1 << 30), None)] == [
        "0 B", "999 B", "0.98 KiB", "1.0 MiB", "12.0 GiB", "unknown",
    ]  # fmt: skip
    assert [duration(n) for n in (0, 3.44, 380.2, 999.7, 2400, 59_990, 1_371_000, 3_771_000, None)] == [
        "0 ms", "3.4 ms", "380 ms", "1.00 s", "2.40 s", "1:00 min", "22:51 min", "1:02:51", "unknown",
    ]  # fmt: skip
