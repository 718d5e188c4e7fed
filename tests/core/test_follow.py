"""`follow` decides from facts: keep the log, ship a base, stand the replica on it, feed; and what it waits for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snaprep.core.action import (
    Feed,
    GiveUp,
    Hold,
    KeepLog,
    KeepNoLog,
    Present,
    Refresh,
    Refuse,
    Reopen,
    Round,
    Seed,
    SetAside,
    Settle,
)
from snaprep.core.decide import decide_rebuild
from snaprep.core.errors import ErrorInfo, SnaprepError
from snaprep.core.follow import (
    beside,
    decide_follow,
    feedable,
    follower_mark,
    is_follower,
    needed_from,
    others_fed,
    taken_marks,
)
from snaprep.core.lineage import Base
from snaprep.core.model import EngineState, Facts, FeedFacts, History, HostFacts, KeptLog, Origin, Policy
from snaprep.core.refresh import decide_refresh
from snaprep.core.report import feed_report
from snaprep.core.simulated.faults import Fault
from snaprep.core.simulated.simulate import names_in, simulate_run
from snaprep.core.simulated.steps import perform
from snaprep.core.simulated.world import World, advance, kill_host, put
from snaprep.core.volume import ImageRole, Partial
from tests.core.facts import (
    AB,
    attached,
    both,
    empty,
    host,
    image,
    point,
    replica,
    serving,
    with_engine,
    with_live,
    with_volume,
)
from tests.core.models import fresh_world, write

KEPT = KeptLog(wanted=True, since=100, ours=True, first=50)
ORIGIN = Origin(120, "boot", "1")
SETTLED = History(settled=True)


def source(*points: Any, **engine: Any) -> HostFacts:  # noqa: ANN401
    return with_engine(replace(serving("a", *points), boot_id="boot"), **{"kept_log": KEPT, **engine})


def fed(*points: Any, **marks: str) -> HostFacts:  # noqa: ANN401
    """A replica that stands on the newest point, taken in the source's present life."""
    found = with_engine(replica("b", *points), state=EngineState.CLOSED, replicating=False, position=150)
    assert found.live is not None
    own = {"fed-base": "120", "fed-boot": "boot", "fed-import": "1", **marks}
    return with_live(found, properties={**found.live.properties, **own})


def received(*points: Any, taken: bool = True) -> HostFacts:  # noqa: ANN401
    """A point has come in, and nothing stands on it yet."""
    marks = dict(taken_marks(points[-1].guid, source())) if taken else {}
    return empty("b", image("b/db.recv", ImageRole.RECV, *points, properties=marks))


def decided(facts: Facts, history: History = SETTLED, **policy: Any) -> object:  # noqa: ANN401
    return decide_follow(facts, Policy(**policy), history)


def test_nothing_to_follow() -> None:
    """Without a database there is nothing to follow, and what cannot be undone by waiting ends the run."""
    refused = decided(both(empty("a"), empty("b")))
    assert isinstance(refused, Refuse)
    assert refused.error.id == "no-database"


def test_abort() -> None:
    """Asked to abort, it ends."""
    refused = decided(both(source(), empty("b")), History(abort=True))
    assert isinstance(refused, Refuse)
    assert refused.error.id == "aborted"


def test_what_breaks_is_waited_for_once_something_was_done() -> None:
    """A host out of reach ends a run that has done nothing, and is waited for by one that has."""
    facts = both(
        source(), HostFacts(name="b", live_name="b/db", error=ErrorInfo("host-unreachable", "gone", exit_code=30))
    )
    assert isinstance(decided(facts), Refuse)
    held = decided(facts, History(begun=True))
    assert isinstance(held, Hold)
    assert "gone" in held.reason


