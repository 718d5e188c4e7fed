"""What an action rests on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snaprep.core.model import HostFacts
from snaprep.core.perform import Rests, rests
from tests.core.facts import NO_ROUTE, empty, serving

SEEN = Rests(boot_id="b", import_id="i", marks={"serves": "primary"})


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (SEEN, ""),
        (replace(SEEN, boot_id="c"), "booted"),
        (replace(SEEN, import_id="j"), "imported anew"),
        (replace(SEEN, marks={"serves": "replica"}), "was marked serves=primary, and is marked serves=replica now"),
        (replace(SEEN, marks={}), "is marked with nothing now"),
        (replace(SEEN, marks=None), "is marked not at all now"),
    ],
)
def test_each_difference_is_told(now: Rests, told: str) -> None:
    """A host that was booted, imported its storage anew, or is marked otherwise is told from the one seen."""
    assert told in SEEN.differs(now)
    assert bool(told) == bool(SEEN.differs(now))


def test_facts_say_what_to_rest_on() -> None:
    """The boot, the import, and the live image's role and generation; nothing of a host that told nothing."""
    found = rests(replace(serving("a", generation=4), boot_id="b"))
    assert found == Rests(boot_id="b", import_id="1", marks={"serves": "primary", "generation": "4"})
    absent = rests(empty("a"))
    assert absent is not None
    assert absent.marks is None
    assert rests(HostFacts(name="a", error=NO_ROUTE)) is None
