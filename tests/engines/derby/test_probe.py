"""The trial of a replica's boot on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaprep.engines.derby.feed import probe
from snaprep.engines.derby.feed import replica as fed
from tests.engines.derby.pairs import Two

pytestmark = pytest.mark.derby


def test_this_engine_behaves_and_one_that_rolls_back_is_seen(
    archived_pair: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derby 10.14 passes and nothing is left behind; booted the documented way, which rolls back, it does not pass."""
    folder = tmp_path / "trial"
    assert probe.direct_boot(archived_pair.at_target, folder) == probe.Probed(behaves=True)
    assert not folder.exists()
    monkeypatch.setattr(fed, "MODE", "startSlave")
    monkeypatch.setattr(fed, "SLAVE", "true")
    found = probe.direct_boot(archived_pair.at_target, folder)
    assert not found.behaves
    assert "data files" in found.why
    assert not folder.exists()
    archived_pair.target.kill()
    assert not probe.direct_boot(archived_pair.at_target, folder).behaves
