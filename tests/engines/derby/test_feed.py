"""The feed between two real Derby servers: what arrives, what survives which death, and what is refused."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import time
import zlib
from pathlib import Path

import pytest

from snaprep.core.errors import SnaprepError
from snaprep.engines.derby.client import SqlError
from snaprep.engines.derby.feed import handover
from snaprep.engines.derby.feed.ends import FeedSource, FeedTarget, settle_end
from snaprep.engines.derby.feed.link import Finish
from snaprep.engines.derby.feed.peer import Feeding, OutOfStep, PeerLost, StandIn
from snaprep.engines.derby.feed.peer_codec import Kind, NotDerby
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log.reader import LogReader
from snaprep.engines.derby.log.scan import HEADER_BYTES, LogDamaged, LogPosition
from snaprep.engines.derby.session import ADMIN
from tests.engines.derby.pairs import Two, Writers
from tests.engines.derby.server import free_port

pytestmark = pytest.mark.derby


@pytest.fixture
def pair(archived_pair: Two) -> Two:
    """What is fed keeps its log."""
    return archived_pair


def refused(source: FeedSource, target: FeedTarget) -> str:
    """The id of the error with which a feed does not begin."""
    with pytest.raises(SnaprepError) as error:
        source.begin(target.hello())
    source.close()
    return error.value.id


def total(digests: dict[str, str]) -> int:
    return int(digests["SNAPREP.T"].split(":")[0])


# -- what arrives --------------------------------------------------------------------------------------------------


def test_a_fed_replica_takes_over_with_everything(pair: Two) -> None:
    """Fed from a copy taken at work, stopped, fed again and promoted under writers: every row of every table."""
    writers = Writers(pair.at_source)
    time.sleep(0.5)
    pair.copy()
    feed = pair.feed()
    feed.until(lambda: feed.sender.progress.sent_bytes > 300_000)
    feed.finish(Finish.STOP)
    assert feed.sender.progress.stored == pair.fed.end().instant
    assert not pair.fed.booted
    feed = pair.feed()
    feed.until(lambda: feed.sender.progress.sent_bytes > 300_000)
    pair.sql("CREATE INDEX late ON t (i)")  # not logged without archive mode
    pair.sql("CREATE TABLE made (a INT)")
    acknowledged = writers.stop()
    feed.finish(Finish.PROMOTE)
    ours, theirs = pair.digests()
    assert theirs == ours
    assert "damaged" not in str(ours)
    assert total(ours) == acknowledged


def test_open_transactions_of_the_copy_arrive(pair: Two) -> None:
    """What was open when the copy was taken, and committed after, is there: the boot rolled nothing back on disk."""
    client = pair.at_source.client
    client.open("open", pair.at_source.url(), "app", "x", 20)
    with client.transaction("open", 20):
        client.execute("open", "UPDATE snaprep.c SET n = 777", deadline_s=10)
        client.execute("open", "INSERT INTO snaprep.t VALUES (9, 9, 'open')", deadline_s=10)
        pair.sql("CALL SYSCS_UTIL.SYSCS_CHECKPOINT_DATABASE()")
        pair.copy()
        data = {path: path.read_bytes() for path in pair.target.database().glob("seg0/*.dat")}
        feed = pair.feed()
        feed.until(lambda: feed.sender.progress.stored > 0)
        assert {path: path.read_bytes() for path in data} == data
    feed.finish(Finish.PROMOTE)
    ours, theirs = pair.digests()
    assert theirs == ours
    assert pair.at_target.client.execute(ADMIN, "SELECT MIN(n) FROM c", deadline_s=10).value == "777"


@pytest.mark.parametrize("victim", ["target", "source", "link", "replica"])
def test_the_feed_goes_on_after_a_death(pair: Two, victim: str) -> None:
    """Kill -9 of either server, a lost link, a replica told to stop: the next run goes on, and all is there."""
    writers = Writers(pair.at_source)
    pair.copy()
    for _ in range(2):
        feed = pair.feed()
        feed.until(lambda feed=feed: feed.sender.progress.sent_bytes > 150_000)  # type: ignore[misc]
        if victim == "target":
            pair.target.kill()
            feed.join()
            assert [error.id for error in feed.errors if isinstance(error, SnaprepError)] == ["replica-lost"] * 2
            pair.target.start()
        elif victim == "source":
            pair.source.kill()
            time.sleep(0.3)
            assert feed.errors == []  # the log stands still, nothing else
            pair.source.start()
            pair.at_source.connect(ADMIN, 30)
            at = feed.sender.progress.sent
            feed.until(lambda feed=feed, at=at: feed.sender.progress.sent > at)  # type: ignore[misc]
            feed.finish(Finish.LEAVE)
        elif victim == "link":
            feed.cut()
            assert {error.id for error in feed.errors if isinstance(error, SnaprepError)} == {"feed-link-lost"}
        else:
            pair.fed.stop()
            feed.join()
            assert {error.id for error in feed.errors if isinstance(error, SnaprepError)} == {"replica-lost"}
    acknowledged = writers.stop()
    feed = pair.feed()
    feed.finish(Finish.PROMOTE)
    ours, theirs = pair.digests()
    assert theirs == ours
    assert total(ours) >= acknowledged  # a commit whose answer a kill took may be there


def test_two_replicas_follow_one_primary(pair: Two, tmp_path: Path) -> None:
    """Two readers of one log do not know of each other."""
    pair.copy()
    start = log.log_end(pair.target.database() / "log")
    writers = Writers(pair.at_source)
    time.sleep(1)
    writers.stop()
    readers = [LogReader(pair.source.database() / "log", start) for _ in range(2)]
    found = [b"".join(piece.data for piece in iter(reader.read, None)) for reader in readers]
    for reader in readers:
        reader.close()
    assert found[0] == found[1]
    assert len(found[0]) > 100_000


# -- the end of a feed ---------------------------------------------------------------------------------------------


def test_derby_takes_a_fed_replica_over(pair: Two) -> None:
    """Gate, two shutdowns, the rest of the feed, a boot of the replica, startMaster: replication runs, all is there."""
    writers = Writers(pair.at_source)
    pair.copy()
    feed = pair.feed()
    feed.until(lambda: feed.sender.progress.sent_bytes > 200_000)
    pair.halt.gate_prepare()
    pair.halt.gate_close()
    at = pair.halt.quiesce()
    feed.finish(Finish.STOP, at.position)
    assert pair.fed.end().instant == at.position
    pair.fed.boot()
    pair.replication.attach(20)
    pair.halt.gate_open()
    before = sum(writers.acknowledged)
    ends = time.monotonic() + 20
    while sum(writers.acknowledged) < before + 50:
        assert time.monotonic() < ends
        time.sleep(0.02)
    acknowledged = writers.stop()
    with pytest.raises(SqlError, match="XRE20"):
        pair.at_source.connect("failover", 30, failover="true")
    ours, theirs = pair.digests()
    assert theirs == ours
    assert total(ours) == acknowledged


def test_derby_takes_a_running_replica_over(pair: Two) -> None:
    """The short way: the replica is not booted again, replication runs on from the last record, and all is there."""
    client = pair.at_source.client
    client.open("open", pair.at_source.url(), "app", "x", 20)
    client.begin("open", "SELECT COUNT(*) FROM snaprep.t").wait(20)
    writers = Writers(pair.at_source)
    pair.copy()
    feed = pair.feed()
    feed.until(lambda: feed.sender.progress.sent_bytes > 200_000)
    pair.halt.gate_prepare()
    began_s = time.monotonic()
    pair.halt.gate_close()
    pair.halt.shut_down()
    at = handover.ship_mark(pair.at_source)
    feed.finish(Finish.LEAVE, at)
    pair.replication.attach(20)
    handover.must_end_at(pair.at_source, at)
    pair.halt.gate_open()
    assert time.monotonic() - began_s < 20
    assert pair.fed.booted
    before = sum(writers.acknowledged)
    ends = time.monotonic() + 20
    while sum(writers.acknowledged) < before + 50:
        assert time.monotonic() < ends
        time.sleep(0.02)
    acknowledged = writers.stop()
    with pytest.raises(SqlError, match="XRE20"):
        pair.at_source.connect("failover", 30, failover="true")
    ours, theirs = pair.digests()
    assert theirs == ours
    assert total(ours) == acknowledged


def test_roles_change_places_and_the_old_primary_follows(pair: Two) -> None:
    """After a planned change the old primary's log ends where the new one parted: it is fed at once, without a copy."""
    pair.copy()
    feed = pair.feed()
    writers = Writers(pair.at_source)
    feed.until(lambda: feed.sender.progress.sent_bytes > 200_000)
    writers.stop()
    at = pair.halt.quiesce()
    feed.finish(Finish.PROMOTE, at.position)
    back = Two(
        pair.target,
        pair.source,
        pair.at_target,
        pair.at_source,
        pair.halt,
        pair.replication,
        type(pair.fed)(pair.at_source),
    )
    ends = time.monotonic() + 20
    while True:
        try:
            pair.at_target.connect(ADMIN, 20)
            break
        except SqlError:
            assert time.monotonic() < ends
            time.sleep(0.05)
    pair.at_target.client.execute(ADMIN, "INSERT INTO t VALUES (5, 5, 'new')", deadline_s=10)
    feed = back.feed()
    feed.until(lambda: feed.sender.progress.sent > at.position)
    writers = Writers(pair.at_target)
    time.sleep(0.5)
    writers.stop()
    feed.finish(Finish.PROMOTE)
    ours, theirs = pair.digests()
    assert ours == theirs


