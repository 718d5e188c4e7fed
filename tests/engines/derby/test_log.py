"""The log scanner against logs that real Derby servers wrote, and against what they say of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snaprep.engines.derby import sockets
from snaprep.engines.derby.client import DerbyClient, SqlError
from snaprep.engines.derby.files import remove_lock_files
from snaprep.engines.derby.log import scan as log
from tests.engines.derby.server import Server, free_port

pytestmark = pytest.mark.derby

INSERT = "INSERT INTO t VALUES (?, ?)"
SET = "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY(?, ?)"


@pytest.fixture
def bank(server: Server, client: DerbyClient) -> Path:
    """A database with small log files; returns its log directory."""
    client.open("a", server.url(attributes=";create=true"), "app", "x", 30)
    client.execute("a", SET, ["derby.storage.logSwitchInterval", "100000"], deadline_s=5)
    client.execute("a", SET, ["derby.storage.logArchiveMode", "true"], deadline_s=5)
    client.execute("a", "CREATE TABLE t (i INT, v VARCHAR(2000))", deadline_s=5)
    _shut_down(server, client)
    client.open("a", server.url(), "app", "x", 30)
    return server.database() / "log"


def _shut_down(server: Server, client: DerbyClient) -> None:
    with pytest.raises(SqlError) as down:
        client.open("down", server.url(attributes=";shutdown=true"), "app", "x", 30)
    assert down.value.sqlstates == ("08006",)


def _insert(client: DerbyClient, count: int, name: str = "a", size: int = 500) -> None:
    for number in range(count):
        client.execute(name, INSERT, [str(number), "v" * size], deadline_s=10)


def test_positions_order_and_convert() -> None:
    """A position orders as Derby's instant does, and survives the conversion."""
    a, b = log.LogPosition(335, 74391), log.LogPosition(336, 24)
    assert a < b
    assert a.instant < b.instant
    assert log.LogPosition.from_instant(a.instant) == a
    assert str(a) == "335:74391"


# -- what a real slave makes of a log ------------------------------------------------------------------------------


def _as_it_is(_: Path) -> None:
    pass


def _with_a_lone_checksum(directory: Path) -> None:
    """A checksum record whose group never reached the disk."""
    end = log.log_end(directory)
    with (directory / f"log{end.file}.dat").open("r+b") as file:
        file.seek(end.offset)
        file.write(struct.pack(">iq", 21, end.instant) + log.CHECKSUM_SIGN + struct.pack(">iqi", 100, 12345, 21))


def _with_a_torn_group(directory: Path) -> None:
    end = log.log_end(directory)
    with (directory / f"log{end.file}.dat").open("r+b") as file:
        file.seek(end.offset - 30)
        file.write(b"\xff\x00\xff\x00")


def _cut_short(directory: Path) -> None:
    end = log.log_end(directory)
    os.truncate(directory / f"log{end.file}.dat", end.offset - 20)


def _just_switched(directory: Path) -> None:
    """The next file exists, header and zeros, before anything was written to it."""
    end = log.log_end(directory)
    header = struct.pack(">iiqq", 128, 9, end.file + 1, end.instant)
    (directory / f"log{end.file + 1}.dat").write_bytes(header + bytes(100_000))


@pytest.mark.parametrize("change", [_as_it_is, _with_a_lone_checksum, _with_a_torn_group, _cut_short, _just_switched])
def test_the_end_is_where_derby_sees_it(
    new_server: Callable[..., Server],
    server: Server,
    client: DerbyClient,
    bank: Path,
    change: Callable[[Path], None],
) -> None:
    """Master and slave name the ends of their logs when they refuse each other: log_end must say the same of both."""
    target = new_server("target")
    _insert(client, 130)  # some log files
    server.stop()  # as an atomic snapshot would catch it
    shutil.copytree(server.database(), target.database())
    os.kill(server.pid, signal.SIGCONT)
    remove_lock_files(target.database())
    change(target.database() / "log")
    _insert(client, 1)
    ends = log.log_end(bank), log.log_end(target.database() / "log")

    port = free_port()
    attributes = f";replication.slave.mode=slavemode;replication.slave.dbname=bank;slaveHost=127.0.0.1;slavePort={port}"
    slave = client.begin_open("slave", target.url(attributes=attributes), "app", "x")
    _await(lambda: sockets.listens(port, "127.0.0.1"))
    attributes = f";startMaster=true;slaveHost=127.0.0.1;slavePort={port}"
    with pytest.raises(SqlError) as refused:
        client.open("master", server.url(attributes=attributes), "app", "x", 20)
    with pytest.raises(SqlError):
        slave.wait(20)
    assert refused.value.sqlstates == ("XRE05",)
    told = [(int(a), int(b)) for a, b in re.findall(r"(\d+):(\d+)", refused.value.chain[0].message)]
    assert told == [(end.file, end.offset) for end in ends]


