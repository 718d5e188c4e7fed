from __future__ import annotations

import stat
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from snaprep import journal as module
from snaprep.core.errors import UsageError
from snaprep.core.model import CutoverTried
from snaprep.core.spec import DerbySpec
from snaprep.journal import Journal, earlier, parse, state_dir


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    """What was appended is read in its order, by run, from a file that only its owner can read."""
    journal = Journal.open("bank")
    journal.append("options", verb="rebuild")
    one, two = Journal.open("bank", run="bank-1"), Journal.open("bank", run="bank-2")
    one.append("decided", action="Seed", expected_bytes=5)
    two.append("decided", action="Round")
    assert [e.kind for e in journal.entries()] == ["options", "decided", "decided"]
    assert [e.run for e in journal.entries()] == ["", "bank-1", "bank-2"]
    assert journal.entries()[1].get("expected_bytes") == 5
    assert journal.path == tmp_path / "snaprep" / "bank" / "journal.jsonl"
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_a_cut_last_line_is_told_and_survived() -> None:
    """A last line cut at any place is left out and told; what is appended after it is read."""
    journal = Journal.open("bank")
    journal.append("decided", action="Seed")
    journal.append("decided", action="Round")
    whole = journal.path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        journal.path.write_bytes(whole[:cut])
        reading = journal.read()
        complete = cut == len(whole) - 1
        assert len(reading.entries) == (2 if complete else 1)
        assert len(reading.damaged) == (0 if complete or cut == first else 1)
        journal.append("outcome", ok=True)
        assert journal.entries()[-1].kind == "outcome"
        assert len(journal.entries()) == len(reading.entries) + 1


@pytest.mark.parametrize("middle", [b"{broken", b"\xff\xfe", b"[1]", b'"text"', b"{}", b"\0\0\0\0", b'{"kind": 3}'])
def test_a_damaged_line_in_the_middle_is_told_by_number(middle: bytes) -> None:
    """A damaged line is named by its number and stepped over; the lines around it stay."""
    reading = parse(b'{"kind":"a"}\n' + middle + b'\n{"kind":"b"}\n')
    assert [e.kind for e in reading.entries] == ["a", "b"]
    assert len(reading.damaged) == 1
    assert "line 2" in reading.damaged[0]


def test_no_secret_is_written() -> None:
    """A password is masked under a key that names it, inside values, and wherever its text occurs."""
    journal = Journal.open("bank", secrets=("hunter2-x",))
    spec = DerbySpec(database="/srv/db", password="other-secret")
    journal.append(
        "started", spec=spec, as_dict=asdict(spec), error="jdbc:derby://h/db;password=hunter2-x", password_file="~/pw"
    )
    text = journal.path.read_text()
    assert "hunter2" not in text
    assert "other-secret" not in text
    assert '"password_file":"~/pw"' in text


def test_two_writers_do_not_mix() -> None:
    """Lines that two journals append at the same time stay whole."""
    journals = [Journal.open("bank", run=f"r{n}") for n in range(4)]
    threads = [
        threading.Thread(target=lambda j=j: [j.append("x", text="y" * 500) for _ in range(20)]) for j in journals
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    reading = journals[0].read()
    assert len(reading.entries) == 80
    assert reading.damaged == ()


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a journal that has grown too large keeps the newest runs, and every measured cutover."""
    monkeypatch.setattr(module, "SIZE_MAX_BYTES", 20_000)
    journal = Journal.open("bank")
    Journal.open("bank", run="r0").append(
        "cutover", **asdict(CutoverTried(ok=True, predicted_p50_ms=1, predicted_p90_ms=2, blocked_ms=3))
    )
    for number in range(60):
        Journal.open("bank", run=f"r{number}").append("decided", text="x" * 500)
    again = Journal.open("bank", run="new")
    again.append("decided")
    assert journal.path.stat().st_size < 20_000
    kept = again.entries()
    assert kept[0].kind == "cutover"
    assert (kept[-2].run, kept[-1].run) == ("r59", "new")


def test_history_outlives_a_run() -> None:
    """Measured cutovers of earlier runs teach a new one; their failures do not use up its attempts."""
    journal = Journal.open("bank")
    good = CutoverTried(ok=True, predicted_p50_ms=700, predicted_p90_ms=1100, blocked_ms=812.5)
    bad = CutoverTried(ok=False, predicted_p50_ms=700, predicted_p90_ms=1100, blocked_ms=900, error="late")
    for run, tried in (("r1", good), ("r1", bad), ("r2", bad)):
        Journal.open("bank", run=run).append("cutover", **asdict(tried), extra="ignored")
    journal.append("cutover", ok="yes")
    journal.append("cutover", **{**asdict(good), "fed": "yes"})
    assert earlier(journal.entries()).cutovers == (good,)
    assert earlier(journal.entries(), run="r2").cutovers == (good, bad)
    fed = replace(good, fed=True)
    journal.append("cutover", **asdict(fed))
    assert earlier(journal.entries()).cutovers == (good, fed)


def test_trouble_does_not_stop_a_run() -> None:
    """A journal that cannot be opened is refused before a run; one that breaks later only says so, but for what is
    needed later. To be read it need not be there.
    """
    assert Journal.of("bank").entries() == ()
    assert not state_dir().exists()
    journal = Journal.open("bank")
    journal.path.unlink()
    journal.path.mkdir()
    journal.append("decided")
    assert "cannot be written" in journal.trouble
    with pytest.raises(UsageError, match="cannot be written"):
        journal.must_append("options")
    assert "cannot be read" in Journal.of("bank").read().damaged[0]
    with pytest.raises(UsageError) as caught:
        Journal.open("bank")
    assert caught.value.id == "journal-unwritable"
