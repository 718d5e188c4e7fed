"""libzfs_core's functions that write and read streams.

A stream goes through a file descriptor, best a pipe: the kernel writes to nothing else since Linux 5.10, and OpenZFS
before 2.2 does not put a pipe in between by itself. The descriptor must be a blocking one. Calls return when the whole
stream has gone through; a signal that is delivered to their thread ends them with StreamIOError (EINTR), and Python's
handler runs only afterwards: run them in a thread or a process of their own. None of them closes the descriptor.

The examples need the kernel module. They are run with a pool `tank`, a filesystem `tank/db` and its snapshots
`tank/db@monday` and `tank/db@tuesday`, with a stream of `tank/db@monday` in the file `stream`, and `lzc` is this
binding.
"""
# ruff: noqa: FBT001, FBT002  # the signatures are pyzfs's, flags by position and all

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.lzc import translate
from snaprep.volumes.lzc.exceptions import ReceivePropertyFailure
from snaprep.volumes.lzc.header import BEGIN_BYTES, BeginRecord
from snaprep.volumes.lzc.library import Output, call, core, has
from snaprep.volumes.lzc.names import Key, Name, Properties, as_key, as_name, optional_name

# What a stream may hold, by the words that pyzfs has for it; `saved` is the part of an interrupted receive.
SEND_FLAGS = {"embedded_data": 1, "large_blocks": 2, "compress": 4, "raw": 8, "saved": 16}


def flags_of(flags: Iterable[Name] | None) -> int:
    """The number for C. Raises UnknownStreamFeature."""
    value = 0
    for flag in flags or ():
        word = flag.decode(errors="replace") if isinstance(flag, bytes) else flag
        if word not in SEND_FLAGS:
            raise lzc_exc.UnknownStreamFeature(as_name(flag))
        value |= SEND_FLAGS[word]
    if value & SEND_FLAGS["saved"]:
        # The library of 0.8 passes over the flag, and what is sent is something else.
        core()
        if not has("lzc_redact"):
            raise lzc_exc.UnknownStreamFeature(b"saved")
    return value


def estimate_flags(flags: Iterable[Name] | None) -> int:
    """The same for an estimate. C keeps `saved` to itself there, and the kernel then blames the name."""
    value = flags_of(flags)
    if value & SEND_FLAGS["saved"]:
        raise lzc_exc.UnknownStreamFeature(b"saved")
    return value


def lzc_send(snapname: Name, fromsnap: Name | None, fd: int, flags: Iterable[Name] | None = None) -> None:
    """Write the stream of a snapshot to `fd`: all of it, or what changed since `fromsnap`, a snapshot or bookmark.

    `flags` say what the stream may hold: "embedded_data", "large_blocks", "compress", "raw" (as it lies on disk, the
    key not needed), "saved" (OpenZFS 2.0: what an interrupted receive has kept). `snapname` may be a filesystem that
    nobody has mounted.

    Raises SnapshotNotFound, SnapshotMismatch, PoolsDiffer, NameInvalid, NameTooLong, EncryptionKeyNotLoaded,
    UnknownStreamFeature, StreamIOError (the descriptor: a reader that is gone is EPIPE).

    >>> with open("copy", "wb") as file:
    ...     lzc.lzc_send(b"tank/db@tuesday", b"tank/db@monday", file.fileno(), ["compress", "large_blocks"])
    """
    newer, older = as_name(snapname), optional_name(fromsnap)
    code = call("lzc_send", newer, older, fd, flags_of(flags))
    if code:
        raise translate.send(code, newer, older, fd)


def lzc_send_resume(
    snapname: Name,
    fromsnap: Name | None,
    fd: int,
    flags: Iterable[Name] | None = None,
    resumeobj: int = 0,
    resumeoff: int = 0,
) -> None:
    """Go on with a send at an object and a byte in it, as a resume token tells them (`decode_resume_token`).

    Raises what `lzc_send` raises.

    >>> with open("copy", "wb") as file:
    ...     lzc.lzc_send_resume(b"tank/db@tuesday", None, file.fileno(), resumeobj=1, resumeoff=0)
    """
    newer, older = as_name(snapname), optional_name(fromsnap)
    code = call("lzc_send_resume", newer, older, fd, flags_of(flags), resumeobj, resumeoff)
    if code:
        raise translate.send(code, newer, older, fd)


def lzc_send_space(snapname: Name, fromsnap: Name | None = None, flags: Iterable[Name] | None = None) -> int:
    """The estimated size of a stream in bytes. Slow from a bookmark, fast from a snapshot. All flags but "saved".

    Raises SnapshotNotFound, SnapshotMismatch, PoolsDiffer, NameInvalid, NameTooLong, UnknownStreamFeature.

    >>> lzc.lzc_send_space(b"tank/db@tuesday") > lzc.lzc_send_space(b"tank/db@tuesday", b"tank/db@monday") > 0
    True
    """
    newer, older = as_name(snapname), optional_name(fromsnap)
    space = ctypes.c_uint64()
    code = call("lzc_send_space", newer, older, estimate_flags(flags), ctypes.byref(space))
    if code:
        raise translate.send_space(code, newer, older)
    return space.value


