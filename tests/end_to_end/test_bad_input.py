"""What an operator can get wrong, and what can be wrong with the hosts: an error with its id."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.machines.world import Machines
from tests.rig.derby import create_bank, ij
from tests.rig.fixtures import BANK_MB
from tests.rig.host import DERBY_PORT
from tests.rig.node import patience_s, wait_until
from tests.rig.pair import PASSWORD, USER, Pair
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.host import Host

pytestmark = pytest.mark.rig


def state(world: World) -> dict[str, str]:
    """Everything that a run could change on the hosts, except what the database writes by itself."""
    found = {}
    for name, host in world.hosts.items():
        found[f"{name} datasets"] = host.zfs("list", "-H", "-t", "all", "-o", "name,guid,mountpoint,canmount,mounted")
        found[f"{name} properties"] = host.zfs("get", "-H", "-s", "local", "-o", "name,property,value", "all")
        found[f"{name} keys"] = host.run(["cat", "/root/.ssh/authorized_keys"]).stdout
        found[f"{name} listens"] = host.run(["sh", "-c", "ss -ltnH | awk '{print $4}' | sort"]).stdout
    return found


def programs(host: Host) -> list[str]:
    return host.run(["ps", "-eo", "comm="]).stdout.split()


@contextmanager
def meanwhile(host: Host, *argv: str, at: str = "/") -> Iterator[None]:
    """A program in that directory. It ends with the shell's standard input, also where that is a connection."""
    script = '(cd "$0" && exec "$@") & cat; kill $!; wait'
    quiet = subprocess.DEVNULL
    with host.popen(["sh", "-c", script, at, *argv], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as shell:
        try:
            yield
        finally:
            shell.communicate(timeout=30)


@contextmanager
def configured(pair: Pair, changes: dict[str, dict[str, Any]]) -> Iterator[None]:
    before = pair.config.read_text()
    pair.config.write_text(pair.toml(changes))
    try:
        yield
    finally:
        pair.config.write_text(before)


@pytest.mark.parametrize(
    ("text", "code", "id"),
    [
        ("pair = ", 2, "config-syntax"),
        ('pair = "bank"\nbudgett = 3\n', 2, "config-unknown-key"),
        ("pair = 3\n[hosts]\n", 2, "config-type"),
        ('pair = "bank"\nengine = "oracle"\n[hosts]\n', 2, "unknown-engine"),
        ('pair = "bank"\nvolume = "btrfs"\n[hosts]\n', 2, "unknown-volume"),
        (b"\xff\xfe", 2, "config-syntax"),
        (None, 2, "config-not-found"),
    ],
)
def test_config_that_does_not_parse(
    shared_pair: Pair, tmp_path: Path, text: str | bytes | None, code: int, id: str
) -> None:
    """A file that is not there, does not parse, or says what nobody knows is refused with its id."""
    file = shared_pair.home / "other.toml"
    file.unlink(missing_ok=True)
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = shared_pair.snaprep("status", "-c", str(file))
    assert (result.code, result.error_id) == (code, id), result
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("changes", "code", "id"),
    [
        ({"hosts.db1": {"dataset": "tank/[red]"}}, 2, "config-dataset"),
        ({"hosts.db1": {"dataset": 'tank/a"b'}}, 2, "config-dataset"),
        ({"derby": {"port": "1527"}}, 2, "config-type"),
        ({"rounds": {"budget": 3}}, 2, "config-type"),
        ({"derby": {"password_file": "/nowhere"}}, 2, "password-file-unreadable"),
        ({"hosts.db1": {"dataset": "tank/nothing"}, "hosts.db2": {"dataset": "tank/nothing"}}, 3, None),
        ({"hosts.db1": {"ssh": "no-such-host"}}, 30, "host-unreachable"),
        ({"hosts.db1": {"ssh": "nobody@db1"}}, 30, None),
        ({"hosts.db1": {"python": "python9"}}, 30, None),
        ({"derby": {"database": "/srv/bank/nothing"}}, 3, None),
        ({"derby": {"java": "no-such-java"}}, 3, None),
        ({"derby": {"port": 1528}}, 3, None),
    ],
)
def test_wrong_settings(shared_pair: Pair, changes: dict[str, dict[str, Any]], code: int, id: str | None) -> None:
    """Wrong values are found before anything is touched, and have an id."""
    shared_pair.served("db1")  # a database that has been used is open
    before = state(shared_pair.world)
    with configured(shared_pair, changes):
        result = shared_pair.snaprep("rebuild")
    assert result.code == code, result
    assert result.error_id == (id or result.error_id)
    assert result.error_id not in {"", "bug"}, result
    assert state(shared_pair.world) == before


