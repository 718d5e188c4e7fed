"""`snaprep check` on real hosts: a sound pair, and one with everything wrong with it that can be made wrong here."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig import workload
from tests.rig.derby import create_bank
from tests.rig.host import make_ssh_key
from tests.rig.node import end, wait_until
from tests.rig.pair import Pair
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.host import Host

pytestmark = pytest.mark.rig
BANK_MB = 5
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKw0bqF1M6zoQXJcSVsIAiwt8yKLYw2zC3FZ7n7x9fJz"
EXPIRED = f'restrict,expiry-time="20200101000000",command="x" {KEY} snaprep:20200101T000000Z-dead\n'
SOUND: dict[str, dict[str, Any]] = {"derby": {"restart_command": ["/bin/true"]}}
PROPERTIES = "derby.system.durability=test\nderby.database.readOnlyAccessUsers=auditor\n"


def found(pair: Pair) -> set[tuple[str, str, str]]:
    """(host, id, level) of every finding; "" is the pair itself."""
    document = pair.snaprep("check").document
    assert document["kind"] == "check", document
    return {(h["host"], f["id"], f["level"]) for h in document["hosts"] for f in h["findings"]}


@contextlib.contextmanager
def running(host: Host, *argv: str, port: int) -> Iterator[None]:
    """A program on a host that listens on a port, for as long as the block lasts."""
    process = host.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: f":{port} " in host.run(["ss", "-Hltn"]).stdout, f"port {port}", 10)
        yield
    finally:
        end(process)


@pytest.fixture(scope="module")
def sound(rig_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair at work, with nothing wrong."""
    with World.start(tmp_path_factory.mktemp("world")) as world:
        bank = create_bank(world["db1"], size_mb=BANK_MB)
        pair = Pair(world, bank, changes=SOUND)
        with pair.writers(rate=20) as writers:
            writers.wait_for(20)
            yield pair


def state_of(host: Host) -> str:
    """Everything that a check might change."""
    kept = [
        ["zfs", "get", "-Hr", "-o", "name,property,value", "all", "-s", "local"],
        ["zfs", "list", "-H", "-t", "all", "-o", "name"],
        ["sh", "-c", "cat /root/.ssh/authorized_keys; stat -c '%a %U %n' /root/.ssh /root/.ssh/*"],
        ["find", "/run/snaprep", "/srv", "/var/lib/snaprep", "-not", "-path", "/srv/bank/*"],
        ["ss", "-Hltn"],
    ]
    return "\n".join(host.run(argv, check=False).stdout for argv in kept)


def test_sound(sound: Pair) -> None:
    """Nothing fails and nothing warns on a sound pair, and each way is proven in both directions."""
    told = found(sound)
    assert {f for f in told if f[2] != "ok"} == set()
    assert {("db1", "login", "ok"), ("db2", "owner", "ok"), ("", "link", "ok"), ("", "replication-port", "ok")} <= told


def test_changes_nothing(sound: Pair) -> None:
    """Keys, datasets, folders, ports and the database's properties are after a check what they were before."""
    found(sound)  # leaves the lock folder, which is kept until the next boot
    before = [state_of(host) for host in sound.world.hosts.values()]
    gate = sound.snaprep("status").document["hosts"][0]
    found(sound)
    assert [state_of(host) for host in sound.world.hosts.values()] == before
    assert sound.snaprep("status").document["hosts"][0]["engine_state"] == gate["engine_state"] == "primary"


def test_cut_between_the_hosts(sound: Pair) -> None:
    """Hosts that cannot see each other fail the link and the replication port; the operator sees both all the same."""
    sound.world.cut_link("db1", "db2", silent=False)
    try:
        told = found(sound)
    finally:
        sound.world.heal_link("db1", "db2")
    assert {("", "link-lost", "fail"), ("", "replication-unreachable", "fail"), ("", "link-lost", "warn")} <= told


