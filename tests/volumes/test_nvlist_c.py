"""nvlists against the real C library, without a kernel module: each reads what the other writes."""

from __future__ import annotations

import ctypes
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snaprep.volumes import nvlist
from snaprep.volumes.lzc import library as lzc_library
from snaprep.volumes.lzc.values import DEPTH_LIMIT, NAME_LIMIT_BYTES
from snaprep.volumes.nvlist import Array, Kind, NvlistError
from tests.volumes import bench_nvlist, zfs_userland
from tests.volumes.nvlists import Pairs, anything, encodings, names, same, texts, typed_integers, uint64s
from tests.volumes.test_nvlist import BOTH, SAMPLE

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    if reason := zfs_userland.why_not():
        pytest.skip(reason)


def packed_by_c(pairs: Pairs, encoding: int) -> bytes:
    made = lzc_library.to_nvlist(pairs)
    try:
        return pack_in_c(made, encoding)
    finally:
        lzc_library.nvpair().nvlist_free(made)


def pack_in_c(made: ctypes.c_void_p, encoding: int) -> bytes:
    buffer, size = ctypes.c_char_p(), ctypes.c_size_t()
    packed_ok = lzc_library.nvpair().nvlist_pack(made, ctypes.byref(buffer), ctypes.byref(size), encoding, 0)
    assert packed_ok == 0
    packed = ctypes.string_at(buffer, size.value)
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    free(ctypes.cast(buffer, ctypes.c_void_p))
    return packed


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


@BOTH
def test_large_lists(encoding: int) -> None:
    """Many pairs, long names that are no text, long strings and arrays go both ways, in the C library's bytes."""
    name = bytes(range(1, 256)) * 128
    large: Pairs = {b"%06d@" % number + name[:200]: {b"guid": number} for number in range(5000)}
    large |= {
        name: name * 64,
        b"\xff\xfe": Array(Kind.STRING_ARRAY, [name] * 100),
        b"bytes": Array(Kind.BYTE_ARRAY, range(256)),
        b"numbers": Array(Kind.UINT64_ARRAY, range(2**63, 2**63 + 100_000)),
        b"lists": Array(Kind.NVLIST_ARRAY, [{b"%d" % number: None} for number in range(5000)]),
    }
    packed = packed_by_c(large, encoding)
    assert nvlist.pack(large, encoding) == packed
    assert same(nvlist.unpack(packed), large)
    assert same(through_c(packed), large)


@BOTH
def test_the_last_of_two_pairs_of_a_name(encoding: int) -> None:
    """A C list made without unique names may hold a name twice: the last value is taken, as by pyzfs."""
    library, made = lzc_library.nvpair(), ctypes.c_void_p()
    library.nvlist_alloc.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint, ctypes.c_int]
    library.nvlist_add_uint64.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64]
    library.nvlist_add_string.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    assert library.nvlist_alloc(ctypes.byref(made), 0, 0) == 0
    try:
        assert library.nvlist_add_uint64(made, b"a", 1) == 0
        assert library.nvlist_add_uint64(made, b"b", 2) == 0
        assert library.nvlist_add_string(made, b"a", b"again") == 0
        assert lzc_library.from_nvlist(made) == {b"a": b"again", b"b": 2}
        assert nvlist.unpack(pack_in_c(made, encoding)) == {b"a": b"again", b"b": 2}
    finally:
        library.nvlist_free(made)


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


WRITER = """
import json, sys
from tests.volumes import pyzfs_peer
from libzfs_core import ctypes as c
def plain(value):
    if isinstance(value, dict):
        return {bytes.fromhex(name): plain(item) for name, item in value.items()}
    if isinstance(value, list) and value[:1] != [None]:
        return [plain(item) for item in value]
    if isinstance(value, list):
        return getattr(c, value[1])(value[2])
    return bytes.fromhex(value) if isinstance(value, str) else value
for line in sys.stdin:
    pairs = plain(json.loads(line))
    print(*(pyzfs_peer.to_packed(pairs, encoding).hex() for encoding in (0, 1)))
"""
# What pyzfs writes: plain numbers that fit any name's type, numbers with a type, lists that are not empty.
numbers = st.integers(0, 2**31 - 1)
with_type = st.one_of(
    typed_integers.filter(lambda value: not isinstance(value, nvlist.HrTime)), uint64s.map(nvlist.UInt64)
)
of_a_kind = st.one_of(*(st.lists(element, min_size=1, max_size=4) for element in (texts, numbers, st.booleans())))
written = st.dictionaries(
    names,
    st.recursive(
        st.one_of(st.none(), st.booleans(), numbers, texts, with_type, of_a_kind),
        lambda inner: st.one_of(
            st.dictionaries(names, inner, max_size=4),
            st.lists(st.dictionaries(names, inner, max_size=3), min_size=1, max_size=3),
        ),
        max_leaves=8,
    ),
    max_size=5,
)


def for_pyzfs(value: object) -> object:
    """A value in JSON that says which of pyzfs's types it has."""
    if isinstance(value, dict):
        return {name.hex(): for_pyzfs(item) for name, item in value.items()}
    if isinstance(value, list):
        return [for_pyzfs(item) for item in value]
    if isinstance(value, nvlist.TypedInt):
        kind = "uchar_t" if isinstance(value, nvlist.Byte) else f"{type(value).__name__.lower()}_t"
        return [None, kind, int(value)]
    return value.hex() if isinstance(value, bytes) else value


def test_pyzfs_writes_the_same() -> None:
    """Lists that are given to both become the same bytes, in both encodings."""
    if reason := zfs_userland.why_no_pyzfs():
        pytest.skip(reason)
    lists: list[Pairs] = []

    @many
    @given(written)
    def gather(pairs: Pairs) -> None:
        lists.append(pairs)

    gather()
    done = zfs_userland.run_pyzfs("-c", WRITER, given="".join(f"{json.dumps(for_pyzfs(pairs))}\n" for pairs in lists))
    assert done.returncode == 0, done.stderr[-2000:]
    ours = [" ".join(nvlist.pack(pairs, encoding).hex() for encoding in (nvlist.NATIVE, nvlist.XDR)) for pairs in lists]
    assert done.stdout.splitlines() == ours


def test_decoding_is_ten_times_pyzfs() -> None:
    """A list of 10,000 snapshots is decoded at least ten times as fast as by pyzfs, both measured here and now."""
    if reason := zfs_userland.why_no_pyzfs():
        pytest.skip(reason)
    assert bench_nvlist.bench()["decode_ratio"] >= 10
