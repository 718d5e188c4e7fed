"""The binding against a real kernel module: run as root on a machine with OpenZFS, by Python 3.11 and nothing else.

    python3 -m tests.volumes.lzc_on_kernel [WORD ...]       plainly: runs the tests whose names hold a word
    pytest tests/volumes/lzc_on_kernel.py                   where pytest is

Everything happens in a pool of its own, made on a sparse file and destroyed at the end. The name of this file keeps it
out of the tests that run everywhere.
"""
# ruff: noqa: PT017  # pytest may not be there

from __future__ import annotations

import contextlib
import doctest
import errno
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from snaprep.volumes import libzfs_core as lzc
from snaprep.volumes.lzc import missing
from snaprep.volumes.lzc.exceptions import ZFSError

POOL = b"lzctest"
# What is in the C library, so that its examples need the kernel; the others run with the tests that run everywhere.
FUNCTIONS = [
    function
    for function in dict.fromkeys(getattr(lzc, name) for name in lzc.__all__ if name.startswith("lzc_"))
    if function.__module__ != missing.__name__
]
DB, COPY = POOL + b"/db", POOL + b"/copy"


def why_not() -> str:
    if os.geteuid() != 0:
        return "needs root"
    return "" if Path("/dev/zfs").exists() else "needs the kernel module zfs (/dev/zfs)"


def command(*words: str | bytes) -> str:
    given = [word.decode() if isinstance(word, bytes) else word for word in words]
    done = subprocess.run(given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{given}: {done.stderr}"
    return done.stdout.strip()


@contextlib.contextmanager
def machine_pool() -> Iterator[None]:
    """The pool, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        disk = Path(folder) / "disk"
        with disk.open("wb") as file:
            file.truncate(512 << 20)
        command("zpool", "create", "-f", "-O", "mountpoint=none", "-o", "cachefile=none", POOL, str(disk))
        try:
            yield
        finally:
            command("zpool", "destroy", "-f", POOL)


@contextlib.contextmanager
def scene() -> Iterator[Path]:
    """A fresh `db` with some MiB in it, its snapshots `monday` and `tuesday`, and a stream of `monday` in a folder."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        mountpoint = folder / "mnt"
        command("zfs", "create", "-o", f"mountpoint={mountpoint}", "-o", "compression=off", DB)
        try:
            (mountpoint / "first").write_bytes(os.urandom(3 << 20))
            lzc.lzc_snapshot([DB + b"@monday"])
            (mountpoint / "second").write_bytes(os.urandom(1 << 20))
            lzc.lzc_snapshot([DB + b"@tuesday"])
            command("zfs", "unmount", DB)
            with (folder / "stream").open("wb") as stream:
                send_to(stream.fileno(), DB + b"@monday")
            yield folder
        finally:
            clear()


def clear() -> None:
    """Destroys all datasets below the test's own pool, and the pool's own snapshots."""
    for line in command("zfs", "list", "-H", "-o", "name,userrefs", "-r", "-t", "snapshot", POOL).splitlines():
        snapshot, held = line.split("\t")
        if held != "0":
            lzc.lzc_release({snapshot: list(lzc.lzc_get_holds(snapshot))})
    listed = command("zfs", "list", "-H", "-o", "name", "-r", "-d", "1", "-t", "filesystem,volume,snapshot", POOL)
    names = [name for name in listed.splitlines() if name != POOL.decode()]
    for name in [*(name for name in names if "@" not in name), *(name for name in names if "@" in name)]:
        # A clone may be gone with the one before it.
        subprocess.run(["zfs", "destroy", "-R", "-f", name], capture_output=True, timeout=120, check=False)


def send_to(descriptor: int, snapshot: bytes, base: bytes | None = None, flags: list[str] | None = None) -> int:
    """Sends through a pipe, as a stream should go; the number of bytes."""
    reader, writer = os.pipe()
    failed: list[Exception] = []

    def send() -> None:
        try:
            lzc.lzc_send(snapshot, base, writer, flags)
        except ZFSError as error:
            failed.append(error)
        finally:
            os.close(writer)

    thread = threading.Thread(target=send)
    thread.start()
    count = 0
    while part := os.read(reader, 1 << 16):
        os.write(descriptor, part)
        count += len(part)
    thread.join(60)
    os.close(reader)
    if failed:
        raise failed[0]
    return count


@contextlib.contextmanager
def fails(kind: type[ZFSError], code: int | None = None) -> Iterator[None]:
    try:
        yield
    except kind as error:
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}"
        assert code is None or error.code == code, f"code {error.code} instead of {code}"
        assert str(error)
    else:
        raise AssertionError(f"{kind.__name__} was not raised")


