"""The kernel's side of libzfs_core, for tests of what the C library makes of calls and of errors.

The C library is the real one; only `ioctl` on /dev/zfs is answered here, by `kernel_standin.c`, loaded before it. What
the real kernel answers is tested on machines that have one (`lzc_on_kernel.py`).
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from pathlib import Path

from snaprep.volumes import nvlist

SOURCE = Path(__file__).with_suffix(".c")
# zfs_cmd_t: a name, an nvlist that goes in, one that comes out, whether it does.
_NAME_BYTES = 4096
_LISTS = struct.Struct("=QQQQI")
_STRING = slice(4096 + 48, 4096 + 48 + 8192)


def why_not() -> str:
    return "" if shutil.which("cc") else "needs a C compiler"


def build(folder: Path) -> Path:
    """Compiles it into a folder. Raises CalledProcessError."""
    library = folder / "kernel_standin.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True, timeout=60)
    return library


class Kernel:
    """Answers every request with `code` and `pairs`, and keeps what was asked as (number, name, text, pairs)."""

    def __init__(self) -> None:
        self.code = 0
        self.pairs: dict[bytes, object] | None = None
        self.asked: list[tuple[int, bytes, bytes, dict[bytes, object] | None]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
        # Kept: C calls it for as long as the process lives.
        self.function = kind(self._answer)
        ctypes.CDLL(None).standin_set(self.function)

    def _answer(self, request: int, command: int) -> int:
        name = ctypes.string_at(command)
        start, size, room_at, room, _ = _LISTS.unpack(ctypes.string_at(command + _NAME_BYTES, _LISTS.size))
        given = nvlist.unpack(ctypes.string_at(start, size)) if start else None
        self.asked.append((request & 0xFF, name, ctypes.string_at(command + _STRING.start), given))
        if self.pairs is not None and room_at:
            packed = nvlist.pack(self.pairs)
            assert len(packed) <= room
            ctypes.memmove(room_at, packed, len(packed))
            filled = _LISTS.pack(start, size, room_at, len(packed), 1)
            ctypes.memmove(command + _NAME_BYTES, filled, len(filled))
        return self.code
