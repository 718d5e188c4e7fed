"""The reader of a live log: it must give exactly what Derby wrote, and nothing of a log that is not whole."""

from __future__ import annotations

import os
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snaprep.engines.derby.client import DerbyClient, SqlError
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log.reader import LogReader, Piece, agree, distance_bytes, proof, tip
from snaprep.engines.derby.log.scan import HEADER_BYTES, LogChanged, LogDamaged, LogGone, LogPosition
from tests.engines.derby import server as derby
from tests.engines.derby.server import Server

pytestmark = pytest.mark.derby

INSERT = "INSERT INTO t VALUES (?, ?)"
SET = "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY(?, ?)"
REFUSALS = (LogGone, LogChanged, LogDamaged)
EXAMPLES = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[LogPosition]]:
    """A real log of some small files, and ends of it that were seen while it grew."""
    if not derby.AVAILABLE:
        pytest.skip("no java, or no Derby jars in /usr/share/java")
    server = Server(tmp_path_factory.mktemp("written") / "m", derby.free_port())
    try:
        server.start()
        with DerbyClient.start(derby.CLIENT_JARS) as client:
            prepare(server, client)
            logs = server.database() / "log"
            ends = []
            for number in range(220):
                client.execute("a", INSERT, [str(number), "v" * 900], deadline_s=10)
                ends.append(log.log_end(logs))
            shut_down(server, client)
    finally:
        server.kill()
    return logs, ends


def prepare(server: Server, client: DerbyClient) -> None:
    client.open("a", server.url(attributes=";create=true"), "app", "x", 30)
    client.execute("a", SET, ["derby.storage.logSwitchInterval", "100000"], deadline_s=5)
    client.execute("a", SET, ["derby.storage.logArchiveMode", "true"], deadline_s=5)
    client.execute("a", "CREATE TABLE t (i INT, v VARCHAR(30000))", deadline_s=5)
    shut_down(server, client)
    client.open("a", server.url(), "app", "x", 30)


def shut_down(server: Server, client: DerbyClient) -> None:
    with pytest.raises(SqlError, match="shutdown"):
        client.open("down", server.url(attributes=";shutdown=true"), "app", "x", 30)


@pytest.fixture
def logs(written: tuple[Path, list[LogPosition]], tmp_path: Path) -> Path:
    """A copy of the last three files that may be damaged."""
    copy = tmp_path / "log"
    copy.mkdir()
    for number in log.log_files(written[0])[-3:]:
        shutil.copy(log.path_of(written[0], number), copy)
    return copy


@pytest.fixture
def start(logs: Path) -> LogPosition:
    """Somewhere in the first file."""
    first = log.log_files(logs)[0]
    at = HEADER_BYTES
    with log.path_of(logs, first).open("rb") as file:
        for _ in range(5):
            end = log.group_end(file, LogPosition(first, at))
            assert end is not None
            at = end
    return LogPosition(first, at)


def drain(reader: LogReader, most_bytes: int = 20_000) -> list[Piece]:
    pieces = []
    while (piece := reader.read(most_bytes)) is not None:
        pieces.append(piece)
    return pieces


def replayed(pieces: list[Piece], start: LogPosition) -> dict[int, bytes]:
    """What a slave would have of each file, and a proof that the pieces follow each other."""
    found: dict[int, bytes] = {start.file: b""}
    at = start
    for piece in pieces:
        assert piece.start == at
        at = piece.end
        found[at.file] = found.get(at.file, b"") + piece.data
    return found


def truth(logs: Path, start: LogPosition) -> dict[int, bytes]:
    """The bytes of each file from the start on, up to where each ends."""
    found = {}
    for number in log.log_files(logs):
        end = log.file_end(logs, number)
        first = start.offset if number == start.file else HEADER_BYTES
        found[number] = log.path_of(logs, number).read_bytes()[first:end]
    return found


@pytest.mark.parametrize("most_bytes", [1, 5_000, 100_000, 10_000_000])
def test_everything_is_read_once(logs: Path, start: LogPosition, most_bytes: int) -> None:
    """All bytes of all files come in order, in pieces of whole groups, whatever their size; then there is no more."""
    with LogReader(logs, start) as reader:
        whole = reader.delta_bytes()
        pieces = drain(reader, most_bytes)
        assert replayed(pieces, start) == truth(logs, start)
        assert reader.position == log.log_end(logs) == tip(logs, start)
        assert sum(len(piece.data) for piece in pieces) == whole == log.bytes_between(logs, start, log.log_end(logs))
        assert reader.read() is None
        assert reader.delta_bytes() == 0
    small = [len(piece.data) for piece in pieces if piece.data]
    assert all(size <= max(most_bytes, 40_000) for size in small)


