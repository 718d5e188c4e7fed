"""The rig itself: what the other tests stand on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig import check, workload
from tests.rig.cuts import PROLOGUE_BYTES, Counted, Piece, count, pieces
from tests.rig.host import POOL
from tests.rig.node import RigError, alive, wait_until
from tests.rig.workload import Commit
from tests.rig.world import World, sweep

if TYPE_CHECKING:
    from tests.rig.derby import Bank

pytestmark = pytest.mark.rig
MB = 1 << 20


def work(world: World, bank: Bank, *, urls: list[str] | None = None, rate: float = 0.0) -> workload.Workload:
    urls = urls or [world.jdbc_url("db1", bank.path)]
    return workload.start(world.operator, urls, accounts=bank.accounts, directory=world.directory, rate=rate)


def ship_s(world: World, size: int) -> float:
    """Seconds that `size` bytes take from db1 to db2."""
    sink = world["db2"].popen(["socat", "-u", "TCP-LISTEN:9000,reuseaddr", "OPEN:/dev/null,wronly"])
    wait_until(lambda: ":9000" in world["db2"].run(["ss", "-ltn"]).stdout, "sink", 5)
    start = time.monotonic()
    send = f"head -c {size} /dev/zero | socat -u - TCP:db2:9000"
    world["db1"].run(["sh", "-c", send])
    sink.communicate(timeout=60)
    return time.monotonic() - start


def left_of(directory: Path) -> list[str]:
    """What still has to do with a world: processes that name its directory, mounts, files."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "mounts").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in words:
            found.append(entry.name)
    return found


def test_pools_are_independent(world: World) -> None:
    """Each host has its own name and its own pool, and what one creates the other does not see."""
    assert [world[name].run(["hostname"]).stdout.strip() for name in ("db1", "db2")] == ["db1", "db2"]
    world["db2"].zfs("create", f"{POOL}/only-here")
    assert f"{POOL}/only-here" not in world["db1"].zfs("list", "-H", "-o", "name").split()
    pools = {world[name].run(["zpool", "get", "guid", POOL]).stdout for name in ("db1", "db2")}
    assert len(pools) == 2


def test_ssh_from_the_operator(world: World) -> None:
    """The operator reaches each host by its alias, with a pinned host key and without a question."""
    for name in world.hosts:
        assert world.operator.run(["ssh", name, "hostname"]).stdout.strip() == name


def test_ssh_between_hosts(world: World) -> None:
    """A host reaches the other's sshd by name, gets its true host key, and no access without a key."""
    scanned = world["db1"].run(["ssh-keyscan", "-t", "ed25519", "db2"]).stdout
    assert world["db2"].ssh_public_key in scanned
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    refused = world["db1"].run(["ssh", *options, "db2", "true"], check=False)
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_testinfra_reaches_a_host(world: World) -> None:
    """testinfra, outside of all namespaces, sees Derby on the host run by an unprivileged user."""
    server = world.testinfra("db1").process.get(comm="java")
    assert server.user == "derby"


def test_checker_finds_every_commit(world: World, bank: Bank) -> None:
    """What the workload recorded as acknowledged is exactly what the journal gained."""
    url = world.jdbc_url("db1", bank.path)
    before = check.digest_of_url(world.operator, url)
    with work(world, bank) as clients:
        clients.wait_for(200)
        clients.stop()
        acked = clients.acked()
        assert clients.unknown() == []
        assert 0 < clients.gaps().overall_s <= clients.gaps().worst_s
    after = check.digest_of_url(world.operator, url)
    assert after.consistent
    assert after.journal - before.journal == {(commit.writer, commit.seq) for commit in acked}
    assert check.missing(acked, after.journal) == []
    assert check.missing(acked, before.journal) == acked