@pytest.mark.parametrize(
    ("kept", "policy", "wanted"),
    [
        (KeptLog(), "restart", KeepLog),
        (KeptLog(), "bounce", KeepLog),
        (KeptLog(wanted=True), "restart", Hold),
        (KeptLog(wanted=True), "backup", KeepLog),
        (KeptLog(wanted=True, due=True), "restart", KeepLog),
        (None, "restart", KeepLog),
        (KEPT, "restart", Seed),
    ],
)
def test_the_log_is_kept_first(kept: KeptLog | None, policy: Any, wanted: type) -> None:  # noqa: ANN401
    """Before anything is shipped the source keeps its log, in the way that the operator chose."""
    assert isinstance(decided(both(source(kept_log=kept), empty("b")), archive=policy), wanted)


@pytest.mark.parametrize(("freeze", "frozen"), [("base", False), ("never", False), ("always", True)])
def test_a_base_is_not_frozen_unless_always(freeze: Any, frozen: bool) -> None:  # noqa: ANN401, FBT001
    """The seed of a follower is a snapshot at work: what is open in it is in the log that follows."""
    seed = decided(both(source(), empty("b")), freeze=freeze)
    assert isinstance(seed, Seed)
    assert seed.freeze is frozen


def test_the_way_to_a_feed() -> None:
    """A fresh point is stood upon; one of unknown age is followed by a round; a replica on it is settled, then fed."""
    p = point(1)
    assert isinstance(decided(both(source(p), received(p))), Present)
    assert isinstance(decided(both(source(p), received(p, taken=False))), Round)
    assert isinstance(decided(both(source(p), fed(p)), History()), Settle)
    assert decided(both(source(p), fed(p))) == Feed(roles=AB, origin=ORIGIN)


def test_half_a_round_is_gone_on_with() -> None:
    """What came in part is gone on with, however fresh the point before it is."""
    p = point(1)
    there = received(p)
    assert there.recv is not None
    part = replace(there.recv, partial=Partial("t", 7))
    assert isinstance(decided(both(source(p), with_volume(there, images=(part,)))), Round)


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b: (replace(a, boot_id="another"), b),
        lambda a, b: (with_volume(a, import_id="2"), b),
        lambda a, b: (with_engine(a, kept_log=replace(KEPT, since=121)), b),
        lambda a, b: (with_engine(a, kept_log=replace(KEPT, first=151)), b),
        lambda a, b: (a, with_live(b, properties={"serves": "replica", "generation": "1"})),
        lambda a, b: (with_live(a, properties={"serves": "primary", "generation": "2"}), b),
    ],
)
def test_a_replica_that_cannot_be_gone_on_with(change: Any) -> None:  # noqa: ANN401
    """A source that lived anew, a log with a gap, another generation, a mark that is gone: the replica needs a base."""
    p = point(1)
    a, b = change(source(p), fed(p))
    assert feedable(source(p), fed(p)) == ORIGIN
    assert feedable(a, b) is None


def test_a_replica_that_was_opened() -> None:
    """A copy that somebody opened as a database has parted, and gets a new base."""
    p = point(1)
    opened = with_engine(fed(p), state=EngineState.GATED)
    assert feedable(source(p), opened) is None
    assert isinstance(decided(both(source(p), opened)), Round)


def test_nothing_is_known_of_a_closed_source() -> None:
    """With the source's database closed nobody can say whether it kept its log: it is opened to look."""
    p = point(1)
    closed = source(p, state=EngineState.CLOSED, kept_log=None)
    assert feedable(closed, fed(p)) is None
    assert isinstance(decided(both(closed, fed(p))), KeepLog)


def test_a_replica_of_the_same_point_is_not_made_twice() -> None:
    """A replica that turned out to have parted is not stood on the same point again."""
    p = point(1)
    there = with_live(fed(p), properties={"serves": "replica", "generation": "1"})
    assert there.volume is not None
    marked = tuple(
        replace(i, properties=dict(taken_marks(1, source()))) if i.role is ImageRole.RECV else i
        for i in there.volume.images
    )
    assert isinstance(decided(both(source(p), with_volume(there, images=marked))), Round)