@pytest.mark.parametrize(
    ("words", "code", "id"),
    [
        (("rebuidl",), 2, "usage"),
        (("rebuild", "--source", "db9"), 2, "unknown-host"),
        (("rebuild", "--budget", "soon"), 2, "usage"),
        (("takeover", "db9", "--yes"), 2, "unknown-host"),
        (("cutover",), 3, "no-run"),
    ],
)
def test_wrong_words(shared_pair: Pair, words: tuple[str, ...], code: int, id: str) -> None:
    """Verbs, hosts and values that do not exist, and commands to no run, are refused with their id."""
    before = state(shared_pair.world)
    result = shared_pair.snaprep(*words)
    assert (result.code, result.error_id) == (code, id), result
    assert state(shared_pair.world) == before


@pytest.mark.parametrize("known", ["nothing", "another key"])
def test_host_key(shared_pair: Pair, known: str) -> None:
    """A host whose key is unknown or changed is not talked to."""
    file = shared_pair.home / ".ssh/known_hosts"
    before = file.read_text()
    lines = before.splitlines(keepends=True)
    other = lines[1].split()[1:]
    file.write_text(lines[1] + (" ".join([lines[0].split()[0], *other]) + "\n" if known == "another key" else ""))
    try:
        result = shared_pair.snaprep("rebuild")
    finally:
        file.write_text(before)
    assert result.code == 30, result
    assert "key" in result.document["error"]["what"]


def test_plan_and_check_change_nothing(shared_pair: Pair) -> None:
    """`plan`, `check` and `status` leave both hosts as they were."""
    before = state(shared_pair.world)
    for verb in ("plan", "check", "status"):
        shared_pair.must(verb)
    assert state(shared_pair.world) == before


def test_target_with_foreign_data(pair: Pair) -> None:
    """Data that snaprep did not put there is not touched, unless the operator has it set aside."""
    db2 = pair.world["db2"]
    db2.zfs("create", "-o", "mountpoint=/srv/bank", pair.bank.dataset)
    db2.run(["tee", "/srv/bank/precious"], stdin=os.urandom(2 << 20).hex())  # compresses to nearly nothing otherwise
    before = state(pair.world)
    refused = pair.snaprep("rebuild")
    assert (refused.code, refused.error_id) == (3, "target-foreign"), refused
    with meanwhile(db2, "sleep", "600", at="/srv/bank"):
        wait_until(lambda: "sleep" in programs(db2), "somebody in the dataset", 5)
        refused = pair.snaprep("rebuild", "--isolate-foreign")
        assert (refused.code, refused.error_id) == (3, "dataset-busy"), refused
        assert "sleep" in refused.document["error"]["what"]
    assert state(pair.world) == before
    pair.must("rebuild", "--isolate-foreign")
    assert len(pair.isolated("db2")) == 1


def test_target_too_small(pair: Pair) -> None:
    """A copy that does not fit is not begun."""
    db2 = pair.world["db2"]
    free = int(db2.zfs("get", "-Hp", "-o", "value", "available", "tank"))
    db2.zfs("create", "-o", f"reservation={free - (8 << 20)}", "tank/ballast")
    refused = pair.snaprep("rebuild")
    assert (refused.code, refused.error_id) == (3, "target-full"), refused
    assert pair.must("status").document["serves"] == "db1"
    db2.zfs("destroy", "tank/ballast")
    pair.must("rebuild")


@pytest.mark.parametrize("name", ["db1", "db2"])
def test_engine_down(pair: Pair, name: str) -> None:
    """A host whose database server does not run is named, and a rebuild works once it does."""
    host = pair.world[name]
    host.crash("derby")
    refused = pair.snaprep("rebuild")
    assert (refused.code, refused.error_id) == (3, "engine-down"), refused
    assert name in refused.document["error"]["what"]
    host.start_derby()
    pair.must("rebuild")


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({"hosts.db2.derby": {"java": "no-such-java"}}, "no-java"),
        ({"hosts.db2": {"owner": "nosuch:user"}}, "unknown-user"),
        ({"hosts.db2": {"data_user": "nobody"}}, "link-refused"),
        ({"hosts.db2": {"replication_address": "10.9.9.9"}}, "replication-address"),
        ({"hosts.db2": {"replication_address": "db2"}}, "replication-address"),  # in its own /etc/hosts 127.0.1.1
        ({"derby.replication": {"mode": "tunnel"}}, "replication-unreachable"),
    ],
)
def test_what_a_cutover_needs_is_proven_before_anything_is_sent(
    shared_pair: Pair, changes: dict[str, dict[str, Any]], id: str
) -> None:
    """Hours of copying do not end in a cutover that could never have worked: there is no round and no freeze."""
    with configured(shared_pair, changes):
        refused = shared_pair.snaprep("rebuild")
    assert refused.error_id == id, refused
    assert refused.code in (3, 10)
    assert "db" in refused.document["error"]["what"]  # which host it is
    assert all(shown["sent_bytes"] == 0 for shown in refused.document["rounds"])
    assert refused.document["serves"] == "db1"


