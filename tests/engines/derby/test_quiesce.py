"""What `quiesce` leaves: a database whose log stays where it ended when it is booted again, and a copy of it, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.session import ADMIN
from tests.engines.derby.pairs import Two, two
from tests.engines.derby.server import AVAILABLE

pytestmark = pytest.mark.derby

SWITCH_BYTES = 100_000  # the log goes on in a new file from there on
# What is left in the file so that the checkpoint of the second shutdown is the last thing in it, and the end of its
# transaction the first in the next.
ROOM_BYTES = range(230, 361)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Two]:
    if not AVAILABLE:
        pytest.skip("no java, or no Derby jars in /usr/share/java")
    with two(tmp_path, archived=False) as made:
        yield made


def logs(pair: Two) -> Path:
    return pair.source.database() / "log"


def fill(pair: Two) -> None:
    """Write until the log is about to go on in a new file."""
    pair.at_source.connect(ADMIN, 20)
    for _ in range(200):
        room = SWITCH_BYTES - log.log_end(logs(pair)).offset
        if room in ROOM_BYTES:
            return
        text = "x" * min(20_000, max(0, room - 3000))
        pair.at_source.client.execute(ADMIN, "INSERT INTO snaprep.t VALUES (7, 7, ?)", [text], deadline_s=10)
    raise AssertionError("the log cannot be filled")


def booted(pair: Two) -> log.LogPosition:
    """Where the log ends after a boot, which then is over."""
    pair.at_source.connect(ADMIN, 20)
    return log.log_end(logs(pair))


def test_two_shutdowns_are_not_always_enough(pair: Two) -> None:
    """When the second goes on in a new file the next boot writes a checkpoint, for the last one lies in another."""
    fill(pair)
    pair.halt.shut_down()
    end = log.log_end(logs(pair))
    assert log.checkpoint(logs(pair)).file == end.file
    assert booted(pair) == end
    pair.halt.shut_down()
    end = log.log_end(logs(pair))
    assert log.checkpoint(logs(pair)).file == end.file - 1
    assert booted(pair) > end


def test_a_quiesced_log_rests(pair: Two) -> None:
    """`quiesce` goes on until a boot leaves the log as it is, so that the primary's ends where the copy's does."""
    fill(pair)
    first = log.log_end(logs(pair)).file
    position = pair.halt.quiesce().position
    pair.copy()
    assert log.log_end(logs(pair)).file > first
    assert booted(pair).instant == position
    assert log.log_end(pair.target.database() / "log").instant == position
