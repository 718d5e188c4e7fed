"""What the C library prints of a dataset, in the locale in which `zfs` is run; no kernel is needed for it."""

from __future__ import annotations

import ctypes
import locale
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snaprep.agent import process
from snaprep.volumes.lzc import library as lzc_library
from snaprep.volumes.zfs.facts import Value, parse_json
from tests.volumes import zfs_userland

many = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
values = st.binary(max_size=60).filter(lambda value: b"\0" not in value)
plain_values = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("\t\n"), max_size=60)


@pytest.fixture(autouse=True)
def libraries() -> None:
    if reason := zfs_userland.why_not():
        pytest.skip(reason)
    if not hasattr(lzc_library.nvpair(), "nvlist_print_json"):
        pytest.skip("these C libraries print no JSON")


def printed(value: bytes, place: Path) -> str:
    """What `zfs get -jp` prints of a dataset with that value, up to the text of its other properties."""
    said = {b"value": value, b"source": {b"type": b"LOCAL", b"data": b"-"}}
    made = lzc_library.to_nvlist({b"datasets": {b"a/my bank": {b"properties": {b"user:note": said}}}})
    libc, library = ctypes.CDLL(None), lzc_library.nvpair()
    libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    library.nvlist_print_json.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, process.environment()["LC_ALL"])
        file = libc.fopen(bytes(place), b"w")
        library.nvlist_print_json(file, made)
        libc.fclose(file)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
        library.nvlist_free(made)
    return place.read_bytes().decode("utf-8", "surrogateescape")


@many
@given(values)
def test_a_value_is_read_right_or_not_at_all(tmp_path: Path, value: bytes) -> None:
    """Whatever bytes somebody has set, they are read as they are, or the whole is left to the text."""
    rows = parse_json(printed(value, tmp_path / "said"))
    whole = {"a/my bank": {"user:note": Value(value.decode("utf-8", "surrogateescape"), local=True)}}
    assert rows in (None, whole)


@many
@given(plain_values)
def test_plain_values_are_read(tmp_path: Path, value: str) -> None:
    """Values of ASCII with tabs and line ends need no text, unless a backslash looks like the number of a character."""
    rows = parse_json(printed(value.encode(), tmp_path / "said"))
    assert rows == {"a/my bank": {"user:note": Value(value, local=True)}} or "\\u" in value