def prop(name: bytes, which: str) -> str:
    return command("zfs", "get", "-Hp", "-o", "value", which, name)


# --- the tests: each gets the folder of a fresh scene -----------------------------------------------------------------


def test_snapshots_are_atomic(folder: Path) -> None:
    """Of several snapshots all are made or none, and the one in the way is named."""
    wanted = [POOL + b"@now", DB + b"@monday"]
    try:
        lzc.lzc_snapshot(wanted)
    except lzc.exceptions.SnapshotFailure as failure:
        assert failure.failures == ((DB + b"@monday", errno.EEXIST),)
        assert type(failure.errors[0]) is lzc.exceptions.SnapshotExists
    else:
        raise AssertionError("a snapshot that exists was made")
    assert not lzc.lzc_exists(POOL + b"@now")
    lzc.lzc_snapshot([POOL + b"@now", DB + b"@now"], {b"snaprep:run": b"7"})
    txgs = {prop(name, "createtxg") for name in (POOL + b"@now", DB + b"@now")}
    assert len(txgs) == 1
    assert prop(DB + b"@now", "snaprep:run") == "7"


def test_snapshot_errors(folder: Path) -> None:
    """The kernel's numbers for bad snapshots become the exceptions that say what was bad."""
    cases: list[tuple[list[bytes], type[ZFSError]]] = [
        ([POOL + b"/none@x"], lzc.exceptions.FilesystemNotFound),
        ([DB + b"@a", DB + b"@b"], lzc.exceptions.DuplicateSnapshots),
        ([DB + b"@bad/name"], lzc.exceptions.NameInvalid),
        ([DB + b"@" + b"x" * 300], lzc.exceptions.NameTooLong),
    ]
    for names, kind in cases:
        try:
            lzc.lzc_snapshot(names)
        except lzc.exceptions.SnapshotFailure as failure:
            assert type(failure.errors[0]) is kind, f"{names}: {failure}"
        else:
            raise AssertionError(f"{names} were made")


