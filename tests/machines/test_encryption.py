"""An encrypted database from the first copy to the take-over, on two machines of which one has no key at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machines.world import Machines
from tests.rig import check
from tests.rig.aftermath import nothing_lost
from tests.rig.derby import create_bank
from tests.rig.fixtures import BANK_MB
from tests.rig.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.machines, pytest.mark.timeout(3600)]
PASSPHRASE = "correct horse battery"
KEY_FILE = "/etc/bank.key"
ENCRYPTED = {"encryption": "aes-256-gcm", "keyformat": "passphrase", "keylocation": f"file://{KEY_FILE}"}
RATE = 50.0


@pytest.fixture
def pair(rig_tools: None, tmp_path: Path) -> Iterator[Pair]:
    """db1 serves an encrypted bank."""
    with Machines.start(tmp_path) as world:
        world["db1"].run(["tee", KEY_FILE], stdin=PASSPHRASE)
        yield Pair(world, create_bank(world["db1"], size_mb=BANK_MB, properties=ENCRYPTED))


def load_key(pair: Pair, host: str, dataset: str, passphrase: str) -> int:
    argv = ["zfs", "load-key", "-L", "prompt", dataset]
    return pair.world[host].run(argv, stdin=f"{passphrase}\n", check=False).returncode


def finding(pair: Pair, host: str, id: str) -> dict[str, str]:
    hosts = pair.snaprep("check").document["hosts"]
    found = next(h for h in hosts if h["host"] == host)["findings"]
    return next(f for f in found if f["id"] == id)


def test_a_database_that_only_its_host_can_read(pair: Pair) -> None:
    """Under load the copy arrives and stays encrypted; it is started when the right key is there, and not before, after
    a boot too; nothing is lost, rows are equal, and check, plan, rebuild and takeover say which key is missing where.
    The old primary comes back by an increment, once it has its key.
    """
    recv = f"{pair.bank.dataset}.recv"
    assert any("load-key" in said for said in pair.must("plan").document["warnings"])
    assert finding(pair, "db1", "key")["level"] == "ok"
    with pair.writers(rate=RATE) as early:
        early.wait_for(20)
        first = pair.must("rebuild", code=10)
        early.stop()
    assert first.error_id == "key-not-loaded"
    assert f"zfs load-key {recv}" in first.document["error"]["hint"]
    assert finding(pair, "db2", "key-not-loaded")["level"] == "fail"
    assert load_key(pair, "db2", recv, "wrong passphrase") != 0
    assert pair.snaprep("resume").error_id == "key-not-loaded"
    assert load_key(pair, "db2", recv, PASSPHRASE) == 0
    with pair.writers(rate=RATE) as clients:
        clients.wait_for(20)
        pair.must("resume")
        clients.wait_for(20)
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
    for dataset in (pair.bank.dataset, recv):
        said = pair.world["db2"].zfs("get", "-H", "-o", "value", "encryption,encryptionroot,keystatus", dataset)
        assert said.split() == [ENCRYPTED["encryption"], recv, "available"]
    pair.world.reboot("db2")
    pair.world.power_off("db1")
    refused = pair.snaprep("takeover", "db2", "--yes")
    assert refused.error_id == "key-not-loaded"
    assert load_key(pair, "db2", recv, PASSPHRASE) == 0
    pair.must("takeover", "db2", "--yes")
    assert check.missing([*early.acked(), *clients.acked()], pair.served("db2").journal) == []
    pair.world.boot("db1")
    assert load_key(pair, "db1", pair.bank.dataset, PASSPHRASE) == 0
    with pair.writers(rate=RATE) as later:
        later.wait_for(20)
        back = pair.must("rebuild").document
        later.wait_for(20)
        later.stop()
    assert "full" not in [shown["kind"] for shown in back["rounds"]]
    nothing_lost(pair, later, "db2", "db1")
