"""What `quiesce` leaves: a database whose log stays where it ended when it is booted again, and a copy of it, too."""

from __future__ import annotations

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snaprep.engines.derby.client import ClientDied, ClientError, DerbyClient, SqlError, SqlTimeout
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.session import ADMIN
from tests.engines.derby.pairs import Two, Writers
from tests.engines.derby.server import CLIENT_JARS
from tests.rig.node import wait_until

pytestmark = pytest.mark.derby

TURNS, WRITERS = 24, 6  # one shutdown in fourteen hung amid such writers
SWITCH_BYTES = 100_000  # the log goes on in a new file from there on
# What is left in the file so that the checkpoint of the second shutdown is the last thing in it, and the end of its
# transaction the first in the next.
ROOM_BYTES = range(230, 361)


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


def split_pages(pair: Two, load: DerbyClient, number: int, written: list[int]) -> None:
    """Insert where six keys fill a page of the index, until the session ends."""
    name, dice = f"w{number}", random.Random(number)  # noqa: S311 (dice)
    with contextlib.suppress(SqlError, SqlTimeout, ClientDied, ClientError):
        load.open(name, pair.at_source.url(), "snaprep", "x", 20)
        while True:
            row = [f"{dice.getrandbits(300):0700d}", "y" * 300]
            load.execute(name, "INSERT INTO snaprep.s VALUES (?, ?)", row, deadline_s=20)
            written.append(number)


def test_a_shutdown_meets_nobody_at_work(pair: Two) -> None:
    """Amid writers that split pages a shutdown ends, again and again: one that meets a split hangs the server."""
    pair.at_source.connect(ADMIN, 20)
    for what in ("TABLE snaprep.s (k VARCHAR(700), v VARCHAR(300))", "INDEX snaprep.si ON snaprep.s (k)"):
        pair.at_source.client.execute(ADMIN, f"CREATE {what}", deadline_s=10)
    with DerbyClient.start(CLIENT_JARS) as load:
        for _ in range(TURNS):
            written: list[int] = []
            with ThreadPoolExecutor(WRITERS) as writers:
                for number in range(WRITERS):
                    writers.submit(split_pages, pair, load, number, written)
                wait_until(lambda: len(written) > 100, "what writers write", 30)  # noqa: B023 (asked in this turn)
                pair.halt.shut_down()


def test_whoever_is_at_work_hears_of_its_commit(pair: Two) -> None:
    """What a shutdown ends is told to its client before: no commit is there of which its client does not know."""
    writers = Writers(pair.at_source, WRITERS, pause_s=0)
    for _ in range(TURNS):
        before = sum(writers.acknowledged)
        wait_until(lambda: sum(writers.acknowledged) > before + 60, "what writers write", 30)  # noqa: B023 (as above)
        pair.halt.gate_close()
        pair.halt.shut_down()
        pair.halt.gate_open()
    acknowledged = writers.stop()
    found = pair.at_source.client.execute(ADMIN, "SELECT COUNT(*) FROM snaprep.t", deadline_s=20).value
    assert found == str(acknowledged)


def test_what_a_client_had_open_is_rolled_back_before(pair: Two) -> None:
    """A shutdown does not come amid the rollback of a session that it has ended: the store is whole."""
    pair.at_source.connect(ADMIN, 20)
    for what in ("TABLE snaprep.s (k VARCHAR(700), v VARCHAR(300))", "INDEX snaprep.si ON snaprep.s (k)"):
        pair.at_source.client.execute(ADMIN, f"CREATE {what}", deadline_s=10)
    with DerbyClient.start(CLIENT_JARS) as client:
        client.open("w", pair.at_source.url(), "snaprep", "x", 20)
        with contextlib.suppress(SqlError), client.transaction("w", 20):
            client.execute("w", "INSERT INTO snaprep.s VALUES (?, ?)", ["k" * 600, "v" * 300], deadline_s=10)
            for _ in range(12):
                double = "INSERT INTO snaprep.s SELECT SUBSTR(CHAR(RANDOM()) || k, 1, 600), v FROM snaprep.s"
                client.execute("w", double, deadline_s=60)
            pair.halt.shut_down(60)
    end = log.log_end(logs(pair))
    assert log.bytes_between(logs(pair), end, booted(pair)) < 1000
    assert "ERROR XS" not in (pair.source.home / "derby.log").read_text("utf-8", "replace")


def test_clients_of_other_databases_are_left_alone(pair: Two) -> None:
    """Where a server has another database open, whose clients cannot be told from ours, no connection is cut."""
    with DerbyClient.start(CLIENT_JARS) as other:
        other.open("other", pair.source.url("other", ";create=true"), "snaprep", "x", 20)
        pair.at_source.connect(ADMIN, 20)
        pair.halt.shut_down()
        other.execute("other", "VALUES 1", deadline_s=10)