def lzc_send_progress(snapname: Name, fd: int) -> tuple[int, int]:
    """Bytes written and blocks visited by a send that another thread runs from `snapname` to `fd`. Not in pyzfs.

    No release up to 2.4 has it; `is_supported` tells. `fd` must be the descriptor that the kernel writes to, a pipe.
    Raises FunctionNotSupported, SnapshotNotFound (no such send runs), NameInvalid.

    >>> lzc.is_supported(lzc.lzc_send_progress) in (True, False)
    True
    """
    name = as_name(snapname)
    written, visited = ctypes.c_uint64(), ctypes.c_uint64()
    code = call("lzc_send_progress", name, fd, ctypes.byref(written), ctypes.byref(visited))
    if code:
        raise translate.send_space(code, name, None)
    return written.value, visited.value


def _record(begin_record: object) -> bytes:
    """C reads as many bytes as a record has, whatever it is given."""
    if not isinstance(begin_record, bytes) or len(begin_record) != BEGIN_BYTES:
        raise TypeError(f"a stream's first record is {BEGIN_BYTES} bytes, as receive_header returns it")
    return begin_record


def _receive(function: str, snapname: Name, props: Properties | None, origin: Name | None, *rest: object) -> None:
    """A receive that gives nothing back; `rest` are C's arguments behind the origin."""
    name, base = as_name(snapname), optional_name(origin)
    code = call(function, name, props or {}, base, *rest)
    if code:
        raise translate.receive(code, name, base)


def lzc_receive(
    snapname: Name,
    fd: int,
    force: bool = False,
    raw: bool = False,
    origin: Name | None = None,
    props: Properties | None = None,
) -> None:
    """Read a stream from `fd` and make the snapshot `snapname` of it, and its filesystem if the stream is a full one.

    `force` rolls the destination back first and destroys snapshots that are in the way. `raw` says that the stream is a
    raw one. `origin` is the snapshot whose clone is received. `props` become received properties.

    Raises DatasetExists, DatasetNotFound, StreamMismatch, DestinationModified, DatasetBusy, BadStream, StreamTruncated,
    StreamFeatureNotSupported, WrongParent, NoSpace, QuotaExceeded, ReadOnlyPool, SuspendedPool, EncryptionKeyNotLoaded,
    PropertyInvalid, NameInvalid, NameTooLong, StreamIOError; anything else is a ZFSGenericError that says it in words.

    >>> with open("stream", "rb") as file:
    ...     lzc.lzc_receive(b"tank/copy@monday", file.fileno())
    >>> lzc.lzc_exists(b"tank/copy@monday")
    True
    """
    _receive("lzc_receive", snapname, props, origin, force, raw, fd)


def lzc_receive_resumable(
    snapname: Name,
    fd: int,
    force: bool = False,
    raw: bool = False,
    origin: Name | None = None,
    props: Properties | None = None,
) -> None:
    """`lzc_receive`, but what has arrived is kept when the stream ends early: StreamTruncated (BadStream on 0.8), and
    the property `receive_resume_token` has what to ask the sender for. Until then the dataset takes no other stream.

    Raises what `lzc_receive` raises.

    >>> with open("stream", "rb") as file:
    ...     lzc.lzc_receive_resumable(b"tank/copy@monday", file.fileno())
    """
    _receive("lzc_receive_resumable", snapname, props, origin, force, raw, fd)


def lzc_receive_with_header(
    snapname: Name,
    fd: int,
    begin_record: BeginRecord,
    force: bool = False,
    resumable: bool = False,
    raw: bool = False,
    origin: Name | None = None,
    props: Properties | None = None,
) -> None:
    """`lzc_receive` of a stream whose beginning was read by `receive_header`, to choose names by it.

    Raises what `lzc_receive` raises.

    >>> with open("stream", "rb") as file:
    ...     header, record = lzc.receive_header(file.fileno())
    ...     lzc.lzc_receive_with_header(b"tank/copy@" + header["drr_toname"].split(b"@")[1], file.fileno(), record)
    """
    _receive("lzc_receive_with_header", snapname, props, origin, force, resumable, raw, fd, _record(begin_record))


