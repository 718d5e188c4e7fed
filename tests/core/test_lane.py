"""A rebuild in the log lane: it follows until the replica has caught up, then cuts over, within the same bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from snaprep.core.action import Feed, FeedCutover, Hold, Refuse, Verify
from snaprep.core.decide import decide_rebuild
from snaprep.core.follow import CAUGHT_UP_BYTES
from snaprep.core.lane import decide_lane
from snaprep.core.model import CutoverTried, Facts, FeedFacts, History, Policy, Transactions
from snaprep.core.simulated.faults import Fault
from snaprep.core.simulated.simulate import names_in, simulate_run
from snaprep.core.simulated.world import advance
from tests.core.facts import attached, both, empty, point, serving
from tests.core.models import fresh_world, write
from tests.core.test_follow import fed, source

LOG = Policy(lane="log")
FEEDING = FeedFacts(stream="s", phase="feeding", since_s=0, at_s=1, stored=5, lag_bytes=10)
SETTLED = History(settled=True, now_s=100)


def facts(feed: FeedFacts | None = FEEDING, **engine: Any) -> Facts:  # noqa: ANN401
    return both(replace(source(point(1), **engine), feed=feed), fed(point(1)))


def test_the_lane_is_the_policys() -> None:
    """Without a word the lane is that of pages, and what is attached is finished in either."""
    assert isinstance(decide_lane(attached(), Policy(), History()), Verify)
    assert isinstance(decide_lane(attached(), LOG, History()), Verify)


def test_a_replica_that_cannot_be_fed_gets_pages() -> None:
    """What the target's engine has refused once in this run is not tried again."""
    seen = both(serving("a", point(1)), empty("b"))
    unfeedable = History(unfeedable=True)
    assert decide_lane(seen, LOG, unfeedable) == decide_rebuild(seen, LOG, unfeedable)


def test_it_cuts_over_when_the_replica_has_caught_up() -> None:
    """Not before the replica has said where it is, nor while much is missing."""
    assert isinstance(decide_lane(facts(), LOG, SETTLED), FeedCutover)
    for late in (None, replace(FEEDING, stored=0), replace(FEEDING, lag_bytes=CAUGHT_UP_BYTES + 1)):
        assert isinstance(decide_lane(facts(late), LOG, SETTLED), Feed)


def test_the_cutovers_forecast_is_of_this_pair() -> None:
    """What earlier ones from a feed took, and not those with pages; told while it is held, too."""
    tried = CutoverTried(ok=True, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=400, fed=True)
    known = replace(SETTLED, cutovers=(tried,) * 3 + (replace(tried, blocked_ms=9000, fed=False),) * 3)
    for policy in (LOG, replace(LOG, hold=True)):
        action = decide_lane(facts(), policy, known)
        assert isinstance(action, FeedCutover | Hold)
        assert (action.p50_ms, action.p90_ms) == (400, 500)


def test_what_keeps_a_cutover_waiting() -> None:
    """A hold, and old transactions, for as long as is allowed."""
    assert isinstance(decide_lane(facts(), replace(LOG, hold=True), SETTLED), Hold)
    assert isinstance(decide_lane(facts(), replace(LOG, hold=True), replace(SETTLED, release=True)), FeedCutover)
    old = facts(transactions=Transactions(open=1, oldest_s=60))
    assert isinstance(decide_lane(old, LOG, SETTLED), Hold)
    refused = decide_lane(old, LOG, replace(SETTLED, waiting_since_s=0))
    assert isinstance(refused, Refuse)
    assert refused.error.id == "old-transactions"


def test_what_refuses_it() -> None:
    """No database, a target that serves, and cutovers that were undone again and again."""
    down = both(source(point(1), server_up=False), empty("b"))
    for there, wanted in ((both(empty("a"), empty("b")), "no-database"), (down, "engine-down")):
        refused = decide_lane(there, LOG, History())
        assert isinstance(refused, Refuse)
        assert refused.error.id == wanted
    undone = (CutoverTried(ok=False, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=1, error="because"),) * 3
    refused = decide_lane(facts(), LOG, replace(SETTLED, cutovers=undone))
    assert isinstance(refused, Refuse)
    assert refused.error.id == "cutover-undone"


def test_the_lane_in_the_model() -> None:
    """The replica is fed, attached, and the log is let go of; killed anywhere, the next run gets there."""
    done = simulate_run("rebuild", fresh_world(), LOG, write)
    names = names_in(done)
    assert names[-5:] == ["Feed", "FeedCutover", "Verify", "KeepNoLog", "Done"], names
    for at in range(1, len(done.steps) + 2):
        for kill in ("operator", "agent", "agent and guard", "guard", "server", "silence"):
            world = fresh_world()
            struck = simulate_run("rebuild", world, LOG, write, (Fault(at, kill),))
            assert struck.broken == [], (at, kill, struck.steps)
            world.link_silent = False
            advance(world, 60)
            again = simulate_run("rebuild", world, LOG, write, name="again")
            assert (again.broken, again.error) == ([], None), (at, kill, again.steps[-5:], again.error)