def test_killed_clients_lose_no_record(world: World, bank: Bank) -> None:
    """kill -9 of the clients: each writer's journal goes at most one commit beyond its record."""
    with work(world, bank) as clients:
        clients.wait_for(200)
        clients.kill()
        acked = {(commit.writer, commit.seq) for commit in clients.acked()}
    journal = check.digest_of_url(world.operator, world.jdbc_url("db1", bank.path)).journal
    for writer in clients.writers:
        extra = {row for row in journal if row[0] == writer} - acked
        assert len(extra) <= 1
    assert acked <= journal


def test_digest_of_a_snapshot(world: World, bank: Bank) -> None:
    """A snapshot's digest is that of the moment, the dataset's is that of now, and no clone is left."""
    db1 = world["db1"]
    served = check.digest_of_url(world.operator, world.jdbc_url("db1", bank.path))
    db1.zfs("snapshot", f"{bank.dataset}@moment")
    with work(world, bank) as clients:
        clients.wait_for(50)
        clients.stop()
    assert check.differences(check.digest_of_dataset(db1, f"{bank.dataset}@moment"), served) == []
    now = check.digest_of_dataset(db1, bank.dataset)
    assert check.missing(clients.acked(), now.journal) == []
    assert [line.partition(":")[0] for line in check.differences(now, served)] == ["APP.ACCT", "APP.JOURNAL"]
    assert "rig-digest" not in db1.zfs("list", "-H", "-t", "all", "-o", "name")


def test_workload_tries_the_next_address(world: World, bank: Bank) -> None:
    """Clients whose first address does not serve the database go on at the second."""
    urls = [world.jdbc_url(name, bank.path) for name in ("db2", "db1")]
    with work(world, bank, urls=urls, rate=100) as clients:
        clients.wait_for(20)
        clients.stop()
        assert clients.errors()


def test_workload_leaves_a_silent_host(fresh_world: World, bank: Bank) -> None:
    """When the host falls silent, clients go on at the next address after the stall time; a transaction that
    hung has an unknown outcome, and when the host is heard again no writer has two histories.
    """
    world, copy = fresh_world, f"{bank.dataset}@copy"
    world["db1"].zfs("snapshot", copy)
    with world["db1"].popen(["zfs", "send", copy]) as sent:
        received = world["db2"].popen(["zfs", "receive", "-u", bank.dataset], stdin=sent.stdout)
        assert received.communicate(timeout=30)[1] == b""
    world["db2"].zfs("set", f"mountpoint={bank.mountpoint}", bank.dataset)  # mounts it, too
    urls = [world.jdbc_url(name, bank.path) for name in ("db1", "db2")]
    with workload.start(
        world.operator, urls, accounts=bank.accounts, directory=world.directory, stall_ms=1000
    ) as clients:
        clients.wait_for(100)
        world.isolate_host("db1")
        clients.wait_for(100)
        assert 1.0 < clients.gaps().worst_s < 5.0
        world.heal_link("operator", "db1")
        clients.wait_for(100)
        clients.stop()
    assert 1 <= len(clients.unknown()) <= 4
    there = [check.digest_of_url(world.operator, url).journal for url in urls]
    assert check.missing(clients.acked(), there[0] | there[1]) == []
    # What was cut in its commit may be on db1, but was never tried again on db2.
    unknown = {(commit.writer, commit.seq) for commit in clients.unknown()}
    assert not there[1] & unknown
    assert not there[0] & there[1]


def test_rate_is_kept(world: World, bank: Bank) -> None:
    """A workload with a target rate commits at that rate."""
    with work(world, bank, rate=100) as clients:
        clients.wait_for(20)
        start = time.monotonic()
        clients.wait_for(200)
        took_s = time.monotonic() - start
        clients.stop()
    assert 1.5 < took_s < 4


