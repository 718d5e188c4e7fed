"""What `status` raises an alarm for, and what it says of a host, as far as one look shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from snaprep.core.document import to_json
from snaprep.core.model import EngineState, Facts, FeedFacts, HostFacts, Policy
from snaprep.core.report import Status
from snaprep.core.spec import Pair
from snaprep.core.volume import ImageRole
from snaprep.journal import Journal
from snaprep.verbs import status as verb
from snaprep.verbs.status import _alarm, _host_status, _replica
from tests.core.facts import NO_ROUTE, attached, both, empty, image, point, replica, serving, with_engine, with_live
from tests.sinks import Notes

PRIMARY = serving("a", point(1))
IDLE = with_engine(PRIMARY, state=EngineState.CLOSED)
REPLICA = replica("b", point(1))
OFF = with_engine(REPLICA, state=EngineState.CLOSED, replicating=False)
FED = FeedFacts(stream="s", phase="feeding", since_s=0, at_s=1, stored=5)
GATED = with_engine(PRIMARY, state=EngineState.GATED, gate_saved=True)


@pytest.mark.parametrize(
    ("facts", "id"),
    [
        (both(PRIMARY, REPLICA), ""),
        (both(IDLE, REPLICA), ""),
        (both(GATED, empty("b")), "gate-left-closed"),
        (both(PRIMARY, serving("b", point(1))), "two-primaries"),
        (both(IDLE, with_engine(serving("b", point(1)), state=EngineState.CLOSED)), "nobody-serves"),
        (both(empty("a"), empty("b")), "nobody-serves"),
    ],
    ids=["all is well", "idle", "gated", "two", "two idle", "none"],
)
def test_alarms(facts: Facts, id: str) -> None:
    """Somebody has to act when it is not one host that serves; one that waits for its first session does."""
    error = _alarm(facts)
    assert (error.id if error is not None else "") == id
    assert error is None or error.exit_code == 21


def test_nothing_is_said_of_a_host_that_told_nothing() -> None:
    """Of a host that cannot be reached only the reason is known: neither a database, nor that it is no replica."""
    lost = HostFacts(name="b", live_name="b/db", error=NO_ROUTE)
    told = _host_status(lost, newest=1)
    assert (told.role, told.engine_state, told.generation, told.free_bytes) == ("unknown", "", None, None)
    assert told.error == "host-unreachable: no route"
    assert _replica(PRIMARY, lost) == ("unknown", "not known: b could not be looked at")


def said(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> Status:
    @contextlib.contextmanager
    def opened(_pair: Pair) -> Iterator[None]:
        yield None

    monkeypatch.setattr(verb, "opened", opened)
    monkeypatch.setattr(verb, "observe", lambda _session: facts)
    return verb.status(cast(Pair, SimpleNamespace(name="p")), Policy(), Notes())


@pytest.fixture(autouse=True)
def _journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("facts", "word", "sentence"),
    [
        (attached(), "attached", "b replays what a sends"),
        (both(replace(PRIMARY, feed=FED), replace(REPLICA, feed=FED)), "fed", "b is fed the log of a"),
        (both(PRIMARY, REPLICA), "broken", "broken: b is replica, but a does not send"),
        (both(PRIMARY, OFF), "broken", "broken: b holds a replica that does not run"),
        (both(PRIMARY, with_live(OFF, properties={"fed-base": "12"})), "stopped", "not fed: b holds a replica"),
        (both(PRIMARY, empty("b")), "none", "none: b is no replica of a"),
        (both(PRIMARY, HostFacts(name="b", error=NO_ROUTE)), "unknown", "not known: b could not be looked at"),
        (both(empty("a"), empty("b")), "unknown", ""),
    ],
    ids=["attached", "fed", "not sent to", "shut down", "no longer fed", "none", "a host is silent", "no primary"],
)
def test_the_replica_in_a_word(facts: Facts, word: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that watches the pair tests a word, and finds what the sentence says."""
    document = to_json(said(facts, monkeypatch))
    assert document["replica"] == word
    assert document["replication"].startswith(sentence)
    assert bool(document["replication"]) == bool(sentence)


@pytest.mark.parametrize(("of", "resumable"), [("rebuild", True), ("switchover", True), ("refresh", False)])
def test_what_resume_goes_on_with(of: str, resumable: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """`resume` after a refresh that failed would be a rebuild, with a cutover that nobody has asked for."""
    journal = Journal.open("p", run="1")
    journal.append("begin", verb=of)
    journal.append("end", state="failed")
    status = said(attached(), monkeypatch)
    assert (status.last_verb, status.last_state, status.resumable) == (of, "failed", resumable)


def test_what_was_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to remove it is named only where `clean` would go it."""
    images = (image("b/db.isolated-g1", ImageRole.ISOLATED), image("b/db.isolated", ImageRole.ISOLATED, ours=False))
    kept = said(both(PRIMARY, empty("b", *images)), monkeypatch).kept
    assert ["clean --isolated" in k.why for k in kept] == [True, False]
    assert "you made it" in kept[1].why
