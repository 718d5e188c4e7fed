"""Which way snapshots are made, and what each way makes of a refusal."""

from __future__ import annotations

import errno
import threading

import pytest

from snaprep.agent import process
from snaprep.core.errors import SnaprepError
from snaprep.volumes import libzfs_core
from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.lzc.error import ZFSGenericError
from snaprep.volumes.zfs import ops as zfs_ops
from snaprep.volumes.zfs import ops_library as zfs_ops_library
from snaprep.volumes.zfs import send as zfs_send
from snaprep.volumes.zfs import way as zfs_way
from snaprep.volumes.zfs.features import Features
from snaprep.volumes.zfs.ops import CommandOps
from snaprep.volumes.zfs.ops_library import LibraryOps
from snaprep.volumes.zfs.volume import ZfsVolume

MODERN = Features("2.3.9", legacy=False, caps=frozenset({"multi"}))


def failing(error: Exception) -> object:
    raise error


@pytest.mark.parametrize(
    ("error", "id"),
    [
        (lzc_exc.SnapshotFailure([lzc_exc.SnapshotExists(b"a@b")], 0), "snapshot-exists"),
        (lzc_exc.SnapshotFailure([lzc_exc.FilesystemNotFound(b"a")], 0), "unknown-dataset"),
        (lzc_exc.SnapshotDestructionFailure([lzc_exc.SnapshotIsHeld(b"a@b")], 0), "point-held"),
        (lzc_exc.SnapshotDestructionFailure([lzc_exc.SnapshotIsCloned(b"a@b")], 0), "has-dependents"),
        (lzc_exc.SnapshotMismatch(b"a@b"), "base-missing"),
        (lzc_exc.SuspendedPool(b"a"), "volume-unavailable"),
        (lzc_exc.EncryptionKeyNotLoaded(b"a"), "key-not-loaded"),
        (ZFSGenericError(errno.ENOSPC, b"a@b", "make the snapshot"), "no-space"),
        (ZFSGenericError(errno.EPERM, b"a@b", "make the snapshot"), "not-permitted"),
        (ZFSGenericError(errno.ENXIO, b"a@b", "make the snapshot"), "zfs-failed"),
    ],
)
def test_refusals_of_the_library(monkeypatch: pytest.MonkeyPatch, error: Exception, id: str) -> None:
    """A refusal has the id that the command's words for it have, and names what was refused."""
    monkeypatch.setattr(libzfs_core, "lzc_snapshot", lambda *_: failing(error))
    with pytest.raises(SnaprepError) as caught:
        LibraryOps().snapshot(["a@b"], {})
    assert caught.value.id == id
    assert "a" in caught.value.info.what


@pytest.mark.parametrize(("holds", "id"), [({b"mine": 1}, "point-held"), ({}, "dataset-busy")])
def test_what_is_being_sent_is_busy(monkeypatch: pytest.MonkeyPatch, holds: dict[bytes, int], id: str) -> None:
    """A running send keeps a snapshot by the number of a hold; who then looks for holds finds none."""
    held = lzc_exc.SnapshotDestructionFailure([lzc_exc.SnapshotIsHeld(b"a@b")], 0)
    monkeypatch.setattr(libzfs_core, "lzc_destroy_snaps", lambda *_, **__: failing(held))
    monkeypatch.setattr(libzfs_core, "lzc_exists", lambda _: True)
    monkeypatch.setattr(libzfs_core, "lzc_get_holds", lambda _: holds)
    with pytest.raises(SnaprepError) as caught:
        LibraryOps().destroy(["a@b"])
    assert caught.value.id == id


def test_what_cannot_be_looked_at_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library calls everything absent that is in a suspended pool: then nothing may be taken for destroyed."""
    there = {"a", "a/b"}
    monkeypatch.setattr(libzfs_core, "lzc_exists", there.__contains__)
    assert LibraryOps().existing(["a/b", "a/c@d"]) == ["a/b"]
    there.clear()
    with pytest.raises(SnaprepError) as caught:
        LibraryOps().existing(["a/b"])
    assert caught.value.id == "volume-unavailable"


@pytest.mark.parametrize(("base_guid", "id"), [(1, "base-missing"), (None, "unknown-dataset")])
def test_a_base_destroyed_before_the_estimate(monkeypatch: pytest.MonkeyPatch, base_guid: int | None, id: str) -> None:
    """ZFS does not say which end is gone; where there is a base, looking again finds out."""
    monkeypatch.setattr(zfs_send, "found", lambda *_: "a/b@base")
    monkeypatch.setattr(libzfs_core, "lzc_send_space", lambda *_: failing(lzc_exc.SnapshotNotFound(b"a/b@new")))
    volume = ZfsVolume(pair="p", root="a/b", choose=lambda *_: LibraryOps())
    volume._features = MODERN
    with pytest.raises(SnaprepError) as caught:
        volume.estimate_bytes("a/b", "new", base_guid)
    assert caught.value.id == id


def test_a_call_that_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that the kernel keeps is left behind at its deadline, and said to be late."""
    returns = threading.Event()
    monkeypatch.setattr(libzfs_core, "lzc_snapshot", lambda *_: returns.wait(30))
    monkeypatch.setattr(zfs_ops_library, "COMMAND_S", 0.05)
    with pytest.raises(SnaprepError) as caught:
        LibraryOps().snapshot(["a@b"], {})
    returns.set()
    assert caught.value.id == "volume-timeout"