def test_gaps() -> None:
    """A gap is the time from one acknowledged commit to the next, per writer and for all together."""
    commits = [Commit(w, s, 0, ack * 10**9, 0) for w, s, ack in [(1, 1, 1), (2, 1, 2), (1, 2, 4), (2, 2, 7)]]
    assert workload.longest_gaps(commits) == workload.Gaps(3.0, {1: 3.0, 2: 5.0})
    assert workload.gaps_around(commits, 3 * 10**9) == workload.Gaps(2.0, {1: 3.0, 2: 5.0})
    assert workload.gaps_around(commits, 8 * 10**9, 9 * 10**9) == workload.Gaps(2.0, {1: 5.0, 2: 2.0})


def test_power_cut_keeps_the_data(fresh_world: World, bank: Bank) -> None:
    """After a power cut and a boot every acknowledged commit is there, the database's dataset is not mounted
    until somebody mounts it, and clients go on by themselves.
    """
    world, db1 = fresh_world, fresh_world["db1"]
    with work(world, bank) as clients:
        clients.wait_for(200)
        world.power_off("db1")
        acked = clients.acked()
        assert not db1.is_up
        world.boot("db1")
        assert db1.zfs("get", "-Hp", "-o", "value", "mounted", bank.dataset) == "no"
        assert check.missing(acked, check.digest_of_dataset(db1, bank.dataset).journal) == []
        db1.zfs("mount", bank.dataset)
        clients.wait_for(50)
        clients.stop()
    served = check.digest_of_url(world.operator, world.jdbc_url("db1", bank.path))
    assert check.missing(clients.acked(), served.journal) == []


def test_daemons_crash_one_by_one(fresh_world: World, bank: Bank) -> None:
    """kill -9 of Derby, sshd or zfs-fuse leaves the other host alone, and each starts again with its data."""
    world, db1 = fresh_world, fresh_world["db1"]
    url = world.jdbc_url("db1", bank.path)
    before = check.digest_of_url(world.operator, url)
    db1.crash("derby")
    assert not db1.runs("derby")
    db1.start_derby()
    db1.crash("sshd")
    assert world.operator.run(["ssh", "db1", "true"], check=False).returncode == 255
    db1.start_sshd()
    assert world.operator.run(["ssh", "db1", "hostname"]).stdout.strip() == "db1"
    db1.crash("zfs-fuse")
    db1.start_zfs()
    db1.zfs("mount", bank.dataset)
    db1.crash("derby")
    db1.start_derby()
    db1.restart_derby()
    assert check.differences(before, check.digest_of_url(world.operator, url)) == []
    assert all(world["db2"].runs(name) for name in ("derby", "sshd", "zfs-fuse"))


def test_link_rate(bare_world: World) -> None:
    """A shaped cable passes no more than its rate, a freed one passes far more."""
    bare_world.link(rate_mbit=40)
    assert ship_s(bare_world, 5 * MB) > 5 * MB * 8 / 40e6 * 0.8
    bare_world.link(rate_mbit=None)
    assert ship_s(bare_world, 5 * MB) < 0.5


@pytest.mark.parametrize("silent", [True, False])
def test_cut_link(bare_world: World, *, silent: bool) -> None:
    """A cut cable passes nothing, silently or not, leaves the operator's alone, and can be healed."""
    hello = "import socket; print(socket.create_connection(('db2', 22), 1).recv(7).decode(), end='')"
    banner = ["python3", "-c", hello]
    assert bare_world["db1"].run(banner).stdout == "SSH-2.0"
    bare_world.cut_link(silent=silent)
    assert bare_world["db1"].run(banner, check=False).stdout == ""
    assert bare_world.operator.run(["ssh", "db2", "hostname"]).stdout.strip() == "db2"
    bare_world.heal_link()
    assert bare_world["db1"].run(banner).stdout == "SSH-2.0"


def test_operator_rtt(bare_world: World) -> None:
    """The operator far away: every exchange over ssh takes the round trip longer, and back again."""

    def echo_s() -> float:
        start = time.monotonic()
        bare_world.operator.run(["ssh", "db1", "true"])
        return time.monotonic() - start

    near_s = echo_s()
    bare_world.operator_rtt(200)
    assert echo_s() > near_s + 5 * 0.2
    bare_world.operator_rtt(None)
    assert echo_s() < near_s + 0.5