def test_tunnel(sound: Pair, tmp_path: Path) -> None:
    """In tunnel mode check tells no tunnel, one that leads elsewhere, and one that ssh keeps to the other host."""
    sound.config.write_text(sound.toml({**SOUND, "derby.replication": {"mode": "tunnel"}}))
    source, target = sound.world["db1"], sound.world["db2"]
    try:
        told = found(sound)
        assert {("db1", "tunnel-down", "fail"), ("", "replication-unreachable", "fail")} <= told
        with running(source, "socat", "TCP-LISTEN:4852,fork,reuseaddr", "EXEC:/bin/cat", port=4852):
            told = found(sound)
        assert {("db1", "tunnel-unknown", "warn"), ("", "replication-leads-elsewhere", "fail")} <= told
        key = source.outside("/root/.ssh/id_ed25519")
        make_ssh_key(key, "tunnel")
        with target.inside("/root/.ssh/authorized_keys").open("a") as file:
            file.write(key.with_suffix(".pub").read_text())
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
        with running(source, "ssh", "-N", *options, "-L", "4852:127.0.0.1:4851", "root@db2", port=4852):
            told = found(sound)
        assert {("db1", "tunnel", "ok"), ("", "replication-port", "ok")} <= told
    finally:
        sound.config.write_text(sound.toml(SOUND))


@pytest.fixture(scope="module")
def troubled(rig_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[tuple[str, str, str]]]:
    """What check says of a pair with many troubles at once."""
    with World.start(tmp_path_factory.mktemp("world")) as world, contextlib.ExitStack() as until_told:
        source, target = world["db1"], world["db2"]
        bank = create_bank(source, size_mb=BANK_MB, canmount="on")
        pair = Pair(world, bank, changes={"derby": {"user": "app"}})
        source.inside("/var/lib/derby/derby.properties").write_text(PROPERTIES)
        source.restart_derby()
        _trouble_storage(source)
        _trouble_target(target)
        until_told.enter_context(running(target, "socat", "TCP-LISTEN:4851,fork,reuseaddr", "EXEC:/bin/cat", port=4851))
        urls = [world.jdbc_url("db1")]
        clients = workload.start(
            world.operator, urls, accounts=bank.accounts, directory=world.home, rate=20, user="app", password="x"
        )
        until_told.enter_context(clients)
        clients.wait_for(20)
        yield found(pair)


def _trouble_storage(host: Host) -> None:
    snapshot = "tank/bank@autosnap_2026-01-01_00:00:00_daily"
    host.zfs("set", "recordsize=128K", "tank/bank")
    host.zfs("set", "com.sun:auto-snapshot=true", "tank/bank")
    host.zfs("create", "tank/bank/stranger")
    host.zfs("snapshot", snapshot)
    host.zfs("snapshot", "tank/bank@before-upgrade")
    host.zfs("hold", "keep", snapshot)
    marks = ("-o", "snaprep:role=scratch", "-o", "snaprep:pair=bank", "-o", "mountpoint=none")
    host.zfs("clone", *marks, snapshot, "tank/bank.warm")
    host.inside("/etc/sanoid").mkdir()
    host.inside("/etc/sanoid/sanoid.conf").write_text("[tank/bank]\n")
    keys = host.inside("/root/.ssh/authorized_keys")
    keys.write_text(EXPIRED + keys.read_text())


def _trouble_target(host: Host) -> None:
    passwd = host.inside("/etc/passwd")
    lines = passwd.read_text().splitlines(keepends=True)
    passwd.write_text("".join(line for line in lines if not line.startswith("derby:")))
    units = host.inside("/etc/systemd/system")
    units.mkdir(parents=True, exist_ok=True)
    (units / "bank-open.service").write_text("[Service]\nExecStart=/usr/bin/ij /srv/bank/bank\n")
    host.crash("derby")


@pytest.mark.parametrize(
    ("host", "id", "level"),
    [
        ("db1", "durability-test", "fail"),
        ("db1", "log-buffer", "warn"),
        ("db1", "gate-overridden", "fail"),
        ("db1", "foreign-sessions", "fail"),
        ("db1", "no-restart-command", "warn"),
        ("db1", "mounted-at-boot", "warn"),
        ("db1", "recordsize", "warn"),
        ("db1", "foreign-tool", "warn"),
        ("db1", "foreign-snapshots", "warn"),
        ("db1", "other-snapshots", "ok"),
        ("db1", "foreign-holds", "warn"),
        ("db1", "strangers", "warn"),
        ("db1", "leftover-clone", "warn"),
        ("db1", "leftover-key", "warn"),
        ("db2", "replication-port-taken", "fail"),
        ("db2", "unknown-user", "fail"),
        ("db2", "starts-at-boot", "warn"),
        ("db2", "engine-down", "fail"),
        ("", "replication-port-taken", "fail"),
        ("", "link", "ok"),
    ],
)
def test_trouble_is_found(troubled: set[tuple[str, str, str]], host: str, id: str, level: str) -> None:
    """Each trouble is told with its id, on the host where it is, as bad as it is."""
    assert (host, id, level) in troubled
