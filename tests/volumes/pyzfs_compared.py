"""Every function of pyzfs, called beside ours with the same arguments, while the kernel answers each error there is.

Run by the test in a process with `kernel_standin.so`; prints what differs as JSON lines.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from snaprep.volumes import libzfs_core as ours
from tests.volumes import pyzfs_peer
from tests.volumes.kernel_standin import Kernel

CODES = sorted({*errno.errorcode.keys() & set(range(1, 140)), *range(1024, 1054)})
LONG = b"p/" + b"x" * 300
KEY = b"k" * 32
# Stand for the descriptor of a stream, and for its first record as each of the two has read it.
STREAM, HEADER = "the stream", "its first record"
BEGIN = struct.pack("=IIQQQIIQQ256s", 0, 0, 0x2F5BACBAC, 17, 1_700_000_000, 2, 4, 2**63 + 1, 5, b"p/f@b")
CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("lzc_create", (b"p/f",)),
    ("lzc_create", (b"p/f", "zvol", {b"volsize": 1 << 20}, b"k" * 32)),
    ("lzc_create", (b"p/b@d",)),
    ("lzc_create", (LONG,)),
    ("lzc_clone", (b"p/c", b"p/f@s")),
    ("lzc_clone", (b"p/c", b"p/f")),
    ("lzc_clone", (b"p/c@", b"p/f@s", {b"a:b": b"c"})),
    ("lzc_rollback_to", (b"p/f", b"p/f@s")),
    ("lzc_rollback_to", (b"p/f@x", b"p/f@s")),
    ("lzc_snapshot", ([b"p/f@s"],)),
    ("lzc_snapshot", ([b"p/f@s", b"p/g@s"], {b"a:b": b"c"})),
    ("lzc_snapshot", ([b"p/f@s", b"q/g@s"],)),
    ("lzc_snapshot", ([b"p/f@s", b"p/f@t"],)),
    ("lzc_snapshot", ([b"p/f"],)),
    ("lzc_snapshot", ([LONG + b"@s"],)),
    ("lzc_destroy_snaps", ([b"p/f@s"], False)),
    ("lzc_destroy_snaps", ([b"p/f@s", b"p/f@t"], True)),
    ("lzc_bookmark", ({b"p/f#b": b"p/f@s"},)),
    ("lzc_bookmark", ({b"p/f#b": b"p/f"},)),
    ("lzc_bookmark", ({b"p/f@b": b"p/f@s"},)),
    ("lzc_get_bookmarks", (b"p/f", [b"guid"])),
    ("lzc_destroy_bookmarks", ([b"p/f#b"],)),
    ("lzc_snaprange_space", (b"p/f@a", b"p/f@b")),
    ("lzc_snaprange_space", (b"p/f@a", b"q/f@b")),
    ("lzc_snaprange_space", (b"p/f", b"p/f@b")),
    ("lzc_hold", ({b"p/f@s": b"tag"},)),
    ("lzc_hold", ({b"p/f@s": b"tag", b"q/f@s": b"tag"}, 7)),
    ("lzc_hold", ({b"p/f": b"tag"},)),
    ("lzc_release", ({b"p/f@s": [b"tag"]},)),
    ("lzc_release", ({b"p/f@s": [b"t" * 300, b"u"]},)),
    ("lzc_get_holds", (b"p/f@s",)),
    ("lzc_get_holds", (b"p/f",)),
    ("lzc_send", (b"p/f@b", None, 1, ["compress", "raw"])),
    ("lzc_send", (b"p/f@b", b"p/f@a", 1)),
    ("lzc_send", (b"p/f@b", b"p/f#a", 1, ["large_blocks", "embedded_data"])),
    ("lzc_send", (b"p/f@b", b"q/f@a", 1)),
    ("lzc_send", (b"p/f@b", b"p", 1)),
    ("lzc_send_resume", (b"p/f@b", b"p/f@a", 1, None, 5, 4096)),
    ("lzc_send_space", (b"p/f@b",)),
    ("lzc_send_space", (b"p/f@b", b"p/f@a", ["compress"])),
    ("lzc_send_space", (b"p/f@b", b"q/f@a")),
    ("lzc_receive", (b"p/f@b", STREAM, True, False, b"p/o@s", {b"a:b": b"c"})),
    ("lzc_receive", (b"p/f@b", STREAM, False, True, b"p/o")),
    ("lzc_receive", (LONG + b"@s", STREAM)),
    ("lzc_receive", (b"p/f", STREAM)),
    ("lzc_receive_resumable", (b"p/f@b", STREAM)),
    ("lzc_receive_with_header", (b"p/f@b", STREAM, HEADER, False, True)),
    ("lzc_receive_one", (b"p/f@b", STREAM, HEADER, True, True, True, None, {b"a:b": b"c"})),
    ("lzc_receive_with_cmdprops", (b"p/f@b", STREAM, HEADER, False, True, False, None, None, {b"x": None, b"y": 1})),
    ("lzc_receive_with_cmdprops", (b"p/f@b", STREAM, HEADER, False, False, True, None, {b"a:b": b"c"}, None, KEY)),
    ("lzc_exists", (b"p/f",)),
    ("lzc_change_key", (b"p/f", "new_key", {b"keyformat": 1}, b"k" * 32)),
    ("lzc_change_key", (b"p/f", "inherit")),
    ("lzc_load_key", (b"p/f", True, b"k" * 32)),
    ("lzc_unload_key", (b"p/f",)),
    ("lzc_channel_program", (b"p", b"return 1", 100, 1 << 20, [b"a"])),
    ("lzc_channel_program_nosync", (b"p", b"return 1")),
    ("lzc_reopen", (b"p", False)),
    ("lzc_sync", (b"p", True)),
    ("lzc_promote", (b"p/c",)),
    ("lzc_pool_checkpoint", (b"p",)),
    ("lzc_pool_checkpoint_discard", (b"p",)),
    ("lzc_rename", (b"p/a", b"p/b")),
    ("lzc_rename", (b"p/a", b"q/b")),
    ("lzc_destroy", (b"p/a",)),
    ("lzc_destroy", (b"p/a@s",)),
]
# Functions whose kernel answers with a number for each thing that failed: the answers that are tried, given the code.
LISTED = {"lzc_snapshot", "lzc_destroy_snaps", "lzc_bookmark", "lzc_destroy_bookmarks", "lzc_hold", "lzc_release"}


def answers(function: str, arguments: tuple[Any, ...]) -> Iterator[tuple[int, dict[bytes, object] | None]]:
    """What the kernel answers: each number there is, alone and with a list, and then success."""
    for code in CODES:
        # The C library answers ENOMEM itself, by asking again with more room.
        if code == errno.ENOMEM and not function.startswith("lzc_channel"):
            continue
        yield code, None
        if function in LISTED:
            first = next(iter(arguments[0]))
            yield code, {first: ours.ctypes.int32_t(code)}
        if function.startswith("lzc_channel"):
            yield code, {b"error": b"no end in sight"}
    for pairs in successes(function):
        yield 0, pairs


def successes(function: str) -> list[dict[bytes, object]]:
    if function.startswith("lzc_channel"):
        return [{b"return": {b"a": [1, 2], b"b": True}}]
    if function in LISTED:
        return [{}]
    if function.startswith("lzc_receive_"):
        properties: dict[bytes, object] = {b"y": ours.ctypes.int32_t(errno.EINVAL), b"z": ours.ctypes.int32_t(28)}
        received = {b"read_bytes": 312, b"error_flags": 0, b"action_handle": 0}
        return [{**received, b"errors": {}}, {**received, b"errors": properties}]
    if function in {"lzc_get_holds", "lzc_get_bookmarks"}:
        return [{b"tag": 1_700_000_000, b"more": {b"value": 3}}]
    if function in {"lzc_send_space", "lzc_snaprange_space"}:
        return [{b"space": 2**40, b"used": 2**41, b"compressed": 1, b"uncompressed": 2}]
    return []


def said(error: Exception) -> list[object]:
    """An exception in a form that can be compared: its class, what it names, and those that it holds."""
    # pyzfs hands the name and the message to its general exception in the wrong order.
    name = None if type(error).__name__ == "ZFSGenericError" else getattr(error, "name", None)
    inner = [said(each) for each in getattr(error, "errors", [])]
    return [type(error).__name__, getattr(error, "errno", None), repr(name), inner]


def asked(kernel: Kernel) -> list[object]:
    """What the kernel was asked. A key of no bytes, which pyzfs sends for none, is left out: the kernel reads it so."""
    plain: list[object] = []
    for number, name, text, pairs in kernel.asked:
        if pairs is not None and pairs.get(b"hidden_args") == {b"wkeydata": []}:
            del pairs[b"hidden_args"]
        plain.append(repr((number, name, text, sorted(pairs.items()) if pairs is not None else None)))
    return plain


def outcome(
    kernel: Kernel, module: ModuleType, name: str, arguments: tuple[Any, ...], stream: int
) -> tuple[list[object], list[object]]:
    """What was asked of the kernel, and what came of it."""
    os.lseek(stream, 0, os.SEEK_SET)
    given = []
    for argument in arguments:
        known = isinstance(argument, str) and argument in {STREAM, HEADER}
        given.append(argument if not known else stream if argument == STREAM else module.receive_header(stream)[1])
    kernel.asked.clear()
    try:
        result: list[object] = ["returns", repr(getattr(module, name)(*given))]
    except Exception as error:  # noqa: BLE001  # whatever it is, it is compared
        result = said(error)
    return asked(kernel), result


def main() -> None:
    kernel = Kernel()
    stream = os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(stream, BEGIN)
    for name, arguments in CALLS:
        for kernel.code, kernel.pairs in answers(name, arguments):
            ours_asked, ours_result = outcome(kernel, ours, name, arguments, stream)
            theirs_asked, theirs_result = outcome(kernel, pyzfs_peer.pyzfs, name, arguments, stream)
            line = {
                "function": name,
                "arguments": repr(arguments),
                "code": kernel.code,
                "asked": [ours_asked, theirs_asked],
                "result": [ours_result, theirs_result],
            }
            sys.stdout.write(f"{json.dumps(line)}\n")


if __name__ == "__main__":
    main()
