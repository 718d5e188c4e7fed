"""`follow`: a replica that is fed for as long as wanted, whatever dies, and never at the clients' cost."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig import check, harm
from tests.rig.derby import create_bank, ij
from tests.rig.fixtures import BANK_MB
from tests.rig.host import DERBY_PORT
from tests.rig.node import wait_until
from tests.rig.pair import PASSWORD, USER, Pair
from tests.rig.storm import ARCHIVE, feeds
from tests.rig.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.end_to_end.fed import Fed
    from tests.rig.pair import Running
    from tests.rig.workload import Workload

pytestmark = pytest.mark.rig

PAIRS = (("bank", "db2"), ("report", "db3"))
BACK_S = 90.0
STOPS_S = 90.0


def lag(pair: Pair) -> dict[str, Any] | None:
    """What `status` says of the feed, when the replica is fed."""
    return pair.status().get("feed")


def sent(running: Running) -> int:
    """Bytes of log fed since the feed began that runs now."""
    told = [e["feed"] for e in running.events() if e["event"] == "progress" and e.get("feed")]
    return int(told[-1]["sent_bytes"]) if told else 0


@contextmanager
def following(pair: Pair, *words: str) -> Iterator[Running]:
    running = pair.start("follow", *ARCHIVE, *words)
    try:
        running.wait_event(feeds, BACK_S)
        yield running
    finally:
        running.kill()


def seen_since(running: Running, since: int, wanted: Callable[[dict[str, Any]], bool]) -> int:
    """Wait for such an event behind the first so many; how many there were then."""
    seen = itertools.count()
    running.wait_event(lambda e: next(seen) >= since and wanted(e), BACK_S)
    return len(running.events())


def stopped_equal(pair: Pair, running: Running, clients: Workload, source: str = "db1", target: str = "db2") -> None:
    """Stopped in order when nobody writes any more, the replica holds every row of the source."""
    clients.stop()
    running.interrupt()
    result = running.wait(STOPS_S)
    assert (result.code, result.error_id) == (10, "stopped"), result
    served = pair.served(source)
    assert check.differences(served, pair.stored(target)) == [], result
    assert check.missing(clients.acked(), served.journal) == []


def test_a_replica_comes_up_and_follows(pair: Pair) -> None:
    """No client waits while the replica comes up and follows; stopped, it has every row; the next `follow` goes on
    without a new base; `clean` puts the source back as it was.
    """
    with pair.writers(rate=200) as clients:
        clients.wait_for(100)
        running = pair.start("follow", *ARCHIVE)
        running.wait_event(lambda e: e["event"] == "state" and e["state"] == "seeding", BACK_S)
        running.wait_event(feeds, BACK_S)
        clients.wait_for(300)
        assert lag(pair) is not None
        running.interrupt()
        assert running.wait(STOPS_S).code == 10
        assert "not fed" in pair.status()["replication"]
        with following(pair) as again:
            assert not [e for e in again.events() if e["event"] == "round"], "a new base was made"
            clients.wait_for(100)
            stopped_equal(pair, again, clients)
    # The bounce is said before it is done; nothing else holds a client up.
    assert clients.gaps().worst_s < 3, clients.gaps()
    pair.must("clean")
    properties = pair.world["db1"].run(["cat", f"{pair.bank.path}/service.properties"]).stdout
    assert "logArchiveMode=true" not in properties


STRIKES: dict[str, tuple[Callable[[World], None], Callable[[World], None]]] = {
    "target-derby": (lambda world: world["db2"].crash("derby"), lambda world: world["db2"].start_derby()),
    "source-agent": (lambda world: harm.kill_inside(world["db1"], harm.agent_pid(world["db1"])), lambda _: None),
    "link": (World.cut_link, World.heal_link),
}


@pytest.mark.parametrize("victim", STRIKES)
def test_goes_on_by_itself(fed: Fed, victim: str) -> None:
    """Whatever is killed, and when the hosts lose each other without a word, the replica is fed again without anybody's
    help, from where it was. All the other parts are killed by `scripts/soak storm`.
    """
    strike, mend = STRIKES[victim]
    mark = len(fed.entries())
    strike(fed.pair.world)
    fed.fails("", mark)
    mend(fed.pair.world)
    fed.fed_again()
    assert not fed.bases(mark)


def test_a_killed_operator(fed: Fed) -> None:
    """After the death of the operator's program the next `follow` goes on where the replica is."""
    fed.running.kill()
    fed.clients.wait_for(10)
    wait_until(lambda: fed.pair.status()["hosts"][0]["held_by"] is None, "the agents to be gone", 30)
    fed.begin()


def test_a_restricted_key_and_figures(fed: Fed) -> None:
    """A key without forwarding and terminal is enough for a service, and Prometheus' file tells the lag."""
    fed.end()
    for host in fed.pair.world.hosts.values():
        keys = "/root/.ssh/authorized_keys"
        host.run(["sed", "-i", "s/^ssh-/restrict ssh-/", keys])
        assert "restrict ssh-" in host.run(["cat", keys]).stdout
    figures = fed.pair.home / "bank.prom"
    fed.begin("--metrics", str(figures))
    wait_until(lambda: 'snaprep_feed_up{pair="bank"} 1.0' in figures.read_text(), "figures of the feed", 30)
    assert "snaprep_feed_lag_bytes" in figures.read_text()
    fed.end()
    assert 'snaprep_feed_up{pair="bank"} 0.0' in figures.read_text()
    fed.begin()


