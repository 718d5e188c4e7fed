"""Storage without snapshots, as its caps say: whole copies, a feed, and nothing that needs a common base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from snaprep.core.action import Feed, KeepLog, Present, Refuse, Seed, SetAside, Settle, Verify
from snaprep.core.decide import decide_rebuild
from snaprep.core.follow import decide_follow
from snaprep.core.lane import decide_lane
from snaprep.core.model import EngineState, Facts, History, HostFacts, KeptLog, Policy
from snaprep.core.preview import Measured, plan_steps
from snaprep.core.refresh import decide_refresh
from snaprep.core.simulated.look import violations
from snaprep.core.simulated.simulate import names_in
from snaprep.core.simulated.world import accepts, advance, open_gate
from snaprep.core.volume import ImageRole
from tests.core import test_histories as histories
from tests.core.facts import GIB, attached, both, empty, image, point, serving, with_engine, with_live, with_volume
from tests.core.test_follow import KEPT, SETTLED, fed, received, source

COPIES = frozenset({"copies", "always_there"})
LOG = Policy(lane="log", freeze="never")


def plain(facts: Facts) -> Facts:
    """The same on hosts without snapshots."""
    return both(*(with_volume(host, caps=COPIES) for host in facts.hosts))


def decided(*hosts: HostFacts, history: History = SETTLED, **policy: Any) -> object:  # noqa: ANN401
    return decide_follow(plain(both(*hosts)), replace(LOG, **policy), history)


def refusal(found: object) -> str:
    assert isinstance(found, Refuse)
    return found.error.id


def standing() -> HostFacts:
    """A replica into which its copy was made: there is nothing else on its host."""
    return with_live(with_volume(fed(), images=tuple(i for i in fed().volume.images if i.name == "b/db")))  # type: ignore[union-attr]


def test_a_copy_then_a_replica_then_the_feed() -> None:
    """A whole copy, unfrozen; it becomes the replica; the source's copy goes; the feed."""
    seed = decided(source(), empty("b"))
    assert isinstance(seed, Seed)
    assert (seed.freeze, seed.expected_bytes) == (False, GIB)
    assert isinstance(decided(source(point(1)), received(point(1))), Present)
    assert isinstance(decided(source(point(1)), standing(), history=History()), Settle)
    assert isinstance(decided(source(), standing()), Feed)


def test_a_backup_switches_the_mode_on_by_itself() -> None:
    """Where the base is a backup anyway none is made before it; every other way comes first."""
    off = source(kept_log=KeptLog())
    assert isinstance(decided(off, empty("b"), archive="backup"), Seed)
    assert isinstance(decided(off, empty("b"), archive="bounce"), KeepLog)


def test_room_for_the_copy() -> None:
    """The source holds the copy while it is sent: without the room for it, and the floor, nothing is begun. A copy
    that is there goes first, so it counts as room.
    """
    tight = with_volume(source(), free_bytes=2 * GIB - 1)
    assert refusal(decided(tight, empty("b"))) == "no-space"
    assert isinstance(decided(with_live(tight, pinned_bytes=GIB), empty("b")), Seed)
    assert isinstance(decide_follow(both(tight, empty("b")), Policy(), SETTLED), Seed)


def test_a_copy_of_another_life_is_set_aside() -> None:
    """What cannot be stood on cannot be gone on with by an increment either."""
    aside = decided(source(point(1)), received(point(1), taken=False))
    assert isinstance(aside, SetAside)
    assert (aside.image, aside.to) == ("b/db.recv", "b/db.old")
    again = decided(source(point(1)), empty("b", image("b/db.old", ImageRole.RECV, point(1))))
    assert isinstance(again, Seed)


def test_no_rounds() -> None:
    """A replica that cannot be fed cannot be made at all; one that is attached is finished without a common point."""
    seen = plain(both(source(), empty("b")))
    assert refusal(decide_lane(seen, LOG, History(unfeedable=True))) == "no-increments"
    first, second = attached().hosts
    alone = plain(both(with_live(first, points=()), second))
    assert isinstance(decide_rebuild(alone, LOG, History()), Verify)