def test_a_closed_gate() -> None:
    """A gate that a dead run left is opened; one that a living guard keeps is waited for."""
    gated = source(state=EngineState.GATED, gate_saved=True)
    assert isinstance(decided(both(gated, empty("b"))), Reopen)
    assert isinstance(decided(both(replace(gated, guarded="gated"), empty("b"))), Hold)


def test_the_primary_lives() -> None:
    """Under the floor base and kept log are let go of; then there is nothing left to give up, and the run ends."""
    full = with_volume(source(point(1, held=False)), free_bytes=10)
    assert isinstance(decided(both(full, empty("b"))), GiveUp)
    given_up = with_engine(full, kept_log=KeptLog())
    refused = decided(both(given_up, empty("b")))
    assert isinstance(refused, Refuse)
    assert refused.error.id == "no-space"


def test_another_pairs_source() -> None:
    """A database that belongs to another pair may be fed from once that pair has marked it, and only fed from."""
    theirs = with_live(source(), role=ImageRole.FOREIGN, ours=False)
    assert theirs.live is not None
    marked = with_live(theirs, properties={**theirs.live.properties, "pair": "other"})
    assert isinstance(decided(both(marked, empty("b"))), Seed)
    unmarked = with_live(theirs, properties={"pair": "other"})
    refused = decided(both(unmarked, empty("b")))
    assert isinstance(refused, Refuse)
    assert refused.error.id == "other-pair"
    target = host("b", image("b/db", ImageRole.FOREIGN, properties={"pair": "other"}), engine=empty("b").engine)
    refused = decided(both(source(), target))
    assert isinstance(refused, Refuse)
    assert refused.error.id == "other-pair"


def test_who_else_is_fed() -> None:
    """Each pair's mark on the source says from where on it needs the log; a mark that is none counts for nobody."""
    live = source().live
    assert live is not None
    marks = {**live.properties, **follower_mark("one", 70), **follower_mark("two", 60), "fed.x": "three none"}
    marked = with_live(source(), properties=marks)
    assert others_fed(marked, "one") == ("two",)
    assert is_follower(marked, "one")
    assert not is_follower(marked, "three")
    assert (needed_from(marked, "two"), needed_from(marked, "none")) == (70, 60)
    assert needed_from(empty("a"), "one") is None
    assert set(follower_mark("one", None).values()) == {""}


def test_a_rebuild_lets_go_of_the_log() -> None:
    """A replica that is attached needs no kept log: it is let go of, unless others are fed from it."""
    facts = attached()
    kept = both(with_engine(facts.hosts[0], kept_log=KEPT), facts.hosts[1])
    done = History(verified=True, settled=True)
    assert isinstance(decide_rebuild(kept, Policy(), done), KeepNoLog)


def test_follow_in_the_model() -> None:
    """In the model world a follower seeds, stands the replica up and feeds; begun again it feeds at once."""
    world = fresh_world()
    first = simulate_run("follow", world, Policy(archive="bounce"), write, abort_after=10)
    names = names_in(first)
    assert names[:5] == ["Adopt", "KeepLog", "Seed", "Present", "Settle"], names
    assert names[5:] == ["Feed"] * 5 + ["Refuse"]
    a, b = (world.hosts[n].live for n in "ab")
    assert a is not None
    assert b is not None
    assert a.content is not None
    assert b.content is not None
    assert b.content.commits & ~a.content.commits == 0
    assert b.content.commits.bit_count() > 20
    again = names_in(simulate_run("follow", world, Policy(), write, abort_after=3))
    assert again == ["Settle", "Feed", "Feed", "Refuse"]


def test_a_power_cut_of_the_source_asks_for_a_new_base() -> None:
    """After the source's host was started anew the replica gets an increment before it is fed again."""
    world = fresh_world()

    def cut(w: Any) -> None:  # noqa: ANN401
        kill_host(w, w.hosts["a"])

    world.due.append((40.0, cut))
    assert "Hold" in names_in(simulate_run("follow", world, Policy(), write, abort_after=60))
    opened = simulate_run("takeover", world, Policy(), write, target="a", name="open")
    assert opened.error is None, opened.error
    after = names_in(simulate_run("follow", world, Policy(), write, abort_after=8, name="again"))
    assert "Round" in after
    assert after.index("Round") < after.index("Present") < after.index("Feed")


