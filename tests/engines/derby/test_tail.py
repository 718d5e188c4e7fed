"""The end of a log carried from one copy to the other: what fits is added, what does not leaves the copy as it was."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import pytest

from snaprep.core.errors import SnaprepError
from snaprep.engines.derby import files
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log import tail
from snaprep.engines.derby.log.scan import HEADER_BYTES, LogPosition
from tests.engines.derby.made_log import write_log

GROUP_BYTES = 4000


def database(folder: Path, *, number: int = 1, file_bytes: int = 300_000) -> Path:
    """A database's log and its sign, as far as a log's end goes."""
    (folder / "log").mkdir(parents=True)
    (folder / "log" / "log.ctrl").write_bytes(b"")
    (folder / files.SIGN).write_text("")
    write_log(folder / "log", number, file_bytes, GROUP_BYTES)
    return folder


def copy_without(whole: Path, groups: int) -> Path:
    """A copy whose log lacks the last groups; what was preallocated is zero."""
    copy = whole.with_name("copy")
    shutil.copytree(whole, copy)
    end = log.log_end(whole / "log")
    cut = ends_of(whole, end.file)[-1 - groups]
    path = copy / "log" / f"log{end.file}.dat"
    path.write_bytes(path.read_bytes()[:cut] + bytes(end.offset - cut + 4))
    return copy


def ends_of(whole: Path, number: int) -> list[int]:
    ends = [HEADER_BYTES]
    with log.path_of(whole / "log", number).open("rb") as file:
        while (end := log.group_end(file, LogPosition(number, ends[-1]))) is not None:
            ends.append(end)
    return ends


def bytes_of(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes().rstrip(b"\0") for path in (place / "log").glob("log*.dat")}


def refused(copy: Path, carried: tail.LogTail) -> str:
    before = bytes_of(copy)
    with pytest.raises(SnaprepError) as error:
        tail.append(copy, carried)
    assert bytes_of(copy) == before
    return error.value.id


@pytest.mark.parametrize("groups", [0, 1, 5, 15])
def test_what_a_copy_lacks_is_added(tmp_path: Path, groups: int) -> None:
    """Whatever of the last 64 KiB is missing; a second time changes nothing."""
    whole = database(tmp_path / "whole")
    copy = copy_without(whole, groups)
    carried = tail.read(whole, None)
    for _ in range(2):
        tail.append(copy, carried)
        assert bytes_of(copy) == bytes_of(whole)
        assert log.log_end(copy / "log") == log.log_end(whole / "log")


def test_a_file_that_was_begun_since_comes_along(tmp_path: Path) -> None:
    """The log went on in another file: from a place in the one before, or when that one had just ended."""
    whole = database(tmp_path / "whole", number=2, file_bytes=30_000)
    since = LogPosition(1, ends_of(whole, 1)[-4])
    copy = copy_without(whole, 0)
    (copy / "log" / "log2.dat").unlink()
    path = copy / "log" / "log1.dat"
    path.write_bytes(path.read_bytes()[: since.offset])
    tail.append(copy, tail.read(whole, since.instant))
    assert bytes_of(copy) == bytes_of(whole)
    (copy / "log" / "log2.dat").unlink()
    tail.append(copy, tail.read(whole, None))
    assert bytes_of(copy) == bytes_of(whole)


def test_another_history_is_refused(tmp_path: Path) -> None:
    """The last group that both should have says something else in one of them."""
    whole = database(tmp_path / "whole")
    copy = copy_without(whole, 1)
    path = copy / "log" / "log1.dat"
    data = bytearray(path.read_bytes())
    start, end = ends_of(copy, 1)[-2:]
    body = start + log.CHECKSUM_BYTES
    data[body + 100] ^= 1
    data[start + 25 : start + 33] = zlib.crc32(data[body:end]).to_bytes(8, "big")
    path.write_bytes(data)
    assert log.log_end(copy / "log").offset == end
    assert refused(copy, tail.read(whole, None)) == "log-ends-differ"


def test_a_copy_that_is_ahead_or_far_behind_is_refused(tmp_path: Path) -> None:
    """Only the end of a log is carried."""
    whole = database(tmp_path / "whole")
    far = copy_without(whole, 40)
    assert refused(far, tail.read(whole, None)) == "log-ends-differ"
    assert refused(whole, tail.read(far, None)) == "log-ends-differ"
    with pytest.raises(SnaprepError) as gone:
        tail.read(far, LogPosition(9, 24).instant)
    assert gone.value.id == "log-ends-differ"


def test_only_so_much_is_carried(tmp_path: Path) -> None:
    """It goes through the operator's hands, while clients wait."""
    whole = database(tmp_path / "whole", number=1, file_bytes=tail.MOST_BYTES + 100_000)
    with pytest.raises(SnaprepError) as error:
        tail.read(whole, LogPosition(1, HEADER_BYTES).instant)
    assert error.value.id == "tail-too-long"
