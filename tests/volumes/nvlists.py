"""Any nvlist that the C library can hold, for property tests."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from snaprep.volumes import nvlist
from snaprep.volumes.lzc.values import ELEMENTS, NARROW, TYPED
from snaprep.volumes.nvlist import Array, Kind, UInt64

Pairs = dict[bytes, object]

# What C can hold in a string: anything but NUL.
texts = st.binary(max_size=40).map(lambda value: value.replace(b"\0", b"\1"))
names = st.one_of(texts, st.sampled_from([*NARROW, b"", b"guid"]))
uint64s = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**63, 2**64 - 1]))
# All of them: signed zeros, infinities, and what is no number, whatever its bits say.
doubles = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, float("inf"), float("-inf"), float("nan"), -float("nan")]))


def typed(kind: Kind) -> st.SearchStrategy[int]:
    cls = TYPED[kind]
    return st.one_of(st.integers(cls.low, cls.high), st.sampled_from([cls.low, cls.high])).map(cls)


typed_integers = st.one_of(*(typed(Kind(kind)) for kind in TYPED))


def element_values(kind: Kind) -> st.SearchStrategy[int]:
    if kind == Kind.UINT64:
        return uint64s
    return st.booleans() if kind == Kind.BOOLEAN_VALUE else typed(kind).map(int)


def arrays(kind: Kind) -> st.SearchStrategy[Array]:
    return st.lists(element_values(ELEMENTS[kind]), max_size=6).map(lambda values: Array(kind, values))


number_arrays = st.one_of(
    *(arrays(Kind(array)) for array, element in ELEMENTS.items() if element not in {Kind.STRING, Kind.NVLIST})
)
string_arrays = st.lists(texts, max_size=6).map(lambda values: Array(Kind.STRING_ARRAY, values))


def _with_names(values: st.SearchStrategy[object]) -> st.SearchStrategy[Pairs]:
    # A plain integer under a narrow name would be narrowed: what C holds as a uint64 there is a UInt64 here.
    def widened(pairs: Pairs) -> Pairs:
        return {
            name: UInt64(value) if name in NARROW and type(value) is int else value for name, value in pairs.items()
        }

    return st.dictionaries(names, values, max_size=6).map(widened)


plain: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), uint64s, texts, doubles, typed_integers, number_arrays, string_arrays
)


def _deeper(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    inner = _with_names(values)
    return st.one_of(inner, st.lists(inner, max_size=3).map(lambda lists: Array(Kind.NVLIST_ARRAY, lists)))


anything: st.SearchStrategy[Pairs] = _with_names(st.recursive(plain, _deeper, max_leaves=12))
encodings = st.sampled_from([nvlist.NATIVE, nvlist.XDR])


def same(left: object, right: object) -> bool:
    """Equal, and of the same C types throughout."""
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, Array) and isinstance(right, Array):
        return left.kind == right.kind and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("d", left) == struct.pack("d", right)
    return type(left) is type(right) and left == right
