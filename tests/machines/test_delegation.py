"""Two machines on which nobody is root: `zfs allow`, a few lines of sudoers, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machines.recipe import DERBY_HOME
from tests.machines.world import Machines
from tests.rig import check
from tests.rig.aftermath import nothing_lost
from tests.rig.derby import create_bank
from tests.rig.fixtures import BANK_MB
from tests.rig.host import DERBY_USER
from tests.rig.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tests.rig.host import Host

pytestmark = [pytest.mark.machines, pytest.mark.timeout(3600)]
LOGIN = {f"hosts.{name}": {"ssh": f"{DERBY_USER}@{name}"} for name in ("db1", "db2")}
SUDOERS = "/etc/sudoers.d/snaprep"
RATE = 50.0


@pytest.fixture
def pair(rig_tools: None, tmp_path: Path) -> Iterator[Pair]:
    """Whoever logs in is the account that owns the database's files; it has been given nothing yet."""
    with Machines.start(tmp_path) as world:
        for host in world.hosts.values():
            let_in(host)
        yield Pair(world, create_bank(world["db1"], size_mb=BANK_MB), changes=LOGIN)


def let_in(host: Host) -> None:
    host.run(["usermod", "--shell", "/bin/sh", "--password", "*", DERBY_USER])
    theirs, keys = ["-o", DERBY_USER, "-g", DERBY_USER], f"{DERBY_HOME}/.ssh"
    host.run(["install", "-d", *theirs, "-m", "700", keys])
    host.run(["install", *theirs, "-m", "600", "/root/.ssh/authorized_keys", keys])


def findings(pair: Pair) -> dict[str, list[dict[str, Any]]]:
    return {host["host"]: host["findings"] for host in pair.snaprep("check").document["hosts"]}


def give(host: Host, found: list[dict[str, Any]]) -> None:
    """Does what the hints say, to the letter."""
    for hint in [f["hint"] for f in found if f["id"] == "zfs-allow"]:
        host.run(["sh", "-c", hint.removeprefix("as root: ")])
    lines = [f["hint"].removeprefix(f"as root, into {SUDOERS}: ") for f in found if f["id"] == "sudoers"]
    host.run(["tee", SUDOERS], stdin="".join(f"{line}\n" for line in lines))
    host.run(["visudo", "-cf", SUDOERS])


def test_nobody_is_root(pair: Pair) -> None:
    """With what check names, and nothing more, the account of the database rebuilds, takes over and fails back under
    load, and nothing is lost; before, it is refused and told what is missing, and another account is told who may.
    """
    refused = pair.snaprep("rebuild")
    assert (refused.code, refused.error_id) == (3, "privilege"), refused
    for name, found in findings(pair).items():
        if name:
            failed = [f["id"] for f in found if f["level"] == "fail"]
            assert set(failed) == {"zfs-allow", "sudoers"}, found
            give(pair.world[name], found)
    pair.must("check")
    with pair.writers(rate=RATE, writers=2) as first:
        first.wait_for(20)
        pair.must("rebuild")
        first.wait_for(20)
        pair.world["db2"].crash("derby")
        pair.world["db2"].start_derby()
        pair.must("rebuild")
        first.wait_for(20)
        first.stop()
    nothing_lost(pair, first, "db1", "db2")
    pair.world.power_off("db1")
    pair.must("takeover", "db2", "--yes")
    pair.world.boot("db1")
    with pair.writers(rate=RATE, writers=2) as second:
        second.wait_for(20)
        pair.must("rebuild")
        second.wait_for(20)
        second.stop()
    nothing_lost(pair, second, "db2", "db1")
    assert check.missing([*first.acked(), *second.acked()], pair.served("db2").journal) == []
    assert pair.isolated("db1") == ["tank/bank.isolated-g1"]
