"""What a plan learns by counting twice, on a host that stands in for one whose checkpoint fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from snaprep.core.errors import SnaprepError, Stopped
from snaprep.core.model import Facts
from snaprep.session import Session
from snaprep.verbs import measured
from tests.core.facts import AB, both, empty, point, serving, with_live, with_volume
from tests.sinks import Notes

SOURCE = with_volume(with_live(serving("a", point(1)), written_bytes=1000), caps=frozenset({"written"}))
FACTS: Facts = both(SOURCE, empty("b"))


class Source:
    """A session whose hosts answer `written` from a list."""

    def __init__(self, *counts: int | SnaprepError, locked: bool = False) -> None:
        self.counts, self.locked = list(counts), locked

    def lock(self, *_: object) -> None:
        if self.locked:
            raise Stopped("locked", "a run holds the pair")

    def host(self, _: str) -> Source:
        return self

    def link(self, *_: object) -> None:
        raise Stopped("link-lost", "there is no way")

    def call(self, op: str, args: Mapping[str, object], result_type: type, **_: object) -> Any:  # noqa: ANN401
        del args, result_type
        if op == "observe":
            return SOURCE
        if op == "estimate":
            return 0
        answer = self.counts.pop(0)
        if isinstance(answer, SnaprepError):
            raise answer
        return answer


FAILED = Stopped("checkpoint-failed", "the checkpoint failed")


@pytest.mark.parametrize(
    ("source", "known", "notes"),
    [
        (Source(5000, 9000), True, ["the link"]),
        (Source(FAILED, 9000), False, ["what a keeps in memory", "the link"]),
        (Source(5000, FAILED), False, ["the link", "what a keeps in memory"]),
        (Source(locked=True), False, ["nothing could be measured"]),
    ],
    ids=["both", "the first failed", "the second failed", "beside a run"],
)
def test_counts_of_two_kinds_are_no_rate(
    source: Source, notes: list[str], monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """How fast an increment grows is known from two counts after a checkpoint each, and from nothing else."""
    monkeypatch.setattr(measured, "_LOOK_S", 0.01)
    sink = Notes()
    seen = measured.look(cast("Session", source), sink, FACTS, AB)
    assert (seen.dirty_bytes_per_s is not None) is known
    assert [note for note, begins in zip(sink.notes, notes, strict=True) if not note.startswith(begins)] == []
