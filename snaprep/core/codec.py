"""Values to JSON and back, driven by type hints: what crosses the wire and what the journal keeps.

Knows None, bool, int (of any size, exact), float (finite), str, StrEnum, Literal, list, tuple, frozenset,
dict[str, X], dataclasses, and unions of these. Where two dataclasses share a union, the encoded form carries the
class name under the key "kind". `Any` lets plain JSON through. Decoding is strict: an unknown key, a missing field
without a default, or a value of another type is a ValueError that names the place ("$.points[2].guid").
"""

# ruff: noqa: ANN401 (hints are the values here, and what they describe can be anything)

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import types
import typing
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")

KIND = "kind"

_ARRAYS = (list, tuple, frozenset, collections.abc.Sequence)
_OBJECTS = (dict, collections.abc.Mapping)


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    hint: Any
    required: bool


def encode(value: object, hint: Any = None) -> Any:
    """JSON-able form of `value`. Without a hint the value's own class decides, and a top-level union has no tag.

    Raises ValueError when the value does not fit the hint.
    """
    return _encode(value, _own_hint(value) if hint is None else hint, "$")


def decode(hint: type[T], value: Any) -> T:
    """The value that `encode` was given. Raises ValueError, with the path of what does not fit."""
    return typing.cast("T", _decode(hint, value, "$"))


def decode_at(hint: Any, value: Any, path: str) -> Any:
    """Like `decode`, for a value that is part of something larger: `path` starts the messages."""
    return _decode(hint, value, path)


def _own_hint(value: object) -> Any:
    return type(value) if dataclasses.is_dataclass(value) or isinstance(value, StrEnum) else Any


def _mismatch(path: str, wanted: str, value: object) -> ValueError:
    return ValueError(f"{path}: expected {wanted}, got {type(value).__name__}")


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


@functools.cache
def _fields(cls: Any) -> dict[str, _Field]:
    hints = typing.get_type_hints(cls)
    missing = dataclasses.MISSING
    return {
        f.name: _Field(hints[f.name], required=f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cls)
        if f.init
    }


