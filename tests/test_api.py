"""The module that the command line calls has the shape that it expects; mypy proves it, this test runs it."""

from __future__ import annotations

import snaprep.run
from snaprep.cli.api import Run

API: Run = snaprep.run


def test_every_verb_is_there() -> None:
    """Each function that the command line may call exists in `snaprep.run`."""
    names = [name for name in vars(Run) if not name.startswith("_")]
    assert names
    assert all(callable(getattr(API, name)) for name in names)
