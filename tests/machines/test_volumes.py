"""The volume contract suite in a machine, against its kernel's OpenZFS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machines.world import Machines
from tests.rig.pair import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.machines, pytest.mark.timeout(3600)]
PLACE = "/srv/snaprep"
SUITE_S = 1200.0


def test_volume_suite(rig_tools: None, tmp_path: Path) -> None:
    """What the suite asks of any filesystem holds for OpenZFS in a kernel, too."""
    with Machines.start(tmp_path, names=("db1",), derby=False) as world:
        machine = world["db1"]
        machine.run(["mkdir", "-p", PLACE])
        for part in ("snaprep", "tests"):
            machine.bring(ROOT / part, f"{PLACE}/{part}")
        machine.run(["tee", f"{PLACE}/pyproject.toml"], stdin=(ROOT / "pyproject.toml").read_text())
        suite = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=600", "tests/volumes"]
        done = machine.run([*suite, "--basetemp=/var/tmp/suite"], cwd=PLACE, check=False, timeout_s=SUITE_S)
        print(done.stdout)  # noqa: T201 - what the suite inside said belongs into this one's report
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
