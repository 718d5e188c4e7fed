"""What a plain directory remembers of itself: the file that stands for the properties of a dataset.

It lies in the directory that it is about, so it moves along in the same rename. Every change is on disk before it
counts: written beside, synced, put in place by a rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from snaprep.core.codec import decode, encode
from snaprep.core.errors import CheckFailed
from snaprep.core.volume import Point

NAME = ".snaprep.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """`created`: when a run of the pair made the directory; empty when it was there before us."""

    pair: str = ""
    role: str = ""
    created: str = ""
    point: Point | None = None  # the copy that this is, when it is whole
    properties: dict[str, str] = field(default_factory=dict)

    def made_by(self, pair: str) -> bool:
        """A run of this pair made it, so a run of it may destroy it."""
        return bool(self.created) and self.pair == pair

    def with_properties(self, changes: dict[str, str]) -> Marks:
        """An empty value removes."""
        return replace(self, properties={k: v for k, v in {**self.properties, **changes}.items() if v})


def read(directory: Path) -> Marks:
    """Nothing when nobody has marked it. Raises `marks-unreadable`."""
    try:
        return decode(Marks, json.loads((directory / NAME).read_text("utf-8")))
    except FileNotFoundError:
        return Marks()
    except (ValueError, OSError) as error:
        what = f"{directory / NAME} cannot be read: {error}"
        hint = "whose the directory is stands in it: put it back from the other host's report, or move the directory"
        raise CheckFailed("marks-unreadable", what, hint=hint) from error


def write(directory: Path, marks: Marks) -> None:
    """Durable when it returns."""
    fresh = directory / f"{NAME}.new"
    with create(fresh, os.O_TRUNC) as file:
        file.write(json.dumps(encode(marks)).encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(directory / NAME)
    sync(directory)


def create(path: Path, flags: int = os.O_EXCL) -> BinaryIO:
    """A private file to write; never through a link."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600), "wb")


def sync(directory: Path) -> None:
    """Make what was renamed, made or removed in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def changing(directory: Path) -> Iterator[Marks]:
    """The marks, while nobody else changes them: agents of two pairs may mark one database."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield read(directory)
    finally:
        os.close(fd)
