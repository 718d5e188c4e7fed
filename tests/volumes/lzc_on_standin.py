"""The binding alone, with the real C library below it and a stand-in for the kernel: what pyzfs cannot be asked for.

Run by `test_libzfs_core.py` in a process with `kernel_standin.so`; the name keeps it out of what runs by itself.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from snaprep.volumes import libzfs_core as lzc
from snaprep.volumes import nvlist
from snaprep.volumes.lzc import library as lzc_library
from snaprep.volumes.lzc.values import DEPTH_LIMIT
from tests.volumes import zfs_userland
from tests.volumes.kernel_standin import Kernel

exc = lzc.exceptions
RECORD = lzc.BeginRecord(bytes(312))
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def loaded() -> Kernel:
    assert not zfs_userland.why_not()
    return Kernel()


@pytest.fixture
def kernel(loaded: Kernel) -> Kernel:
    loaded.code, loaded.pairs = 0, None
    loaded.asked.clear()
    return loaded


@pytest.mark.parametrize("number", [2**32 + 1, -(2**32) + 1, 2**70])
def test_numbers_are_never_cut_to_fit(kernel: Kernel, number: int) -> None:
    """A number that its C type cannot hold is refused: cut to fit, it would be another descriptor or place."""
    with pytest.raises(OverflowError):
        lzc.lzc_hold({b"p@a": b"tag"}, number)
    with pytest.raises(OverflowError):
        lzc.lzc_send(b"p@a", None, number)
    with pytest.raises(OverflowError):
        lzc.lzc_send_resume(b"p@a", None, 1, None, -number if number > 0 else number)
    with pytest.raises(OverflowError):
        lzc.lzc_channel_program(b"p", b"return 1", instrlimit=-1)
    assert kernel.asked == []


def test_what_is_no_argument(kernel: Kernel) -> None:
    """Arguments of a wrong type are refused by TypeError, before the kernel is asked."""
    with pytest.raises(TypeError, match="TextIOWrapper where a whole number"), Path("/dev/null").open() as file:
        lzc.lzc_receive(b"p@a", file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not the name"):
        lzc.lzc_snapshot("p@a")
    with pytest.raises(TypeError, match="not the name"):
        lzc.lzc_destroy_snaps(b"p@a", defer=False)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not the name"):
        lzc.lzc_get_bookmarks("p", "guid")
    with pytest.raises(TypeError, match="a key is bytes"):
        lzc.lzc_load_key(b"p", noop=False, key="k" * 32)  # type: ignore[arg-type]
    for record in (b"x", bytes(311), 312, None):
        with pytest.raises(TypeError, match="312 bytes"):
            lzc.lzc_receive_with_header(b"p@a", 0, record)  # type: ignore[arg-type]
    assert kernel.asked == []


def test_lists_too_deep_do_not_end_the_process(kernel: Kernel) -> None:
    """The C library aborts when it cannot pack a list with its own around it: what would be too deep is refused."""
    deep: dict[bytes, object] = {}
    for _ in range(DEPTH_LIMIT - 1):
        deep = {b"in": deep}
    lzc.lzc_snapshot([b"p@a"], deep)
    assert len(kernel.asked) == 1
    for _ in range(2):
        deep = {b"in": [deep]}
        with pytest.raises(nvlist.NvlistError, match="deeper"):
            lzc.lzc_snapshot([b"p@a"], deep)
    assert len(kernel.asked) == 1


def test_any_mapping_and_any_bytes(kernel: Kernel) -> None:
    """Properties may be any mapping, with names of either kind, and keys any bytes."""
    lzc.lzc_create("p/a", props=MappingProxyType({"a:b": "c"}), key=bytearray(b"k" * 32))
    pairs = kernel.asked[0][3]
    assert pairs is not None
    assert pairs[b"props"] == {b"a:b": b"c"}
    assert pairs[b"hidden_args"] == {b"wkeydata": list(b"k" * 32)}


def test_size_from_a_bookmark(kernel: Kernel) -> None:
    """An estimate from a bookmark that is refused does not blame its name, as it does with what is no name."""
    kernel.code = errno.EINVAL
    with pytest.raises(exc.ZFSGenericError, match="cannot estimate the stream: Invalid argument"):
        lzc.lzc_send_space(b"p/f@b", b"p/f#a")
    for newer, older in ((b"p/f@b", b"p/f"), (b"p/f", None), (b"p/f@b@c", b"p/f#a")):
        with pytest.raises(exc.NameInvalid):
            lzc.lzc_send_space(newer, older)
    kernel.code = errno.ENOENT
    with pytest.raises(exc.SnapshotNotFound):
        lzc.lzc_send_space(b"p/f@b", b"p/f#a")


def test_flag_of_kept_streams(kernel: Kernel) -> None:
    """What an interrupted receive has kept is sent with a flag that pyzfs does not know."""
    lzc.lzc_send(b"p/f", None, 1, ["saved", "raw"])
    pairs = kernel.asked[0][3]
    assert pairs is not None
    assert {b"savedok", b"rawok"} <= pairs.keys()


def test_redacted_streams(kernel: Kernel) -> None:
    """Redaction bookmarks, redacted streams and the rest of a stream are asked for, and errors say what failed."""
    lzc.lzc_redact(b"p/f@a", "book", [b"p/c@a"])
    lzc.lzc_send_redacted(b"p/f@a", None, 1, ["compress"], b"book")
    lzc.lzc_send_resume_redacted(b"p/f@b", b"p/f@a", 1, None, 5, 4096, "book")
    kernel.pairs = {b"space": 700}
    assert lzc.lzc_send_space_resume_redacted(b"p/f@b", None, None, 5, 4096, 300, b"book") == 700
    made, sent, resumed, rest = (pairs for _, _, _, pairs in kernel.asked)
    assert made == {b"bookname": b"book", b"snapnv": {b"p/c@a": None}}
    assert sent == {b"fd": 1, b"compressok": None, b"redactbook": b"book"}
    place = {b"resume_object": 5, b"resume_offset": 4096, b"redactbook": b"book"}
    assert resumed == {b"fd": 1, b"fromsnap": b"p/f@a", **place}
    assert rest == {b"bytes": 300, **place}
    for code, kind, name in (
        (errno.EEXIST, exc.BookmarkExists, b"p/f#book"),
        (errno.ENOENT, exc.SnapshotNotFound, b"p/f@a"),
        (errno.EINVAL, exc.SnapshotMismatch, b"p/f@a"),
        (errno.EXDEV, exc.PoolsDiffer, b"p/f@a"),
    ):
        kernel.code = code
        with pytest.raises(kind) as caught:
            lzc.lzc_redact(b"p/f@a", b"book", [b"p/c@a"])
        assert (caught.value.name, caught.value.code) == (name, code)
    kernel.code = errno.EINVAL
    with pytest.raises(exc.BookmarkNameInvalid):
        lzc.lzc_redact(b"p/f@a", b"bo#ok", [b"p/c@a"])


def test_suppressed_failures_are_counted(kernel: Kernel) -> None:
    """The kernel's list of failures becomes one exception for each thing, and the count of those it left out."""
    kernel.code = errno.EBUSY
    kernel.pairs = {b"p@a": nvlist.Int32(errno.EBUSY), b"p@b": nvlist.Int32(errno.EEXIST), b"N_MORE_ERRORS": 7}
    with pytest.raises(exc.SnapshotDestructionFailure) as caught:
        lzc.lzc_destroy_snaps([b"p@a", b"p@b"], defer=False)
    assert [type(each) for each in caught.value.errors] == [exc.SnapshotIsHeld, exc.SnapshotIsCloned]
    assert caught.value.failures == ((b"p@a", errno.EBUSY), (b"p@b", errno.EEXIST))
    assert (caught.value.suppressed_count, caught.value.code) == (7, errno.EBUSY)


