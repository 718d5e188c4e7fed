"""What storage does with what it should never be given: streams of nobody's making, and pools that cannot be written.

Each is refused with an id that says what it is, and the target is as it was.
"""

from __future__ import annotations

import gc
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from snaprep.agent import process
from snaprep.core.errors import SnaprepError
from snaprep.core.volume import Image
from snaprep.volumes.zfs.volume import ZfsVolume
from snaprep.volumes.zfs.way import Choose
from tests.rig.node import wait_until
from tests.volumes.conftest import KERNEL
from tests.volumes.contract import Pair, increment, refused
from tests.volumes.harness import Side, feed, ship, stream_bytes
from tests.volumes.private_zfs import in_kernel

pytestmark = pytest.mark.zfs
# Of a stream's records: their size, two of their kinds, and where those tell how much follows them.
RECORD_BYTES, OBJECT, WRITE, BONUS_AT, LENGTH_AT = 312, 1, 3, 28, 32
TOOL_S = 60
DISK_MIB = 256
LATE_S = 5.0
NO_BASE = {"base-missing-on-target", "target-modified"}  # versions differ in which of them it is


def unchanged(side: Side, before: Image) -> bool:
    now = side.image(side.recv)
    return (now.points, now.partial) == (before.points, before.partial)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(SnaprepError) as caught:
        act()
    return caught.value.id


def test_what_is_no_stream_is_refused(plain: Pair) -> None:
    """Noise, text and another program's archive are damaged streams, onto a base and into a new image."""
    _, argv = increment(plain)
    target = plain[1]
    before = target.image(target.recv)
    fresh = [*argv[:-1], f"{target.live}.fresh"]
    for noise in (os.urandom(1 << 20), b"hello\n" * 1000, b"ustar\x00" + bytes(4 << 10), b"\x00" * 400):
        assert refused(target, argv, noise) == "stream-damaged"
        assert refused(target, fresh, noise) == "stream-damaged"
        assert unchanged(target, before)
    assert target.volume.facts().image(f"{target.live}.fresh") is None


@pytest.mark.skipif(not in_kernel(), reason="zfs-fuse's daemon may die of it")
@pytest.mark.parametrize("length_bytes", [1 << 30, (1 << 64) - 8])
def test_a_record_that_is_too_long_is_refused(plain: Pair, length_bytes: int) -> None:
    """A block longer than any can be, up to what a number can say, is refused: nobody makes room for it."""
    stream, argv = increment(plain)
    target = plain[1]
    before = target.image(target.recv)
    oversized = bytearray(stream)
    struct.pack_into("<Q", oversized, first_write(stream) + LENGTH_AT, length_bytes)
    assert refused(target, argv, bytes(oversized)) == "stream-damaged"
    assert unchanged(target, before)
    assert feed(argv, stream) is None


def first_write(stream: bytes) -> int:
    """Where the stream's first block of a file begins."""
    at = RECORD_BYTES
    while (kind := struct.unpack_from("<I", stream, at)[0]) != WRITE:
        extra = struct.unpack_from("<I", stream, at + BONUS_AT)[0] if kind == OBJECT else 0
        at += RECORD_BYTES + (extra + 7) // 8 * 8
    return at


def test_what_follows_a_stream_is_not_taken(plain: Pair) -> None:
    """Bytes after the end change nothing of what the stream brought."""
    source, target = plain
    stream, argv = increment(plain)
    feed(argv, stream + os.urandom(1 << 20))
    head = source.image(source.live).points[-1]
    assert target.volume.received(target.recv, head.name, head.guids).guid == head.guid
    assert len(target.image(target.recv).points) == 2


def test_a_full_stream_does_not_replace_anything(plain: Pair) -> None:
    """A stream of everything into an image that has points is refused; they stay."""
    source, target = plain
    _, argv = increment(plain)
    before = target.image(target.recv)
    ((_, send),) = source.volume.open_send(source.live, source.image(source.live).points[-1].name, None)
    assert refused(target, argv, stream_bytes(send)) == "dataset-exists"
    assert unchanged(target, before)


def test_a_whole_stream_of_something_else(plain: Pair) -> None:
    """Sound streams of another dataset: an increment finds no base, a whole copy something in its place. Where nothing
    is in the way, what came is seen not to be the point that was sent.
    """
    source, target = plain
    _, argv = increment(plain)
    before, other = target.image(target.recv), f"{source.name}/other"
    source.raw("create", "-o", "mountpoint=none", other)
    source.raw("snapshot", f"{other}@a")
    source.raw("snapshot", f"{other}@b")
    whole = stream_bytes(["zfs", "send", f"{other}@a"])
    assert refused(target, argv, stream_bytes(["zfs", "send", "-i", f"{other}@a", f"{other}@b"])) in NO_BASE
    assert refused(target, argv, whole) == "dataset-exists"
    assert unchanged(target, before)
    target.set_aside(target.recv, "old")
    assert feed(target.volume.open_receive(target.recv, "", origin=None), whole) is None
    head = source.image(source.live).points[-1]
    assert refusal(lambda: target.volume.received(target.recv, head.name, head.guids)) == "receive-incomplete"


