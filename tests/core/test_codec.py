"""What the codec promises: everything comes back as it was, and nothing else comes in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaprep.core.codec import decode, encode
from snaprep.core.volume import Image, ImageRole, Point, VolumeFacts


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Leaf:
    number: int
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Other:
    text: str


@dataclass(frozen=True, slots=True)
class Tree:
    colour: Colour
    either: Leaf | Other | None
    leaf: Leaf | None
    guids: tuple[int, ...]
    pair: tuple[str, int]
    names: frozenset[str]
    table: dict[str, tuple[Leaf, ...]]
    items: list[tuple[str, list[str]]]
    answer: bool | int | float | str
    mode: Literal["fast", "safe"]
    below: tuple[Tree, ...] = field(default_factory=tuple)


TEXT = st.text(st.characters(), max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.builds(Leaf, st.integers(), FLOATS)


def trees(below: st.SearchStrategy[Tree] | None = None) -> st.SearchStrategy[Tree]:
    return st.builds(
        Tree,
        colour=st.sampled_from(Colour),
        either=st.none() | LEAVES | st.builds(Other, TEXT),
        leaf=st.none() | LEAVES,
        guids=st.lists(st.integers(0, 2**64 - 1), max_size=4).map(tuple),
        pair=st.tuples(TEXT, st.integers()),
        names=st.frozensets(TEXT, max_size=3),
        table=st.dictionaries(TEXT, st.lists(LEAVES, max_size=2).map(tuple), max_size=2),
        items=st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=2)), max_size=2),
        answer=st.booleans() | st.integers() | FLOATS | TEXT,
        mode=st.sampled_from(("fast", "safe")),
        below=st.just(()) if below is None else st.lists(below, max_size=2).map(tuple),
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(trees(trees()))
def test_a_value_comes_back_equal_and_of_the_same_types(tree: Tree) -> None:
    """Whatever a hint allows survives encode, JSON text and decode, 64-bit GUIDs and odd characters included."""
    text = json.dumps(encode(tree))
    back = decode(Tree, json.loads(text))
    assert back == tree
    assert json.dumps(encode(back)) == text  # True is not 1, and 1 is not 1.0


@given(trees(), JSON_VALUES, st.data())
def test_a_value_of_another_shape_is_refused_with_its_path(tree: Tree, foreign: Any, data: st.DataObject) -> None:  # noqa: ANN401
    """Replacing any field by any JSON value either decodes to that very value or is a ValueError that names it."""
    plain = encode(tree)
    name = data.draw(st.sampled_from(sorted(plain)))
    plain[name] = foreign
    try:
        back = decode(Tree, plain)
    except ValueError as error:
        assert str(error).startswith(f"$.{name}")  # noqa: PT017
    else:
        assert encode(back)[name] == foreign or isinstance(foreign, (int, list))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"number": 1, "sise": 2.0}, "$: unknown field 'sise' for Leaf"),
        ({"size": 2.0}, "$: field 'number' of Leaf is missing"),
        ({"number": True}, "$.number: expected int, got bool"),
        ({"number": 1.0}, "$.number: expected int, got float"),
        ({"number": 1, "size": "1"}, "$.size: expected float, got str"),
        ([], "$: expected Leaf, got list"),
    ],
)
def test_strictness(value: object, message: str) -> None:
    """Unknown, missing and mistyped fields are named."""
    with pytest.raises(ValueError, match=r"^\$") as caught:
        decode(Leaf, value)
    assert str(caught.value) == message


def test_a_deep_mistake_names_the_whole_path() -> None:
    """The path leads through arrays and objects to the wrong value."""
    facts = VolumeFacts(
        "zfs", "2.2", "tank", 1, "ONLINE", "7", 0, 0, frozenset({"resume"}),
        (Image("tank/db", ImageRole.LIVE, points=(Point("a", (1, 2**64 - 1), 5),)),),
    )  # fmt: skip
    plain = encode(facts)
    assert decode(VolumeFacts, plain) == facts
    plain["images"][0]["points"][0]["guids"][1] = "x"
    with pytest.raises(ValueError, match=r"^\$\.images\[0\]\.points\[0\]\.guids\[1\]: expected int, got str$"):
        decode(VolumeFacts, plain)


def test_only_a_union_of_classes_is_tagged() -> None:
    """The kind tag stands where it is needed, and an unknown one is refused."""
    tree = Tree(Colour.RED, Leaf(1), Leaf(2), (), ("", 0), frozenset(), {}, [], 0, "fast")
    plain = encode(tree)
    assert plain["either"]["kind"] == "Leaf"
    assert "kind" not in plain["leaf"]
    plain["either"]["kind"] = "Bough"
    with pytest.raises(ValueError, match=r"^\$\.either: kind 'Bough' is none of"):
        decode(Tree, plain)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    """NaN, infinity, and integers beyond any float do not pass as floats."""
    with pytest.raises(ValueError, match=r"\$\.size"):
        encode(Leaf(1, number))