def refused(world: World, host: str, op: str, **args: Any) -> str:  # noqa: ANN401
    with pytest.raises(SnaprepError) as error:
        perform(world, world.hosts[host], op, args, 10)
    return error.value.id


def test_what_the_model_refuses() -> None:
    """A feed is refused on a base of another life, on one from before all was logged, and on a log that has parted."""
    world = fresh_world()
    simulate_run("follow", world, Policy(), write, abort_after=8)
    a, b = world.hosts["a"], world.hosts["b"]
    now = {"stream": "s", "boot_id": "0", "import_id": "0", "base": 10**6}
    assert refused(world, "a", "feed_send", **{**now, "boot_id": "1"}) == "feed-base-old"
    assert refused(world, "a", "feed_send", **{**now, "base": -1}) == "feed-base-old"
    assert refused(world, "a", "feed_finish", how="stop") == "not-feeding"
    world.link_up = False
    assert refused(world, "a", "feed_send", **now) == "link-lost"
    world.link_up = True
    put(b, position=10**9)
    assert refused(world, "a", "feed_send", **now) == "log-differs"
    put(b, position=1)
    perform(world, a, "feed_send", now, 10)
    perform(world, b, "feed_play", {"stream": "t"}, 10)
    assert (world.fed, b.server.mode) == ("", "waiting")


@pytest.mark.parametrize(
    ("op", "args"), [("keep_log", {"how": "bounce"}), ("freeze", {"lease_ms": 100}), ("stamp", {"generation": 2})]
)
def test_what_opens_a_closed_database_in_the_model(op: str, args: dict[str, object]) -> None:
    """What speaks to a database opens it, where no client has."""
    world = fresh_world()
    a = world.hosts["a"]
    assert a.live is not None
    a.live.mounted, a.server.mode = "/aside", "closed"
    perform(world, a, op, args, 10)
    assert a.server.mode == "open"


def test_a_lag_is_told_when_it_is_known() -> None:
    """Before the replica has said where it is nothing is told of its lag."""
    waiting = FeedFacts(stream="s", phase="waiting", since_s=1, at_s=2)
    assert feed_report(waiting).lag_bytes is None
    fed_now = replace(waiting, phase="feeding", stored=9, lag_bytes=70, lag_s=0.5, rate_bytes_per_s=3.0)
    shown = feed_report(fed_now)
    assert (shown.lag_bytes, shown.lag_ms, shown.rate_bytes_per_s) == (70, 500, 3.0)


@pytest.mark.parametrize(
    ("role", "replicating", "former", "ends"),
    [
        (ImageRole.LIVE, False, True, ["detach", "stop_replica", "withdraw"]),
        (ImageRole.LIVE, True, False, ["detach"]),
        (ImageRole.LIVE, False, False, []),
        (ImageRole.FOREIGN, True, True, ["stop_replica", "withdraw"]),
    ],
)
def test_a_former_replication_is_ended(
    role: ImageRole,
    replicating: bool,  # noqa: FBT001
    former: bool,  # noqa: FBT001
    ends: list[str],
) -> None:
    """Where there was a replica its primary is freed of its role, connected or not; another pair's is left alone."""
    there = with_live(source(point(1), replicating=replicating), role=role)
    target = fed(point(1)) if former else received(point(1))
    base = Base(point(1), "a/db", "b/db.recv", point(1).name, continues=True)
    (recipe,) = write(Present(roles=AB, base=base), both(there, target), Policy(), "snaprep-model-r-001")
    assert [step.op for step in recipe] == ["try_direct_boot", *ends, "present_fed"]


HOUR = 3600.0
DUE = History(settled=True, settled_s=0.0, now_s=HOUR)


