"""pyzfs's own tests, run with the binding in pyzfs's place.

    python3 -m tests.volumes.pyzfs_replaced test_nvlist
    python3 -m tests.volumes.pyzfs_replaced test_libzfs_core        as root, where the kernel module is

The tests are those of the package python3-pyzfs that is installed; nothing else of it is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import sys
import types
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snaprep.volumes import libzfs_core, nvlist
from snaprep.volumes.lzc import library as lzc_library
from tests.volumes import zfs_userland


@contextlib.contextmanager
def nvlist_in_place(pairs: dict[bytes, Any]) -> Iterator[ctypes.c_void_p]:
    """A C list that the block fills, and the dictionary that gets what is in it."""
    made = ctypes.c_void_p()
    try:
        yield made
        pairs.clear()
        pairs.update(lzc_library.from_nvlist(made))
    finally:
        if made.value is not None:
            lzc_library.nvpair().nvlist_free(made)


class _Nvpair:
    @staticmethod
    def nvlist_dup(given: ctypes.c_void_p, made: ctypes.c_void_p, flags: int) -> int:
        return int(lzc_library.nvpair().nvlist_dup(given, ctypes.byref(made), flags))


def packed_nvlist_out(packed: bytes, size: int) -> dict[bytes, object]:
    return nvlist.unpack(packed[:size])


def replaced(place: Path) -> types.ModuleType:
    """A package `libzfs_core` that is the binding, with pyzfs's tests below it."""
    package = types.ModuleType("libzfs_core")
    package.__path__ = []
    private = types.ModuleType("libzfs_core._nvlist")
    vars(private).update(
        nvlist_in=lzc_library.to_nvlist,
        nvlist_out=nvlist_in_place,
        packed_nvlist_out=packed_nvlist_out,
        _lib=_Nvpair,
    )
    tests = types.ModuleType("libzfs_core.test")
    tests.__path__ = [str(place / "test")]
    sys.modules.update(
        {
            "libzfs_core": package,
            "libzfs_core._libzfs_core": libzfs_core,
            "libzfs_core.exceptions": libzfs_core.exceptions,
            "libzfs_core.ctypes": libzfs_core.ctypes,
            "libzfs_core._nvlist": private,
            "libzfs_core.test": tests,
        }
    )
    vars(package).update(
        vars(libzfs_core) | {"_libzfs_core": libzfs_core, "_nvlist": private, "__name__": "libzfs_core"}
    )
    return package


def main(names: list[str]) -> int:
    found = importlib.util.find_spec("libzfs_core")
    if found is None or found.origin is None:
        sys.stderr.write("python3-pyzfs, whose tests these are, is not installed\n")
        return 3
    replaced(Path(found.origin).parent)
    if reason := zfs_userland.why_not():
        sys.stderr.write(f"{reason}\n")
        return 3
    loader = unittest.defaultTestLoader
    modules = [importlib.import_module(f"libzfs_core.test.{name}") for name in names]
    suite = unittest.TestSuite(loader.loadTestsFromModule(module) for module in modules)
    return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["test_nvlist"]))
