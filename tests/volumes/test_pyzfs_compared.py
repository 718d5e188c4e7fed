"""Code written for pyzfs runs with the binding: both are called side by side, with the real C library below them."""

from __future__ import annotations

import errno
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snaprep.volumes import libzfs_core as lzc
from tests.volumes import kernel_standin, zfs_userland

EACCES, ESRCH, E2BIG, EINVAL = errno.EACCES, errno.ESRCH, errno.E2BIG, errno.EINVAL
WRONG_PARENT, BADPROP, RAIDZ_EXPAND = 1033, 1044, 1049
# Where the binding says more than pyzfs 2.1, or pyzfs stumbles over its own error.
BETTER = {
    ("lzc_clone", WRONG_PARENT): "WrongParent",
    ("lzc_clone", BADPROP): "PropertyInvalid",
    ("lzc_rollback_to", ESRCH): "SnapshotNotFound",
    ("lzc_release", E2BIG): "HoldReleaseFailure",
    ("lzc_release", EINVAL): "HoldReleaseFailure",
    ("lzc_send_space", EACCES): "EncryptionKeyNotLoaded",
    ("lzc_promote", EACCES): "EncryptionKeyNotLoaded",
    ("lzc_pool_checkpoint", RAIDZ_EXPAND): "RaidzExpansionRunning",
    ("lzc_pool_checkpoint_discard", RAIDZ_EXPAND): "RaidzExpansionRunning",
}


INTERFACE = """
import inspect, json, sys
from tests.volumes.pyzfs_peer import pyzfs
def parameters(called):
    return [[each.name, None if each.default is each.empty else repr(each.default)]
            for each in inspect.signature(called).parameters.values() if not each.name.endswith("args")]
def bases(cls):
    return [base.__name__ for base in cls.__mro__]
classes = {name: cls for name, cls in vars(pyzfs.exceptions).items() if isinstance(cls, type)}
json.dump({
    "names": pyzfs.__all__,
    "functions": {name: parameters(getattr(pyzfs, name)) for name in pyzfs.__all__ if name[:4] == "lzc_"},
    "exceptions": {name: [bases(cls), parameters(cls.__init__), cls.errno] for name, cls in classes.items()
                   if issubclass(cls, pyzfs.exceptions.ZFSError)},
    "types": [name for name in vars(pyzfs.ctypes) if name.endswith("_t")],
    "numbers": {name: {key: value for key, value in vars(getattr(pyzfs, name)).items() if key.isupper()}
                for name in pyzfs.__all__ if name.startswith("z")},
}, sys.stdout)
"""


def parameters(called: Callable[..., object]) -> list[list[str | None]]:
    return [
        [each.name, None if each.default is each.empty else repr(each.default)]
        for each in inspect.signature(called).parameters.values()
    ]


def test_the_interface_is_pyzfs() -> None:
    """Every name of pyzfs is here: functions with its parameters and defaults, exceptions with its bases, numbers and
    arguments, types, constants.
    """
    if reason := zfs_userland.why_no_pyzfs():
        pytest.skip(reason)
    done = zfs_userland.run_pyzfs("-c", INTERFACE)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout)
    assert set(theirs["names"]) <= set(lzc.__all__)
    for name, wanted in theirs["functions"].items():
        assert parameters(getattr(lzc, name)) == wanted, name
    assert len(theirs["exceptions"]) > 60
    for name, (bases, arguments, number) in theirs["exceptions"].items():
        ours = getattr(lzc.exceptions, name)
        assert set(bases) <= {base.__name__ for base in ours.__mro__}, name
        names = [each for each, _ in parameters(ours.__init__)]
        assert names[: len(arguments)] == [each for each, _ in arguments], name
        assert ours.errno == number, name
    assert set(theirs["types"]) <= set(vars(lzc.ctypes))
    for name, numbers in theirs["numbers"].items():
        assert (
            numbers.items()
            <= {key: int(value) for key, value in vars(getattr(lzc, name)).items() if key.isupper()}.items()
        )


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if reason := zfs_userland.why_no_pyzfs() or kernel_standin.why_not():
        pytest.skip(reason)
    library = kernel_standin.build(tmp_path_factory.mktemp("standin"))
    done = zfs_userland.run_pyzfs("-m", "tests.volumes.pyzfs_compared", preload=library)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def alike(ours: list[Any], theirs: list[Any]) -> bool:
    """Same class, same errno, same name; where pyzfs names nothing, the binding may."""
    if ours[0] == "returns" or theirs[0] == "returns":
        return ours == theirs
    same = ours[:2] == theirs[:2] and (ours[2] == theirs[2] or theirs[2] == "None")
    return same and len(ours[3]) == len(theirs[3]) and all(map(alike, ours[3], theirs[3]))


def test_kernel_is_asked_the_same(lines: list[dict[str, Any]]) -> None:
    """Each call reaches the kernel with the same number, name and nvlist as pyzfs's."""
    different = [line for line in lines if line["asked"][0] != line["asked"][1]]
    assert different == []
    assert len(lines) > 10_000


def test_errors_mean_the_same(lines: list[dict[str, Any]]) -> None:
    """Each number of the kernel becomes the exception that pyzfs makes of it, or a listed better one."""
    different = []
    for line in lines:
        ours, theirs = line["result"]
        # What pyzfs cannot tell of a stream it calls an error of input and output, whatever it was.
        vague = theirs[0] == "StreamIOError" and ours[0] != "returns" and line["code"] != errno.EPIPE
        expected = BETTER.get((line["function"], line["code"]))
        if not (alike(ours, theirs) or vague or (expected is not None and ours[0] == expected)):
            different.append(line)
    assert different == []


def test_stream_errors_are_not_all_input_and_output(lines: list[dict[str, Any]]) -> None:
    """A descriptor's own errors are StreamIOError; what has another cause is not called one."""
    sends = {line["code"]: line["result"][0][0] for line in lines if line["function"] == "lzc_send"}
    assert {sends[code] for code in (errno.EPIPE, errno.EBADF, errno.EIO, errno.EINTR)} == {"StreamIOError"}
    assert sends[errno.EPERM] == "ZFSGenericError"
    assert sends[EACCES] == "EncryptionKeyNotLoaded"


def test_names_that_pyzfs_own_tests_use() -> None:
    """Every one is there, those too that pyzfs's package does not list: the tests run on machines only."""
    if reason := zfs_userland.why_no_pyzfs():
        pytest.skip(reason)
    tests = zfs_userland.folder() / "usr/lib/python3/dist-packages/libzfs_core/test/test_libzfs_core.py"
    names = set(re.findall(r"\blzc\.(\w+)", tests.read_text("utf-8")))
    assert names
    assert [name for name in sorted(names) if not hasattr(lzc, name)] == []


def test_pyzfs_own_tests_of_nvlists(tmp_path: Path) -> None:
    """pyzfs's tests of its nvlists pass with the binding in pyzfs's place."""
    if reason := zfs_userland.why_no_pyzfs():
        pytest.skip(reason)
    done = zfs_userland.run_pyzfs("-m", "tests.volumes.pyzfs_replaced", "test_nvlist")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "OK" in done.stderr
