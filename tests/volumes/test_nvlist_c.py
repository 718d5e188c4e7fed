"""nvlists against the real C library, without a kernel module: each reads what the other writes."""

from __future__ import annotations

import ctypes
import json

import pytest
from hypothesis import HealthCheck, given, settings

from snaprep.volumes import nvlist
from snaprep.volumes.lzc import library as lzc_library
from snaprep.volumes.lzc.values import DEPTH_LIMIT, NAME_LIMIT_BYTES
from snaprep.volumes.nvlist import NvlistError
from tests.volumes import bench_nvlist, zfs_userland
from tests.volumes.nvlists import Pairs, anything, encodings, same
from tests.volumes.test_nvlist import SAMPLE

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    if reason := zfs_userland.why_not():
        pytest.skip(reason)


def packed_by_c(pairs: Pairs, encoding: int) -> bytes:
    library = lzc_library.nvpair()
    made = lzc_library.to_nvlist(pairs)
    try:
        buffer, size = ctypes.c_char_p(), ctypes.c_size_t()
        assert library.nvlist_pack(made, ctypes.byref(buffer), ctypes.byref(size), encoding, 0) == 0
        packed = ctypes.string_at(buffer, size.value)
        free = ctypes.CDLL(None).free
        free.argtypes = [ctypes.c_void_p]
        free(ctypes.cast(buffer, ctypes.c_void_p))
        return packed
    finally:
        library.nvlist_free(made)


def through_c(packed: bytes) -> Pairs:
    """What the C library reads of packed bytes."""
    library = lzc_library.nvpair()
    made = ctypes.c_void_p()
    assert library.nvlist_unpack(packed, len(packed), ctypes.byref(made), 0) == 0
    try:
        return lzc_library.from_nvlist(made)
    finally:
        library.nvlist_free(made)


@many
@given(anything)
def test_through_a_c_list(pairs: Pairs) -> None:
    """Any list that C can hold comes back the same."""
    made = lzc_library.to_nvlist(pairs)
    try:
        assert same(lzc_library.from_nvlist(made), pairs)
    finally:
        lzc_library.nvpair().nvlist_free(made)


@many
@given(anything, encodings)
def test_c_reads_ours(pairs: Pairs, encoding: int) -> None:
    """What is packed here is what the C library reads, in both encodings."""
    assert same(through_c(nvlist.pack(pairs, encoding)), pairs)


@many
@given(anything, encodings)
def test_same_bytes(pairs: Pairs, encoding: int) -> None:
    """The bytes are the C library's, which leaves some zeros behind them where it has empty arrays in XDR."""
    ours, theirs = nvlist.pack(pairs, encoding), packed_by_c(pairs, encoding)
    assert theirs[: len(ours)] == ours
    assert not theirs[len(ours) :].strip(b"\0")
    assert same(nvlist.unpack(theirs), pairs)


def test_limits_are_c_limits() -> None:
    """What is refused here for its depth or its name's length is refused by C, and what is taken is taken."""
    deep: Pairs = {b"end": 1}
    for _ in range(DEPTH_LIMIT):
        deep = {b"in": deep}
    longest: Pairs = {b"n" * NAME_LIMIT_BYTES: 1}
    assert through_c(nvlist.pack(deep)) == deep
    assert through_c(nvlist.pack(longest)) == longest
    library, made = lzc_library.nvpair(), lzc_library.to_nvlist({})
    library.nvlist_add_uint64.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64]
    assert library.nvlist_add_uint64(made, b"n" * (NAME_LIMIT_BYTES + 1), 1) != 0
    library.nvlist_free(made)
    inner, outer = lzc_library.to_nvlist(deep), lzc_library.to_nvlist({})
    library.nvlist_add_nvlist.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    assert library.nvlist_add_nvlist(outer, b"in", inner) == 0
    with pytest.raises(NvlistError):
        lzc_library.from_nvlist(outer)
    library.nvlist_free(inner)
    library.nvlist_free(outer)


def known(pairs: Pairs) -> Pairs:
    """Without doubles and times, which pyzfs does not know."""
    kept: Pairs = {}
    for name, value in pairs.items():
        if isinstance(value, nvlist.Array):
            kept[name] = nvlist.Array(value.kind, [known(item) if isinstance(item, dict) else item for item in value])
        elif not isinstance(value, (float, nvlist.HrTime)):
            kept[name] = known(value) if isinstance(value, dict) else value
    return kept


ORACLE = """
import json, sys
from tests.volumes import bench_nvlist, pyzfs_peer
for line in sys.stdin:
    print(json.dumps(bench_nvlist.plain(pyzfs_peer.from_packed(bytes.fromhex(line.strip())))))
"""


def test_pyzfs_reads_the_same() -> None:
    """pyzfs sees the same names and values in 60 lists of every kind as is seen here."""
    if reason := zfs_userland.why_no_pyzfs():
        pytest.skip(reason)
    lists: list[Pairs] = [known(SAMPLE)]

    @many
    @given(anything)
    def gather(pairs: Pairs) -> None:
        lists.append(known(pairs))

    gather()
    given_lines = "".join(f"{nvlist.pack(pairs).hex()}\n" for pairs in lists)
    done = zfs_userland.run_pyzfs("-c", ORACLE, given=given_lines)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert theirs == [bench_nvlist.plain(nvlist.unpack(nvlist.pack(pairs))) for pairs in lists]


def test_decoding_is_ten_times_pyzfs() -> None:
    """A list of 10,000 snapshots is decoded at least ten times as fast as by pyzfs, both measured here and now."""
    if reason := zfs_userland.why_no_pyzfs():
        pytest.skip(reason)
    assert bench_nvlist.bench()["decode_ratio"] >= 10
