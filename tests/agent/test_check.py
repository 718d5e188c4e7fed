"""What an agent finds on its host besides storage and database."""

from __future__ import annotations

import os
import sys

import pytest

from snaprep.agent import check


def test_a_login_that_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounting cannot be delegated on Linux: the line that sudo needs is said, ready to be copied."""
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    found = {finding.id: finding for finding in check._agent()}
    assert found["privilege"].level == "fail"
    assert f" ALL=(root) NOPASSWD: {sys.executable}" in found["privilege"].hint
