"""The tree itself in a machine, for what has to run where the kernel is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.rig.pair import ROOT

if TYPE_CHECKING:
    import subprocess

    from tests.rig.host import Host

PLACE = "/srv/snaprep"


def run(machine: Host, module: str, *words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """`python3 -m MODULE WORDS` with snaprep and its tests to be imported, by the machine's own Python."""
    machine.run(["mkdir", "-p", PLACE])
    for part in ("snaprep", "tests"):
        machine.bring(ROOT / part, f"{PLACE}/{part}")
    machine.run(["tee", f"{PLACE}/pyproject.toml"], stdin=(ROOT / "pyproject.toml").read_text())
    return machine.run(["python3", "-m", module, *words], cwd=PLACE, check=False, timeout_s=timeout_s)
