"""The volume suite in a machine, against its kernel's OpenZFS, by the command and by the C library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machines import inside
from tests.machines.world import Machines

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.machines, pytest.mark.timeout(3600)]
SUITE_S, BINDING_S = 2400.0, 600.0


def test_volume_suite(rig_tools: None, tmp_path: Path) -> None:
    """What the suite asks of any filesystem holds for OpenZFS in a kernel, too, either way."""
    suite = ["-q", "-p", "no:cacheprovider", "--timeout=600", "--basetemp=/var/tmp/suite", "tests/volumes"]
    with Machines.start(tmp_path, names=("db1",), derby=False) as world:
        done = inside.run(world["db1"], "pytest", *suite, timeout_s=SUITE_S)
        print(done.stdout)  # noqa: T201 - what the suite inside said belongs into this one's report
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.timeout(7200)
def test_binding_of_the_c_library(rig_tools: None, tmp_path: Path) -> None:
    """Each function of the binding does what its documentation shows, and pyzfs's own tests pass with it."""
    with Machines.start(tmp_path, names=("db1",), derby=False) as world:
        done = inside.run(world["db1"], "tests.volumes.lzc_on_kernel", timeout_s=BINDING_S)
        print(done.stdout)  # noqa: T201 - as above
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
