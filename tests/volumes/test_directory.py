"""The volume of plain directories: what of the contract has a meaning without snapshots, on whatever /tmp lies on."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from snaprep.core.errors import SnaprepError
from snaprep.core.lineage import common_base
from snaprep.core.model import recv_name
from snaprep.core.volume import Image, ImageRole, Point
from snaprep.volumes.directory import check as directory_check
from snaprep.volumes.directory import marks, tar_stream
from snaprep.volumes.directory.volume import DirectoryVolume
from tests.volumes.harness import feed, stream_bytes

POINT = "snaprep-p-1"


class Here:
    """One host: a folder with the database's directory in it."""

    def __init__(self, folder: Path, pair: str = "p") -> None:
        folder.mkdir(exist_ok=True)
        self.root = folder / "my db"
        self.volume = DirectoryVolume(pair=pair, root=str(self.root), beside=f"{self.root}.replica")
        self.live, self.recv = str(self.root), recv_name(str(self.root))

    def fill(self, place: Path | None = None) -> None:
        place = place or self.root
        for name, size in (("seg0/c10.dat", 300_000), ("log/log1.dat", 100), ("service.properties", 0)):
            file = place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(size))

    def image(self, name: str) -> Image:
        found = self.volume.facts().image(name)
        assert found is not None
        return found

    def point(self, name: str = POINT) -> Point:
        """What an engine would do: put a copy of itself into the place that it is given."""
        place = self.volume.begin_point(self.live, name)
        assert place is not None
        self.fill(place / self.root.name)
        return self.volume.snapshot(self.live, name)

    def names(self) -> set[str]:
        return {path.name for path in self.root.parent.iterdir()}


Two = tuple[Here, Here]


@pytest.fixture
def two(tmp_path: Path) -> Two:
    """A source with a database, and a target with nothing."""
    source, target = Here(tmp_path / "a"), Here(tmp_path / "b")
    source.fill()
    return source, target


def ship(two: Two, point: Point) -> None:
    source, target = two
    ((part, argv),) = source.volume.open_send(source.live, point.name, None)
    receive = target.volume.open_receive(target.recv, part, origin=None)
    assert feed(receive, stream_bytes(argv)) is None
    assert target.volume.received(target.recv, point.name, point.guids) == point


def present(two: Two) -> Point:
    """The target's replica stands on what the source has sent."""
    source, target = two
    point = source.point()
    ship(two, point)
    beside = f"{target.root}.replica"
    properties = {"serves": "replica", "generation": "1"}
    target.volume.clone(target.recv, POINT, target.live, mountpoint=beside, role=ImageRole.LIVE, properties=properties)
    return point


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(SnaprepError) as caught:
        act()
    return caught.value.id


def content(place: Path) -> dict[str, bytes]:
    return {str(f.relative_to(place)): f.read_bytes() for f in place.rglob("*") if f.is_file() and f.name != marks.NAME}


def test_a_copy_arrives_and_becomes_the_replica(two: Two) -> None:
    """The same files arrive under the same GUID, private and marked as received; then they are the live image, beside
    where clients look, and the source's copy goes.
    """
    source, target = two
    point = source.point()
    assert stat.S_IMODE((source.root.parent / f"my db.point-{POINT}").stat().st_mode) == 0o700
    ship(two, point)
    seen = target.image(target.recv)
    assert (seen.role, seen.ours, seen.mounted_at, seen.points) == (ImageRole.RECV, True, None, (point,))
    base = common_base(source.volume.facts(), source.image(source.live), target.volume.facts(), target.recv)
    assert base is not None
    assert base.continues
    sent = content(source.root.parent / f"my db.point-{POINT}" / "my db")
    beside = f"{target.root}.replica"
    target.volume.clone(
        target.recv, POINT, target.live, mountpoint=beside, role=ImageRole.LIVE, properties={"serves": "replica"}
    )
    assert content(Path(beside)) == sent
    live = target.image(target.live)
    assert (live.role, live.ours, live.mounted_at, live.points) == (ImageRole.LIVE, True, beside, ())
    assert live.properties["serves"] == "replica"
    source.volume.hold(source.live, POINT)
    assert source.image(source.live).points[0].held
    source.volume.release(source.live, POINT)
    source.volume.let_go(source.live, POINT)
    source.volume.let_go(source.live, POINT)
    assert source.names() == {"my db"}
    assert source.image(source.live).points == ()


