"""The codec's answers to what does not fit, and the forms that travel without a hint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import pytest

from snaprep.core.codec import decode, decode_at, encode


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Leaf:
    number: int


@dataclass(frozen=True, slots=True)
class Other:
    text: str


@dataclass(frozen=True, slots=True)
class Tagged:
    kind: str


@dataclass(frozen=True, slots=True)
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("below zero")


def test_values_without_a_hint_become_plain_json() -> None:
    """`Any` carries mappings, lists, sets, dataclasses, enums and scalars."""
    value = {"a": [1, (2, None)], "b": frozenset({"y", "x"}), "c": Leaf(1), "d": Colour.RED, "e": 1.5}
    plain = {"a": [1, [2, None]], "b": ["x", "y"], "c": {"number": 1}, "d": "red", "e": 1.5}
    assert encode(value) == plain
    assert encode(value, Any) == plain
    assert decode_at(Any, plain, "$") == plain


def test_the_first_member_that_fits_is_taken() -> None:
    """A union of plain types tries each; a set comes back as a set, an enum stands for its text."""
    assert encode(("a",), int | tuple[str, ...]) == ["a"]
    assert decode_at(frozenset[str], ["a", "b"], "$") == frozenset({"a", "b"})
    assert encode(Colour.RED, str) == "red"
    assert encode({"a": 1}, Mapping[str, int]) == {"a": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: encode(object()),
        lambda: encode({1: "x"}),
        lambda: encode(Other("x"), Leaf),
        lambda: encode([1], Mapping[str, int]),
        lambda: encode("x", tuple[str, ...]),
        lambda: encode(1.5, int | str),
        lambda: encode("x", Leaf | int),
        lambda: encode((1, 2), tuple[int]),
        lambda: decode_at(frozenset[str], ["a", "a"], "$"),
        lambda: decode_at(Literal["x"], "y", "$"),
        lambda: decode_at(Colour, "green", "$"),
        lambda: decode_at(Colour, 1, "$"),
        lambda: decode_at(int | list[int], ["x"], "$"),
        lambda: decode_at(dict[str, int], [], "$"),
        lambda: decode(Positive, {"number": -1}),
        lambda: encode(float("inf")),
        lambda: encode(10**400, float),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Callable[[], object]) -> None:
    """Every mismatch is a ValueError that names the place."""
    with pytest.raises(ValueError, match=r"\$"):
        wrong()


def test_a_hint_that_cannot_work_is_a_mistake_of_ours() -> None:
    """A field that hides the tag of its union, and a type that has no JSON form."""
    with pytest.raises(TypeError, match="hides the tag"):
        encode(Leaf(1), Tagged | Leaf)
    with pytest.raises(TypeError, match="no way"):
        encode(b"", bytes)
