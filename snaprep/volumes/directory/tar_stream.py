"""The two programs at the ends of a copy's stream: a directory becomes a tar archive, and a directory again.

Only regular files and directories travel, under relative names. The archive ends with a member that says which copy it
is and how much it holds: without it, or with another count, what was unpacked is not whole.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from snaprep.core.codec import decode, encode
from snaprep.core.volume import Point
from snaprep.volumes.directory import marks

END = ".snaprep-end"
_CHUNK_BYTES = 1 << 20


class Damaged(Exception):
    """The stream is not one that `pack` wrote, or not all of it."""


def pack() -> None:
    """Write the directory argv[1] to the standard output; argv[2] is its point, as JSON."""
    directory, point = Path(sys.argv[1]), decode(Point, json.loads(sys.argv[2]))
    try:
        with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=_CHUNK_BYTES) as archive:
            files, size_bytes = 0, 0
            for path in _below(directory):
                member = archive.gettarinfo(path, str(path.relative_to(directory)))
                if member.isreg():
                    with path.open("rb") as file:
                        archive.addfile(member, file)
                    files, size_bytes = files + 1, size_bytes + member.size
                elif member.isdir():
                    archive.addfile(member)
            last = json.dumps({"point": encode(point), "files": files, "bytes": size_bytes}).encode()
            member = tarfile.TarInfo(END)
            member.size = len(last)
            archive.addfile(member, io.BytesIO(last))
        sys.stdout.buffer.flush()
    except OSError as error:
        sys.exit(f"cannot read {directory}: {error}")


def _below(directory: Path) -> Iterator[Path]:
    """Everything in it, a directory before what is in it; links are not followed."""
    for path in sorted(directory.iterdir()):
        if path.name == marks.NAME and path.parent == directory:
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def unpack() -> None:
    """Read the standard input into the directory argv[1], which a run has just made; mark it as whole at the end."""
    directory = Path(sys.argv[1])
    try:
        point = _unpacked(directory)
        _settle(directory)
        with marks.changing(directory) as found:
            marks.write(directory, replace(found, point=point))
    except (Damaged, tarfile.TarError, ValueError) as error:
        sys.exit(f"the stream is damaged: {error}")
    except OSError as error:
        sys.exit(f"cannot write {directory}: {error}")


def _unpacked(directory: Path) -> Point:
    files, size_bytes = 0, 0
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=_CHUNK_BYTES) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if member.name == END and content is not None:
                last = json.loads(content.read(1 << 16))
                if (files, size_bytes) != (last["files"], last["bytes"]):
                    raise Damaged(f"{files} files came of {last['files']}")
                if archive.next() is not None:
                    raise Damaged("something follows its end")
                return decode(Point, last["point"])
            place = directory / safe_name(member.name)
            if content is not None:
                with marks.create(place) as file:
                    shutil.copyfileobj(content, file, _CHUNK_BYTES)
                    os.fchmod(file.fileno(), member.mode & 0o777)
                files, size_bytes = files + 1, size_bytes + member.size
            elif member.isdir():
                place.mkdir()
                place.chmod(member.mode & 0o777 | 0o700)
            else:
                raise Damaged(f"{member.name} is neither a file nor a directory")
    raise Damaged("it ends too early")


def safe_name(name: str) -> PurePosixPath:
    """A name below the directory, and not that of our own mark. Raises Damaged."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0].startswith(marks.NAME):
        raise Damaged(f"{name!r} is no name below the directory")
    return path


def _settle(directory: Path) -> None:
    """All of it on disk before anybody is told that it is there."""
    for folder, _, files in os.walk(directory):
        for name in files:
            fd = os.open(Path(folder, name), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        marks.sync(Path(folder))
