"""The traps of Derby's replication, and that snaprep does not step into them. Each would hang or damage the source, or
lose rows on the replica without a word.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.rig import harm
from tests.rig.aftermath import nothing_lost
from tests.rig.host import CLASSPATH, DERBY_PORT, JVM
from tests.rig.node import end, wait_until
from tests.rig.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.host import Host

pytestmark = pytest.mark.rig
# What derby.log says of a database that a trap has caught. A bare NullPointerException is not of it: Derby throws that
# at sessions that come while it shuts a database down (XJ001), and is sound afterwards.
WEDGED = ("logShipper", "containerCache", "XSDB6")


def derby_log(host: Host) -> str:
    return host.run(["cat", "/var/lib/derby/derby.log"]).stdout


def assert_sound(host: Host) -> None:
    assert [word for word in WEDGED if word in derby_log(host)] == []


@contextmanager
def socat(host: Host, port: int, leads_to: str) -> Iterator[None]:
    """What is connected to a port of the host is joined to something else."""
    argv = ["socat", f"TCP-LISTEN:{port},fork,reuseaddr", leads_to]
    process = host.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: f":{port} " in host.run(["ss", "-ltn"]).stdout, "listener", 5)
        yield
    finally:
        end(process)


@contextmanager
def tunnel(pair: Pair) -> Iterator[None]:
    """A tunnel from db1 to the port on which a replica on db2 waits."""
    far = f"TCP:{pair.world.address('db2', seen_from='db1')}:4853"
    with socat(pair.world["db2"], 4853, "TCP:127.0.0.1:4851"), socat(pair.world["db1"], 4852, far):
        yield


@contextmanager
def silent_listener(host: Host) -> Iterator[None]:
    """A tunnel to the replica that leads nowhere: it accepts and says nothing."""
    with socat(host, 4852, "EXEC:sleep 100"):
        yield
    host.run(["pkill", "-x", "socat"], check=False)  # sees this host's processes only


@contextmanager
def open_transaction(host: Host, path: str) -> Iterator[None]:
    """A client that has changed rows and does not commit."""
    url = f"jdbc:derby://127.0.0.1:{DERBY_PORT}/{path};user=app;password=app"
    words = [*JVM, "-cp", CLASSPATH, "org.apache.derby.tools.ij"]
    script = f"connect '{url}';\nautocommit off;\nupdate APP.ACCT set bal = bal + 777 where id = 5;\nvalues 'ready';\n"
    with host.popen(words, stdin=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/tmp") as client:
        try:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(script.encode())
            client.stdin.flush()
            while not (line := client.stdout.readline()).startswith(b"ready"):
                assert line, "the client has ended"
            yield
        finally:
            end(client)


@pytest.mark.parametrize("freeze", ["always", "never"])
def test_a_and_b_busy_writers(pair: Pair, freeze: str) -> None:
    """A, B: with clients that commit as fast as they can and reconnect at once, a rebuild neither hangs the source nor
    deadlocks on a frozen one, whether or not rounds freeze.
    """
    with pair.writers(rate=0) as clients:
        clients.wait_for(200)
        pair.must("rebuild", "--freeze", freeze, "--budget", "8s")
        clients.wait_for(200)
        clients.stop()
    assert_sound(pair.world["db1"])
    nothing_lost(pair, clients, "db1", "db2")


def test_c_open_transaction(pair: Pair) -> None:
    """C: a transaction that is open when the gate closes is rolled back on both sides: rows stay equal."""
    pair.config.write_text(pair.toml({"transactions": {"old": "60s"}}))  # a busy host's is old before it is looked at
    with pair.writers() as clients:
        clients.wait_for(100)
        running = pair.start("rebuild", "--hold")
        running.wait_event(lambda e: e["event"] == "state" and e["state"] == "held")
        with open_transaction(pair.world["db1"], pair.bank.path):
            pair.must("cutover")
            result = running.wait()
        assert result.code == 0, result
        clients.wait_for(100)
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
    assert_sound(pair.world["db1"])


def test_d_second_attach(pair: Pair) -> None:
    """D: a source that has been attached before can be attached again and again: the log's position is never stale."""
    with pair.writers() as clients:
        clients.wait_for(100)
        for _ in range(2):
            pair.must("rebuild")
            clients.wait_for(50)
            pair.world["db2"].crash("derby")
            pair.world["db2"].start_derby()
        pair.must("rebuild")
        clients.wait_for(50)
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
    assert "XRE05" not in derby_log(pair.world["db1"])


@pytest.mark.parametrize("operator_dies", [False, True])
def test_e_peer_that_says_nothing(pair: Pair, *, operator_dies: bool) -> None:
    """E: the replication connection is accepted and stays silent, with the operator alive or killed inside
    `startMaster`: the gate opens only after that has returned, the source is sound, and a later rebuild ends well.
    """
    world, sound = pair.world, pair.config.read_text()
    with pair.writers() as clients:
        clients.wait_for(100)
        pair.config.write_text(pair.toml({"derby.replication": {"mode": "tunnel"}}))
        with tunnel(pair):
            running = pair.start("rebuild")
            running.wait_event(harm.begins("prepare"))
        with silent_listener(world["db1"]):
            running.wait_event(harm.begins("close"))
            if operator_dies:
                if running.running:
                    running.wait_event(lambda e: e["event"] == "steps" and "attach" in e["steps"])
                running.kill()
            else:
                assert running.wait(120).code in (3, 20)
            clients.wait_for(100, 40)
        pair.config.write_text(sound)
        pair.must("resume", timeout_s=120)
        clients.wait_for(50)
        clients.stop()
    assert_sound(world["db1"])
    nothing_lost(pair, clients, "db1", "db2")


def test_e_cable_cut_before_attach(pair: Pair) -> None:
    """E: the cable between the hosts goes silent when the replica is armed: clients go on with the source, and the
    rebuild ends well when it is plugged in again.
    """
    with pair.writers() as clients:
        clients.wait_for(100)
        running = pair.start("rebuild")
        running.wait_event(harm.begins("arm"))
        pair.world.cut_link()
        clients.wait_for(50, 40)
        pair.world.heal_link()
        running.wait(120)
        pair.must("resume", timeout_s=120)
        clients.wait_for(50)
        clients.stop()
    assert_sound(pair.world["db1"])
    assert clients.gaps().worst_s < 14
    nothing_lost(pair, clients, "db1", "db2")
