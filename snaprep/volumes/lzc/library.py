"""The C libraries behind the binding: found and opened at the first call, never at import.

Which release is there is told by what the library has, function by function; a function that it lacks raises
FunctionNotSupported. All calls release the interpreter's lock while they run, and Python's signal handlers run when
they have returned. A send or a receive ends early, with EINTR, when a signal is delivered to its thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from snaprep.volumes import nvlist
from snaprep.volumes.lzc.exceptions import FunctionNotSupported, LibraryNotFound, ZFSInitializationFailed
from snaprep.volumes.lzc.values import DEPTH_LIMIT

DEVICE: Final = "/dev/zfs"
# The newest first. OpenZFS 2.x has the third version of both libraries, 0.8 the first. Full names, because the loader's
# list of short names is only complete where development files are installed.
_CORE_NAMES = ("libzfs_core.so.3", "libzfs_core.so.1")
_NVPAIR_NAMES = ("libnvpair.so.3", "libnvpair.so.1")

_LETTERS: dict[str, Any] = {
    "s": ctypes.c_char_p,  # a name
    "p": ctypes.c_char_p,  # bytes with their own length
    "n": ctypes.c_void_p,  # an nvlist
    "o": ctypes.POINTER(ctypes.c_void_p),  # an nvlist that comes back
    "u": ctypes.POINTER(ctypes.c_uint64),  # a number that comes back
    "w": ctypes.POINTER(ctypes.c_int),  # a truth that comes back
    "b": ctypes.c_int,  # boolean_t and enums
    "i": ctypes.c_int,
    "U": ctypes.c_uint,
    "l": ctypes.c_uint64,
}
# What whole numbers of C hold: ctypes would cut the rest off, and a wrong descriptor would be written to.
_WHOLE: dict[str, tuple[int, int]] = {
    "b": (-(2**31), 2**31 - 1),
    "i": (-(2**31), 2**31 - 1),
    "U": (0, 2**32 - 1),
    "l": (0, 2**64 - 1),
}
# One letter an argument. All of them return 0 or an errno, but lzc_exists, which returns a truth.
_ARGUMENTS: dict[str, str] = {
    "lzc_bookmark": "no",
    "lzc_change_key": "slnpU",
    "lzc_channel_program": "ssllno",
    "lzc_channel_program_nosync": "ssllno",
    "lzc_clone": "ssn",
    "lzc_create": "sbnpU",
    "lzc_destroy": "s",
    "lzc_destroy_bookmarks": "no",
    "lzc_destroy_snaps": "nbo",
    "lzc_exists": "s",
    "lzc_get_bookmark_props": "so",
    "lzc_get_bookmarks": "sno",
    "lzc_get_holds": "so",
    "lzc_hold": "nio",
    "lzc_load_key": "sbpU",
    "lzc_pool_checkpoint": "s",
    "lzc_pool_checkpoint_discard": "s",
    "lzc_promote": "spi",
    "lzc_receive": "snsbbi",
    "lzc_receive_one": "snsbbbipiuuuo",
    "lzc_receive_resumable": "snsbbi",
    "lzc_receive_with_cmdprops": "snnpUsbbbipiuuuo",
    "lzc_receive_with_heal": "snnpUsbbbbipiuuuo",
    "lzc_receive_with_header": "snsbbbip",
    "lzc_redact": "ssn",
    "lzc_release": "no",
    "lzc_rename": "ss",
    "lzc_reopen": "sb",
    "lzc_rollback": "spi",
    "lzc_rollback_to": "ss",
    "lzc_send": "ssib",
    "lzc_send_progress": "siuu",
    "lzc_send_redacted": "ssibs",
    "lzc_send_resume": "ssibll",
    "lzc_send_resume_redacted": "ssiblls",
    "lzc_send_space": "ssbu",
    "lzc_send_space_resume_redacted": "ssblllsiu",
    "lzc_snaprange_space": "ssu",
    "lzc_snapshot": "nno",
    "lzc_sync": "sno",
    "lzc_unload_key": "s",
    "lzc_wait": "sbw",
    "lzc_wait_fs": "sbw",
}

# A class of functions of our own: what is declared here cannot clash with what others declare for the same library.
_prototype = ctypes.CFUNCTYPE(ctypes.c_int)

_lock = threading.Lock()
_functions: dict[str, Callable[..., int]] = {}
_opened: dict[str, ctypes.CDLL] = {}
_initialised: set[str] = set()
# No child of a fork begins with a lock that nobody in it will release, or with a library half opened.
os.register_at_fork(before=_lock.acquire, after_in_child=_lock.release, after_in_parent=_lock.release)


def _load(key: str, names: tuple[str, ...]) -> ctypes.CDLL:
    with _lock:
        library = _opened.get(key)
        if library is None:
            library = _first(names)
            if key == "nvpair":
                _declare_nvpair(library)
            _opened[key] = library
        return library


def _first(names: tuple[str, ...]) -> ctypes.CDLL:
    problems = []
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as problem:
            problems.append(str(problem))
    raise LibraryNotFound(errno.ENOENT, "; ".join(problems))


def nvpair() -> ctypes.CDLL:
    """libnvpair, which needs no kernel module. Raises LibraryNotFound."""
    return _load("nvpair", _NVPAIR_NAMES)


def _declare_nvpair(library: ctypes.CDLL) -> None:
    size = ctypes.POINTER(ctypes.c_size_t)
    library.nvlist_unpack.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int]
    library.nvlist_size.argtypes = [ctypes.c_void_p, size, ctypes.c_int]
    start = ctypes.POINTER(ctypes.c_char_p)
    library.nvlist_pack.argtypes = [ctypes.c_void_p, start, size, ctypes.c_int, ctypes.c_int]
    library.nvlist_free.argtypes = [ctypes.c_void_p]
    library.nvlist_free.restype = None


def has(function: str) -> bool:
    """Whether the library that is installed has a function of the binding; False when there is none. Needs no kernel
    module.
    """
    try:
        library = _load("core", _CORE_NAMES)
    except LibraryNotFound:
        return False
    return function in _ARGUMENTS and hasattr(library, function)


def core() -> ctypes.CDLL:
    """libzfs_core, with its way to the kernel open. Raises LibraryNotFound or ZFSInitializationFailed."""
    library = _load("core", _CORE_NAMES)
    with _lock:
        if "core" not in _initialised:
            code = library.libzfs_core_init()
            if code != 0:
                raise ZFSInitializationFailed(code, _why_not(code))
            _initialised.add("core")
    return library


def _why_not(code: int) -> str:
    if code == errno.ENOENT:
        return f"there is no {DEVICE}: the kernel module zfs is not loaded"
    if code in {errno.EACCES, errno.EPERM}:
        return f"user {os.geteuid()} may not open {DEVICE}"
    if code in {errno.ENXIO, errno.ENODEV}:
        return f"{DEVICE} is there, the kernel module behind it is not"
    return f"{DEVICE}: {os.strerror(code)}"


class Output:
    """An nvlist that a call gives back; `pairs` holds it after the call."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: dict[bytes, object] = {}