def test_a_quiet_end_that_is_elsewhere_is_refused(pair: Two) -> None:
    """A feed that was told where the log ends does not finish anywhere else."""
    pair.copy()
    feed = pair.feed()
    feed.until(lambda: feed.sender.progress.stored > 0)
    feed.sender.finish(Finish.STOP, pair.fed.end().instant + 1)
    feed.join()
    assert {error.id for error in feed.errors if isinstance(error, SnaprepError)} == {"log-ends-differ"}


# -- what is refused -----------------------------------------------------------------------------------------------


def test_another_log_is_never_fed(pair: Two) -> None:
    """A database that is not the copy's origin, however equal its positions, is told by the log before them."""
    pair.copy()
    target = FeedTarget(pair.fed)
    mine = pair.target.database() / "log"
    end = log.log_end(mine)
    path = log.path_of(mine, end.file)
    data = bytearray(path.read_bytes())
    start = _some_group(mine, end)
    body = bytes(data[start + 37 :])
    length = struct.unpack_from(">i", data, start + 21)[0]
    changed = body[: length - 10] + bytes(b ^ 1 for b in body[length - 10 : length - 6]) + body[length - 6 : length]
    data[start + 37 : start + 37 + length] = changed
    data[start + 25 : start + 33] = struct.pack(">q", zlib.crc32(changed))
    path.write_bytes(data)
    assert log.log_end(mine) == end
    assert refused(FeedSource(pair.source.database()), target) == "log-differs"


