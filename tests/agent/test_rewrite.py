"""Files of others, written anew by rename."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaprep.agent.rewrite import rewrite


def test_owner_and_mode_stay(tmp_path: Path) -> None:
    """The new content has the place, owner and mode of the old, and nothing lies beside it."""
    path = tmp_path / "settings"
    path.write_bytes(b"old")
    os.chown(path, 7, 8)
    path.chmod(0o640)
    with path.open("rb") as reader:
        rewrite(path, b"new", new_owner=(1, 1))
        assert reader.read() == b"old"
    found = path.stat()
    assert (path.read_bytes(), found.st_mode & 0o7777, found.st_uid, found.st_gid) == (b"new", 0o640, 7, 8)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("owner", "found"), [((7, 8), (7, 8)), ((-1, -1), (os.geteuid(), os.getegid()))])
def test_a_new_file_is_private(tmp_path: Path, owner: tuple[int, int], found: tuple[int, int]) -> None:
    """A file that was not there belongs to whom it is made for, and to nobody else."""
    path = tmp_path / "settings"
    rewrite(path, b"new", new_owner=owner)
    state = path.stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (*found, 0o600)


def test_what_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    """When the rename fails the error is raised, and what was written beside is removed."""
    path = tmp_path / "folder"
    (path / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        rewrite(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