def test_each_end_that_derby_had_is_a_start(written: tuple[Path, list[LogPosition]]) -> None:
    """A reader begins wherever the log once ended, and distances by headers are those by scans."""
    logs, ends = written
    last = log.log_end(logs)
    for end in ends[::20]:
        with LogReader(logs, end) as reader:
            assert replayed(drain(reader), end)[last.file][-100:] == truth(logs, end)[last.file][-100:]
        assert distance_bytes(logs, end, last) == log.bytes_between(logs, end, last)
        assert distance_bytes(logs, last, end) == -distance_bytes(logs, end, last)


@EXAMPLES
@given(data=st.data())
def test_flipped_bits_are_harmless_or_refused(logs: Path, start: LogPosition, data: st.DataObject) -> None:
    """One flipped bit anywhere: what is read is what Derby wrote; it is all of it, or an error, or the end is torn."""
    right = truth(logs, start)
    files = sorted(right)
    number = data.draw(st.sampled_from(files))
    path = log.path_of(logs, number)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, min(len(whole), log.file_end(logs, number) + 300) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    last_group = _last_group(logs, files[-1])
    try:
        path.write_bytes(damaged)
        outcome, got = _read(logs, start)
    finally:
        path.write_bytes(whole)
    _never_wrong(got, right)
    if outcome == "read" and got != right:
        assert (number, place) >= (files[-1], last_group), "a damaged middle was taken for the end"


@EXAMPLES
@given(data=st.data())
def test_cuts_are_harmless_or_refused(logs: Path, start: LogPosition, data: st.DataObject) -> None:
    """A file cut at any byte: nothing wrong is read, and only a cut in the last file can pass for its end."""
    right = truth(logs, start)
    files = sorted(right)
    number = data.draw(st.sampled_from(files))
    path = log.path_of(logs, number)
    whole = path.read_bytes()
    end = log.file_end(logs, number)
    cut = data.draw(st.integers(0, end + 50))
    try:
        path.write_bytes(whole[:cut])
        outcome, got = _read(logs, start)
    finally:
        path.write_bytes(whole)
    _never_wrong(got, right)
    if outcome == "read" and got != right:
        assert number == files[-1] or (number == files[-2] and cut < HEADER_BYTES)
    if cut < end and number != files[-1]:
        assert got != right


@EXAMPLES
@given(data=st.data())
def test_holes_are_harmless_or_refused(logs: Path, start: LogPosition, data: st.DataObject) -> None:
    """Zeros, noise or older log in the place of any stretch: nothing wrong is read, and no hole passes for the end."""
    right = truth(logs, start)
    files = sorted(right)
    number = data.draw(st.sampled_from(files))
    path = log.path_of(logs, number)
    whole = path.read_bytes()
    end = log.file_end(logs, number)
    first = data.draw(st.integers(0, end - 1))
    length = data.draw(st.integers(1, 60_000))
    kind = data.draw(st.sampled_from(["zeros", "noise", "moved"]))
    stretch = {"zeros": bytes(length), "noise": os.urandom(length), "moved": whole[24 : 24 + length]}[kind]
    damaged = (whole[:first] + stretch + whole[first + len(stretch) :])[: len(whole)]
    last_group = _last_group(logs, files[-1])
    try:
        path.write_bytes(damaged)
        outcome, got = _read(logs, start)
    finally:
        path.write_bytes(whole)
    _never_wrong(got, right)
    if outcome == "read" and got != right:
        assert (number, first + length) >= (files[-1], last_group), "a hole was taken for the end"


def _last_group(logs: Path, number: int) -> int:
    at = last = HEADER_BYTES
    with log.path_of(logs, number).open("rb") as file:
        while (end := log.group_end(file, LogPosition(number, at))) is not None:
            last, at = at, end
    return last


def _read(logs: Path, start: LogPosition) -> tuple[str, dict[int, bytes]]:
    pieces: list[Piece] = []
    try:
        with LogReader(logs, start) as reader:
            while (piece := reader.read(3_000)) is not None:
                pieces.append(piece)
    except REFUSALS as error:
        return type(error).__name__, replayed(pieces, start)
    return "read", replayed(pieces, start)