def _some_group(logs: Path, end: LogPosition) -> int:
    at = last = HEADER_BYTES
    with log.path_of(logs, end.file).open("rb") as file:
        while (found := log.group_end(file, LogPosition(end.file, at))) is not None:
            last, at = at, found
    return last


def test_what_is_missing_or_ahead_is_refused(pair: Two) -> None:
    """A log whose next file is gone, and a replica that is ahead of its primary: each its error, nothing is fed."""
    pair.copy()
    target = FeedTarget(pair.fed)
    source = FeedSource(pair.source.database())
    logs = pair.source.database() / "log"
    start = log.log_files(logs)[-1]
    writers = Writers(pair.at_source)
    ends = time.monotonic() + 60
    while log.log_files(logs)[-1] < start + 3:
        assert time.monotonic() < ends
        time.sleep(0.05)
    writers.stop()
    gone = log.log_files(logs)[-2]
    log.path_of(logs, gone).rename(logs / "away")
    source.begin(target.hello())
    with pytest.raises(SnaprepError) as error:
        list(iter(source.read, None))
    assert error.value.id == "log-gap"
    (logs / "away").rename(log.path_of(logs, gone))
    kept = pair.source.database().with_name("kept")
    shutil.copytree(pair.target.database(), kept)
    pair.copy()
    assert refused(FeedSource(kept), target) in {"log-differs", "log-gap"}
    source.close()


def test_other_versions_and_modes_are_refused(pair: Two) -> None:
    """Another engine, a log that is not archived, or switched off while it is fed: said before anything more is fed."""
    pair.copy()
    target = FeedTarget(pair.fed, "10.14.2.0")
    assert refused(FeedSource(pair.source.database(), "10.15.1.3"), target) == "engine-versions-differ"
    feed = pair.feed()
    feed.until(lambda: feed.sender.progress.stored > 0)
    pair.sql("CALL SYSCS_UTIL.SYSCS_DISABLE_LOG_ARCHIVE_MODE(0)")
    feed.join()
    assert {error.id for error in feed.errors if isinstance(error, SnaprepError)} == {"archive-off"}
    assert refused(FeedSource(pair.source.database()), target) == "archive-off"


def test_encrypted_databases_are_refused(pair: Two) -> None:
    """The log of an encrypted database cannot be proven, so it is not read."""
    attributes = ";dataEncryption=true;bootPassword="
    client = pair.at_source.client
    url = pair.source.url("secret", f";create=true{attributes.rpartition(';')[0]}")
    client.begin_open("secret", url, "snaprep", "x", {"bootPassword": "clotted-cream"}).wait(30)
    with pytest.raises(SnaprepError) as error:
        FeedSource(pair.source.database("secret"))
    assert error.value.id == "encrypted"


