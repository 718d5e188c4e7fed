"""Two real Derby servers change places under writers, and each time the former primary follows at once."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from snaprep.core.model import EngineState
from snaprep.engines.derby import digest, files
from snaprep.engines.derby.client import SqlError
from snaprep.engines.derby.host import DerbyHost
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log import tail
from snaprep.engines.derby.session import ADMIN
from tests.engines.derby.pairs import Two, Writers

pytestmark = pytest.mark.derby


@dataclass(slots=True)
class Sides:
    """Both databases, each with the place where clients look and the one where it stands as a replica."""

    two: Two
    primary: DerbyHost
    replica: DerbyHost

    def swapped(self) -> Sides:
        return Sides(self.two, self.replica, self.primary)

    def exchange(self) -> None:
        """The steps of a switchover, with renamed directories for mounts."""
        old, new = self.primary, self.replica
        old.halt.gate_prepare()
        old.halt.gate_close()
        end = old.halt.retire().position
        new.replication.stop()
        tail.append(new.directory, tail.read(old.directory, None))
        new.prove(end)
        new.session.replica.rename(new.session.served)
        new.halt.open_shut()
        rolled_back = tail.read(new.directory, end)
        old.session.served.rename(old.session.replica)
        tail.append(old.directory, rolled_back)
        old.replication.arm()
        new.replication.attach()
        new.halt.gate_open()


@pytest.fixture
def sides(pair: Two) -> Iterator[Sides]:
    """An attached pair, without log archive mode."""
    hosts = []
    for session in (pair.at_source, pair.at_target):
        aside = str(session.served.with_name("aside"))
        hosts.append(DerbyHost(dataclasses.replace(session.spec, replica_database=aside)))
    primary, replica = hosts
    try:
        pair.at_source.client.close(ADMIN, 10)
        primary.halt.gate_close()
        end = primary.halt.quiesce().position
        shutil.copytree(primary.session.served, replica.session.replica)
        replica.prove(end)
        replica.replication.arm()
        primary.replication.attach()
        primary.halt.gate_open()
        yield Sides(pair, primary, replica)
    finally:
        for host in hosts:
            host.close()


def writers(host: DerbyHost, pair: Two) -> Writers:
    session = pair.at_source if host.spec.port == pair.at_source.spec.port else pair.at_target
    return Writers(session)


def hold_open(host: DerbyHost) -> None:
    """A session with work that it never commits, until it is thrown out."""
    client = host.session.client
    client.open("open", host.session.url(), "app", "x", 20)

    def work() -> None:
        with contextlib.suppress(SqlError), client.transaction("open", 20):
            client.execute("open", "UPDATE snaprep.c SET n = 777 WHERE w = 3", deadline_s=10)
            client.execute("open", "INSERT INTO snaprep.t VALUES (9, 9, 'open')", deadline_s=10)
            while True:
                client.execute("open", "SELECT COUNT(*) FROM snaprep.c WHERE w = 9", deadline_s=10)
                time.sleep(0.02)

    threading.Thread(target=work, daemon=True).start()
    ends = time.monotonic() + 10
    while host.state.facts().transactions.open == 0:
        assert time.monotonic() < ends
        time.sleep(0.02)


def rows(host: DerbyHost) -> dict[str, str]:
    ends = time.monotonic() + 20
    while True:  # a replica that takes over refuses sessions for a moment
        try:
            host.session.connect(ADMIN, 20)
        except SqlError:
            assert time.monotonic() < ends
            time.sleep(0.05)
        else:
            return digest.digest(host.session.client, ADMIN, 60)


def test_roles_change_again_and_again(sides: Sides) -> None:
    """There and back under writers, open work of one session at each change: rolled back on both, nothing else is."""
    acknowledged = 0
    for _ in range(4):
        load = writers(sides.primary, sides.two)
        hold_open(sides.primary)
        sides.exchange()
        acknowledged += load.stop()
        sides = sides.swapped()
        facts = sides.primary.facts()
        assert (facts.state, facts.replicating) == (EngineState.PRIMARY, True)
        assert sides.replica.facts().state is EngineState.REPLICA
    with contextlib.suppress(SqlError):  # XRE20 is how it succeeds
        sides.primary.session.connect("over", 20, failover="true")
    ours, theirs = rows(sides.primary), rows(sides.replica)
    assert theirs == ours
    assert "damaged" not in str(ours)
    assert int(ours["SNAPREP.T"].split(":")[0]) == acknowledged
    held = sides.replica.session.client.execute(ADMIN, "SELECT n FROM c WHERE w = 3", deadline_s=10).value
    assert held == "0"


def test_nobody_boots_what_was_put_away(sides: Sides) -> None:
    """Clients that come find no database, its log stays where it ended, and looking says that it is halted."""
    primary = sides.primary
    primary.halt.gate_close()
    end = primary.halt.retire().position
    with pytest.raises(SqlError) as refused:
        primary.session.connect("other", 10)
    assert "08004" in refused.value.sqlstates
    assert not files.locked_by(primary.directory)
    assert log.log_end(primary.directory / "log").instant == end
    facts = primary.facts()
    assert (facts.state, facts.gate_saved, facts.position) == (EngineState.GATED, True, end)
    primary.halt.gate_open()
    assert primary.facts().state is EngineState.PRIMARY
    assert sides.replica.facts().state is EngineState.CLOSED