def _never_wrong(got: dict[int, bytes], right: dict[int, bytes]) -> None:
    """What was read is the beginning of the truth: whole files, and then part of one."""
    for number, data in sorted(got.items()):
        assert right[number].startswith(data)
        assert data == right[number] or number == max(got)


# -- files that are not there, or others ---------------------------------------------------------------------------


def test_missing_files_are_gaps(logs: Path, start: LogPosition) -> None:
    """A file that is missing before, in the middle or at the end of what is read is said, never stepped over."""
    first, second, third = log.log_files(logs)
    with pytest.raises(LogGone):
        LogReader(logs, LogPosition(first - 1, HEADER_BYTES))
    with pytest.raises(LogGone):
        LogReader(logs, LogPosition(third + 1, HEADER_BYTES))
    log.path_of(logs, second).rename(logs / "away")
    assert _read(logs, start)[0] == "LogGone"
    log.path_of(logs, third).rename(logs / "away-too")
    with LogReader(logs, start) as reader:
        drain(reader)
        log.path_of(logs, first).unlink()
        with pytest.raises(LogGone):
            reader.read()


def test_a_file_removed_while_it_is_read_is_read_to_its_end(logs: Path, start: LogPosition) -> None:
    """What Derby has closed and removed can still be read by who has it open; the next file then goes on."""
    right = truth(logs, start)
    with LogReader(logs, start) as reader:
        pieces = [reader.read(1000)]
        log.path_of(logs, start.file).unlink()
        assert replayed([p for p in pieces if p] + drain(reader), start) == right


def test_places_that_are_no_ends_are_refused(logs: Path, start: LogPosition) -> None:
    """A position within a group or behind the end belongs to another log."""
    for offset in (start.offset - 1, start.offset + 1, HEADER_BYTES + 37, 99_000_000):
        with pytest.raises(LogChanged):
            LogReader(logs, LogPosition(start.file, offset))


def test_a_log_that_is_written_anew_is_noticed(logs: Path, start: LogPosition) -> None:
    """Another content where something was read already, by writing, by truncating or by replacing the file."""
    path = log.path_of(logs, start.file)
    whole = path.read_bytes()
    for change in (_write_zeros_before, _cut_before, _replace):
        with LogReader(logs, start) as reader:
            piece = reader.read(1)
            assert piece is not None
            change(path, piece.end.offset)
            with pytest.raises((LogChanged, LogDamaged)):
                reader.read(1)
        path.write_bytes(whole)


def _write_zeros_before(path: Path, end: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: end - 600] + bytes(600) + data[end:])
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(bytes(end - HEADER_BYTES))


def _cut_before(path: Path, end: int) -> None:
    os.truncate(path, HEADER_BYTES)


def _replace(path: Path, end: int) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(path.read_bytes()[: end - 1])
    fresh.rename(path)


def test_a_file_that_is_made_again_is_read_on(logs: Path, start: LogPosition) -> None:
    """Derby makes a begun file anew after a crash: another file with the same beginning goes on where it was."""
    right = truth(logs, start)
    with LogReader(logs, start) as reader:
        pieces: list[Piece] = []
        while (piece := reader.read()) is not None:
            pieces.append(piece)
            path = log.path_of(logs, reader.position.file)
            fresh = path.with_name("fresh")
            shutil.copy(path, fresh)
            fresh.rename(path)
    assert replayed(pieces, start) == right


def test_a_file_that_ended_earlier_than_what_was_read_is_noticed(logs: Path, start: LogPosition) -> None:
    """The header of the next file may name no earlier end than where the reader stands."""
    first, second, _ = log.log_files(logs)
    path = log.path_of(logs, second)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">q", LogPosition(first, start.offset).instant)
    path.write_bytes(data)
    assert _read(logs, start)[0] == "LogChanged"


