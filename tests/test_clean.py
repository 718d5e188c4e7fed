"""What `clean` looks at, what it refuses by name, and what is said of what was set aside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from snaprep.core.errors import SnaprepError
from snaprep.core.keep import Keeping, OnHost
from snaprep.core.model import Facts, HostFacts, Policy
from snaprep.core.report import Report
from snaprep.core.spec import Pair
from snaprep.core.volume import Image, ImageRole
from snaprep.verbs import clean as verb
from tests.core.facts import both, image, point, replica, serving, with_volume
from tests.sinks import Notes

TAIL = image("tank/db.isolated-g1", ImageRole.ISOLATED, point(7))
YOURS = replace(TAIL, name="tank/db.isolated", ours=False)


def aside(host: HostFacts, *images: Image) -> HostFacts:
    assert host.volume is not None
    return with_volume(host, images=(*host.volume.images, *images))


FACTS = both(aside(serving("a", point(1)), TAIL), aside(replica("b", point(1)), TAIL, YOURS))


def said(facts: Facts, monkeypatch: pytest.MonkeyPatch, *isolated: str, dry_run: bool) -> tuple[Report, list[str]]:
    """What it reports, and what it did in which order."""
    done: list[str] = []

    @contextlib.contextmanager
    def opened(_pair: Pair) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(need_all=lambda: done.append("reach"), lock=lambda *_: done.append("lock"))

    def look(_session: object) -> Facts:
        done.append("look")
        return facts

    def remove(_context: object, _roles: object, what: Keeping, lines: tuple[str, ...]) -> tuple[str, ...]:
        done.extend(f"destroy {i.host}:{i.image}" for i in what.destroy_images)
        return lines

    for name, stands_in in {
        "opened": opened,
        "observe": look,
        "_remove": remove,
        "context_of": lambda *_: None,
    }.items():
        monkeypatch.setattr(verb, name, stands_in)
    pair = cast(Pair, SimpleNamespace(name="p"))
    report = verb.clean(pair, Policy(), Notes(), isolated=isolated, dry_run=dry_run)
    return report, done


@pytest.fixture(autouse=True)
def _journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_it_locks_before_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other run can end between the look and the deed; a dry run changes nothing, and waits for nobody."""
    assert said(FACTS, monkeypatch, dry_run=False)[1] == ["reach", "lock", "look"]
    assert said(FACTS, monkeypatch, dry_run=True)[1] == ["reach", "look"]


def test_a_name_may_tell_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two images of one name only that goes whose host is said; a name that only one host has needs none."""
    report, done = said(FACTS, monkeypatch, "b:tank/db.isolated-g1", dry_run=False)
    assert done[3:] == ["destroy b:tank/db.isolated-g1"]
    assert [(k.host, k.name) for k in report.kept] == [("a", TAIL.name), ("b", YOURS.name)]
    only = both(serving("a", point(1)), FACTS.hosts[1])
    assert said(only, monkeypatch, TAIL.name, f"b:{TAIL.name}", dry_run=False)[1][3:] == [f"destroy b:{TAIL.name}"]


@pytest.mark.parametrize(
    ("facts", "name", "id", "code"),
    [
        (FACTS, TAIL.name, "ambiguous-dataset", 2),
        (FACTS, f"c:{TAIL.name}", "not-isolated", 3),
        (FACTS, "b/db.recv", "not-isolated", 3),
        (FACTS, YOURS.name, "not-ours", 3),
        (both(serving("a", point(7)), aside(replica("b"), TAIL)), TAIL.name, "still-needed", 3),
        (both(FACTS.hosts[0], replace(FACTS.hosts[1], volume=None)), TAIL.name, "still-needed", 3),
    ],
    ids=["both have it", "no such host", "never set aside", "the operator's", "the base is in it", "a host is silent"],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_name_is_refused(
    facts: Facts,
    name: str,
    id: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    dry_run: bool,
) -> None:
    """The look before the question refuses what the deed would refuse; nothing else is removed then."""
    with pytest.raises(SnaprepError) as refused:
        said(facts, monkeypatch, name, dry_run=dry_run)
    assert (refused.value.id, refused.value.info.exit_code) == (id, code)


def test_a_dry_run_tells_the_hosts_of_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question before the deed names the host: it stands in what a dry run has kept."""
    report, _ = said(FACTS, monkeypatch, "a:tank/db.isolated-g1", dry_run=True)
    why: Mapping[tuple[str, str], str] = {(k.host, k.name): k.why for k in report.kept}
    assert why["a", TAIL.name] == "set aside; goes, as it is named"
    assert why["b", TAIL.name] == "set aside; name it with --isolated to remove it"
    assert f"a: {TAIL.name}" in report.notes


def test_nobody_is_sent_to_destroy_what_is_his_own() -> None:
    """`status` and `clean` name the way only of what a run made; the operator's own they would refuse."""
    why = {OnHost(k.host, k.name): k.why for k in verb.set_aside(FACTS, "`snaprep clean --isolated` removes it")}
    assert why[OnHost("b", TAIL.name)] == "set aside; `snaprep clean --isolated` removes it"
    assert why[OnHost("b", YOURS.name)] == "set aside; you made it, so snaprep never destroys it (docs/what-if.md)"