def test_it_moves_by_renames(two: Two) -> None:
    """Where clients look, beside, away, and aside: one rename each, with its marks; nothing is written over."""
    _, target = two
    present(two)
    volume = target.volume
    volume.mount(target.live, str(target.root))
    assert target.image(target.live).mounted_at == str(target.root)
    volume.unmount(target.live)
    assert target.image(target.live).mounted_at is None
    assert target.names() == {"my db.unmounted"}
    target.root.mkdir()
    assert refused(lambda: volume.mount(target.live, str(target.root))) == "mountpoint-taken"
    target.root.rmdir()
    volume.adopt(target.live, ImageRole.ISOLATED)
    aside = f"{target.live}.isolated-g1"
    (target.root.parent / "my db.isolated-g1").mkdir()
    assert refused(lambda: volume.rename(target.live, aside)) == "dataset-exists"
    (target.root.parent / "my db.isolated-g1").rmdir()
    volume.rename(target.live, aside)
    assert target.image(aside).role is ImageRole.ISOLATED
    assert volume.facts().image(target.live) is None
    with volume.looked_at(aside, target.root.parent / "look") as place:
        assert (place / "seg0/c10.dat").is_file()


def test_what_is_open_is_not_moved(two: Two) -> None:
    """While a process has a file of it open a directory is neither renamed nor removed, and the process is named."""
    _, target = two
    present(two)
    with (Path(f"{target.root}.replica") / "log/log1.dat").open("rb"):
        mine = str(os.getpid())
        assert target.image(target.live).in_use_by[0].startswith(mine)
        assert refused(lambda: target.volume.unmount(target.live)) == "dataset-busy"
        assert refused(lambda: target.volume.destroy_image(target.live)) == "dataset-busy"
    target.volume.destroy_image(target.live)
    target.volume.destroy_image(target.live)
    assert target.names() == set()


def test_only_what_we_made_goes(two: Two) -> None:
    """The database's own directory, what another pair made, and what somebody put there stay."""
    source, target = two
    volume = source.volume
    volume.adopt(source.live, ImageRole.LIVE)
    assert not source.image(source.live).ours
    assert refused(lambda: volume.destroy_image(source.live)) == "not-ours"
    other = Here(source.root.parent, "q")
    assert refused(lambda: other.volume.adopt(other.live, ImageRole.LIVE)) == "not-ours"
    point = source.point()
    assert other.image(other.live).points == ()
    assert refused(lambda: other.volume.destroy_point(other.live, POINT)) == "not-ours"
    target.fill(Path(target.recv))
    assert refused(lambda: target.volume.open_receive(target.recv, "", origin=None)) == "not-ours"
    assert refused(lambda: target.volume.destroy_image(target.recv)) == "not-ours"
    assert target.image(target.recv).role is ImageRole.FOREIGN
    assert source.image(source.live).points == (point,)


