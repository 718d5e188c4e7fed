"""What OpenZFS can and zfs-fuse cannot: found out, and used. On a machine's kernel nothing of it may be missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snaprep.agent import process
from snaprep.core import lineage
from snaprep.volumes.zfs import command as zfs_command
from snaprep.volumes.zfs.facts import Value
from tests.volumes.contract import Pair, refused
from tests.volumes.harness import ship, stream_bytes
from tests.volumes.private_zfs import in_kernel

pytestmark = pytest.mark.zfs
MIB = 1 << 20
ALL = {
    "estimate", "resume", "origin", "properties", "large_blocks", "compressed", "embedded", "zstd", "bookmarks",
    "written", "multi", "encryption",
}  # fmt: skip
ODD = ("tab\there", "two\nalpha/x\tsnaprep:pair\tp\tlocal", "\u00fc and \U0001f600", 'a "quote" and C:\\users')


def test_what_a_version_can_is_seen(plain: Pair) -> None:
    """A kernel's OpenZFS has every cap, so that nothing is passed over because a cap was not seen; zfs-fuse has none.
    From 2.3 on it is read in JSON.
    """
    facts = plain[0].volume.facts()
    assert facts.caps - {"zstd_active"} == (ALL if in_kernel() else set())
    found = re.match(r"(\d+)\.(\d+)", facts.version)
    assert (found is not None) == in_kernel()
    assert zfs_command.speaks_json() == (found is not None and (int(found[1]), int(found[2])) >= (2, 3))


@pytest.mark.skipif(not in_kernel(), reason="zfs-fuse says everything in text")
@pytest.mark.parametrize("note", ODD)
def test_whatever_others_have_written_is_read(plain: Pair, note: str) -> None:
    """Values with tabs, line ends and characters beyond ASCII are read whole, and make nothing look marked."""
    side = plain[0]
    side.raw("set", f"user:note={note}", side.live)
    rows = zfs_command.get(["guid", "user:note"], [side.live])
    assert set(rows) == {side.live}
    assert rows[side.live]["user:note"] == Value(note, local=True)
    assert rows[side.live]["guid"].text.isdigit()


@pytest.mark.skipif(not in_kernel(), reason="zfs-fuse has records of 128 KiB at most")
def test_large_records(plain: Pair) -> None:
    """Records of 1 MiB arrive as such, in a whole copy, in an increment, and on their way back. A stream that would
    split them is refused, and the target is as before.
    """
    source, target = plain
    source.raw("set", "recordsize=1M", source.live)
    source.write("large.dat", 8 * MIB)
    assert (source.path / "large.dat").stat().st_blksize == MIB
    first = source.point()
    ship(source, target, first)
    source.write("more.dat", 4 * MIB)
    second = source.point()
    ((_, split),) = source.volume.open_send(source.live, second.name, first.guid, flags=("-c", "-e"))
    receive = target.volume.open_receive(target.recv, "", origin=None, base_guid=first.guid)
    before = target.image(target.recv).points
    assert refused(target, receive, stream_bytes(split)) == "feature-mismatch"
    assert target.image(target.recv).points == before
    ship(source, target, second)
    target.present(second.name)
    assert target.digest() == source.digest()
    target.write("back.dat", 4 * MIB)
    third = target.point()
    ship(target, source, third)
    source.set_aside(source.live, "isolated")
    source.present(third.name)
    assert source.digest() == target.digest()
    for path in (target.path / "large.dat", target.path / "more.dat", source.path / "back.dat"):
        assert path.stat().st_blksize == MIB, path


def test_streams_are_sent_as_the_first_was(plain: Pair) -> None:
    """The flags that both sides can are chosen for a whole copy, and by their mark an increment has the same."""
    source, target = plain
    first = source.point()
    ship(source, target, first)
    sent, there = source.volume.facts(), target.volume.facts()
    chosen = lineage.send_flags(sent, source.image(source.live), there, None)
    assert chosen == (("-L", "-c", "-e") if in_kernel() else ())
    for flags in (chosen, chosen[1:], ()):
        target.volume.set_properties(target.recv, lineage.flags_mark(flags))
        there, live = target.volume.facts(), source.image(source.live)
        base = lineage.common_base(sent, live, there, target.recv)
        assert base is not None
        assert lineage.send_flags(sent, live, there, base) == flags


@pytest.mark.skipif(not in_kernel(), reason="zfs-fuse has no module")
def test_userland_and_module_of_two_versions(plain: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a command that is newer than its module `check` warns, and what both can goes on as ever."""
    (real,) = process.in_full(["zfs"])
    newer = tmp_path / "bin" / "zfs"
    newer.parent.mkdir()
    answer = "version) echo zfs-9.9.9-1; echo zfs-kmod-2.0.0-1; exit ;;"
    newer.write_text(f'#!/bin/sh\ncase "$1" in {answer} esac\nexec {real} "$@"\n')
    newer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{newer.parent}:{process.environment()['PATH']}")
    source, target = plain
    found = {f.id: f for f in source.volume.check(mountpoints=(str(source.path),), as_target=False)}
    assert found["zfs-versions"].level == "warn"
    assert "9.9.9" in found["zfs-versions"].what
    assert "2.0.0" in found["zfs-versions"].what
    point = source.point()
    ship(source, target, point)
    assert [p.guids for p in target.image(target.recv).points] == [point.guids]
