"""The binding without a kernel module: importing, absence, errors, headers, tokens, and what its documentation says."""

from __future__ import annotations

import ast
import doctest
import errno
import inspect
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from snaprep.volumes import libzfs_core as lzc
from snaprep.volumes import nvlist
from snaprep.volumes.lzc import exceptions as lzc_exceptions
from snaprep.volumes.lzc import header as lzc_header
from snaprep.volumes.lzc import library as lzc_library
from snaprep.volumes.lzc import missing as lzc_missing
from snaprep.volumes.lzc import translate as lzc_translate
from snaprep.volumes.lzc.error import ZFSError
from tests.volumes import kernel_standin, lzc_on_kernel, zfs_userland

ROOT = Path(__file__).parents[2]
exc = lzc.exceptions
# Functions of the C library by name, all functions with documentation, and the modules whose examples run below.
PUBLIC = [function.__name__ for function in lzc_on_kernel.FUNCTIONS]
DOCUMENTED: list[Callable[..., object]] = [nvlist.pack, nvlist.unpack]
DOCUMENTED += dict.fromkeys(filter(inspect.isfunction, (getattr(lzc, name) for name in lzc.__all__)))
EXAMPLES_HERE = (lzc, lzc_header, lzc_missing, nvlist)
ABSTRACT = {ZFSError, exc.ZCPError, exc.MultipleOperationsFailure, exc.ZCPDetailed}
CLASSES = [each for each in vars(lzc_exceptions).values() if isinstance(each, type) and issubclass(each, ZFSError)]