def test_replication_port_in_use(pair: Pair) -> None:
    """When somebody else listens where the replica should, clients go on with the source, and the error says so."""
    db2 = pair.world["db2"]
    argv = ["socat", "TCP-LISTEN:4851,fork,reuseaddr", "/dev/null"]
    with meanwhile(db2, *argv):
        wait_until(lambda: ":4851" in db2.run(["ss", "-ltn"]).stdout, "thief", 5)
        with pair.writers() as clients:
            clients.wait_for(50)
            refused = pair.snaprep("rebuild")
            assert (refused.code, refused.error_id) == (10, "replication-port-taken"), refused
            clients.wait_for(50)
            clients.stop()
        assert clients.gaps().worst_s < patience_s(4)  # the gate was never closed
    pair.must("rebuild")


def test_wrong_password(pair: Pair) -> None:
    """A Derby that asks for a password and gets the wrong one is an error that says so, and no secret is shown."""
    db1 = pair.world["db1"]
    url = f"jdbc:derby://127.0.0.1:{DERBY_PORT}/{pair.bank.path};user={USER};password={PASSWORD}"
    put = "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY('{}', '{}')"
    ij(
        db1,
        url,
        put.format(f"derby.user.{USER}", PASSWORD),
        put.format("derby.connection.requireAuthentication", "true"),
    )
    db1.restart_derby()
    (pair.home / "derby-password").write_text("not-the-pass-word\n")
    refused = pair.snaprep("rebuild")
    assert refused.code == 3, refused
    assert refused.error_id not in {"", "bug"}
    said = refused.stdout + refused.stderr + pair.journal()
    assert "not-the-pass-word" not in said
    (pair.home / "derby-password").write_text(f"{PASSWORD}\n")
    pair.must("rebuild")


def test_base_destroyed_by_somebody(pair: Pair) -> None:
    """When somebody destroys the common snapshot on the target, the next rebuild makes the replica all the same."""
    pair.must("rebuild")
    db2 = pair.world["db2"]
    db2.crash("derby")
    for name in db2.zfs("list", "-H", "-t", "snapshot", "-o", "name").splitlines():
        db2.zfs("release", "snaprep:bank", name)
    db2.zfs("unmount", pair.bank.dataset)
    db2.zfs("destroy", "-R", f"{pair.bank.dataset}.recv")
    db2.start_derby()
    assert pair.must("status").document["serves"] == "db1"
    assert pair.must("rebuild").document["rounds"][0]["kind"] == "full"


def test_base_destroyed_on_the_source(pair: Pair) -> None:
    """When somebody destroys the common snapshot on the source, the next rebuild is an increment from its bookmark,
    where ZFS has those, and a full copy elsewhere.
    """
    pair.must("rebuild")
    db1 = pair.world["db1"]
    for name in db1.zfs("list", "-H", "-t", "snapshot", "-o", "name").splitlines():
        db1.zfs("release", "snaprep:bank", name, check=False)
        db1.zfs("destroy", name)
    pair.world["db2"].restart_derby()
    rounds = pair.must("rebuild").document["rounds"]
    assert rounds[0]["kind"] == ("delta" if isinstance(pair.world, Machines) else "full")


def test_journal_cut_in_a_line(pair: Pair) -> None:
    """A journal that ends in the middle of a line does not stop status or the next run."""
    pair.must("rebuild")
    file = pair.home / ".local/state/snaprep/bank/journal.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert pair.must("status").document["serves"] == "db1"
    pair.world["db2"].restart_derby()
    pair.must("rebuild")
    with file.open() as lines:
        assert all(json.loads(line) for line in list(lines)[-3:])


def test_dataset_with_a_space(rig_tools: None, tmp_path: Path) -> None:
    """A dataset's name may hold a space."""
    with World.start(tmp_path) as world:
        bank = create_bank(world["db1"], size_mb=BANK_MB, dataset="tank/my bank")
        pair = Pair(world, bank)
        pair.must("rebuild")
        assert pair.must("status").document["hosts"][1]["role"] == "replica"


@pytest.mark.parametrize("silent", [True, False])
def test_link_cut_during_a_send(pair: Pair, *, silent: bool) -> None:
    """The cable between the hosts is cut in the middle of the seed: clients go on, and the rebuild ends well when it
    is plugged in again.
    """
    world = pair.world
    world.link(rate_mbit=40)
    with pair.writers(rate=50) as clients:
        clients.wait_for(50)
        running = pair.start("rebuild")
        running.wait_event(
            lambda e: e["event"] == "progress" and ((e.get("round") or {}).get("sent_bytes") or 0) > 1 << 20
        )
        world.cut_link(silent=silent)
        clients.wait_for(50)
        world.link(rate_mbit=None)
        world.heal_link()
        first = running.wait(120)
        if first.code != 0:
            pair.must("resume", timeout_s=120)
        clients.wait_for(50)
        clients.stop()
    assert clients.gaps().worst_s < 5
    assert pair.replica_differences("db1", "db2") == []