def test_the_end_is_looked_for_behind_the_last_checkpoint(server: Server, client: DerbyClient, bank: Path) -> None:
    """It is what all of the file gives, whatever follows the checkpoint; what lies before that is not read again."""
    for count in (3, 0, 40):
        client.execute("a", "CALL SYSCS_UTIL.SYSCS_CHECKPOINT_DATABASE()", deadline_s=20)
        _insert(client, count)
        end = log.log_end(bank)
        assert end.offset == log.file_end(bank, end.file)
    _shut_down(server, client)
    end, at = log.log_end(bank), log.checkpoint(bank)
    assert end.offset == log.file_end(bank, end.file)
    assert at.file == end.file
    path = log.path_of(bank, end.file)
    _damage(path, log.HEADER_BYTES + 40)
    assert log.log_end(bank) == end
    _damage(path, at.offset + 20)
    assert log.log_end(bank).offset == log.HEADER_BYTES


def _damage(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)


def test_equal_ends_are_accepted(
    new_server: Callable[..., Server], server: Server, client: DerbyClient, bank: Path
) -> None:
    """After a clean shutdown a copy has the same end, and a slave started from it takes the master."""
    target = new_server("target")
    _insert(client, 20)
    _shut_down(server, client)
    shutil.copytree(server.database(), target.database())
    assert log.log_end(target.database() / "log") == log.log_end(bank)
    port = free_port()
    peer = f"slaveHost=127.0.0.1;slavePort={port}"
    slave = client.begin_open("slave", target.url(attributes=f";startSlave=true;{peer}"), "app", "x")
    _await(lambda: sockets.listens(port))
    client.open("master", server.url(attributes=f";startMaster=true;{peer}"), "app", "x", 20)
    with pytest.raises(SqlError) as success:
        slave.wait(20)
    assert "XRE08" in success.value.sqlstates


def _await(condition: Callable[[], bool], deadline_s: float = 20) -> None:
    ends = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


# -- counting ------------------------------------------------------------------------------------------------------


def test_commits_of_a_known_workload_are_counted(server: Server, client: DerbyClient, bank: Path) -> None:
    """Inserts, updates and deletes of four sessions over several files: each commit once, nothing else."""
    client.execute("a", "CREATE INDEX ti ON t (i)", deadline_s=10)
    _insert(client, 5)
    since = log.log_end(bank)

    def work(number: int) -> int:
        name, done = f"w{number}", 0
        client.open(name, server.url(), "app", "x", 20)
        for turn in range(60):
            client.execute(name, INSERT, [str(number * 1000 + turn), "v" * 700], deadline_s=20)
            done += 1
            client.execute(name, "SELECT COUNT(*) FROM t WHERE i = 3", deadline_s=20)  # reads leave no trace
            client.execute(name, "DELETE FROM t WHERE i = -1", deadline_s=20)  # nor does a change of nothing
            with pytest.raises(KeyError), client.transaction(name, 20):  # noqa: PT012 (rolled back: not a commit)
                client.execute(name, INSERT, ["0", "rolled back"], deadline_s=20)
                raise KeyError
            with client.transaction(name, 20):
                client.execute(name, INSERT, [str(number * 1000 + turn), "w" * 700], deadline_s=20)
                client.execute(name, "UPDATE t SET v = 'short' WHERE i = ?", [str(number * 1000 + turn)], deadline_s=20)
            done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        expected = sum(pool.map(work, range(4)))
    client.execute("a", "CALL SYSCS_UTIL.SYSCS_CHECKPOINT_DATABASE()", deadline_s=20)
    _shut_down(server, client)
    found = log.count_commits(bank, since)
    assert found.end.file > since.file + 2
    assert found.count == expected == 480
    assert found.first is not None
    assert found.last is not None
    assert since < found.first < found.last < found.end == log.log_end(bank)
    # Each commit has a place, and counting from any of them gives the rest.
    assert log.count_commits(bank, found.last).count == 1
    assert log.count_commits(bank, found.end).count == 0