def test_an_empty_next_file_is_not_taken_for_the_end(pair: Two) -> None:
    """A copy taken between the making of a file and the flush of the one before goes on where that one is whole."""
    pair.copy()
    logs = pair.target.database() / "log"
    end = log.log_end(logs)
    following = log.path_of(logs, end.file + 1)
    late = LogPosition(end.file, end.offset + 99)
    following.write_bytes(struct.pack(">iiqq", 128, 9, end.file + 1, late.instant) + bytes(1000))
    assert log.log_end(logs) == LogPosition(end.file + 1, HEADER_BYTES)
    assert settle_end(logs) == end
    assert not following.exists()
    following.write_bytes(b"\0\0\0\x80")
    assert settle_end(logs) == end
    log.path_of(logs, end.file + 2).write_bytes(struct.pack(">iiqq", 128, 9, end.file + 2, late.instant))
    with pytest.raises(LogDamaged):
        settle_end(logs)


# -- the protocol --------------------------------------------------------------------------------------------------


def test_a_replica_that_is_elsewhere_says_where(pair: Two) -> None:
    """Derby's XRE05 becomes an error with both positions, and the replica is down after it."""
    pair.copy()
    pair.fed.boot()
    end = pair.fed.end()
    wrong = LogPosition(end.file, end.offset - 7)
    with pytest.raises(OutOfStep) as error:
        Feeding.begin("127.0.0.1", pair.at_target.spec.listen_port, wrong)
    assert (error.value.ours, error.value.theirs) == (wrong, end)
    pair.fed.stop()


def test_a_replica_pings_and_is_answered(pair: Two) -> None:
    """Whoever asks a fed replica to take over while its feed lives is refused: it pings, and the feed answers."""
    pair.copy()
    feed = pair.feed()
    feed.until(lambda: feed.sender.progress.stored > 0)
    with pytest.raises(SqlError) as error:
        pair.at_target.connect("failover", 20, failover="true")
    assert "XRE41" in error.value.sqlstates
    feed.finish(Finish.STOP)


def test_a_real_primary_is_received(pair: Two) -> None:
    """What a real master ships to a stand-in is what it writes into its log, byte for byte, over a change of file."""
    port = free_port()
    logs = pair.source.database() / "log"
    with socket.create_server(("127.0.0.1", port)) as listener:
        wrong = pair.at_source.begin("wrong", startMaster="true", slaveHost="127.0.0.1", slavePort=str(port))
        with pytest.raises(OutOfStep):
            StandIn.accept(listener, LogPosition(1, 24), deadline_s=20)
        with pytest.raises(SqlError) as refusal:
            wrong.wait(20)
        assert "XRE05" in refusal.value.sqlstates
        told = [(int(a), int(b)) for a, b in re.findall(r"(\d+):(\d+)", refusal.value.chain[0].message)]
        start = log.log_end(logs)
        assert told == [(start.file, start.offset), (1, 24)]
        pair.halt.shut_down()  # one that was refused is not tried again within a boot
        pair.at_source.admin(20)
        assert log.log_end(logs) > start
        start = log.log_end(logs)
        begun = pair.at_source.begin("right", startMaster="true", slaveHost="127.0.0.1", slavePort=str(port))
        stand_in = StandIn.accept(listener, start, deadline_s=20)
        begun.wait(20)
    received = b""
    assert stand_in.ping() == []
    for number in range(80):
        pair.at_source.client.execute(ADMIN, "INSERT INTO t VALUES (7, ?, ?)", [str(number), "x" * 2000], deadline_s=10)
    stop = pair.at_source.begin("stop", stopMaster="true")
    while (message := stand_in.receive(20)).kind == Kind.LOG:
        assert isinstance(message.value, bytes)
        received += message.value
    assert message.kind == Kind.STOP
    stand_in.close()
    stop.wait(20)
    with LogReader(logs, start) as reader:
        pieces = list(iter(reader.read, None))
    written = b"".join(piece.data or bytes(4) for piece in pieces)
    assert any(not piece.data for piece in pieces)
    assert received.startswith(written[: len(received)])
    assert len(received) > 100_000


def test_a_stranger_on_the_port_is_told(pair: Two) -> None:
    """Something else that listens, or is silent, ends in an error within the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(PeerLost):
            Feeding.begin("127.0.0.1", port, LogPosition(1, 24), deadline_s=0.3)
        assert time.monotonic() - began < 3
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.sendall(b"220 mail.example ESMTP\r\n")
        with pytest.raises(NotDerby):
            Feeding.begin_on(ours, LogPosition(1, 24), deadline_s=5)
        theirs.close()
    with pytest.raises(PeerLost):
        Feeding.begin("127.0.0.1", free_port(), LogPosition(1, 24), deadline_s=1)