class _Received:
    """What the larger receive functions give back through pointers, in their order."""

    def __init__(self, action_handle: int | None) -> None:
        self.read_bytes = ctypes.c_uint64()
        self.error_flags = ctypes.c_uint64()
        self.action_handle = ctypes.c_uint64(action_handle or 0)
        self.failed = Output()

    def arguments(self) -> tuple[object, ...]:
        references = (ctypes.byref(each) for each in (self.read_bytes, self.error_flags, self.action_handle))
        return (*references, self.failed)

    def result(self, code: int, name: bytes, origin: bytes | None) -> tuple[int, int]:
        """Bytes read and the handle; raises what went wrong, first the stream, then its properties."""
        if code:
            raise translate.receive(code, name, origin)
        if self.failed.pairs:
            raise translate.several(0, self.failed.pairs, [name], ReceivePropertyFailure, translate.received_property)
        return self.read_bytes.value, self.action_handle.value


def lzc_receive_one(
    snapname: Name,
    fd: int,
    begin_record: BeginRecord,
    force: bool = False,
    resumable: bool = False,
    raw: bool = False,
    origin: Name | None = None,
    props: Properties | None = None,
    cleanup_fd: int = -1,
    action_handle: int | None = 0,
) -> tuple[int, int]:
    """`lzc_receive_with_header` that returns (bytes read, action handle). `cleanup_fd` and the handle mean something to
    OpenZFS 0.8 only: give back the handle of the call before.

    Raises what `lzc_receive` raises, and ReceivePropertyFailure when all was received but some properties.

    >>> with open("stream", "rb") as file:
    ...     header, record = lzc.receive_header(file.fileno())
    ...     read_bytes, handle = lzc.lzc_receive_one(b"tank/copy@monday", file.fileno(), record)
    >>> read_bytes > 0
    True
    """
    name, base, received = as_name(snapname), optional_name(origin), _Received(action_handle)
    code = call(
        "lzc_receive_one", name, props or {}, base, force, resumable, raw, fd, _record(begin_record), cleanup_fd,
        *received.arguments(),
    )  # fmt: skip
    return received.result(code, name, base)


def lzc_receive_with_cmdprops(
    snapname: Name,
    fd: int,
    begin_record: BeginRecord,
    force: bool = False,
    resumable: bool = False,
    raw: bool = False,
    origin: Name | None = None,
    props: Properties | None = None,
    cmdprops: Properties | None = None,
    key: Key | None = None,
    cleanup_fd: int = -1,
    action_handle: int | None = 0,
) -> tuple[int, int]:
    """`lzc_receive_one` that sets properties, too. In `cmdprops` a value is set as `zfs receive -o` sets it, None means
    inherited, as `-x`. `key` is the wrapping key for what is received, WRAPPING_KEY_LEN bytes.

    Raises what `lzc_receive_one` raises; of what `cmdprops` asks for, too, ReceivePropertyFailure tells.

    >>> with open("stream", "rb") as file:
    ...     header, record = lzc.receive_header(file.fileno())
    ...     wanted = {b"canmount": 2, b"readonly": 1, b"snaprep:run": b"7"}
    ...     _ = lzc.lzc_receive_with_cmdprops(b"tank/copy@monday", file.fileno(), record, cmdprops=wanted)
    """
    name, base, received = as_name(snapname), optional_name(origin), _Received(action_handle)
    code = call(
        "lzc_receive_with_cmdprops", name, props or {}, cmdprops or {}, *as_key(key), base,
        force, resumable, raw, fd, _record(begin_record), cleanup_fd, *received.arguments(),
    )  # fmt: skip
    return received.result(code, name, base)


def lzc_receive_with_heal(
    snapname: Name,
    fd: int,
    begin_record: BeginRecord,
    force: bool = False,
    corrective: bool = True,
    resumable: bool = False,
    raw: bool = False,
    origin: Name | None = None,
    props: Properties | None = None,
    cmdprops: Properties | None = None,
    key: Key | None = None,
    cleanup_fd: int = -1,
    action_handle: int | None = 0,
) -> tuple[int, int]:
    """`lzc_receive_with_cmdprops` that with `corrective` mends damaged blocks of the snapshot `snapname`, which exists,
    from a stream of the same snapshot. OpenZFS 2.2 and later.

    Returns (bytes read, action handle). Raises what `lzc_receive_one` raises, and FunctionNotSupported.

    >>> with open("stream", "rb") as file:
    ...     header, record = lzc.receive_header(file.fileno())
    ...     _ = lzc.lzc_receive_with_heal(b"tank/db@monday", file.fileno(), record)
    """
    name, base, received = as_name(snapname), optional_name(origin), _Received(action_handle)
    code = call(
        "lzc_receive_with_heal", name, props or {}, cmdprops or {}, *as_key(key), base,
        force, corrective, resumable, raw, fd, _record(begin_record), cleanup_fd, *received.arguments(),
    )  # fmt: skip
    return received.result(code, name, base)