def test_holds_die_with_their_descriptor(folder: Path) -> None:
    """A hold tied to a descriptor keeps a snapshot until the process that has it ends, however it ends."""
    snapshot = DB + b"@tuesday"
    program = (
        "import os, sys, time; from snaprep.volumes import libzfs_core as lzc\n"
        f"lzc.lzc_hold({{{snapshot!r}: b'alive'}}, os.open('/dev/zfs', os.O_EXCL))\n"
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert list(lzc.lzc_get_holds(snapshot)) == [b"alive"]
        with fails(lzc.exceptions.SnapshotDestructionFailure):
            lzc.lzc_destroy_snaps([snapshot], defer=False)
    finally:
        holder.kill()
        holder.wait(20)
        if holder.stdout is not None:
            holder.stdout.close()
    deadline = time.monotonic() + 20
    while lzc.lzc_get_holds(snapshot) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lzc.lzc_get_holds(snapshot) == {}
    lzc.lzc_destroy_snaps([snapshot], defer=False)
    with fails(lzc.exceptions.BadHoldCleanupFD, errno.EBADF):
        lzc.lzc_hold({DB + b"@monday": b"x"}, 4000)


def test_holds(folder: Path) -> None:
    """Holds are listed, refused twice, and released; what does not exist is passed over and told."""
    snapshot = DB + b"@monday"
    assert lzc.lzc_hold({snapshot: b"a", DB + b"@none": b"a"}) == [DB + b"@none"]
    try:
        lzc.lzc_hold({snapshot: b"a"})
    except lzc.exceptions.HoldFailure as failure:
        assert type(failure.errors[0]) is lzc.exceptions.HoldExists
    else:
        raise AssertionError("held twice under one tag")
    then = lzc.lzc_get_holds(snapshot)[b"a"]
    assert isinstance(then, int)
    assert abs(then - time.time()) < 600
    assert lzc.lzc_release({snapshot: [b"a", b"b"]}) == [snapshot + b"#b"]
    with fails(lzc.exceptions.SnapshotNotFound, errno.ENOENT):
        lzc.lzc_get_holds(DB + b"@none")


def test_rollback(folder: Path) -> None:
    """A rollback to a named snapshot goes there or nowhere."""
    with fails(lzc.exceptions.SnapshotNotLatest, errno.EEXIST):
        lzc.lzc_rollback_to(DB, DB + b"@monday")
    lzc.lzc_rollback_to(DB, DB + b"@tuesday")
    assert lzc.lzc_rollback(DB) == DB + b"@tuesday"
    with fails(lzc.exceptions.FilesystemNotFound, errno.ENOENT):
        lzc.lzc_rollback(POOL + b"/none")
    lzc.lzc_create(POOL + b"/bare")
    with fails(lzc.exceptions.SnapshotNotFound):
        lzc.lzc_rollback(POOL + b"/bare")


def test_bookmarks(folder: Path) -> None:
    """A bookmark keeps the GUID of its snapshot, and an increment starts from it when the snapshot is gone."""
    bookmark = DB + b"#monday"
    lzc.lzc_bookmark({bookmark: DB + b"@monday"})
    guid = int(prop(DB + b"@monday", "guid"))
    found = lzc.lzc_get_bookmarks(DB, [b"guid", b"createtxg"])
    assert isinstance(found[b"monday"], dict)
    assert found[b"monday"][b"guid"] == {b"value": guid}
    if lzc.is_supported(lzc.lzc_get_bookmark_props):
        assert lzc.lzc_get_bookmark_props(bookmark)[b"guid"] == {b"value": guid}
    lzc.lzc_destroy_snaps([DB + b"@monday"], defer=False)
    with (folder / "increment").open("wb") as file:
        assert send_to(file.fileno(), DB + b"@tuesday", bookmark) > 1 << 20
    lzc.lzc_destroy_bookmarks([bookmark, DB + b"#none"])
    assert lzc.lzc_get_bookmarks(DB) == {}


def test_send_and_receive(folder: Path) -> None:
    """A full stream and an increment arrive, near their estimates; repeated or without a base they are refused."""
    full = lzc.lzc_send_space(DB + b"@tuesday")
    increment = lzc.lzc_send_space(DB + b"@tuesday", DB + b"@monday")
    assert full > increment > 1 << 20
    with (folder / "stream").open("rb") as file:
        header, record = lzc.receive_header(file.fileno())
        assert header["drr_toname"] == DB + b"@monday"
        assert header["drr_toguid"] == int(prop(DB + b"@monday", "guid"))
        read_bytes, _ = lzc.lzc_receive_one(COPY + b"@monday", file.fileno(), record)
        assert read_bytes > 3 << 20
    with (folder / "increment").open("w+b") as file:
        sent = send_to(
            file.fileno(), DB + b"@tuesday", DB + b"@monday", flags=["compress", "large_blocks", "embedded_data"]
        )
        assert 0.5 < sent / increment < 2
        file.seek(0)
        lzc.lzc_receive(COPY + b"@tuesday", file.fileno())
        file.seek(0)
        with fails(lzc.exceptions.DatasetExists, errno.EEXIST):
            lzc.lzc_receive(COPY + b"@tuesday", file.fileno())
        lzc.lzc_destroy_snaps([COPY + b"@tuesday", COPY + b"@monday"], defer=False)
        file.seek(0)
        with fails(lzc.exceptions.StreamMismatch, errno.ENODEV):
            lzc.lzc_receive(COPY + b"@tuesday", file.fileno())
    assert prop(DB + b"@tuesday", "guid") != "-"


def test_resume(folder: Path) -> None:
    """A stream that was cut goes on from what its token says, and ends at the same GUID."""
    (folder / "cut").write_bytes((folder / "stream").read_bytes()[: 2 << 20])
    with (folder / "cut").open("rb") as file:
        try:
            lzc.lzc_receive_resumable(COPY + b"@monday", file.fileno())
        except (lzc.exceptions.StreamTruncated, lzc.exceptions.BadStream):
            pass
        else:
            raise AssertionError("half a stream was received")
    token = lzc.decode_resume_token(prop(COPY, "receive_resume_token"))
    assert token[b"toname"] == DB + b"@monday"
    assert token[b"toguid"] == int(prop(DB + b"@monday", "guid"))
    at, offset = token[b"object"], token[b"offset"]
    assert isinstance(at, int)
    assert isinstance(offset, int)
    assert at + offset > 0
    with (folder / "rest").open("w+b") as file:
        lzc.lzc_send_resume(DB + b"@monday", None, file.fileno(), None, at, offset)
        assert file.seek(0, os.SEEK_END) < (folder / "stream").stat().st_size
        file.seek(0)
        lzc.lzc_receive_resumable(COPY + b"@monday", file.fileno())
    assert prop(COPY + b"@monday", "guid") == prop(DB + b"@monday", "guid")


def test_bad_streams(folder: Path) -> None:
    """Noise, damage and emptiness are refused, and nothing is left of them."""
    good = (folder / "stream").read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    for content, kinds in (
        (b"noise" * 1000, ("BadStream",)),
        (bytes(damaged), ("BadStream",)),
        (good[: len(good) // 2], ("StreamTruncated", "BadStream")),
        (b"", ("StreamIOError", "StreamTruncated", "BadStream")),
    ):
        (folder / "bad").write_bytes(content)
        with (folder / "bad").open("rb") as file:
            try:
                lzc.lzc_receive(COPY + b"@x", file.fileno())
            except ZFSError as error:
                assert type(error).__name__ in kinds, f"{content[:8]!r}: {error!r}"
            else:
                raise AssertionError("a bad stream was received")
        assert not lzc.lzc_exists(COPY + b"@x")


def test_broken_pipe(folder: Path) -> None:
    """A reader that goes away ends a send with the descriptor's error."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with fails(lzc.exceptions.StreamIOError, errno.EPIPE):
            lzc.lzc_send(DB + b"@monday", None, writer)
    finally:
        os.close(writer)


def test_clone_promote_rename_destroy(folder: Path) -> None:
    """Clones are made and promoted, names change, and each refusal has its class."""
    clone = POOL + b"/clone"
    lzc.lzc_clone(clone, DB + b"@monday", {b"readonly": 1})
    assert prop(clone, "readonly") == "on"
    with fails(lzc.exceptions.FilesystemExists, errno.EEXIST):
        lzc.lzc_clone(clone, DB + b"@monday")
    with fails(lzc.exceptions.NotClone):
        lzc.lzc_promote(DB)
    lzc.lzc_snapshot([clone + b"@monday"])
    try:
        lzc.lzc_promote(clone)
    except lzc.exceptions.SnapshotExists as error:
        assert error.name == clone + b"@monday"
    else:
        raise AssertionError("promoted over a snapshot of the same name")
    lzc.lzc_destroy_snaps([clone + b"@monday"], defer=False)
    lzc.lzc_promote(clone)
    assert prop(DB, "origin") == (clone + b"@monday").decode()
    lzc.lzc_rename(DB, POOL + b"/old")
    with fails(lzc.exceptions.FilesystemNotFound, errno.ENOENT):
        lzc.lzc_rename(DB, POOL + b"/older")
    with fails(lzc.exceptions.PoolsDiffer):
        lzc.lzc_rename(POOL + b"/old", b"otherpool/old")
    with fails(lzc.exceptions.ParentNotFound, errno.ENOENT):
        lzc.lzc_create(POOL + b"/no/parent")
    lzc.lzc_create(POOL + b"/gone")
    lzc.lzc_destroy(POOL + b"/gone")
    with fails(lzc.exceptions.FilesystemNotFound, errno.ENOENT):
        lzc.lzc_destroy(POOL + b"/gone")


def test_many_holds_come_back(folder: Path) -> None:
    """A listing larger than the kernel's first buffer comes back whole."""
    tags = [b"tag-%03d-" % number + b"x" * 230 for number in range(600)]
    for tag in tags:
        lzc.lzc_hold({DB + b"@monday": tag})
    assert set(lzc.lzc_get_holds(DB + b"@monday")) == set(tags)
    assert lzc.lzc_release({DB + b"@monday": tags}) == []


def test_examples(folder: Path) -> None:
    """The examples in the documentation of each function are what happens."""
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    failed: list[str] = []
    before = Path.cwd()
    for test in examples():
        clear()
        with scene() as place:
            os.chdir(place)
            try:
                if runner.run(test, out=sys.stderr.write).failed:
                    failed.append(test.name)
            finally:
                os.chdir(before)
    assert failed == []


def examples() -> list[doctest.DocTest]:
    """The examples of each function that the library has, for the test's own pool."""
    parser, found = doctest.DocTestParser(), []
    for function in filter(lzc.is_supported, FUNCTIONS):
        text = (function.__doc__ or "").replace("tank", POOL.decode())
        test = parser.get_doctest(text, {"lzc": lzc, "os": os}, function.__name__, None, None)
        assert test.examples, f"{function.__name__} has no example"
        found.append(test)
    return found


def test_pyzfs_own_tests(folder: Path) -> None:
    """pyzfs's own tests pass with the binding in pyzfs's place, where they pass with pyzfs."""
    if importlib.util.find_spec("libzfs_core") is None:
        sys.stderr.write("python3-pyzfs is not installed here: its tests were not run\n")
        return
    clear()
    program = [sys.executable, "-m", "tests.volumes.pyzfs_replaced", "test_libzfs_core"]
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=1800, cwd=Path(__file__).parents[2], check=False
    )
    own = [sys.executable, "-m", "unittest", "libzfs_core.test.test_libzfs_core"]
    theirs = subprocess.run(own, capture_output=True, text=True, timeout=1800, check=False)
    assert bad(done.stderr) <= bad(theirs.stderr), done.stderr[-4000:]


def bad(report: str) -> set[str]:
    """The tests of a unittest report that did not pass."""
    assert "\nRan " in report, report[-2000:]
    return {line.split()[1] for line in report.splitlines() if line.startswith(("FAIL: ", "ERROR: "))}


TESTS: dict[str, Callable[[Path], None]] = {
    name: function for name, function in dict(globals()).items() if name.startswith("test_")
}


def main(words: list[str]) -> int:
    if reason := why_not():
        sys.stderr.write(f"not run: {reason}\n")
        return 77
    failed = []
    with machine_pool():
        for name, function in TESTS.items():
            if words and not any(word in name for word in words):
                continue
            start = time.monotonic()
            try:
                with scene() as folder:
                    function(folder)
                outcome = "ok"
            except Exception:  # noqa: BLE001  # the next test is to be run whatever this one met
                traceback.print_exc()
                outcome = "FAILED"
                failed.append(name)
            sys.stdout.write(f"{outcome:7} {name} {time.monotonic() - start:.1f} s\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(failed)} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

with contextlib.suppress(ImportError):
    import pytest

    @pytest.fixture(scope="module")
    def pool() -> Iterator[None]:
        if reason := why_not():
            pytest.skip(reason)
        with machine_pool():
            yield

    @pytest.fixture(name="folder")
    def fresh_scene(pool: None) -> Iterator[Path]:
        with scene() as place:
            yield place