def test_what_is_held_already_keeps_nothing_from_being_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel holds all or none, and names the first that is held already: the others are asked for again."""
    asked: list[list[str]] = []

    def hold(holds: dict[str, str]) -> list[bytes]:
        asked.append(list(holds))
        if held := [name for name in holds if "held" in name]:
            raise lzc_exc.HoldFailure([lzc_exc.HoldExists(held[0].encode())], 0)
        return [name.encode() for name in holds if "gone" in name]

    monkeypatch.setattr(libzfs_core, "lzc_hold", hold)
    LibraryOps().hold("mine", ["a@held", "a/log@x", "a/held@x"])
    assert asked == [["a@held", "a/log@x", "a/held@x"], ["a/log@x", "a/held@x"], ["a/log@x"]]
    LibraryOps().hold("mine", ["a@held"])
    with pytest.raises(SnaprepError) as caught:
        LibraryOps().hold("mine", ["a@gone"])
    assert caught.value.id == "unknown-dataset"


def test_the_commands_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library does is shown as the line that a person would have typed for it."""
    monkeypatch.setattr(libzfs_core, "lzc_snapshot", lambda *_: None)
    monkeypatch.setattr(libzfs_core, "lzc_send_space", lambda *_: 7)
    known = process.newest_command()
    LibraryOps().snapshot(["a/my b@x", "a/my b/log@x"], {"snaprep:pair": "p"})
    assert LibraryOps().stream_bytes("a@y", "a@x", ["-L", "-c"]) == 7
    assert process.commands_since(known) == (
        "zfs snapshot -o snaprep:pair=p 'a/my b@x' 'a/my b/log@x'",
        "zfs send -n -P -L -c -i a@x a@y",
    )


def test_the_way_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is taken when it answers for the pool; else the command, which says why."""
    monkeypatch.setattr(libzfs_core, "lzc_exists", lambda name: name == "there")
    assert isinstance(zfs_way.chosen("there", MODERN), LibraryOps)
    assert "does not see pool gone" in zfs_way.chosen("gone", MODERN).way
    missing = lzc_exc.ZFSInitializationFailed(errno.ENOENT, "there is no /dev/zfs")
    monkeypatch.setattr(libzfs_core, "lzc_exists", lambda _: failing(missing))
    assert zfs_way.chosen("there", MODERN).way.endswith("there is no /dev/zfs")
    assert isinstance(zfs_way.chosen("there", Features("legacy", legacy=True, caps=frozenset())), CommandOps)


def test_commands_pass_over_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several snapshots one may be gone, held already or held no more: the others are still dealt with."""
    ran: list[tuple[str, ...]] = []

    def zfs(*words: str) -> str:
        ran.append(words)
        if words[0] == "hold" and "a@held" in words:
            raise SnaprepError("dataset-exists", "cannot hold a@held: tag already exists on this dataset")
        if words[0] == "release" and "a@free" in words:
            raise SnaprepError("zfs-failed", "cannot release a@free: no such tag on this dataset")
        if "a@gone" in words:
            raise SnaprepError("unknown-dataset", "a@gone does not exist")
        return ""

    monkeypatch.setattr(zfs_ops, "zfs", zfs)
    ops = CommandOps(MODERN.caps, "asked for")
    ops.hold("mine", ["a@held", "b@x"])
    assert [words for words in ran if words[0] == "hold"][-1] == ("hold", "mine", "b@x")
    assert ops.release("mine", ["a@free", "a@gone", "b@x"]) == ["a@free", "b@x"]
    ops.destroy(["a@gone", "b@x"])
    assert ("destroy", "b@x") in ran