def test_the_next_file_may_exist_before_this_one_is_flushed(logs: Path, start: LogPosition) -> None:
    """Derby makes the next file first: as long as that is empty, a missing end of this one is no damage, only late."""
    first, second, third = log.log_files(logs)
    right = truth(logs, start)
    path, following = log.path_of(logs, first), log.path_of(logs, second)
    whole, following_whole = path.read_bytes(), following.read_bytes()
    log.path_of(logs, third).unlink()
    last = _last_group(logs, first)
    path.write_bytes(whole[:last] + bytes(len(whole) - last))
    following.write_bytes(following_whole[:HEADER_BYTES] + bytes(50_000))
    with LogReader(logs, start) as reader:
        pieces = drain(reader)
        assert reader.position == LogPosition(first, last)
        with path.open("r+b") as file:  # in place, as Derby does
            file.write(whole)
        pieces += drain(reader)
        assert reader.position == LogPosition(second, HEADER_BYTES)
        assert replayed(pieces, start)[first] == right[first]


def test_a_group_that_is_half_written_is_waited_for(logs: Path, start: LogPosition) -> None:
    """The last group comes in pieces: nothing of it is read before all of it is there."""
    last = log.log_files(logs)[-1]
    path = log.path_of(logs, last)
    whole = path.read_bytes()
    begins, ends = _last_group(logs, last), log.file_end(logs, last)
    path.write_bytes(whole[:begins] + bytes(len(whole) - begins))
    with LogReader(logs, start) as reader:
        drain(reader)
        for cut in (begins + 10, begins + 37, begins + 40, ends - 1):
            with path.open("r+b") as file:
                file.write(whole[:cut])
            assert reader.read() is None
            assert reader.position == LogPosition(last, begins)
        with path.open("r+b") as file:
            file.write(whole)
        assert drain(reader) == [Piece(LogPosition(last, begins), whole[begins:ends])]


# -- a log that grows ----------------------------------------------------------------------------------------------


def test_a_growing_log_is_read_as_it_comes(new_server: Callable[..., Server], client: DerbyClient) -> None:
    """Beside busy writers, over many changes of file and a kill of the server, a reader gets every byte, none twice;
    after a kill between two files it may say that the log has changed.
    """
    server = new_server("grows")
    prepare(server, client)
    logs = server.database() / "log"
    start = log.log_end(logs)
    stop = threading.Event()

    def write(number: int) -> None:
        name = f"w{number}"
        client.open(name, server.url(), "app", "x", 20)
        sizes = iter(range(10**9))
        while not stop.is_set():
            try:
                client.execute(name, INSERT, ["1", "v" * (next(sizes) * 977 % 28_000)], deadline_s=20)
            except SqlError:
                return

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    pieces: list[Piece] = []
    with LogReader(logs, start) as reader:
        try:
            while reader.position.file < start.file + 60:
                piece = reader.read()
                pieces += [piece] if piece else []
        finally:
            server.kill()
            stop.set()
            for writer in writers:
                writer.join(30)
        pieces += drain(reader)
        begun = reader.position.offset == HEADER_BYTES
        server.start()
        client.open("a", server.url(), "app", "x", 30)
        client.execute("a", INSERT, ["2", "after"], deadline_s=10)
        shut_down(server, client)
        try:
            pieces += drain(reader)
        except LogChanged:
            assert begun  # killed between two files: Derby has written on in the first, and made the second anew
            return
        assert reader.position == log.log_end(logs)
    got = replayed(pieces, start)
    right = truth(logs, start)
    assert got == {number: right[number] for number in got}
    assert max(got) == max(right)


def test_proofs_tell_logs_apart(logs: Path, start: LogPosition, tmp_path: Path) -> None:
    """The same log proves itself at each position, also one without its older files; another one never does."""
    first, second, third = log.log_files(logs)
    end = log.log_end(logs)
    mine = proof(logs, end)
    copy = tmp_path / "copy"
    shutil.copytree(logs, copy)
    assert agree(mine, proof(copy, end))
    assert agree(proof(logs, LogPosition(second, HEADER_BYTES)), proof(copy, LogPosition(second, HEADER_BYTES)))
    log.path_of(copy, first).unlink()
    log.path_of(copy, second).unlink()
    assert agree(mine, proof(copy, end))
    assert not agree(proof(logs, LogPosition(third, HEADER_BYTES)), proof(copy, LogPosition(third, HEADER_BYTES)))
    with log.path_of(copy, third).open("r+b") as file:
        file.seek(end.offset - 5)
        file.write(b"other")
    assert not agree(mine, proof(copy, end))
    with pytest.raises(LogGone):
        proof(copy, LogPosition(first, 24))
    with pytest.raises(LogChanged):
        proof(copy, LogPosition(third, 999_999_999))
