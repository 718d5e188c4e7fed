"""Names of datasets, snapshots and bookmarks: what is valid, and what they are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.lzc.constants import MAXNAMELEN
from snaprep.volumes.lzc.exceptions import ZFSError

Maker = Callable[[bytes | None], ZFSError]
Name: TypeAlias = bytes | str
T = TypeVar("T")
# Each kind of key by itself: a type checker takes no dict[bytes, ...] where a Mapping of both kinds is wanted.
ByName: TypeAlias = Mapping[bytes, T] | Mapping[str, T] | Mapping[Name, T]
Properties: TypeAlias = ByName[object]
Key: TypeAlias = bytes | bytearray | memoryview
_PART = rb"[A-Za-z0-9_.: -]+"
_FILESYSTEM = re.compile(rb"%b(?:/%b)*" % (_PART, _PART))
_SNAPSHOT = re.compile(rb"%b@%b" % (_FILESYSTEM.pattern, _PART))
_BOOKMARK = re.compile(rb"%b#%b" % (_FILESYSTEM.pattern, _PART))


def as_name(name: Name) -> bytes:
    """A name as C takes it; `str` is taken as UTF-8. Raises NameInvalid for a NUL, which would cut it short."""
    if isinstance(name, str):
        name = name.encode()
    if not isinstance(name, bytes):
        raise TypeError(f"a name is bytes or str, not {type(name).__name__}")
    if b"\0" in name:
        raise lzc_exc.NameInvalid(name)
    return name


def optional_name(name: Name | None) -> bytes | None:
    return None if name is None else as_name(name)


def as_names(names: Iterable[Name]) -> dict[bytes, object]:
    """Several names as C takes them: the keys of a list. TypeError for a single name, whose letters are no names."""
    if isinstance(names, (bytes, str)):
        raise TypeError(f"a list of names is wanted, not the name {names!r}")
    return {as_name(name): None for name in names}


def as_key(key: Key | None) -> tuple[bytes | None, int]:
    """A wrapping key as C takes it, and its length. A null pointer for none and for an empty one."""
    if key is None:
        return None, 0
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise TypeError(f"a key is bytes, not {type(key).__name__}")
    given = bytes(key)
    return given or None, len(given)


def is_filesystem(name: bytes) -> bool:
    return _FILESYSTEM.fullmatch(name) is not None


def is_snapshot(name: bytes) -> bool:
    return _SNAPSHOT.fullmatch(name) is not None


def is_bookmark(name: bytes) -> bool:
    return _BOOKMARK.fullmatch(name) is not None


def pool_of(name: bytes) -> bytes:
    return re.split(rb"[/@#]", name, maxsplit=1)[0]


def filesystem_of(name: bytes) -> bytes:
    return re.split(rb"[@#]", name, maxsplit=1)[0]


def bad_name(name: bytes, valid: Callable[[bytes], bool], maker: Maker) -> ZFSError | None:
    """What is wrong with a name by itself."""
    if not valid(name):
        return maker(name)
    return lzc_exc.NameTooLong(name) if len(name) > MAXNAMELEN else None


def bad_filesystem(name: bytes) -> ZFSError | None:
    return bad_name(name, is_filesystem, lzc_exc.FilesystemNameInvalid)


def bad_snapshot(name: bytes) -> ZFSError | None:
    return bad_name(name, is_snapshot, lzc_exc.SnapshotNameInvalid)
