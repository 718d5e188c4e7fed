from __future__ import annotations

from pathlib import Path

import pytest

from snaprep import config


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a configuration and a password in it, and a state directory of its own."""
    for name in ("NO_COLOR", "SNAPREP_CONFIG", "SNAPREP_NO_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "password"
    secret.write_text('hunter2"x\n')
    secret.chmod(0o600)
    (tmp_path / "snaprep.toml").write_text(config.example().replace('password_file = ""', 'password_file = "password"'))
