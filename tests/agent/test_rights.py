"""An agent that is not root says what it lacks, or who should have logged in."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from snaprep.agent import rights
from snaprep.core.errors import CheckFailed
from snaprep.core.model import Finding
from snaprep.core.spec import DerbySpec, HostSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snaprep.volumes.base import Place, Volume

NOBODY = pwd.getpwnam("nobody")


def spec_at(place: Path, owner: str = "") -> HostSpec:
    derby = DerbySpec(database=str(place / "db"))
    return HostSpec(name="db1", pair="p", dataset="tank/bank", mountpoint=str(place), owner=owner, derby=derby)


def volume(found: list[Finding] | None) -> Volume:
    """A storage that answers `lacking` with this."""

    def lacking(places: Sequence[Place], user: str, group: str) -> list[Finding] | None:
        assert (user, group) == ("nobody", "nogroup")
        assert [place.path.rpartition(".")[2] for place in places[1:]] == ["replica", "warm", "verify", "look"]
        return found

    return cast("Volume", SimpleNamespace(lacking=lacking))


@pytest.fixture
def not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(rights, "_PTRACE", Path("/nowhere"))


def test_root_lacks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root is not even asked."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert rights.lacking(spec_at(tmp_path), volume([Finding("zfs-allow", "fail", "", "")])) == []
    rights.need_account("somebody")


def test_storage_that_only_root_handles(not_root: None, tmp_path: Path) -> None:
    """Where nothing can be delegated, the line that sudo needs for the whole agent is said, ready to be copied."""
    (found,) = rights.lacking(spec_at(tmp_path), volume(None))
    assert (found.id, found.level) == ("privilege", "fail")
    assert f" ALL=(root) NOPASSWD: {sys.executable}" in found.hint
    with pytest.raises(CheckFailed) as raised:
        rights.need_rights(spec_at(tmp_path), volume(None))
    assert raised.value.info.hint == found.hint


def test_a_login_to_whom_nothing_belongs(not_root: None, tmp_path: Path) -> None:
    """The database is somebody else's, by its files or by what is configured: that account is named."""
    assert rights.lacking(spec_at(tmp_path, owner="nobody:nogroup"), volume([])) == []
    assert "neither root nor derby" in rights.lacking(spec_at(tmp_path, owner="derby"), volume([]))[0].what
    (tmp_path / "db").mkdir()
    assert f"neither root nor {tmp_path.owner()}" in rights.lacking(spec_at(tmp_path), volume([]))[0].what
    with pytest.raises(CheckFailed) as raised:
        rights.need_account("derby")
    assert raised.value.id == "privilege"
    rights.need_account("nobody")


def test_every_missing_right_is_told(not_root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb is refused with the first thing that is missing, the number of the others, and all of them as details."""
    scope = tmp_path / "ptrace_scope"
    monkeypatch.setattr(rights, "_PTRACE", scope)
    scope.write_text("0\n")
    rights.need_rights(spec_at(tmp_path), volume([]))
    scope.write_text("1\n")
    missing = [Finding("zfs-allow", "fail", "no right", "zfs allow")]
    with pytest.raises(CheckFailed) as raised:
        rights.need_rights(spec_at(tmp_path), volume(missing))
    assert raised.value.info.what == "no right, and 1 more"
    assert "kernel.yama.ptrace_scope = 0" in raised.value.info.details[1]