def run(program: str, *, loaded: bool) -> subprocess.CompletedProcess[str]:
    """A program in a fresh process: with the C libraries there, or as on a machine that has none."""
    first = "from tests.volumes import zfs_userland; assert not zfs_userland.why_not()" if loaded else NO_LIBRARY
    return subprocess.run(
        [sys.executable, "-c", f"{first}\n{program}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


# Names that no loader finds, so that the test holds where ZFS is installed, too.
NO_LIBRARY = """
from snaprep.volumes.lzc import library
library._CORE_NAMES = ("libzfs_core-none.so.3",)
library._NVPAIR_NAMES = ("libnvpair-none.so.3",)
"""
CATCH = """
from snaprep.volumes import libzfs_core as lzc
try:
    lzc.{call}
except lzc.exceptions.ZFSInitializationFailed as error:
    print(type(error).__name__, error.errno, error)
"""


IMPORTS = """
import ctypes, sys
sys.addaudithook(lambda event, given: print(event, given) if event in {"ctypes.dlopen", "open"} else None)
print("begin")
from snaprep.volumes import libzfs_core, nvlist
print("end")
"""


def test_import_is_harmless() -> None:
    """Importing the binding opens no library and no device."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    opened = [line for line in done.stdout.partition("begin\n")[2].splitlines() if ".py" not in line]
    assert opened[-1] == "end"
    assert not [line for line in opened if "ctypes.dlopen" in line or "/dev/" in line]


@pytest.mark.parametrize("call", ["lzc_exists(b'tank')", "lzc_snapshot([b'tank@a'])", "lzc_send(b'tank@a', None, 1)"])
def test_no_library(call: str) -> None:
    """Without the C library the first call says so, and which names were looked for."""
    done = run(CATCH.format(call=call), loaded=False)
    assert done.stdout.startswith("LibraryNotFound 2 [Errno 2] libzfs_core cannot be used"), done.stdout + done.stderr
    assert "libzfs_core-none.so.3" in done.stdout


def test_support_without_a_library() -> None:
    """`is_supported` is False, and raises nothing, where there is no library."""
    done = run("from snaprep.volumes import libzfs_core as lzc; print(lzc.is_supported(lzc.lzc_hold))", loaded=False)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.skipif(Path("/dev/zfs").exists(), reason="the kernel module is loaded")
def test_no_device() -> None:
    """With the library but no kernel module a call says that the module is missing; a second call says it again."""
    if reason := zfs_userland.why_not():
        pytest.skip(reason)
    done = run(CATCH.format(call="lzc_exists(b'tank')") * 2, loaded=True)
    assert (
        done.stdout
        == (
            "ZFSInitializationFailed 2 [Errno 2] libzfs_core cannot be used: there is no /dev/zfs: "
            "the kernel module zfs is not loaded\n"
        )
        * 2
    ), done.stderr


def test_functions_are_told_apart_by_the_library() -> None:
    """What a release has is asked of its library: 2.1 waits for filesystems, and does not mend by receiving."""
    if reason := zfs_userland.why_not() or ("" if shutil.which("nm") else "needs nm"):
        pytest.skip(reason)
    library = Path(zfs_userland.library("libzfs_core.so.3"))
    listed = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs the library by its path")
    there = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert {name for name in PUBLIC if lzc.is_supported(getattr(lzc, name))} == there & set(PUBLIC)
    assert len(there & set(PUBLIC)) > 35
    assert set(lzc_library._ARGUMENTS) == set(PUBLIC)


OLDER = """
from pathlib import Path
from snaprep.volumes.lzc import library
library._CORE_NAMES = ("libzfs_core-none.so.3", {library!r})
from snaprep.volumes import libzfs_core as lzc
print(lzc.is_supported(lzc.lzc_exists), lzc.is_supported(lzc.lzc_wait), lzc.lzc_exists("p"))
try:
    lzc.lzc_wait("p", "scrub")
except NotImplementedError as error:
    print(type(error).__name__, error.errno)
try:
    lzc.lzc_send("p/f", None, 1, ["saved"])
except lzc.exceptions.UnknownStreamFeature as error:
    print(error.name)
"""


def test_an_older_library(tmp_path: Path) -> None:
    """Where the library of 2.x is not found that of 0.8 is taken, and asked what it has: what it would pass over is
    refused.
    """
    if reason := zfs_userland.why_not() or kernel_standin.why_not():
        pytest.skip(reason)
    source, library = tmp_path / "older.c", tmp_path / "libzfs_core.so.1"
    source.write_text(
        "int libzfs_core_init(void) { return 0; } int lzc_exists(const char *name) { return *name; }"
        "int lzc_send(void) { return 0; }"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60)
    done = run(OLDER.format(library=str(library)), loaded=True)
    assert done.stdout == f"True False True\nFunctionNotSupported {errno.ENOSYS}\nb'saved'\n", done.stderr


def test_import_where_numbers_are_missing() -> None:
    """Importing it is harmless on a system that does not have all of Linux's numbers of errors, too."""
    program = (
        "import errno; del errno.EBADE, errno.ECHRNG, errno.ETIME\n"
        "from snaprep.volumes import libzfs_core as lzc; print(lzc.exceptions.BadStream().errno)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "97\n", done.stderr


def test_on_a_stand_in_for_the_kernel(tmp_path: Path) -> None:
    """What holds for the binding alone, with the C library below it and an answer for each call, holds."""
    if reason := zfs_userland.why_not() or kernel_standin.why_not():
        pytest.skip(reason)
    library = kernel_standin.build(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/volumes/lzc_on_standin.py"],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_a_missing_function_is_named() -> None:
    """A function that the library lacks raises an error that is a NotImplementedError, too, and names it."""
    error = exc.FunctionNotSupported("lzc_receive_with_heal")
    assert isinstance(error, NotImplementedError)
    assert error.errno == errno.ENOSYS
    assert "lzc_receive_with_heal" in str(error)
    with pytest.raises(ValueError, match="no function"):
        lzc.is_supported(lzc.receive_header)


def test_imports_of_pyzfs_users() -> None:
    """Modules that pyzfs has as submodules are found as such."""
    program = (
        "from snaprep.volumes.libzfs_core.exceptions import SnapshotFailure, ZFSError\n"
        "from snaprep.volumes.libzfs_core.ctypes import uint64_t\n"
        "print(issubclass(SnapshotFailure, ZFSError), uint64_t(7))"
    )
    assert run(program, loaded=False).stdout == "True 7\n"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_exception(cls: type[ZFSError]) -> None:
    """Each exception has a number, says what it means, lists what failed, and survives a pickle."""
    inner = [exc.SnapshotExists(b"p@a"), exc.PoolsDiffer(b"q@a")]
    inner[0].code = 17
    given: dict[type[ZFSError], tuple[object, ...]] = {
        exc.ZFSGenericError: (1047, b"p/f", "cannot receive"),
        exc.ZFSInitializationFailed: (2, "nothing there"),
        exc.LibraryNotFound: (2, "nothing there"),
        exc.FunctionNotSupported: ("lzc_wait",),
        exc.StreamIOError: (32, b"p@a"),
        ZFSError: (b"p",),
    }
    compound = issubclass(cls, exc.MultipleOperationsFailure)
    error = cls(*((inner, 3) if compound else given.get(cls, (b"p/f",))))  # type: ignore[arg-type]
    if cls not in ABSTRACT:
        assert error.errno is not None
        assert error.message
    assert len(error.failures) == (2 if compound else 1)
    if compound:
        assert error.failures == ((b"p@a", 17), (b"q@a", 18))
        assert "and 3 more" in str(error)
    error.code = 99
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert (type(again), str(again), again.code, again.errno) == (cls, str(error), 99, error.errno)


def test_taxonomy() -> None:
    """Code that catches the more general class of pyzfs catches the special one."""
    assert issubclass(exc.SnapshotNotFound, exc.DatasetNotFound)
    assert issubclass(exc.FilesystemExists, exc.DatasetExists)
    assert issubclass(exc.BookmarkNameInvalid, exc.NameInvalid)
    assert issubclass(exc.ZCPTimeout, exc.ZCPError)
    assert issubclass(exc.LibraryNotFound, exc.ZFSInitializationFailed)


def test_numbers_of_zfs_are_said_in_words() -> None:
    """A number that has no class is explained, and stays a number to be asked for."""
    error = lzc_translate.receive(1047, b"p/f@s", None)
    assert type(error) is exc.ZFSGenericError
    assert error.code == 1047
    assert "resume it or abort it first" in str(error)


def test_suppressed_errors_are_counted() -> None:
    """Failures that the kernel left out are counted, not taken for a snapshot of that name."""
    answered: dict[bytes, object] = {b"p@a": nvlist.Int32(17), b"N_MORE_ERRORS": nvlist.Int32(5)}
    error = lzc_translate.several(17, answered, [b"p@a"], exc.SnapshotFailure, lzc_translate.destroy_snapshot)
    assert repr(error.suppressed_count) == "5"
    assert repr(error.failures) == "((b'p@a', 17),)"


def test_names() -> None:
    """A NUL in a name, which would name something else, is refused before C sees it; so is what is no name."""
    with pytest.raises(exc.NameInvalid):
        lzc.lzc_destroy(b"tank/db\0@x")
    with pytest.raises(TypeError):
        lzc.lzc_destroy(7)  # type: ignore[arg-type]
    with pytest.raises(exc.UnknownStreamFeature):
        lzc.lzc_send_space(b"p@a", flags=["fast"])
    with pytest.raises(exc.DatasetTypeInvalid):
        lzc.lzc_create(b"p/a", "zfsvol")
    with pytest.raises(exc.UnknownCryptCommand):
        lzc.lzc_change_key(b"p/a", "lose")
    with pytest.raises(TypeError, match="list"):
        lzc.lzc_release({b"p@a": b"tag"})  # type: ignore[arg-type]


def begin_record(magic: int = 0x2F5BACBAC) -> bytes:
    return struct.pack("=IIQQQIIQQ256s", 0, 0, magic, 17, 1_700_000_000, 2, 4, 2**63 + 1, 5, b"p/f@b")


def test_header_in_pieces() -> None:
    """The first record is read whole however few bytes a pipe gives at a time, and nothing beyond it is."""
    reader, writer = os.pipe()
    sent = begin_record() + b"rest"

    def trickle() -> None:
        for place in range(0, len(sent), 7):
            os.write(writer, sent[place : place + 7])
        os.close(writer)

    thread = threading.Thread(target=trickle)
    thread.start()
    header, record = lzc.receive_header(reader)
    thread.join(10)
    assert header["drr_toname"] == b"p/f@b"
    assert (header["drr_toguid"], header["drr_fromguid"], header["drr_creation_time"]) == (2**63 + 1, 5, 1_700_000_000)
    assert record == begin_record()
    assert os.read(reader, 100) == b"rest"
    os.close(reader)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", exc.StreamTruncated),
        (begin_record()[:311], exc.StreamTruncated),
        (begin_record(0x2F5BACBAD), exc.BadStream),
        (b"\1" + begin_record()[1:], exc.BadStream),
        (begin_record()[:56] + b"x" * 256, exc.BadStream),
    ],
)
def test_bad_headers(tmp_path: Path, content: bytes, error: type[ZFSError]) -> None:
    """What does not begin as a stream is refused."""
    (tmp_path / "stream").write_bytes(content)
    with (tmp_path / "stream").open("rb") as file, pytest.raises(error):
        lzc.receive_header(file.fileno())


def resume_token(pairs: dict[bytes, object]) -> str:
    packed = nvlist.pack(pairs, nvlist.XDR)
    small = zlib.compress(packed)
    words = struct.unpack(f"<{len(small) // 4}I", small[: len(small) // 4 * 4])
    return f"1-{sum(words) & 2**64 - 1:x}-{len(packed):x}-{small.hex()}"


def test_resume_token() -> None:
    """A token is read, and every token with one character changed is refused."""
    pairs: dict[bytes, object] = {
        b"object": 3,
        b"offset": 1 << 20,
        b"toguid": 2**64 - 1,
        b"toname": b"p/f@s",
        b"rawok": None,
    }
    token = resume_token(pairs)
    assert lzc.decode_resume_token(token) == pairs
    for place, letter in enumerate(token):
        other = "0" if letter != "0" else "1"
        with pytest.raises(nvlist.NvlistError):
            lzc.decode_resume_token(token[:place] + other + token[place + 1 :])
    with pytest.raises(nvlist.NvlistError, match="bytes"):
        lzc.decode_resume_token(f"{token.rsplit('-', 2)[0]}-{1 << 30:x}-{token.rsplit('-', 1)[1]}")


@pytest.mark.parametrize("function", DOCUMENTED, ids=lambda function: function.__name__)
def test_documentation(function: Callable[..., object]) -> None:
    """Each function's documentation says what it raises and has an example of itself, which some test runs: here, or
    where the kernel is if its module says that it needs it.
    """
    name, document = function.__name__, function.__doc__ or ""
    examples = doctest.DocTestParser().get_examples(document)
    assert any(name in example.source for example in examples)
    assert "Raises" in document
    module = inspect.getmodule(function)
    on_kernel = "need the kernel module" in (inspect.getdoc(module) or "")
    assert on_kernel == (function in lzc_on_kernel.FUNCTIONS)
    assert on_kernel or module in EXAMPLES_HERE
    for example in examples:
        ast.parse(example.source)


@pytest.mark.parametrize("module", EXAMPLES_HERE, ids=lambda module: module.__name__)
def test_examples_without_a_kernel(module: object) -> None:
    """The examples that need no kernel are what happens."""
    outcome = doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)  # type: ignore[arg-type]
    assert outcome.attempted > 0
    assert outcome.failed == 0
