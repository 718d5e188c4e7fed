"""nvlists in pure Python: what goes in comes out, and damaged bytes are refused."""

from __future__ import annotations

import contextlib
import doctest
import pickle
import struct
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snaprep.volumes import nvlist
from snaprep.volumes.lzc import values as lzc_types
from snaprep.volumes.lzc.values import DEPTH_LIMIT, NAME_LIMIT_BYTES
from snaprep.volumes.nvlist import Array, Int8, Kind, NvlistError, UInt8, UInt32
from tests.volumes.nvlists import Pairs, anything, encodings, same

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
BOTH = pytest.mark.parametrize("encoding", [nvlist.NATIVE, nvlist.XDR], ids=["native", "xdr"])
SAMPLE: Pairs = {
    b"name": b"tank/db@monday",
    b"guid": 2**64 - 1,
    b"small": Int8(-1),
    b"held": None,
    b"clone": False,
    b"ratio": 1.5,
    b"inner": {b"a": [b"one", b"", b"three"], b"b": [{b"c": 1}, {}]},
    b"numbers": Array(Kind.UINT16_ARRAY, [1, 65535]),
    b"bytes": Array(Kind.BYTE_ARRAY, range(5)),
}


@many
@given(anything, encodings)
def test_round_trip(pairs: Pairs, encoding: int) -> None:
    """Every list comes back equal, in the same order and of the same C types."""
    assert same(nvlist.unpack(nvlist.pack(pairs, encoding)), pairs)


@many
@given(anything, encodings, st.data())
def test_cut_bytes_are_refused(pairs: Pairs, encoding: int, data: st.DataObject) -> None:
    """A list that is cut off anywhere is refused, with the place in the message."""
    packed = nvlist.pack(pairs, encoding)
    length = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(NvlistError, match=r"byte \d+"):
        nvlist.unpack(packed[:length])


@many
@given(anything, encodings, st.data())
def test_damaged_bytes_are_refused_or_harmless(pairs: Pairs, encoding: int, data: st.DataObject) -> None:
    """Bytes with damage anywhere are refused by NvlistError, or are a list that can be packed again."""
    packed = bytearray(nvlist.pack(pairs, encoding))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        damaged = nvlist.unpack(bytes(packed))
    except NvlistError:
        return
    assert same(nvlist.unpack(nvlist.pack(damaged, encoding)), damaged)


@many
@given(st.binary(max_size=200), encodings)
def test_noise_is_refused(noise: bytes, encoding: int) -> None:
    """Random bytes behind a valid head raise nothing but NvlistError."""
    head = nvlist.pack({}, encoding)[:12]
    with contextlib.suppress(NvlistError):
        nvlist.unpack(head + noise)