def to_nvlist(pairs: dict[bytes, object]) -> ctypes.c_void_p:
    """A C nvlist, which the caller frees. Raises what `nvlist.pack` raises."""
    packed = nvlist.pack(pairs)
    pointer = ctypes.c_void_p()
    code = nvpair().nvlist_unpack(packed, len(packed), ctypes.byref(pointer), 0)
    if code != 0:
        raise nvlist.NvlistError(f"libnvpair refuses the list: {os.strerror(code)}")
    return pointer


def from_nvlist(pointer: ctypes.c_void_p) -> dict[bytes, object]:
    """A C nvlist as a dict; {} for a null pointer. The C list stays the caller's."""
    if pointer.value is None:
        return {}
    library = nvpair()
    size = ctypes.c_size_t()
    code = library.nvlist_size(pointer, ctypes.byref(size), nvlist.NATIVE)
    if code == 0:
        buffer = ctypes.create_string_buffer(size.value)
        start = ctypes.cast(buffer, ctypes.c_char_p)
        code = library.nvlist_pack(pointer, ctypes.byref(start), ctypes.byref(size), nvlist.NATIVE, 0)
    if code != 0:
        raise nvlist.NvlistError(f"libnvpair does not pack the list: {os.strerror(code)}")
    return nvlist.unpack(buffer.raw)


def _function(library: ctypes.CDLL, name: str) -> Callable[..., int]:
    found = _functions.get(name)
    if found is None:
        try:
            # A function of its own, declared before anybody else can see it.
            declared = _prototype((name, library))
        except AttributeError:
            raise FunctionNotSupported(name) from None
        declared.argtypes = [_LETTERS[letter] for letter in _ARGUMENTS[name]]
        found = _functions[name] = declared
    return found


def call(function: str, *arguments: object) -> int:
    """What the C function returns. A mapping goes in as an nvlist, an Output comes back as one; None is a null pointer.

    Raises LibraryNotFound, ZFSInitializationFailed, FunctionNotSupported, what `nvlist.pack` raises, and TypeError or
    OverflowError for a number that is none, or that its C type cannot hold.
    """
    called = _function(core(), function)
    lists: list[ctypes.c_void_p] = []
    outputs: list[tuple[Output, ctypes.c_void_p]] = []
    try:
        given = zip(_ARGUMENTS[function], arguments, strict=True)
        code = called(*[_given(letter, argument, lists, outputs) for letter, argument in given])
        for output, pointer in outputs:
            output.pairs = from_nvlist(pointer)
        return code
    finally:
        for pointer in (*lists, *(pointer for _, pointer in outputs)):
            if pointer.value is not None:
                nvpair().nvlist_free(pointer)


def _given(
    letter: str, argument: object, lists: list[ctypes.c_void_p], outputs: list[tuple[Output, ctypes.c_void_p]]
) -> object:
    if isinstance(argument, Mapping):
        pairs = dict(argument)
        pointer = to_nvlist(pairs)
        lists.append(pointer)
        # The library puts the list into one of its own, and ends the process when that is too deep for it.
        if _levels(pairs) > DEPTH_LIMIT:
            raise nvlist.NvlistError(f"lists within lists deeper than {DEPTH_LIMIT - 1}")
        return pointer
    if isinstance(argument, Output):
        pointer = ctypes.c_void_p()
        outputs.append((argument, pointer))
        return ctypes.byref(pointer)
    if letter in _WHOLE:
        if not isinstance(argument, int):
            raise TypeError(f"{type(argument).__name__} where a whole number is wanted")
        low, high = _WHOLE[letter]
        if not low <= argument <= high:
            raise OverflowError(f"{argument} where {low} to {high} is wanted")
    return argument


def _levels(value: object) -> int:
    """How many lists stand within one another, the outermost counted."""
    if isinstance(value, dict):
        return 1 + max(map(_levels, value.values()), default=0)
    return max(map(_levels, value), default=0) if isinstance(value, list) else 0
