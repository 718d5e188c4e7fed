"""What the `zfs` command says when it refuses, as our error ids.

The words differ a little between versions; the patterns are the parts that have been stable since OpenSolaris. They are
matched in order, against English messages (programs run with LC_ALL=C).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from snaprep.agent.process import CommandFailed, CommandMissing, CommandTimeout
from snaprep.core.errors import CheckFailed, SnaprepError


class Kind(NamedTuple):
    pattern: re.Pattern[str]
    id: str
    hint: str


def _kind(pattern: str, id: str, hint: str = "") -> Kind:
    return Kind(re.compile(pattern, re.IGNORECASE | re.DOTALL), id, hint)


KINDS: tuple[Kind, ...] = (
    _kind(
        r"connecting to zfs|zfs-fuse.*running|/dev/zfs|internal error: failed to initialize"
        r"|modules are not loaded|libzfs.*initiali[sz]e|cannot connect to the zfs|unable to open /dev/zfs",
        "volume-unavailable",
        "Is the ZFS module loaded, or the zfs-fuse service started?",
    ),
    _kind(
        r"permission denied|must be (super)?user|insufficient privileges|^sudo: ",
        "not-permitted",
        "`snaprep check` names what that login lacks, with the line that gives it.",
    ),
    _kind(r"pool I/O is currently suspended|pool is faulted", "volume-unavailable", "See `zpool status`."),
    _kind(r"pool is read-only|read-only file system", "pool-unhealthy", "Import the pool so that it can be written."),
    _kind(r"cannot send .*: input/output error", "pool-unhealthy", "A block cannot be read: see `zpool status -v`."),
    _kind(r"out of space|no space left|quota exceeded", "no-space", "Free space in the pool, or enlarge it."),
    _kind(
        r"partially[- ]complete state|resume state|resuming stream.*token|contains partially-complete",
        "partial-receive",
        "An interrupted receive is in the way; it can be resumed or discarded.",
    ),
    _kind(
        r"cannot receive resume stream: .*(modules must be upgraded|incompatible embedded data stream)",
        "partial-receive",
        "What was received in part is no part of this stream. Discard it on the target: `zfs receive -A DATASET`.",
    ),
    _kind(
        r"has been modified\s+since most recent snapshot",
        "target-modified",
        "Somebody started or wrote what is only received. It is set aside, and the next run starts from an older base.",
    ),
    _kind(
        r"most recent snapshot of .* does not\s+match incremental source|local origin for clone .* does not exist"
        r"|cannot receive incremental stream: .*does not exist|incremental stream.*origin.*not found",
        "base-missing-on-target",
        "Observe again: another common snapshot may do.",
    ),
    _kind(
        r"incremental source.*does not exist|not an earlier snapshot from the same fs"
        r"|incremental source must be in same filesystem|could not send .*: does not exist|no longer the same snapshot"
        r"|cannot resume send: .*no longer exists|incremental source could not be found",
        "base-missing",
        "Observe again: the snapshot was destroyed, or belongs to another dataset.",
    ),
    _kind(
        r"invalid (backup )?stream|checksum mismatch|failed to read from stream|bad magic|incomplete stream"
        r"|stream is truncated|unknown error 1040",
        "stream-damaged",
        "The stream was cut or changed on its way; the target is as before. The round is repeated.",
    ),
    _kind(
        r"requires -L \(--large-block\)|need -L \(--large-block\)",
        "feature-mismatch",
        "The base there has large blocks, and the sender's copy of it came without. Give the base's dataset a name "
        "that is none of the pair's: without a base a whole copy is sent.",
    ),
    _kind(
        r"encryption key does not match|IV set guid mi",
        "wrong-key",
        "What is received keeps the key that it came with, and takes no plain streams. Set it aside by a rename: then "
        "a whole copy is sent.",
    ),
    _kind(
        r"kernel modules must be upgraded|incompatible embedded data stream",
        "feature-mismatch",
        "ZFS says this of an older kernel module, and of data embedded in a stream that is to be encrypted on arrival: "
        "see `snaprep check`, and whether what is above the target's dataset is encrypted.",
    ),
    _kind(
        r"unsupported (feature|version)|stream has unsupported|must be upgraded|must be\s+updated"
        r"|cannot perform raw receive|crypto parameters not compatible"
        r"|not compatible with the\s+data in the pool",
        "feature-mismatch",
        "The target's ZFS cannot read this stream: the flags are chosen from what both can do.",
    ),
    _kind(r"must specify -F to overwrite|destination '?.*'? exists", "dataset-exists"),
    _kind(r"dependent clones|has children", "has-dependents", "Promote the clone that depends on it first."),
    _kind(r"cannot create snapshot.*already exists", "snapshot-exists"),
    _kind(r"cannot promote.*(already exists|conflict)", "snapshot-exists"),
    _kind(r"already exists", "dataset-exists"),
    _kind(
        r"key (is )?not loaded|key must be loaded|keystatus|encryption key",
        "key-not-loaded",
        "Load the key on that host, then go on: `zfs load-key DATASET`.",
    ),
    _kind(
        r"directory is not empty",
        "mountpoint-taken",
        "Something else is at the path. Move it away; it is not touched.",
    ),
    _kind(r"\bbusy\b|umount failed", "dataset-busy"),
    _kind(
        r"does not exist|no such pool|no such dataset",
        "unknown-dataset",
        "Compare `dataset` in snaprep.toml with `zfs list` on that host.",
    ),
)


_BASE_GONE = next(kind for kind in KINDS if kind.id == "base-missing")
_NO_SNAPSHOT = re.compile(r"cannot open '[^']*[@#][^']*': .*does not exist")


def classify(stderr: str) -> Kind | None:
    """The first kind whose pattern is in what the program said."""
    return next((kind for kind in KINDS if kind.pattern.search(stderr)), None)


def hint_of(id: str) -> str:
    """What to do about an error, however it was found out."""
    if id == "volume-timeout":
        return "Does the pool answer? See `zpool status`."
    return next((kind.hint for kind in KINDS if kind.id == id), "")


def first_line(stderr: str) -> str:
    """The sentence for people: wrapped lines joined up to a usage text or a list of names."""
    lines: list[str] = []
    for line in stderr.strip().splitlines():
        if line.startswith(("usage:", "use '-")):
            break
        lines.append(line.strip())
    return " ".join(lines[:4])


def explain(error: CommandFailed, *, details: tuple[str, ...] = ()) -> SnaprepError:
    """The error that people see for a failed `zfs` or `zpool`."""
    if isinstance(error, CommandMissing):
        return CheckFailed("volume-unavailable", str(error), hint="Install ZFS on this host.")
    if isinstance(error, CommandTimeout):
        return SnaprepError("volume-timeout", str(error), hint=hint_of("volume-timeout"))
    return _error(classify(error.stderr), error.stderr, error.status, details)


def stream_error(stderr: str, status: int) -> SnaprepError:
    """The error for a `zfs send` or `zfs receive` that ended with `status` and said `stderr`.

    A snapshot that is not there was there when the stream was planned.
    """
    return _error(_BASE_GONE if _NO_SNAPSHOT.search(stderr) else classify(stderr), stderr, status)


def _error(kind: Kind | None, stderr: str, status: int, details: tuple[str, ...] = ()) -> SnaprepError:
    what = first_line(stderr) or f"zfs ended with status {status} and said nothing"
    if kind is None:
        return SnaprepError("zfs-failed", what, details=details)
    return SnaprepError(kind.id, what, hint=kind.hint, details=details)
