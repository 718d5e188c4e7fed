"""Encrypted datasets, where ZFS has them: what is sent stays encrypted, and the target holds it without the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaprep.agent import process
from snaprep.core.errors import SnaprepError
from snaprep.core.volume import ImageRole, Point
from tests.volumes.conftest import Make
from tests.volumes.harness import Side, feed, stream_bytes

pytestmark = pytest.mark.zfs
WORD = b"nobody shall read this" * 400


def send_raw(source: Side, target: Side, point: Point, base: Point | None) -> bytes:
    guid = base.guid if base else None
    ((_, argv),) = source.volume.open_send(source.live, point.name, guid, flags=("-w",))
    stream = stream_bytes(argv)
    assert feed(target.volume.open_receive(target.recv, "", origin=None, base_guid=guid), stream) is None
    target.volume.received(target.recv, point.name, point.guids)
    return stream


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
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    secret = ["-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}"]
    source.raw("create", *secret, "-o", "compression=off", "-o", f"mountpoint={source.path}", source.live)
    (source.path / "bank.dat").write_bytes(WORD)
    first = source.point()
    assert (source.image(source.live).encrypted, source.image(source.live).locked) == (True, False)
    stream = send_raw(source, target, first, None)
    (source.path / "more.dat").write_bytes(WORD)
    second = source.point()
    stream += send_raw(source, target, second, first)
    assert WORD[:22] not in stream
    assert (target.image(target.recv).encrypted, target.image(target.recv).locked) == (True, True)
    assert key_findings(target) == {"key-not-loaded": f"zfs load-key {target.recv}, before a rebuild or a take-over"}
    wrong = tmp_path / "wrong"
    wrong.write_bytes(os.urandom(32))
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
