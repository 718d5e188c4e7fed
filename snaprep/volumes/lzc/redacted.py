"""libzfs_core's functions for streams that leave something out, and for the rest of a stream. Not in pyzfs.

A redaction bookmark says which blocks of a snapshot are left out: those that its clones, in the snapshots that are
named, have changed or freed. All of it is OpenZFS 2.0 and later. `lzc.streams` says what holds for descriptors.

The examples need the kernel module. They are run with a pool `tank`, a filesystem `tank/db` and its snapshots
`tank/db@monday` and `tank/db@tuesday`, and `lzc` is this binding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from snaprep.volumes.lzc import translate
from snaprep.volumes.lzc.library import call
from snaprep.volumes.lzc.names import Name, as_name, as_names, filesystem_of, optional_name
from snaprep.volumes.lzc.streams import estimate_flags, flags_of


def lzc_redact(snapshot: Name, bookname: Name, snaps: Iterable[Name]) -> None:
    """Make the redaction bookmark `bookname`, a short name, of a snapshot. `snaps` are full names of snapshots of its
    clones: what they have changed or freed is left out of streams that are sent with the bookmark.

    Raises SnapshotNotFound, SnapshotMismatch (one of `snaps` is no clone's), BookmarkExists, BookmarkNotSupported,
    BookmarkNameInvalid, SnapshotNameInvalid, NameTooLong, PoolsDiffer, FunctionNotSupported.

    >>> lzc.lzc_clone(b"tank/public", b"tank/db@monday")
    >>> lzc.lzc_snapshot([b"tank/public@shown"])
    >>> lzc.lzc_redact(b"tank/db@monday", b"shown", [b"tank/public@shown"])
    >>> list(lzc.lzc_get_bookmarks(b"tank/db"))
    [b'shown']
    """
    name, book = as_name(snapshot), as_name(bookname)
    code = call("lzc_redact", name, book, as_names(snaps))
    if code:
        raise translate.redact(code, name, filesystem_of(name) + b"#" + book)


def lzc_send_redacted(
    snapname: Name, fromsnap: Name | None, fd: int, flags: Iterable[Name] | None, redactbook: Name | None
) -> None:
    """`lzc_send` without what the redaction bookmark `redactbook`, a short name, says.

    Raises what `lzc_send` raises, SnapshotNotFound for the bookmark, too, and FunctionNotSupported.

    >>> lzc.lzc_clone(b"tank/public", b"tank/db@monday")
    >>> lzc.lzc_snapshot([b"tank/public@shown"])
    >>> lzc.lzc_redact(b"tank/db@monday", b"shown", [b"tank/public@shown"])
    >>> with open("copy", "wb") as file:
    ...     lzc.lzc_send_redacted(b"tank/db@monday", None, file.fileno(), None, b"shown")
    """
    newer, older = as_name(snapname), optional_name(fromsnap)
    code = call("lzc_send_redacted", newer, older, fd, flags_of(flags), optional_name(redactbook))
    if code:
        raise translate.send(code, newer, older, fd)


def lzc_send_resume_redacted(
    snapname: Name,
    fromsnap: Name | None,
    fd: int,
    flags: Iterable[Name] | None,
    resumeobj: int,
    resumeoff: int,
    redactbook: Name | None,
) -> None:
    """`lzc_send_resume` of a stream that leaves out what `redactbook` says; None leaves out nothing.

    Raises what `lzc_send_redacted` raises.

    >>> with open("copy", "wb") as file:
    ...     lzc.lzc_send_resume_redacted(b"tank/db@tuesday", None, file.fileno(), None, 1, 0, None)
    """
    newer, older, book = as_name(snapname), optional_name(fromsnap), optional_name(redactbook)
    code = call("lzc_send_resume_redacted", newer, older, fd, flags_of(flags), resumeobj, resumeoff, book)
    if code:
        raise translate.send(code, newer, older, fd)


def lzc_send_space_resume_redacted(
    snapname: Name,
    fromsnap: Name | None = None,
    flags: Iterable[Name] | None = None,
    resumeobj: int = 0,
    resumeoff: int = 0,
    resume_bytes: int = 0,
    redactbook: Name | None = None,
) -> int:
    """The estimated size in bytes of the rest of a stream, of which `resume_bytes` have arrived: a resume token tells
    them, the object and the byte in it (`decode_resume_token`). With `redactbook` of a redacted stream, which is slow.

    Raises what `lzc_send_space` raises, and FunctionNotSupported.

    >>> lzc.lzc_send_space_resume_redacted(b"tank/db@tuesday") == lzc.lzc_send_space(b"tank/db@tuesday")
    True
    """
    newer, older, book = as_name(snapname), optional_name(fromsnap), optional_name(redactbook)
    space = ctypes.c_uint64()
    code = call(
        "lzc_send_space_resume_redacted", newer, older, estimate_flags(flags), resumeobj, resumeoff, resume_bytes, book,
        _NO_DESCRIPTOR, ctypes.byref(space),
    )  # fmt: skip
    if code:
        raise translate.send_space(code, newer, older)
    return space.value


# The kernel knows estimates of a stream that is being sent to a descriptor, too; nobody asks for them.
_NO_DESCRIPTOR = -1
