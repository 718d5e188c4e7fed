"""A rebuild under load, whatever the target holds: empty, outdated or diverged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.machines.world import Machines
from tests.rig import check, measure
from tests.rig.aftermath import nothing_lost
from tests.rig.measure import Window
from tests.rig.node import patience_s

if TYPE_CHECKING:
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig


def kinds(document: dict[str, Any]) -> list[str]:
    return [entry["kind"] for entry in document["rounds"]]


def test_fresh_then_stale(pair: Pair) -> None:
    """An empty host becomes a replica by a full copy; when its server was restarted while clients wrote, by an
    increment. Clients are cut off for less than the budget, no commit is lost, and rows are equal.
    """
    with pair.writers() as clients:
        clients.wait_for(100)
        fresh = pair.start("rebuild")
        first = fresh.wait()
        assert first.code == 0, first
        clients.wait_for(50)
        assert kinds(first.document)[0] == "full"
        assert measure.cutover_blocked_s(clients.acked(), fresh.events()) < patience_s(3)
        pair.world["db2"].restart_derby()
        clients.wait_for(100)
        second = pair.must("rebuild")
        assert "full" not in kinds(second.document)
        clients.wait_for(50)
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
    status = pair.must("status").document
    assert (status["serves"], [host["role"] for host in status["hosts"]]) == ("db1", ["primary", "replica"])


def test_again_is_done(pair: Pair) -> None:
    """A rebuild of a pair that is as wanted cuts nobody off and ships nothing."""
    pair.must("rebuild")
    with pair.writers() as clients:
        clients.wait_for(50)
        again = pair.must("rebuild").document
        clients.wait_for(50)
        clients.stop()
    assert (again["state"], again["rounds"], again["cutover"]) == ("done", [], None)
    assert clients.gaps().worst_s < patience_s(0.5)


def test_take_over_and_fail_back(pair: Pair) -> None:
    """The primary dies under load: the replica serves, every commit that is missing was not shipped and is found in
    the dataset that the fail-back names, and the old primary comes back without a copy, by streams like the first.
    """
    world = pair.world
    with pair.writers() as clients:
        clients.wait_for(100)
        running = pair.start("rebuild")
        assert running.wait().code == 0
        clients.wait_for(100)
        world.power_off("db1")
        died = Window(from_ms=measure.attached_ms(running.events()), to_ms=1000 * time.time())
        taken = pair.must("takeover", "--yes")
        assert taken.document["serves"] == "db2"
        clients.wait_for(100)
        world.boot("db1")
        assert world["db1"].zfs("get", "-Hp", "-o", "value", "mounted", pair.bank.dataset) != "yes"
        back = pair.must("rebuild").document
        clients.wait_for(50)
        clients.stop()
    lost, missing = measure.count_lost(pair, "db2", clients.acked(), died=(died,), failed="db1")
    assert (lost.planned, lost.unexplained) == (0, 0)
    assert lost.unshipped == len(missing)
    named = [entry["where"] for entry in back["lost"]] + [entry["name"] for entry in back["kept"]]
    assert pair.isolated("db1")[0] in " ".join(named)
    assert "full" not in kinds(back)
    assert pair.replica_differences("db2", "db1") == []
    flags = "-L -c -e" if isinstance(world, Machines) else "plain"
    ends = (("db1", f"{pair.bank.dataset}.recv"), ("db2", pair.bank.dataset))
    assert [world[n].zfs("get", "-H", "-o", "value", "snaprep:stream-flags", image) for n, image in ends] == [flags] * 2


def test_take_over_needs_a_dead_primary(pair: Pair) -> None:
    """While the primary answers, takeover changes nothing and says who serves."""
    pair.must("rebuild")
    refused = pair.snaprep("takeover", "--yes")
    assert (refused.code, refused.error_id) == (3, "primary-answers")
    assert pair.must("status").document["serves"] == "db1"


def test_take_over_asks_the_primary_through_its_replica(pair: Pair) -> None:
    """When only the operator cannot reach the primary, the replica can: the take-over is refused, and it goes on."""
    pair.must("rebuild")
    pair.world.cut_link("operator", "db1")
    refused = pair.snaprep("takeover", "--yes")
    assert (refused.code, refused.error_id) == (3, "primary-answers"), refused
    pair.world.heal_link("operator", "db1")
    status = pair.must("status").document
    assert (status["serves"], status["hosts"][0]["replicating"]) == ("db1", True)


def test_take_over_after_a_power_cut(pair: Pair) -> None:
    """A primary that vanished without a word leaves the replica's connection standing; it is taken over even so."""
    pair.must("rebuild")
    pair.world.isolate_host("db1")
    taken = pair.must("takeover", "--yes")
    assert taken.document["serves"] == "db2"


def test_take_over_asks(pair: Pair) -> None:
    """Without --yes and without a terminal nobody can confirm, and nothing is touched."""
    pair.must("rebuild")
    pair.world.power_off("db1")
    asked = pair.snaprep("takeover")
    assert (asked.code, asked.error_id) == (2, "needs-yes")
    assert pair.status()["serves"] is None


def test_refresh_moves_the_base(pair: Pair) -> None:
    """`refresh` moves the common snapshot forward while the replica runs, and clients do not notice."""
    pair.must("rebuild")
    before = pair.must("status").document["base"]["guid"]
    with pair.writers() as clients:
        clients.wait_for(100)
        pair.must("refresh")
        clients.wait_for(50)
        clients.stop()
    after = pair.must("status").document
    assert after["base"]["guid"] != before
    assert [host["role"] for host in after["hosts"]] == ["primary", "replica"]
    assert clients.gaps().worst_s < patience_s(1)
    assert check.missing(clients.acked(), pair.served("db1").journal) == []
    assert pair.replica_differences("db1", "db2") == []


def test_clean_after_a_fail_back(pair: Pair) -> None:
    """What a refresh had held on the replica goes after the roles have changed, and nothing is left over."""
    pair.must("rebuild")
    pair.must("refresh")
    pair.world.power_off("db1")
    pair.must("takeover", "--yes")
    pair.world.boot("db1")
    pair.must("rebuild")
    left = pair.must("clean").document["notes"]
    assert [note for note in left if "stays" in note] == []
    names = pair.world["db2"].zfs("list", "-H", "-o", "name").splitlines()
    assert f"{pair.bank.dataset}.recv" not in names
    assert pair.must("clean", "--dry-run").document["notes"] == ["nothing to remove"]


def test_far_operator(pair: Pair) -> None:
    """An operator who is 100 ms away makes clients wait a little longer at the cutover, and no more."""
    pair.world.operator_rtt(100)
    with pair.writers() as clients:
        clients.wait_for(100)
        running = pair.start("rebuild")
        assert running.wait().code == 0
        clients.wait_for(50)
        clients.stop()
    assert measure.cutover_blocked_s(clients.acked(), running.events()) < patience_s(2)