def test_a_base_that_goes_between_plan_and_send(plain: Pair) -> None:
    """Named by the plan and destroyed since: the sender says so, also without having looked for it."""
    source, target = plain
    base = source.point()
    ship(source, target, base)
    head = source.point()
    source.raw("destroy", f"{source.live}@{base.name}")
    name = f"{source.live}@{base.name}"
    ((_, argv),) = source.volume.open_send(source.live, head.name, base.guid, base_name=name)
    with pytest.raises(process.CommandFailed) as caught:
        stream_bytes(argv)
    assert source.volume.stream_failed(caught.value.status, caught.value.stderr).id == "base-missing"


def test_a_base_that_goes_on_the_target_between_plan_and_receive(plain: Pair) -> None:
    """Destroyed after the receiver looked: the stream finds nothing to start from."""
    stream, argv = increment(plain)
    target = plain[1]
    target.raw("destroy", f"{target.recv}@{target.image(target.recv).points[0].name}")
    assert refused(target, argv, stream) in {*NO_BASE, "dataset-exists"}
    assert target.image(target.recv).points == ()


@pytest.mark.skipif(not in_kernel(), reason="zfs-fuse knows no such import")
def test_a_pool_that_can_only_be_read(plain: Pair, tmp_path: Path) -> None:
    """Facts say so, what is asked of it is refused as that, and it serves again when it is imported as before."""
    source, target = plain
    ship(source, target, source.point())
    source.write("more.dat", 1 << 20)
    head = source.point()
    ((_, send),) = source.volume.open_send(source.live, head.name, source.image(source.live).points[0].guid)
    stream, before = stream_bytes(send), target.image(target.recv)
    receive = target.volume.open_receive(target.recv, "", origin=None)
    pool, place = target.name, str(tmp_path / "zfs")
    zpool("export", pool)
    zpool("import", "-N", "-o", "readonly=on", "-d", place, pool)
    try:
        assert target.volume.facts().store_health == "READONLY"
        assert refused(target, receive, stream) == "pool-unhealthy"
        assert refusal(lambda: target.volume.snapshot(target.recv, "snaprep-p-none")) == "pool-unhealthy"
    finally:
        zpool("export", pool)
        zpool("import", "-N", "-d", place, pool)
    assert target.volume.facts().store_health == "ONLINE"
    assert unchanged(target, before)
    assert feed(receive, stream) is None


def zpool(*words: str) -> None:
    tool("zpool", *words)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that can be taken away, for a pool of a kernel's ZFS."""
    if not in_kernel():
        pytest.skip("needs a kernel's ZFS")
    tool("modprobe", "-a", "loop", "dm_mod")
    file, name = tmp_path / "disk", "snaprep-disk"
    with file.open("wb") as image:
        image.truncate(DISK_MIB << 20)
    loop = tool("losetup", "--find", "--show", str(file)).strip()
    tool("dmsetup", "create", name, "--table", f"0 {DISK_MIB << 11} linear {loop} 0")
    try:
        yield Disk(name, f"0 {DISK_MIB << 11} linear {loop} 0")
    finally:
        tool("dmsetup", "remove", "--retry", name)
        tool("losetup", "--detach", loop)


@dataclass(frozen=True, slots=True)
class Disk:
    name: str
    table: str

    def switch(self, table: str) -> None:
        """What was asked of it and not answered is asked of the new table."""
        tool("dmsetup", "suspend", "--noflush", "--nolockfs", self.name)
        tool("dmsetup", "reload", self.name, "--table", table)
        tool("dmsetup", "resume", self.name)

    @contextmanager
    def gone(self) -> Iterator[None]:
        self.switch(f"0 {DISK_MIB << 11} error")
        try:
            yield
        finally:
            self.switch(self.table)


@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")  # what the kernel keeps is left behind
@pytest.mark.parametrize("way", [pytest.param(choose, id=name) for name, choose in KERNEL.items()])
def test_a_suspended_pool(disk: Disk, way: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pool whose disk has gone nothing is waited for without end, and whoever asks is told that it is suspended;
    when the disk is back, everything is there.
    """
    zpool("create", "-m", "none", "gamma", f"/dev/mapper/{disk.name}")
    volume = ZfsVolume(pair="p", root="gamma/bank", choose=way)
    try:
        process.run(["zfs", "create", "-o", "mountpoint=none", "gamma/bank"], deadline_s=TOOL_S)
        first = volume.snapshot("gamma/bank", "snaprep-p-1")
        with disk.gone():
            began_s = time.monotonic()
            with monkeypatch.context() as impatient:
                impatient.setattr(process, "patient_s", lambda _: LATE_S)
                assert refusal(lambda: volume.snapshot("gamma/bank", "snaprep-p-2")) == "volume-timeout"
            assert time.monotonic() - began_s < 3 * LATE_S
            health = ("zpool", "list", "-H", "-o", "health", "gamma")
            wait_until(lambda: tool(*health) == "SUSPENDED\n", "the suspension", TOOL_S)
            for ask in (
                volume.facts,
                lambda: volume.snapshot("gamma/bank", "snaprep-p-3"),
                lambda: volume.destroy_image("gamma/bank"),
            ):
                assert refusal(ask) == "volume-unavailable"
        zpool("clear", "gamma")
        facts = volume.facts()
        assert (facts.store_health, facts.images[0].points[0]) == ("ONLINE", first)
    finally:
        gc.collect()  # the command that the kernel kept is complained of here, and not in whichever test is next
        zpool("clear", "gamma")
        zpool("destroy", "-f", "gamma")


def tool(*argv: str) -> str:
    return process.run(list(argv), deadline_s=TOOL_S).text