def feeding(**changes: Any) -> HostFacts:  # noqa: ANN401
    return replace(
        source(point(1)), feed=FeedFacts(stream="s", phase="feeding", since_s=0, at_s=1, stored=5), **changes
    )


def test_the_common_base_moves_on_beside_the_feed() -> None:
    """Once an hour, or when it is asked for: to the target, back, and what is older goes; then it is fed on."""
    facts = both(feeding(), fed(point(1)))
    for history in (DUE, History(settled=True, refresh=True)):
        there = decided(facts, history)
        assert isinstance(there, Refresh)
        assert (there.sender, there.receiver, there.base.continues) == ("a", "b", True)
        back = decided(facts, replace(history, refreshed=(("a", "b"),)))
        assert isinstance(back, Refresh)
        assert (back.sender, back.receiver) == ("b", "a")
        done = replace(history, refreshed=(("a", "b"), ("b", "a")))
        assert isinstance(decided(facts, done), Settle)
    for history in (History(settled=True, settled_s=1.0, now_s=HOUR), SETTLED):
        assert isinstance(decided(facts, history), Feed)
    assert isinstance(decided(facts, DUE, refresh_s=None), Feed)
    assert isinstance(decided(both(source(point(1)), fed(point(1))), DUE), Feed)  # not fed to the end yet


def test_what_is_in_the_way_of_that_does_not_end_the_feed() -> None:
    """An image of somebody else's on the source: this way is left out until the next time."""
    theirs = image("a/db.recv", ImageRole.FOREIGN, point(7))
    blocked = with_volume(feeding(), images=(*feeding().volume.images, theirs))  # type: ignore[union-attr]
    assert isinstance(decided(both(blocked, fed(point(1))), replace(DUE, refreshed=(("a", "b"),))), Settle)


def test_what_a_feed_goes_on_beside() -> None:
    """Snapshots that are shipped, and images that nobody serves from; not a new replica."""
    facts = both(feeding(), fed(point(1)))
    there = decided(facts, DUE)
    assert isinstance(there, Refresh)
    assert beside(there, facts)
    assert beside(SetAside(roles=AB, image="b/db.recv", to="b/db.old", why=""), facts)
    assert not beside(SetAside(roles=AB, image="b/db", to="b/db.old", why=""), facts)
    assert not beside(Present(roles=AB, base=there.base), facts)


def test_a_refresh_of_a_fed_replica() -> None:
    """A replica that was fed and is stopped has its base moved on by the verb."""
    assert isinstance(decide_refresh(both(source(point(1)), fed(point(1))), Policy(), History()), Refresh)


@pytest.mark.parametrize("kill", ["operator", "agent", "server", "host", "link"])
def test_refreshes_of_a_feed_in_the_model(kill: Any) -> None:  # noqa: ANN401
    """Killed before any step of a feed whose base moves on, no rule is broken; the fail-back is an increment."""
    policy = Policy(archive="bounce", refresh_s=25.0)
    done = simulate_run("follow", fresh_world(), policy, write, abort_after=24)
    assert names_in(done).count("Refresh") >= 4, names_in(done)
    for at in range(1, len(done.steps) + 1, 2):
        world = fresh_world()
        struck = simulate_run("follow", world, policy, write, (Fault(at, kill),), abort_after=24)
        assert struck.broken == [], (at, kill, struck.steps[-4:], struck.broken)
    world = fresh_world()
    simulate_run("follow", world, policy, write, abort_after=24)
    advance(world, 3)
    kill_host(world, world.hosts["a"])
    world.hosts["a"].back_at_s = None
    world.clients_at, world.taken_over = "b", True
    assert simulate_run("takeover", world, Policy(), write, name="t", target="b").error is None
    world.hosts["a"].back_at_s = world.now_s
    advance(world, 5)
    back = simulate_run("rebuild", world, Policy(), write, name="back")
    assert back.error is None
    assert "Seed" not in names_in(back)
