"""What `zfs` says, table-tested. The messages of zfs-fuse 0.7.0 are captured from real runs."""

from __future__ import annotations

import pytest

from snaprep.agent.process import CommandFailed, CommandMissing, CommandTimeout
from snaprep.volumes.zfs.errors import explain, first_line, stream_error

ZFS_FUSE = [
    ("cannot open 'a/nosuch': dataset does not exist", "unknown-dataset"),
    ("cannot create snapshot 'a/my bank@t1': dataset already exists\nno snapshots were created", "snapshot-exists"),
    ("cannot create 'a/my bank': dataset already exists", "dataset-exists"),
    ("cannot create snapshot 'c/l@x': out of space", "no-space"),
    ("cannot set property for 'c/l': out of space", "no-space"),
    ("cannot receive new filesystem stream: out of space", "no-space"),
    ("cannot destroy 'a/my bank@s0': dataset is busy", "dataset-busy"),
    (
        "umount: /tmp/m: target is busy.\ncannot unmount '/tmp/m': umount failed: umount child process failed",
        "dataset-busy",
    ),
    (
        "cannot destroy 'a/bank@s0': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\na/x",
        "has-dependents",
    ),
    (
        "cannot destroy 'a/b': filesystem has children\nuse '-r' to destroy the following datasets:\na/b@s0",
        "has-dependents",
    ),
    (
        "cannot receive new filesystem stream: destination 'b/my bank.recv' exists\nmust specify -F to overwrite it",
        "dataset-exists",
    ),
    ("cannot receive: failed to read from stream", "stream-damaged"),
    ("cannot receive: invalid stream (bad magic number)", "stream-damaged"),
    ("cannot receive incremental stream: invalid backup stream", "stream-damaged"),
    ("cannot receive incremental stream: invalid stream (checksum mismatch)", "stream-damaged"),
    (
        "cannot receive incremental stream: destination 'c/my bank.recv' does not exist",
        "base-missing-on-target",
    ),
    (
        "cannot receive incremental stream: most recent snapshot of b/my bank.recv does not\nmatch incremental source",
        "base-missing-on-target",
    ),
    (
        "cannot receive incremental stream: destination b/my bank.recv has been modified\nsince most recent snapshot",
        "target-modified",
    ),
    ("WARNING: could not send a/my bank@nosuch: does not exist", "base-missing"),
    ("warning: cannot send 'a/my bank@s1': incremental source (@nosuch) does not exist", "base-missing"),
    ("warning: cannot send 'a/my bank@s0': not an earlier snapshot from the same fs", "base-missing"),
    (
        "incremental source must be in same filesystem\nusage:\n\tsend [-RDp] [-[iI] snapshot] <snapshot>\n",
        "base-missing",
    ),
    ("cannot mount '/srv/x': directory is not empty", "mountpoint-taken"),
    (
        (
            "connect: Connection refused\nPlease make sure that the zfs-fuse daemon is running.\n"
            "internal error: failed to initialize ZFS library"
        ),
        "volume-unavailable",
    ),
]
OPENZFS = [
    ("cannot receive resume stream: kernel modules must be upgraded to receive this stream.", "partial-receive"),
    (
        "cannot receive new filesystem stream: kernel modules must be upgraded to receive this stream.",
        "feature-mismatch",
    ),
    (
        "cannot receive new filesystem stream: incompatible embedded data stream feature with encrypted receive.",
        "feature-mismatch",
    ),
    (
        (
            "warning: cannot send 'a/b@s1': source snapshot contains large microzaps, need -L (--large-block) or -w "
            "(--raw) to generate stream"
        ),
        "feature-mismatch",
    ),
    ("warning: cannot send 'a/b@s1': Input/output error", "pool-unhealthy"),
    (
        'cannot receive resume stream: destination t/x contains partially-complete state from "zfs receive -s".',
        "partial-receive",
    ),
    (
        (
            "cannot receive incremental stream: checksum mismatch or incomplete stream.\n"
            "Partially received snapshot is saved."
        ),
        "stream-damaged",
    ),
    (
        "The ZFS modules are not loaded.\nTry running 'modprobe zfs' as root to load them.",
        "volume-unavailable",
    ),
    ("cannot snapshot 't/x@y': permission denied", "not-permitted"),
    ("cannot resume send: 't/x@y' used in the initial send no longer exists", "base-missing"),
    ("cannot resume send: 't/x@y' is no longer the same snapshot used in the initial send", "base-missing"),
    ("cannot resume send: incremental source 0xa6bb58e2d4a3 no longer exists", "base-missing"),
    ("warning: cannot send 't/x@y': incremental source could not be found", "base-missing"),
    (
        (
            "cannot receive incremental stream: incremental send stream requires -L (--large-block), to match previous "
            "receive."
        ),
        "feature-mismatch",
    ),
    (
        "cannot receive incremental stream: kernel modules must be upgraded to receive this stream.",
        "feature-mismatch",
    ),
    ("cannot receive new filesystem stream: pool must be upgraded to receive this stream.", "feature-mismatch"),
    (
        "cannot receive incremental stream: stream uses crypto parameters not compatible with this pool",
        "feature-mismatch",
    ),
    ("cannot receive incremental stream: encryption key does not match existing key", "wrong-key"),
    (
        (
            "cannot receive incremental stream: IV set guid mismatch. The incremental source snapshot on the\n"
            "destination no longer has the IV set it was sent with"
        ),
        "wrong-key",
    ),
    ("cannot receive incremental stream: inherited key must be loaded", "key-not-loaded"),
    ("warning: cannot send 't/x@y': source key must be loaded", "key-not-loaded"),
    (
        "cannot receive incremental stream: destination t/x space quota exceeded.",
        "no-space",
    ),
    ("cannot unmount '/tank/x': pool or dataset is busy", "dataset-busy"),
]


@pytest.mark.parametrize(("said", "expected"), ZFS_FUSE + OPENZFS)
def test_each_message_has_its_id(said: str, expected: str) -> None:
    """Every message that was seen maps to one stable id."""
    assert stream_error(said, 1).id == expected


def test_what_is_unknown_is_shown_as_it_was_said() -> None:
    """A message that no pattern knows is passed on, and so is silence."""
    assert stream_error("cannot frob: the moon", 1).id == "zfs-failed"
    assert stream_error("cannot frob: the moon", 1).info.what == "cannot frob: the moon"
    assert "said nothing" in stream_error("", -9).info.what


def test_lists_and_usage_texts_are_left_out() -> None:
    """People see the sentence, not two hundred names or a usage text."""
    assert (
        first_line("cannot destroy 'a': has children\nuse '-r' to destroy:\na@1\na@2")
        == "cannot destroy 'a': has children"
    )
    assert first_line("bad thing\nusage:\n\tsend x") == "bad thing"


def test_a_missing_program_and_a_hang_have_ids() -> None:
    """No `zfs` at all, and one that does not end, are told apart."""
    assert explain(CommandMissing(("zfs",))).id == "volume-unavailable"
    assert explain(CommandTimeout(("zfs", "list"), 3)).id == "volume-timeout"
    assert explain(CommandFailed(("zfs",), 1, "x: permission denied")).id == "not-permitted"