def test_a_refresh_has_nothing_to_move_on() -> None:
    """There is no common point to be refreshed, and a rebuild would make none."""
    first, second = attached().hosts
    refused = decide_refresh(plain(both(with_live(first, points=()), second)), LOG, History())
    assert refusal(refused) == "no-common-base"
    assert isinstance(refused, Refuse)
    assert "whole copy" in refused.error.hint


def test_the_plan() -> None:
    """What is planned is one whole copy and the feed, to the cutover; where the log is not kept yet and where it is."""
    for kept in (KeptLog(), replace(KEPT, since=1)):
        seen = plain(both(source(kept_log=kept, position=200), empty("b")))
        measured = Measured(link_bytes_per_s=50e6, dirty_bytes_per_s=0.0, log_bytes_per_s=1e5)
        steps = plan_steps(seen, replace(LOG, archive="backup"), measured)
        names = [type(s.action).__name__ for s in steps]
        assert names[:5] == ["Seed", "Present", "Settle", "Feed", "FeedCutover"]
        assert names[-1] == "Done"
        assert steps[0].step_bytes == GIB


def test_a_former_primary_goes_aside_before_its_server_runs() -> None:
    """Its directory is there after a boot: while its server is down it is set aside, and only then the server is asked
    for. What is no older primary, and what can be kept unmounted, waits for the server first.
    """
    new = serving("a", generation=2)
    old = with_engine(serving("b"), state=EngineState.CLOSED, server_up=False)
    for decide in (decide_rebuild, decide_follow, decide_lane):
        assert isinstance(decide(plain(both(new, old)), LOG, History()), SetAside)
        assert refusal(decide(both(new, old), LOG, History())) == "engine-down"
        down = with_engine(empty("b"), server_up=False)
        assert refusal(decide(plain(both(new, down)), LOG, History())) == "engine-down"


class Life(histories.History):
    """One random life of a pair without snapshots. Nobody starts a server over a stale database."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.world.copies = True
        self.policy = replace(self.policy, freeze="never", archive="backup")

    def happen(self) -> None:
        dice = self.random
        befalls: list[Callable[[], object]] = [
            lambda: self.run("rebuild", self.faults(), lane="log"),
            lambda: self.run("rebuild", self.faults(), lane="log", abort_after=dice.randint(1, 8)),
            lambda: self.run("resume", self.faults(), lane="log"),
            lambda: self.run("follow", self.faults(), abort_after=dice.randint(3, 25)),
            lambda: self.run("follow", self.faults(), abort_after=dice.randint(3, 25)),
            lambda: advance(self.world, dice.choice([0.5, 7.0, 60.0])),
            self.space,
            self.fail_over,
        ]
        dice.choice(befalls)()
        assert violations(self.world) == [], self.log

    def end(self) -> None:
        """Left alone, the pair gets back to a primary with a replica that is fed."""
        world = self.world
        world.link_up, world.link_silent, world.link_bytes_per_s = True, False, 2e8
        for host in world.hosts.values():
            host.other_bytes = 0
        advance(world, 90)
        serving = world.hosts[world.clients_at]
        if not accepts(serving):
            self.run("takeover", target=serving.name)
        if not accepts(serving):
            open_gate(world, serving)  # the first session that is refused opens the database; then `snaprep abort`
        for _ in range(2):  # a former primary is set aside first, and then its server is started
            trace = self.run("follow", abort_after=30)
            advance(world, 30)
        assert accepts(world.hosts[world.clients_at]), self.log
        assert "Feed" in names_in(trace), (self.log, names_in(trace), trace.error)


@pytest.mark.parametrize("chunk", range(4))
def test_random_lives(chunk: int) -> None:
    """Whatever dies in a pair without snapshots, the rules hold in every state, and it ends with a fed replica."""
    for seed in range(chunk * 25, chunk * 25 + 25):
        life = Life(seed)
        for _ in range(life.random.randint(2, 6)):
            life.happen()
        life.end()