@BOTH
def test_each_flipped_bit(encoding: int) -> None:
    """Each single flipped bit of a list with every form of value is refused or harmless."""
    packed = nvlist.pack(SAMPLE, encoding)
    refused = 0
    for place in range(len(packed) * 8):
        damaged = bytearray(packed)
        damaged[place // 8] ^= 1 << place % 8
        try:
            nvlist.unpack(bytes(damaged))
        except NvlistError:
            refused += 1
    assert refused > len(packed)


@BOTH
def test_a_damaged_count_takes_no_memory(encoding: int) -> None:
    """An array that claims two thousand million elements is refused before anything is made for them."""
    for kind in (Kind.UINT64_ARRAY, Kind.BYTE_ARRAY, Kind.STRING_ARRAY, Kind.NVLIST_ARRAY, Kind.BOOLEAN_ARRAY):
        packed = nvlist.pack({b"a": Array(kind, [])}, encoding)
        order = "=" if encoding == nvlist.NATIVE else ">"
        count_at = 20 if encoding == nvlist.NATIVE else 32
        kind_at = 24 if encoding == nvlist.NATIVE else 28
        assert packed[kind_at : kind_at + 4] == struct.pack(f"{order}i", kind)
        damaged = packed[:count_at] + struct.pack(f"{order}i", 2**31 - 1) + packed[count_at + 4 :] + bytes(64)
        tracemalloc.start()
        with pytest.raises(NvlistError):
            nvlist.unpack(damaged)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < 1 << 20


@BOTH
def test_depth(encoding: int) -> None:
    """Lists within lists go as deep as the C library's limit, and no deeper."""

    def nested(levels: int) -> Pairs:
        pairs: Pairs = {b"end": 1}
        for _ in range(levels):
            pairs = {b"in": pairs}
        return pairs

    assert nvlist.unpack(nvlist.pack(nested(DEPTH_LIMIT), encoding)) == nested(DEPTH_LIMIT)
    with pytest.raises(NvlistError, match="deeper"):
        nvlist.pack(nested(DEPTH_LIMIT + 1), encoding)


def test_foreign_byte_order() -> None:
    """Native bytes of a machine with another byte order are refused."""
    packed = nvlist.pack(SAMPLE)
    with pytest.raises(NvlistError, match="byte order"):
        nvlist.unpack(packed[:1] + bytes([1 - packed[1]]) + packed[2:])
    with pytest.raises(NvlistError, match="unknown encoding 7"):
        nvlist.unpack(b"\7" + packed[1:])


@pytest.mark.parametrize(
    ("pairs", "error"),
    [
        ({1: None}, TypeError),
        ({b"a": (1, 2)}, TypeError),
        ({b"a": [1, b"x"]}, TypeError),
        ({b"a": [UInt8(1), 2]}, TypeError),
        ({b"a": [[1], [2]]}, TypeError),
        ({b"a": [None]}, TypeError),
        ({b"a": Array(Kind.UINT8_ARRAY, [b"x"])}, TypeError),
        ({b"a": Array(Kind.UINT8_ARRAY, [1.5])}, TypeError),
        ({b"a": Array(Kind.NVLIST_ARRAY, [1])}, TypeError),
        ({b"a": -1}, OverflowError),
        ({b"a": 2**64}, OverflowError),
        ({b"type": 2**32}, OverflowError),
        ({b"a": Array(Kind.UINT8_ARRAY, [256])}, OverflowError),
        ({b"a": Array(Kind.BOOLEAN_ARRAY, [2])}, OverflowError),
        ({b"a": []}, ValueError),
        ({b"a\0b": 1}, ValueError),
        ({b"a": b"x\0y"}, ValueError),
        ({b"n" * (NAME_LIMIT_BYTES + 1): 1}, NvlistError),
    ],
)
@BOTH
def test_what_no_nvlist_holds(pairs: Pairs, error: type[Exception], encoding: int) -> None:
    """What C cannot hold is refused when it is packed, never cut to fit."""
    with pytest.raises(error):
        nvlist.pack(pairs, encoding)


def test_text_is_utf8() -> None:
    """`str` is taken for names and strings; bytes come back."""
    assert nvlist.unpack(nvlist.pack({"größe": "ü"})) == {"größe".encode(): "ü".encode()}


def test_narrow_names() -> None:
    """Plain integers are narrow under the names that ZFS wants narrow, and wide ones stay wide there."""
    pairs = nvlist.unpack(nvlist.pack({b"type": 3, b"N_MORE_ERRORS": -1}))
    assert type(pairs[b"type"]) is UInt32
    wide: Pairs = {b"type": nvlist.UInt64(2**40)}
    assert same(nvlist.unpack(nvlist.pack(wide)), wide)


def test_typed_integers_check_their_range() -> None:
    """A typed integer cannot be made of what its C type cannot hold, and prints as a number."""
    assert f"{UInt8(200)}" == "200"
    with pytest.raises(OverflowError, match="UInt8"):
        UInt8(256)
    with pytest.raises(TypeError):
        UInt8("1")  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        nvlist.boolean_t(2)
    with pytest.raises(ValueError, match="no kind of array"):
        Array(Kind.UINT8)


def test_values_can_be_pickled() -> None:
    """Typed values go from process to process."""
    assert same(pickle.loads(pickle.dumps(SAMPLE)), SAMPLE)  # noqa: S301  # our own bytes


@pytest.mark.parametrize("module", [nvlist, lzc_types])
def test_examples(module: object) -> None:
    """The examples in the documentation are what happens."""
    assert doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL).failed == 0  # type: ignore[arg-type]