def test_a_cut_stream_is_not_whole(two: Two) -> None:
    """Wherever a stream ends early what came is no point; thrown away, all of it can be received."""
    source, target = two
    point = source.point()
    ((_, argv),) = source.volume.open_send(source.live, POINT, None)
    stream = stream_bytes(argv)
    end = stream.index(tar_stream.END.encode())
    for size in (0, 600, len(stream) // 2, end - 200, end, end + 512):
        receive = target.volume.open_receive(target.recv, "", origin=None)
        failed = feed(receive, stream[:size])
        assert failed is not None, size
        assert target.volume.stream_failed(failed.status, failed.stderr).id == "stream-damaged"
        seen = target.image(target.recv)
        assert (seen.points, seen.partial is not None) == ((), True)
        assert refused(lambda: target.volume.received(target.recv, POINT)) == "receive-incomplete"
        target.volume.discard_partial(target.recv)
        assert target.names() == set()
    ship(two, point)
    target.volume.discard_partial(target.recv)
    assert target.image(target.recv).newest == point


def _archive(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
        last = json.dumps({"point": {"name": POINT, "guids": [1], "createtxg": 1}, "files": 1, "bytes": 1}).encode()
        end = tarfile.TarInfo(tar_stream.END)
        end.size = len(last)
        archive.addfile(end, io.BytesIO(last))
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, int(kind == tarfile.REGTYPE)
    return member


@pytest.mark.parametrize(
    "member",
    [
        _member("/etc/evil"),
        _member("../evil"),
        _member("a/../../evil"),
        _member("evil", tarfile.SYMTYPE, "/etc"),
        _member("evil", tarfile.LNKTYPE, "/etc/passwd"),
        _member("evil", tarfile.FIFOTYPE),
        _member("evil", tarfile.CHRTYPE),
        _member(marks.NAME),
        _member("."),
    ],
)
def test_what_has_no_place_in_a_stream(two: Two, member: tarfile.TarInfo) -> None:
    """Links, devices, names that lead out, and our own mark are refused; nothing of them is made."""
    _, target = two
    failed = feed(target.volume.open_receive(target.recv, "", origin=None), _archive(member))
    assert failed is not None
    assert target.volume.stream_failed(failed.status, failed.stderr).id == "stream-damaged"
    assert content(Path(target.recv)) == {}
    assert target.names() == {Path(target.recv).name}


def test_links_of_the_source_stay_behind(two: Two) -> None:
    """What is no file or directory is not sent; the pack's count is of what is."""
    source, _ = two
    place = source.volume.begin_point(source.live, POINT)
    assert place is not None
    source.fill(place / "my db")
    (place / "my db" / "link").symlink_to("/etc")
    point = source.volume.snapshot(source.live, POINT)
    ship(two, point)


def test_leftovers_are_known_and_go(two: Two) -> None:
    """A copy that a killed run has begun is seen, is no point, and goes with `discard_partial` or the next point."""
    source, _ = two
    source.volume.begin_point(source.live, POINT)
    assert refused(lambda: source.volume.begin_point(source.live, POINT)) == "snapshot-exists"
    assert refused(lambda: source.volume.snapshot(source.live, POINT)) == "unknown-dataset"
    seen = source.image(source.live)
    assert (seen.points, seen.partial is not None) == ((), True)
    assert "leftover-copy" in [f.id for f in source.volume.check(mountpoints=[source.live], as_target=False)]
    source.volume.discard_partial(source.live)
    assert source.names() == {"my db"}
    source.point()
    source.point("snaprep-p-2")
    assert [p.name for p in source.image(source.live).points] == ["snaprep-p-2"]
    assert refused(lambda: source.volume.open_send(source.live, POINT, None)) == "base-missing"


def test_a_copy_that_is_still_written_is_left(two: Two) -> None:
    """A server goes on with a copy when the run that asked for it is dead: nothing is taken from under it."""
    source, _ = two
    place = source.volume.begin_point(source.live, POINT)
    assert place is not None
    source.fill(place / "my db")
    with (place / "my db" / "log/log1.dat").open("ab"):
        for act in (
            lambda: source.volume.begin_point(source.live, "snaprep-p-2"),
            lambda: source.volume.discard_partial(source.live),
        ):
            assert refused(act) == "dataset-busy"
        assert (place / "my db" / "seg0/c10.dat").is_file()
    source.volume.begin_point(source.live, "snaprep-p-2")
    assert source.names() == {"my db", "my db.point-snaprep-p-2"}


def test_a_kill_before_the_rename_is_repeated(two: Two) -> None:
    """Marked as the live image and not yet in its place, it is still what was received."""
    _, target = two
    point = source_point = two[0].point()
    ship(two, point)
    with marks.changing(Path(target.recv)) as found:
        marks.write(Path(target.recv), found.with_properties({"serves": "replica"}))
    assert target.volume.facts().image(target.live) is None
    assert target.image(target.recv).newest == source_point


def test_what_it_cannot(two: Two) -> None:
    """No increments, no throw-away copies, no second live image."""
    source, target = two
    point = present(two)
    assert refused(lambda: source.volume.open_send(source.live, POINT, point.guid)) == "base-missing"
    ship(two, point)
    clone = target.volume.clone
    assert refused(lambda: clone(target.recv, POINT, "x", mountpoint=None, role=ImageRole.SCRATCH)) == "no-clones"
    assert (
        refused(lambda: clone(target.recv, POINT, target.live, mountpoint=None, role=ImageRole.LIVE))
        == "dataset-exists"
    )


def test_marks_are_what_actions_rest_on(two: Two) -> None:
    """Marks are set and removed one by one, by several pairs; one that cannot be read is said, not overwritten."""
    source, _ = two
    volume = source.volume
    volume.set_properties(source.live, {"serves": "primary", "generation": "3"})
    volume.set_properties(source.live, {"generation": ""})
    assert volume.marks(source.live, ["serves", "generation"]) == {"serves": "primary"}
    assert volume.marks(f"{source.live}.nothing", ["serves"]) is None
    assert volume.import_id() == volume.facts().import_id
    (source.root / marks.NAME).write_text("{")
    assert refused(volume.facts) == "marks-unreadable"
    assert refused(lambda: volume.set_properties(source.live, {"serves": "x"})) == "marks-unreadable"


def test_check_names_what_a_rename_cannot_move(two: Two) -> None:
    """A link in the place of the directory, and parts of the database that lie elsewhere, would stay behind."""
    source, target = two
    link = target.root
    link.symlink_to(source.root)
    found = directory_check.findings(link, target.volume.facts(), mountpoints=[str(link)], as_target=False)
    assert "directory-fixed" in [f.id for f in found if f.level == "fail"]
    (outside,) = source.volume.outside(source.live, [source.root / "log", Path("/var/log")])
    assert (outside.id, outside.level) == ("outside-directory", "fail")


def test_a_killed_receiver_leaves_no_point(two: Two) -> None:
    """kill -9 in the middle of what comes in leaves a partial copy, known as ours."""
    source, target = two
    source.point()
    ((_, argv),) = source.volume.open_send(source.live, POINT, None)
    stream = stream_bytes(argv)
    receiver = subprocess.Popen(target.volume.open_receive(target.recv, "", origin=None), stdin=subprocess.PIPE)
    assert receiver.stdin is not None
    receiver.stdin.write(stream[: len(stream) // 2])
    receiver.kill()
    receiver.wait(10)
    receiver.stdin.close()
    assert target.image(target.recv).partial is not None
    target.volume.destroy_image(target.recv)
    assert target.names() == set()