def test_properties_that_were_not_received(kernel: Kernel, tmp_path: Path) -> None:
    """A receive that set all but some properties has the number of the first, never 0, and names each."""
    failed: dict[bytes, object] = {b"quota": nvlist.Int32(errno.EINVAL), b"a:b": nvlist.Int32(errno.EPERM)}
    kernel.pairs = {b"read_bytes": 312, b"error_flags": 0, b"action_handle": 0, b"errors": failed}
    with (tmp_path / "stream").open("w+b") as file, pytest.raises(exc.ReceivePropertyFailure) as caught:
        lzc.lzc_receive_one(b"p/f@b", file.fileno(), RECORD, resumable=True)
    assert (caught.value.errno, caught.value.code) == (errno.EINVAL, errno.EINVAL)
    assert caught.value.failures == ((b"quota", errno.EINVAL), (b"a:b", errno.EPERM))
    assert str(caught.value).startswith(f"[Errno {errno.EINVAL}] the stream was received")


def test_a_function_that_the_library_lacks(kernel: Kernel) -> None:
    """A call of a function that is not there says so, and the kernel is not asked."""
    calls: dict[Callable[..., object], Callable[[], object]] = {
        lzc.lzc_receive_with_heal: lambda: lzc.lzc_receive_with_heal(b"p@a", 0, RECORD),
        lzc.lzc_send_progress: lambda: lzc.lzc_send_progress(b"p@a", 1),
    }
    for function, called in calls.items():
        if not lzc.is_supported(function):
            with pytest.raises(exc.FunctionNotSupported, match=function.__name__):
                called()
    assert kernel.asked == []


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def test_nothing_is_leaked(kernel: Kernel) -> None:
    """Lists that go in and come out are freed when a call succeeds, fails, and is refused halfway."""
    large: dict[bytes, object] = {b"a:b": b"x" * 100_000}
    # Too deep for the second list only, when the first is made already.
    refused: dict[bytes, object] = {b"end": []}

    def calls() -> None:
        kernel.asked.clear()
        kernel.code, kernel.pairs = 0, {b"tag": b"y" * 50_000}
        lzc.lzc_get_holds(b"p@a")
        lzc.lzc_snapshot([b"p@a"], large)
        kernel.code = errno.EPERM
        kernel.pairs = {b"p@a": nvlist.Int32(1)}
        with pytest.raises(exc.SnapshotFailure):
            lzc.lzc_snapshot([b"p@a"], large)
        with pytest.raises(ValueError, match="empty list"):
            lzc.lzc_receive_with_cmdprops(b"p@a", 0, RECORD, props=large, cmdprops=refused)

    for _ in range(50):
        calls()
    before = resident_bytes()
    for _ in range(300):
        calls()
    # One list of each call would be thirty million bytes.
    assert resident_bytes() - before < 10_000_000


def test_calls_of_several_threads(kernel: Kernel) -> None:
    """Calls at the same time do not mix up what they send and what they get."""
    kernel.pairs = {b"tag": 7}
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(100):
            try:
                lzc.lzc_snapshot([b"p@%d-%d" % (number, turn)])
                if lzc.lzc_get_holds(b"p@%d" % number) != {b"tag": 7}:
                    wrong.append(number)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is wrong
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    made = {name for _, _, _, pairs in kernel.asked if pairs and b"snaps" in pairs for name in pairs[b"snaps"]}  # type: ignore[attr-defined]
    assert made == {b"p@%d-%d" % (number, turn) for number in range(8) for turn in range(100)}


def test_after_a_fork(kernel: Kernel) -> None:
    """A child of a process that was just opening the library in another thread can use it."""
    locked = threading.Event()

    def opening() -> None:
        with lzc_library._lock:
            locked.set()
            time.sleep(0.2)

    thread = threading.Thread(target=opening)
    thread.start()
    assert locked.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            os._exit(0 if lzc.lzc_exists(b"p") else 1)
        finally:
            os._exit(2)
    thread.join(10)
    assert os.waitpid(child, 0)[1] == 0