def test_bytes_between_leave_preallocation_out(client: DerbyClient, bank: Path) -> None:
    """Distances add up over a change of file, have a sign, and count written log only."""
    a = log.log_end(bank)
    _insert(client, 300)
    b = log.log_end(bank)
    _insert(client, 10)
    c = log.log_end(bank)
    assert b.file > a.file
    assert 300 * 500 < log.bytes_between(bank, a, b) < 300 * 900
    assert log.bytes_between(bank, a, c) == log.bytes_between(bank, a, b) + log.bytes_between(bank, b, c)
    assert log.bytes_between(bank, c, a) == -log.bytes_between(bank, a, c)
    assert log.bytes_between(bank, a, a) == 0


def test_a_missing_file_is_told(client: DerbyClient, bank: Path) -> None:
    """Counting or measuring over a deleted log file must raise, not return a smaller number."""
    since = log.log_end(bank)
    _insert(client, 300)
    (bank / f"log{since.file + 1}.dat").rename(bank / "elsewhere")
    with pytest.raises(log.LogGone):
        log.count_commits(bank, since)
    with pytest.raises(log.LogGone):
        log.bytes_between(bank, since, log.log_end(bank))
    (bank / "elsewhere").rename(bank / f"log{since.file + 1}.dat")
    with pytest.raises(log.LogGone):
        log.count_commits(bank, log.LogPosition(999, 24))


def test_control_file_and_its_mirror(server: Server, client: DerbyClient, bank: Path) -> None:
    """The checkpoint moves with a checkpoint; a torn log.ctrl is replaced by its mirror, two torn ones are told."""
    before = log.checkpoint(bank)
    _insert(client, 10)
    client.execute("a", "CALL SYSCS_UTIL.SYSCS_CHECKPOINT_DATABASE()", deadline_s=20)
    after = log.control(bank)
    assert before < after.checkpoint <= log.log_end(bank)
    assert (after.version, after.beta, after.unsafe) == ((10, 14), False, False)
    _shut_down(server, client)
    after = log.control(bank)
    (bank / "log.ctrl").write_bytes((bank / "log.ctrl").read_bytes()[:30] + bytes(18))
    assert log.control(bank) == after
    (bank / "logmirror.ctrl").write_bytes(b"")
    with pytest.raises(log.LogDamaged):
        log.control(bank)


def test_a_database_without_durability_says_so(new_server: Callable[..., Server], client: DerbyClient) -> None:
    """derby.system.durability=test must be visible in the files."""
    server = new_server("unsafe", options=("-Dderby.system.durability=test",))
    client.open("a", server.url(attributes=";create=true"), "app", "x", 30)
    client.execute("a", "CREATE TABLE t (i INT)", deadline_s=5)
    _shut_down(server, client)
    assert log.control(server.database() / "log").unsafe


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_log(server: Server, client: DerbyClient, bank: Path, tmp_path: Path) -> Path:
    """A copy of the last log file of a real database, at most some ten kilobytes of records."""
    _insert(client, 5)
    _shut_down(server, client)
    copy = tmp_path / "copy"
    copy.mkdir()
    end = log.log_end(bank)
    data = (bank / f"log{end.file}.dat").read_bytes()[: end.offset + 200]
    (copy / f"log{end.file}.dat").write_bytes(data)
    shutil.copy(bank / "log.ctrl", copy)
    return copy


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(draw=st.data())
def test_damage_never_moves_the_end_forward(small_log: Path, draw: st.DataObject) -> None:
    """Flipped bytes and cut files must not crash the scanner, nor make it see more than there was."""
    (path,) = small_log.glob("log*.dat")
    whole = path.read_bytes()
    real = log.log_end(small_log)
    damaged = bytearray(whole)
    places = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    for place, byte in draw.draw(st.lists(places, max_size=6)):
        damaged[place] = byte
    del damaged[draw.draw(st.integers(0, len(whole))) if draw.draw(st.booleans()) else len(whole) :]
    try:
        path.write_bytes(damaged)
        try:
            found = log.log_end(small_log)
            assert found <= real
            log.count_commits(small_log, log.LogPosition(found.file, log.HEADER_BYTES))
            log.bytes_between(small_log, log.LogPosition(found.file, log.HEADER_BYTES), found)
        except (log.LogDamaged, log.LogGone):
            pass
    finally:
        path.write_bytes(whole)