def test_take_over_of_a_fed_replica(pair: Pair) -> None:
    """When the primary's host dies, the fed replica serves after a take-over, with all but what it lagged."""
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        with following(pair) as follower:
            clients.wait_for(100)
            assert pair.snaprep("takeover", "db2", "--yes").error_id == "primary-answers"
            assert follower.running, "who is refused has taken nothing from the replica"
            pair.world.power_off("db1")
            result = pair.must("takeover", "db2", "--yes")
            assert result.document["serves"] == "db2", result
            clients.wait_for(100, 60)
            clients.stop()
        acked = clients.acked()
        missing = check.missing(acked, pair.served("db2").journal)
        assert len(missing) < 100, len(missing)


def test_two_pairs_follow_one_database(rig_tools: None, tmp_path: Path) -> None:
    """Two pairs begin to follow one database at once; both replicas end with every row, and neither is in the other's
    way.
    """
    with World.start(tmp_path, names=("db1", "db2", "db3")) as world:
        bank = create_bank(world["db1"], size_mb=BANK_MB)
        first, second = (Pair(world, bank, name=name, names=("db1", target)) for name, target in PAIRS)
        with first.writers(rate=100) as clients:
            clients.wait_for(50)
            both = [pair.start("follow", *ARCHIVE) for pair in (first, second)]
            try:
                for running in both:
                    running.wait_event(feeds, BACK_S)
                clients.wait_for(100)
                assert second.snaprep("rebuild").error_id == "locked"
                clients.stop()
                for running in both:
                    running.interrupt()
                assert [running.wait(STOPS_S).code for running in both] == [10, 10]
            finally:
                for running in both:
                    running.kill()
            served = first.served("db1")
            assert check.differences(served, first.stored("db2")) == []
            assert check.differences(served, second.stored("db3")) == []


def test_a_new_base_after_a_power_cut_of_the_primary(pair: Pair) -> None:
    """After the primary's host lost its power the run waits; opened again, it is followed from a new base, by an
    increment, and what is not logged otherwise has arrived.
    """
    with pair.writers(rate=100) as clients:
        clients.wait_for(50)
        with following(pair, "--archive", "backup") as running:
            url = f"jdbc:derby://127.0.0.1:{DERBY_PORT}/{pair.bank.path};user={USER};password={PASSWORD}"
            ij(pair.world["db1"], url, "create index APP.BY_BAL on APP.ACCT (bal)")
            before = len(running.events())
            pair.world.reboot("db1")
            seen_since(running, before, lambda e: e["event"] == "state" and e["state"] == "held")
            opened = pair.must("takeover", "db1", "--yes")
            assert opened.document["serves"] == "db1", opened
            assert running.wait(STOPS_S).error_id == "aborted"
        with following(pair) as again:
            rounds = [e["kind"] for e in again.events() if e["event"] == "round" and e["state"] == "done"]
            assert rounds == ["delta"], rounds
            clients.wait_for(50, 60)
            stopped_equal(pair, again, clients)


def test_under_the_floor_the_primary_lives(pair: Pair) -> None:
    """When the source runs out of room the replica is given up: nothing is kept for it there, and clients go on."""
    db1 = pair.world["db1"]
    with pair.writers(rate=50) as clients:
        clients.wait_for(50)
        with following(pair) as running:
            free = int(db1.zfs("get", "-Hp", "-o", "value", "available", "tank"))
            db1.zfs("create", "-o", f"reservation={free - (60 << 20)}", "tank/ballast")
            result = running.wait(BACK_S)
        assert (result.code, result.error_id) == (10, "no-space"), result
        assert db1.zfs("list", "-H", "-o", "name", "-t", "snapshot").strip() == ""
        properties = db1.run(["cat", f"{pair.bank.path}/service.properties"]).stdout
        assert "logArchiveMode=true" not in properties
        clients.wait_for(50)
        clients.stop()


def refreshes(running: Running) -> int:
    """Streams that have moved the common base on."""
    shipped = [e for e in running.events() if e["event"] == "round" and (e["kind"], e["state"]) == ("refresh", "done")]
    return len(shipped)


def test_the_base_moves_on_while_it_is_fed(pair: Pair) -> None:
    """`refresh` has the run that follows ship both ways, the feed goes on meanwhile, and when the primary has died and
    comes back the fail-back is an increment from the newer point.
    """
    db2 = pair.world["db2"]
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        with following(pair) as running:
            fed = lag(pair)
            assert fed is not None
            clients.wait_for(200)
            assert "refresh" in pair.must("refresh").document["notes"][0]
            wait_until(lambda: refreshes(running) == 2, "both ways of a refresh", BACK_S)
            clients.wait_for(100)
            now = lag(pair)
            assert now is not None
            assert now["since_at"] == fed["since_at"], "the feed was broken off"
            points = db2.zfs("list", "-H", "-o", "name", "-s", "creation", "-t", "snapshot", "-r", "tank/bank").split()
            moved = [name.partition("@")[2] for name in points if name.startswith("tank/bank@")][-1]
            pair.world.power_off("db1")
            pair.must("takeover", "db2", "--yes")
            clients.wait_for(100, 60)
        pair.world.boot("db1")
        back = pair.must("rebuild").document
        assert (back["serves"], {r["kind"] for r in back["rounds"]}) == ("db2", {"delta"}), back
        first = next(line for line in pair.journal().splitlines() if back["run"] in line and '"action":"Round"' in line)
        assert moved in first, first
        clients.stop()
    assert pair.replica_differences("db2", "db1") == []
