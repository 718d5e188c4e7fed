"""Encrypted datasets, where ZFS has them: what is sent stays encrypted, and the target holds it without the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaprep.agent import process
from snaprep.core.errors import SnaprepError
from snaprep.core.volume import ImageRole, Point
from tests.volumes.conftest import Make
from tests.volumes.contract import refused
from tests.volumes.harness import Side, feed, ship, stream_bytes
from tests.volumes.private_zfs import in_kernel

pytestmark = pytest.mark.zfs
WORD = b"nobody shall read this" * 400


def send_raw(source: Side, target: Side, point: Point, base: Point | None) -> bytes:
    guid = base.guid if base else None
    ((_, argv),) = source.volume.open_send(source.live, point.name, guid, flags=("-w",))
    stream = stream_bytes(argv)
    assert feed(target.volume.open_receive(target.recv, "", origin=None, base_guid=guid), stream) is None
    target.volume.received(target.recv, point.name, point.guids)
    return stream


def new_key(file: Path) -> Path:
    file.write_bytes(os.urandom(32))
    return file


def secret(key: Path) -> list[str]:
    return ["-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}"]


def create_encrypted(side: Side, key: Path) -> None:
    """A live image with one file in it."""
    side.raw("create", *secret(key), "-o", "compression=off", "-o", f"mountpoint={side.path}", side.live)
    (side.path / "bank.dat").write_bytes(WORD)


def key_findings(side: Side) -> dict[str, str]:
    """What check says of keys: ids and hints."""
    found = side.volume.check(mountpoints=(str(side.path), f"{side.path}.replica"), as_target=True)
    return {f.id: f.hint for f in found if f.id.startswith("key")}


def test_raw_streams_without_the_key(make_side: Make, tmp_path: Path) -> None:
    """A full stream and an increment arrive on a host that lacks the key, and hold nothing that can be read. Starting
    the copy is refused until the key is loaded there; then it has the same files.
    """
    source, target = make_side("alpha"), make_side("beta")
    if "encryption" not in source.volume.facts().caps:
        return
    key = new_key(tmp_path / "key")
    create_encrypted(source, key)
    first = source.point()
    assert (source.image(source.live).encrypted, source.image(source.live).locked) == (True, False)
    stream = send_raw(source, target, first, None)
    (source.path / "more.dat").write_bytes(WORD)
    second = source.point()
    stream += send_raw(source, target, second, first)
    assert WORD[:22] not in stream
    assert (target.image(target.recv).encrypted, target.image(target.recv).locked) == (True, True)
    assert key_findings(target) == {"key-not-loaded": f"zfs load-key {target.recv}, before a rebuild or a take-over"}
    wrong = new_key(tmp_path / "wrong")
    with pytest.raises(process.CommandFailed, match="ncorrect key"):
        target.raw("load-key", "-L", f"file://{wrong}", target.recv)
    with pytest.raises(SnaprepError) as caught:
        target.present(second.name)
    assert caught.value.id == "key-not-loaded"
    if target.volume.facts().image(target.live) is not None:
        target.volume.destroy_image(target.live)
    target.raw("load-key", "-L", f"file://{key}", target.recv)
    assert target.present(second.name).role is ImageRole.LIVE
    assert target.image(target.live).key_of == target.recv
    assert list(key_findings(target)) == ["key"]
    assert target.digest() == source.digest()


@pytest.mark.skipif(not in_kernel(), reason="zfs-fuse encrypts nothing")
def test_there_and_back(make_side: Make, tmp_path: Path) -> None:
    """What served from a clone of an encrypted copy comes back by an increment, as it lies on disk, into a clone of the
    old primary's point, and opens with the key that is there.
    """
    source, target = make_side("alpha"), make_side("beta")
    key = new_key(tmp_path / "key")
    create_encrypted(source, key)
    first = source.point()
    ship(source, target, first)
    target.raw("load-key", "-L", f"file://{key}", target.recv)
    target.present(first.name)
    (target.path / "more.dat").write_bytes(WORD)
    for _ in range(2):
        (target.path / "again.dat").write_bytes(os.urandom(1 << 20))
        newest = target.point()
        assert ship(target, source, newest) < 2 << 20
    source.set_aside(source.live, "isolated")
    assert source.present(newest.name).encrypted
    assert source.digest() == target.digest()


@pytest.mark.skipif(not in_kernel(), reason="zfs-fuse encrypts nothing")
def test_a_base_with_another_key(make_side: Make, tmp_path: Path) -> None:
    """Somebody received the base in the clear, and under a key of his own: an increment of what is encrypted otherwise
    is refused as that, and the target is as before.
    """
    source, target = make_side("alpha"), make_side("beta")
    create_encrypted(source, new_key(tmp_path / "key"))
    first = source.point()
    ((_, plainly),) = source.volume.open_send(source.live, first.name, None)
    theirs = ["zfs", "receive", "-u", *secret(new_key(tmp_path / "theirs")), target.recv]
    assert feed(theirs, stream_bytes(plainly)) is None
    target.volume.received(target.recv, first.name, first.guids)
    (source.path / "more.dat").write_bytes(WORD)
    second = source.point()
    before = target.image(target.recv).points
    ((_, send),) = source.volume.open_send(source.live, second.name, first.guid, flags=("-w",))
    receive = target.volume.open_receive(target.recv, "", origin=None, base_guid=first.guid)
    assert refused(target, receive, stream_bytes(send)) == "wrong-key"
    assert target.image(target.recv).points == before


@pytest.mark.skipif(not in_kernel(), reason="zfs-fuse encrypts nothing")
def test_into_what_encrypts(make_side: Make, tmp_path: Path) -> None:
    """A plain database with tiny files, which lie in block pointers, is received below an encrypted dataset, becomes
    encrypted there, and so do its increments.
    """
    source, target = make_side("alpha"), make_side("beta", dataset="vault/my bank")
    target.raw("create", *secret(new_key(tmp_path / "key")), "-o", "mountpoint=none", "beta/vault")
    source.raw("create", "-o", "compression=on", "-o", f"mountpoint={source.path}", source.live)
    for name in ("tiny.dat", "later.dat"):
        (source.path / name).write_bytes(name.encode())
        ship(source, target, newest := source.point())
    assert (source.image(source.live).encrypted, target.image(target.recv).encrypted) == (False, True)
    target.present(newest.name)
    assert target.digest() == source.digest()