def test_run_fails_and_times_out(bare_world: World) -> None:
    """A command that fails or takes too long is an error that says so, and the late one is dead."""
    with pytest.raises(RigError, match="exit 3: sorry"):
        bare_world["db1"].run(["sh", "-c", "echo sorry; exit 3"])
    with pytest.raises(RigError, match=r"not within 0\.3 s"):
        bare_world["db1"].run(["sleep", "77"], timeout_s=0.3)
    wait_until(lambda: "sleep 77" not in bare_world["db1"].run(["ps", "ax"]).stdout, "end of sleep", 5)


def test_nothing_is_left(world: World, tmp_path: Path) -> None:
    """After `stop` there is no process, no mount, no file of a world, and another world still runs."""
    with World.start(tmp_path, names=("left", "right"), derby=False) as other:
        directory = other.directory
        other["left"].zfs("create", "-o", "mountpoint=/srv/x", f"{POOL}/x")
        assert left_of(directory)
    assert left_of(directory) == []
    assert not directory.exists()
    assert "tank" in world["db1"].run(["zpool", "list", "-H"]).stdout


def test_nothing_outlives_a_crash(rig_tools: None, tmp_path: Path) -> None:
    """kill -9 of the process that started a world ends the world; its directory is swept by the next one."""
    program = (
        "import sys, time, pathlib; from tests.rig.world import World;"
        f"w = World.start(pathlib.Path({str(tmp_path)!r}), derby=False); print(w.directory, flush=True);"
        "time.sleep(60)"
    )
    root = Path(__file__).parents[1]
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=root) as starter:
        assert starter.stdout is not None
        directory = Path(starter.stdout.readline().decode().strip())
        assert left_of(directory)
        starter.kill()
        starter.wait(10)
    assert not alive(starter.pid)
    wait_until(lambda: left_of(directory) == [], "end of the world", 10)
    sweep(tmp_path)
    assert not directory.exists()


def test_bytes_that_were_sent_twice() -> None:
    """Of a stream that broke, what had not arrived was sent for nothing; all of it, where it was sent anew."""
    mb = 1_000_000
    tried = (
        Piece(number=1, arrived_bytes=None, sent_bytes=10 * mb, done=True),
        Piece(number=2, arrived_bytes=None, sent_bytes=5 * mb, done=False),
        Piece(number=2, arrived_bytes=4 * mb, sent_bytes=3 * mb, done=False),
        Piece(number=2, arrived_bytes=6 * mb, sent_bytes=4 * mb, done=True),
        Piece(number=3, arrived_bytes=None, sent_bytes=2 * mb, done=False),
        Piece(number=3, arrived_bytes=None, sent_bytes=9 * mb, done=True),
        Piece(number=4, arrived_bytes=None, sent_bytes=7 * mb, done=False),
    )
    more = 2 * PROLOGUE_BYTES  # for each of the two that were gone on with
    assert count(tried) == Counted(rounds=3, breaks=3, most_in_one=2, sent_bytes=33 * mb, twice_bytes=4 * mb + more)


def test_a_stream_that_failed_when_all_had_arrived() -> None:
    """It is known by the next decision, which begins at what it brought; one that broke is begun at the same again."""

    def told(second: int, state: str) -> dict[str, Any]:
        figures = {"number": 7, "kind": "delta", "arrived_bytes": None, "sent_bytes": 9}
        return {"at": f"10:00:0{second}", "event": "round", "state": state, **figures}

    def decided(second: int, guid: int) -> dict[str, Any]:
        return {"at": f"10:00:0{second}", "kind": "decision", "base": {"point": {"guids": [guid]}}}

    events = [told(2, "sending"), told(3, "failed"), told(5, "failed"), told(7, "done")]
    found = pieces(events, [decided(1, 1), decided(4, 1), decided(6, 2)])
    assert [piece.done for piece in found] == [False, True, True]
