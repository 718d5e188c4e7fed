"""Files that Derby has made this moment, read by an account that is not root."""

from __future__ import annotations

import os
import pwd
import threading
from typing import TYPE_CHECKING

import pytest

from snaprep.engines.derby import files
from snaprep.engines.derby.opening import content, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user who runs the test's body, with a lock file on which nobody has any right."""
    for above in (tmp_path, *tmp_path.parents[:3]):
        above.chmod(above.stat().st_mode | 0o011)
    (tmp_path / files.OS_LOCK).touch()
    for path in (tmp_path, tmp_path / files.OS_LOCK):
        os.chown(path, NOBODY, -1)
    (tmp_path / files.OS_LOCK).chmod(0)
    os.seteuid(NOBODY)
    try:
        yield tmp_path
    finally:
        os.seteuid(0)


def test_a_file_of_ours_is_waited_for(database: Path) -> None:
    """Its owner has no right on it yet, and is given some while we look: no error."""
    later = threading.Timer(0.1, (database / files.OS_LOCK).chmod, (0o600,))
    later.start()
    assert files.locked(database) is False
    later.join()
    assert files.locked_by(database) is None
    assert content(database / files.OS_LOCK) == b""


def test_what_is_kept_from_us_is_told(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of ours that stays closed is an error after a moment, one of somebody else at once."""
    monkeypatch.setattr("snaprep.engines.derby.opening._NEW_S", 0.05)
    with pytest.raises(PermissionError):
        opened(database / files.OS_LOCK)
    os.seteuid(0)
    os.chown(database / files.OS_LOCK, 0, 0)
    monkeypatch.setattr("snaprep.engines.derby.opening._NEW_S", 3600.0)
    os.seteuid(NOBODY)
    with pytest.raises(PermissionError):
        opened(database / files.OS_LOCK)


def test_what_is_not_there(database: Path) -> None:
    """No file is nothing, and no error."""
    assert content(database / "log.ctrl") == b""
    assert files.locked(database / "elsewhere") is False
