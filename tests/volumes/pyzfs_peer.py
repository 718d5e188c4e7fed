"""pyzfs in a process of its own, for the tests that hold the binding against it. Run by `zfs_userland.run_pyzfs`."""

from __future__ import annotations

import contextlib
import ctypes.util
from collections.abc import Iterator
from typing import Any

from tests.volumes import zfs_userland

if reason := zfs_userland.why_not():
    raise ImportError(reason)
# pyzfs asks for libraries by their short names, which only a system with development files has.
ctypes.util.find_library = lambda name: zfs_userland.library(f"lib{name}.so.3")

import libzfs_core as pyzfs  # type: ignore[import-not-found]  # noqa: E402  # after the line that lets it load
from libzfs_core import _nvlist  # noqa: E402


def from_packed(packed: bytes) -> dict[bytes, Any]:
    """pyzfs's dict of a packed list."""
    pairs: dict[bytes, Any] = _nvlist.packed_nvlist_out(packed, len(packed))
    return pairs


@contextlib.contextmanager
def c_list(packed: bytes) -> Iterator[Any]:
    """A C nvlist, as pyzfs holds one."""
    pointer = _nvlist._ffi.new("nvlist_t **")
    assert _nvlist._lib.nvlist_unpack(packed, len(packed), pointer, 0) == 0
    try:
        yield pointer[0]
    finally:
        _nvlist._lib.nvlist_free(pointer[0])


def walk(made: object) -> dict[bytes, Any]:
    """pyzfs's dict of a C nvlist."""
    pairs: dict[bytes, Any] = _nvlist._nvlist_to_dict(made, {})
    return pairs


def address(made: object) -> int:
    return int(_nvlist._ffi.cast("uintptr_t", made))


def to_packed(pairs: dict[bytes, Any], encoding: int) -> bytes:
    """A dict, made an nvlist by pyzfs and packed by the C library."""
    made = _nvlist.nvlist_in(pairs)
    nvpair = ctypes.CDLL(zfs_userland.library("libnvpair.so.3"))
    buffer, size = ctypes.c_void_p(), ctypes.c_size_t()
    code = nvpair.nvlist_pack(ctypes.c_void_p(address(made)), ctypes.byref(buffer), ctypes.byref(size), encoding, 0)
    assert code == 0
    packed = ctypes.string_at(buffer, size.value)
    ctypes.CDLL(None).free(buffer)
    return packed


__all__ = ["address", "c_list", "from_packed", "pyzfs", "to_packed", "walk"]
