"""A feed of much log in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.engines.derby import fed_through
from tests.engines.derby.made_log import write_log

ROOT = Path(__file__).parents[3]


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """A replica far behind is caught up by a feeder that stays under 64 MiB."""
    total = write_log(tmp_path, 100)
    argv = [sys.executable, fed_through.__file__, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True, timeout=200)
    sent, took_s, memory_kib = (float(word) for word in done.stdout.split())
    assert sent == total
    assert took_s > 0
    assert memory_kib < 64 * 1024