@functools.cache
def _members(hint: Any) -> tuple[Any, ...] | None:
    """The members of a union, or None when `hint` is none."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = typing.get_args(hint)
        kinds = [m for m in members if _is_dataclass(m)]
        if len(kinds) > 1:
            for member in kinds:
                if KIND in _fields(member):
                    raise TypeError(f"{member}: a field named {KIND!r} hides the tag that the union {hint} needs")
        return members
    return None


def _tagged(members: tuple[Any, ...]) -> bool:
    return sum(_is_dataclass(m) for m in members) > 1


def _encode(value: Any, hint: Any, path: str) -> Any:
    if (members := _members(hint)) is not None:
        return _encode_union(value, members, path)
    if hint is Any:
        return _encode_any(value, path)
    if _is_dataclass(hint):
        own: Any = type(value)
        if own is not hint:
            raise _mismatch(path, hint.__name__, value)
        return {n: _encode(getattr(value, n), f.hint, f"{path}.{n}") for n, f in _fields(own).items()}
    origin = typing.get_origin(hint)
    if origin in _ARRAYS:
        return _encode_array(value, hint, path)
    if origin in _OBJECTS:
        if not isinstance(value, collections.abc.Mapping):
            raise _mismatch(path, "a mapping", value)
        return {_key(k, path): _encode(v, typing.get_args(hint)[1], f"{path}.{k}") for k, v in value.items()}
    return _scalar(hint, value, path)


def _encode_union(value: Any, members: tuple[Any, ...], path: str) -> Any:
    for member in members:
        if _is_dataclass(member) and type(value) is member:
            plain = _encode(value, member, path)
            return {KIND: type(value).__name__, **plain} if _tagged(members) else plain
    for member in _exact_first(value, members):
        if not _is_dataclass(member):
            try:
                return _encode(value, member, path)
            except ValueError:
                continue
    raise _mismatch(path, _names(members), value)


def _encode_any(value: Any, path: str) -> Any:
    if isinstance(value, collections.abc.Mapping):
        return {_key(k, path): _encode_any(v, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode_any(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, frozenset):
        return _encode_any(sorted(value), path)
    if dataclasses.is_dataclass(value) or isinstance(value, StrEnum):
        return _encode(value, type(value), path)
    if value is None or isinstance(value, (bool, int, float, str)):
        return _scalar(type(value), value, path)
    raise _mismatch(path, "a JSON value", value)


def _encode_array(value: Any, hint: Any, path: str) -> list[Any]:
    origin, wanted = typing.get_origin(hint), typing.get_args(hint)
    expected = (list, tuple) if origin is collections.abc.Sequence else origin
    if not isinstance(value, expected):
        raise _mismatch(path, origin.__name__, value)
    if origin is frozenset:
        return sorted(_encode(v, wanted[0], f"{path}[]") for v in value)
    hints = _item_hints(origin, wanted, len(value), path)
    return [_encode(v, h, f"{path}[{i}]") for i, (v, h) in enumerate(zip(value, hints, strict=True))]


def _item_hints(origin: Any, wanted: tuple[Any, ...], count: int, path: str) -> list[Any]:
    if origin is not tuple or wanted[-1:] == (Ellipsis,):
        return [wanted[0]] * count
    if len(wanted) != count:
        raise ValueError(f"{path}: expected {len(wanted)} items, got {count}")
    return list(wanted)


def _decode(hint: Any, value: Any, path: str) -> Any:
    if (members := _members(hint)) is not None:
        return _decode_union(members, value, path)
    if hint is Any:
        return value
    if _is_dataclass(hint):
        return _decode_dataclass(hint, value, path)
    origin = typing.get_origin(hint)
    if origin in _ARRAYS:
        return _decode_array(hint, value, path)
    if origin in _OBJECTS:
        if not isinstance(value, dict):
            raise _mismatch(path, "an object", value)
        return {_key(k, path): _decode(typing.get_args(hint)[1], v, f"{path}.{k}") for k, v in value.items()}
    return _scalar(hint, value, path)


def _decode_dataclass(cls: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(path, cls.__name__, value)
    fields = _fields(cls)
    if unknown := value.keys() - fields.keys():
        raise ValueError(f"{path}: unknown field {min(map(str, unknown))!r} for {cls.__name__}")
    if missing := [n for n, f in fields.items() if f.required and n not in value]:
        raise ValueError(f"{path}: field {missing[0]!r} of {cls.__name__} is missing")
    arguments = {n: _decode(fields[n].hint, v, f"{path}.{n}") for n, v in value.items()}
    try:
        return cls(**arguments)
    except ValueError as error:  # a check of its own in __post_init__
        raise ValueError(f"{path}: {error}") from error


def _decode_union(members: tuple[Any, ...], value: Any, path: str) -> Any:
    if isinstance(value, dict) and _tagged(members):
        for member in members:
            if _is_dataclass(member) and member.__name__ == value.get(KIND):
                return _decode(member, {k: v for k, v in value.items() if k != KIND}, path)
        raise ValueError(f"{path}: {KIND} {value.get(KIND)!r} is none of {_names(members)}")
    failures = []
    for member in _exact_first(value, members):
        try:
            return _decode(member, value, path)
        except ValueError as error:
            failures.append(error)
    deepest = max(failures, key=lambda error: len(str(error).partition(": ")[0]))
    if str(deepest).startswith(f"{path}:"):
        raise _mismatch(path, _names(members), value) from deepest
    raise deepest


def _decode_array(hint: Any, value: Any, path: str) -> Any:
    if not isinstance(value, list):
        raise _mismatch(path, "an array", value)
    origin, wanted = typing.get_origin(hint), typing.get_args(hint)
    hints = _item_hints(origin, wanted, len(value), path)
    items = [_decode(h, v, f"{path}[{i}]") for i, (v, h) in enumerate(zip(value, hints, strict=True))]
    if origin is list:
        return items
    if origin is frozenset:
        if len(unique := frozenset(items)) != len(items):
            raise ValueError(f"{path}: an item of a set stands there twice")
        return unique
    return tuple(items)


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and type(value) in (float, int):
        return _finite(value, path)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member(hint, value, path)
    if hint in (None, types.NoneType, bool, int, float, str):
        # By exact type, for True is no number; only a str may be a subclass (a StrEnum where a str is asked for).
        if type(value) is (hint or types.NoneType):
            return value
        if hint is str and isinstance(value, str):
            return str(value)
        raise _mismatch(path, _names((hint,)), value)
    if typing.get_origin(hint) is typing.Literal:
        for choice in typing.get_args(hint):
            if value == choice and type(value) is type(choice):
                return value
        raise ValueError(f"{path}: {value!r} is none of {typing.get_args(hint)}")
    raise TypeError(f"{path}: no way to encode {hint!r}")


def _member(cls: type[StrEnum], value: Any, path: str) -> StrEnum:
    if isinstance(value, str):
        for member in cls:
            if member.value == value:
                return member
        raise ValueError(f"{path}: {value!r} is no {cls.__name__}")
    raise _mismatch(path, cls.__name__, value)


def _finite(value: float, path: str) -> float:
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{path}: {type(value).__name__} does not fit a float") from error
    if not math.isfinite(number):
        raise ValueError(f"{path}: {number} is not a finite number")
    return number


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise _mismatch(path, "a str as key", key)
    return key


def _exact_first(value: Any, members: tuple[Any, ...]) -> list[Any]:
    """A float is no int and the other way round, whatever the order in the union."""
    return sorted(members, key=lambda member: member is not type(value))


def _names(members: tuple[Any, ...]) -> str:
    return " | ".join("None" if m is types.NoneType else getattr(m, "__name__", str(m)) for m in members)
