"""What comes next, for each state of a pair that matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snaprep.core.action import (
    Adopt,
    Cutover,
    Done,
    GiveUp,
    Hold,
    Prepare,
    Refresh,
    Refuse,
    Reopen,
    Round,
    Seed,
    SetAside,
    Settle,
    TakeOver,
    Verify,
)
from snaprep.core.decide import decide_rebuild, free_name
from snaprep.core.decide_takeover import decide_takeover
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import CutoverTried, EngineFacts, EngineState, Facts, History, HostFacts, Policy, Transactions
from snaprep.core.refresh import decide_refresh
from snaprep.core.volume import ImageRole, Partial, Point
from snaprep.core.who import serving as who_serves
from tests.core.facts import (
    GIB,
    NO_ROUTE,
    attached,
    both,
    empty,
    host,
    image,
    point,
    ready,
    replica,
    round_done,
    serving,
    small_rounds,
    with_engine,
    with_live,
    with_volume,
)

POLICY = Policy()
NEW = History()


def error_of(facts: Facts, policy: Policy = POLICY, history: History = NEW) -> str:
    action = decide_rebuild(facts, policy, history)
    assert isinstance(action, Refuse), action
    return action.error.id


def based(*received: int) -> HostFacts:
    """A target that has received these points."""
    return empty("b", image("b/db.recv", ImageRole.RECV, *(point(g) for g in received)))


# -- a rebuild, from the first look to the end -------------------------------------------------------------------------


def test_an_unknown_source_is_adopted_first() -> None:
    """Marks and a generation come before anything is shipped."""
    unknown = host(
        "a",
        image("a/db", ImageRole.FOREIGN, mounted_at="/db", automounts=True),
        engine=EngineFacts(state=EngineState.PRIMARY, server_up=True),
    )
    assert isinstance(decide_rebuild(both(unknown, empty("b")), POLICY, NEW), Adopt)


@pytest.mark.parametrize(
    ("target", "id"),
    [
        (empty("b", image("b/db", ImageRole.FOREIGN, point(9))), "target-foreign"),
        (with_volume(empty("b"), free_bytes=1), "target-full"),
    ],
)
def test_what_is_refused_is_refused_before_the_first_mark(target: HostFacts, id: str) -> None:
    """A source that is new to us stays as it is when the target cannot be used."""
    unknown = host(
        "a",
        image("a/db", ImageRole.FOREIGN, mounted_at="/db", automounts=True),
        engine=EngineFacts(state=EngineState.PRIMARY, server_up=True),
    )
    assert error_of(both(with_live(unknown, referenced_bytes=GIB), target)) == id


@pytest.mark.parametrize("source", [with_live(serving("a"), automounts=True), with_engine(serving("a"), generation=7)])
def test_an_unfinished_adoption_is_finished(source: HostFacts) -> None:
    """An image that still mounts at boot, or a database whose stamp differs, is adopted again."""
    if source.engine.generation == 7:
        source = with_engine(with_live(source, properties={"serves": "primary", "generation": "8"}), generation=7)
    assert isinstance(decide_rebuild(both(source, empty("b")), POLICY, NEW), Adopt)


def test_without_a_common_point_it_seeds() -> None:
    """The whole database, frozen for its snapshot unless the policy says never."""
    seed = decide_rebuild(both(serving("a"), empty("b")), POLICY, NEW)
    assert isinstance(seed, Seed)
    assert (seed.freeze, seed.expected_bytes) == (True, GIB)
    never = decide_rebuild(both(serving("a"), empty("b")), Policy(freeze="never"), NEW)
    assert isinstance(never, Seed)
    assert not never.freeze


def test_a_seed_that_was_cut_off_goes_on() -> None:
    """A receiving image with a token and no points is not set aside: that would throw hours away."""
    half = image("b/db.recv", ImageRole.FOREIGN, partial=Partial("1-abc"), ours=False)
    assert isinstance(decide_rebuild(both(serving("a"), empty("b", half)), POLICY, NEW), Seed)
    tail = image("b/db.isolated-g1", ImageRole.ISOLATED, point(1))
    assert isinstance(decide_rebuild(both(serving("a", point(1)), empty("b", half, tail)), POLICY, NEW), Round)


def test_a_stream_that_broke_goes_on() -> None:
    """From its token, while its point and its base are what would be sent; else it is cleared away by a new round."""
    recv = image("b/db.recv", ImageRole.RECV, point(1), partial=Partial("t", 2, 1))
    source = with_volume(serving("a", point(1), point(2)), caps=frozenset({"resume"}))
    going = decide_rebuild(both(source, empty("b", recv)), POLICY, NEW)
    assert isinstance(going, Round)
    assert going.resume == recv.partial
    for history, sender, partial in (
        (History(failed_tokens=("t",)), source, recv.partial),
        (NEW, serving("a", point(1), point(2)), recv.partial),
        (NEW, source, Partial("t", 7, 1)),
        (NEW, source, Partial("t", 2, None)),
    ):
        anew = decide_rebuild(both(sender, empty("b", replace(recv, partial=partial))), POLICY, history)
        assert isinstance(anew, Round)
        assert anew.resume is None


def test_a_seed_needs_room() -> None:
    """A target that cannot hold the copy is refused before anything is sent."""
    assert error_of(both(serving("a"), with_volume(empty("b"), free_bytes=GIB - 1))) == "target-full"


def test_a_common_point_gives_a_round() -> None:
    """The second round and all others need no freeze, unless the policy says always."""
    action = decide_rebuild(both(serving("a", point(1)), based(1)), POLICY, NEW)
    assert isinstance(action, Round)
    assert (action.base.point.guid, action.freeze, action.number) == (1, False, 1)
    seeded = replace(NEW, rounds=(replace(round_done(GIB, None), base_guid=None),))
    after = decide_rebuild(both(serving("a", point(1)), based(1)), POLICY, seeded)
    assert isinstance(after, Round)
    assert after.number == 1, "the full send is none of the rounds"
    always = decide_rebuild(both(serving("a", point(1)), based(1)), Policy(freeze="always"), NEW)
    assert isinstance(always, Round)
    assert always.freeze


def test_the_rest_of_a_broken_stream_leads_to_no_cutover() -> None:
    """Its point is as old as the break was long, so a round comes after it, held or not, however little is foreseen."""
    facts, history = both(serving("a", point(1)), based(1)), ready(small_rounds())
    rest = replace(history.rounds[-1], dirty_s=None, arrived_bytes=5_000_000)
    resumed = replace(history, rounds=(*history.rounds, rest))
    for policy in (POLICY, replace(POLICY, hold=True)):
        assert isinstance(decide_rebuild(facts, policy, resumed), Round)
    after = replace(resumed, rounds=(*resumed.rounds, replace(rest, arrived_bytes=None)))
    assert isinstance(decide_rebuild(facts, POLICY, after), Cutover)


def test_small_rounds_lead_to_the_cutover() -> None:
    """When P90 fits the budget less the undo, the target is made ready, one more round is shipped, and it cuts."""
    facts = both(serving("a", point(1)), based(1))
    assert isinstance(decide_rebuild(facts, POLICY, small_rounds()), Prepare)
    ready_s = small_rounds().now_s
    assert isinstance(decide_rebuild(facts, POLICY, replace(small_rounds(), prepared_s=ready_s + 1)), Round)
    action = decide_rebuild(facts, POLICY, ready(small_rounds()))
    assert isinstance(action, Cutover)
    assert action.p50_ms < action.p90_ms <= POLICY.budget_ms - POLICY.undo_ms


def test_large_rounds_lead_to_another() -> None:
    """While they shrink, rounds go on."""
    history = History(rounds=(round_done(400_000_000, None), round_done(90_000_000, 20.0)), last_round_end_s=5, now_s=5)
    assert isinstance(decide_rebuild(both(serving("a", point(1)), based(1)), POLICY, history), Round)


def test_an_attached_replica_is_verified_settled_and_done() -> None:
    """The end of every rebuild, in this order."""
    assert isinstance(decide_rebuild(attached(), POLICY, NEW), Verify)
    assert isinstance(decide_rebuild(attached(), POLICY, History(verified=True)), Settle)
    done = decide_rebuild(attached(), POLICY, History(verified=True, settled=True))
    assert done == Done(serving="a", replica="b")


def test_a_replica_without_a_common_point_is_not_done() -> None:
    """After the base was given up a replica runs, but the next failover would need a seed: it is built anew."""
    facts = both(with_engine(serving("a"), replicating=True), replica("b", point(1)))
    assert isinstance(decide_rebuild(facts, POLICY, History(verified=True, settled=True)), SetAside)
    unmarked = both(with_engine(serving("a"), replicating=True), replace(replica("b"), live_name="b/none"))
    assert isinstance(decide_rebuild(unmarked, POLICY, NEW), Seed)


NOT_ROOT = ErrorInfo("privilege", "ada may not look", hint="log in as root", exit_code=3)

# -- what stops it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "id"),
    [
        (serving("a"), host("b", error=NO_ROUTE), "host-unreachable"),
        (serving("a"), empty("b", volume=None), "volume-unavailable"),
        (serving("a"), with_volume(empty("b"), store_health="FAULTED"), "pool-unhealthy"),
        (serving("a"), with_engine(empty("b"), server_up=False), "engine-down"),
        (serving("a"), with_engine(empty("b"), state=EngineState.UNKNOWN), "engine-silent"),
        (with_engine(serving("a"), state=EngineState.UNKNOWN), empty("b"), "engine-silent"),
        (with_live(serving("a"), mounted_at="/db.replica"), empty("b"), "source-closed"),
        (serving("a"), with_engine(replica("b"), state=EngineState.PRIMARY), "target-serves"),
        (
            serving("a"),
            with_live(with_engine(replica("b"), state=EngineState.PRIMARY), mounted_at="/db"),
            "ambiguous-source",
        ),
        (
            with_engine(serving("a"), server_version="10.14.2.0"),
            with_engine(empty("b"), server_version="10.15.1.3"),
            "engine-versions-differ",
        ),
        (empty("a"), empty("b"), "no-database"),
        (empty("a"), host("b", error=NOT_ROOT, volume=None), "privilege"),
        (serving("a"), host("b", error=NOT_ROOT, volume=None), "privilege"),
        (host("a", error=NOT_ROOT, volume=None), host("b", error=NO_ROUTE, volume=None), "privilege"),
    ],
)
def test_it_refuses(source: HostFacts, target: HostFacts, id: str) -> None:
    """Each with an id of its own, before anything is touched."""
    assert error_of(both(source, target)) == id


@pytest.mark.parametrize(
    ("named", "id"),
    [
        (replica("a"), "source-is-replica"),
        (with_engine(with_live(replica("a"), mounted_at="/db"), state=EngineState.CLOSED), "source-is-replica"),
        (host("a", engine=EngineFacts(server_up=True)), "unknown-dataset"),
    ],
)
def test_a_named_source_must_be_one(named: HostFacts, id: str) -> None:
    """`--source` does not make a primary of a replica, nor of nothing."""
    assert error_of(both(named, empty("b")), Policy(source="a")) == id


def test_an_encrypted_database_stays_so() -> None:
    """It goes to a pool that can hold it so, and to no other; what was received is not started before its key is there.

    A database that a dead run left closed is opened first.
    """
    source = with_live(serving("a", point(1)), encrypted=True)
    assert error_of(both(source, empty("b"))) == "feature-mismatch"
    able = with_volume(empty("b"), caps=frozenset({"encryption"}))
    assert isinstance(decide_rebuild(both(source, able), POLICY, NEW), Seed)
    locked = with_volume(
        empty("b", image("b/db.recv", ImageRole.RECV, point(1), encrypted=True, locked=True)),
        caps=frozenset({"encryption"}),
    )
    assert error_of(both(source, locked)) == "key-not-loaded"
    gated = with_engine(source, state=EngineState.GATED)
    assert isinstance(decide_rebuild(both(gated, locked), POLICY, NEW), Reopen)


def test_a_target_that_is_open_is_not_touched() -> None:
    """Even with `--source`, a database that takes sessions stays as it is."""
    facts = both(serving("a", generation=2), serving("b"))
    assert error_of(facts, Policy(source="a")) == "target-serves"


def test_another_pairs_image_is_left_alone() -> None:
    """On either host, whatever the policy allows: it is neither served from nor set aside."""
    others = image("a/db", ImageRole.FOREIGN, point(1), properties={"pair": "other"}, mounted_at="/db")
    taken = with_volume(serving("a"), images=(others,))
    assert error_of(both(taken, empty("b"))) == "other-pair"
    theirs = empty("b", image("b/db", ImageRole.FOREIGN, properties={"pair": "other"}))
    assert error_of(both(serving("a"), theirs), Policy(isolate_foreign=True)) == "other-pair"


def test_a_copy_that_was_opened_by_mistake_is_replaced() -> None:
    """A replica's copy that is open with its gate closed, beside where clients look, is no second primary."""
    opened = with_engine(replica("b", point(1)), state=EngineState.GATED)
    facts = both(serving("a", point(1)), opened)
    assert isinstance(decide_rebuild(facts, Policy(), History()), Round)
    assert who_serves(facts) == "a serves"


def test_an_abort_ends_it() -> None:
    """Asked to end before the cutover, it ends; a gate that stands is opened first."""
    facts = both(serving("a", point(1)), based(1))
    assert error_of(facts, history=History(abort=True)) == "aborted"
    gated = both(with_engine(serving("a", point(1)), state=EngineState.GATED, gate_saved=True), based(1))
    assert decide_rebuild(gated, POLICY, History(abort=True)) == Reopen(host="a")


@pytest.mark.parametrize("state", [EngineState.FROZEN, EngineState.GATED])
def test_what_a_dead_run_left_closed_is_opened(state: EngineState) -> None:
    """Before anything else."""
    assert decide_rebuild(both(with_engine(serving("a"), state=state), empty("b")), POLICY, NEW) == Reopen(host="a")


# -- room --------------------------------------------------------------------------------------------------------------


def test_a_primary_that_runs_out_of_room_lives() -> None:
    """Under its floor the base is given up, even when the target cannot be reached."""
    full = with_volume(serving("a", point(1)), free_bytes=5)
    action = decide_rebuild(both(full, host("b", error=NO_ROUTE)), POLICY, NEW)
    assert isinstance(action, GiveUp)
    assert (action.free_bytes, action.floor_bytes) == (5, GIB)


def given_up(*points: Point) -> HostFacts:
    """The primary of a running replica, with the bookmark of point 3 only, and these snapshots."""
    left = replace(point(3, held=False), bookmark=True)
    return with_engine(with_live(serving("a", *points), bookmarks=(left,)), replicating=True)


def test_a_replica_without_a_common_snapshot_is_not_finished() -> None:
    """A bookmark is a base for the way there, not for the way back; an older snapshot that was left is for both."""
    action = decide_rebuild(both(given_up(), replica("b", point(1), point(3))), POLICY, NEW)
    assert isinstance(action, Round)
    assert action.base.point.bookmark
    assert isinstance(decide_rebuild(both(given_up(point(1)), replica("b", point(1), point(3))), POLICY, NEW), Verify)


def test_a_replica_without_a_base_for_increments_to_it_is_not_finished() -> None:
    """It became the primary when its own base had been given up: only what it received later is common."""
    recv = image("a/db.recv", ImageRole.RECV, point(7))
    promoted = with_engine(serving("a", generation=1), replicating=True)
    assert promoted.live is not None
    source = with_volume(promoted, images=(promoted.live, recv))
    action = decide_rebuild(both(source, replica("b", point(7))), POLICY, NEW)
    assert isinstance(action, SetAside)


def test_without_a_base_to_give_up_it_refuses() -> None:
    """Nothing of ours pins the space, so nothing of ours can free it."""
    assert error_of(both(with_volume(serving("a"), free_bytes=5), empty("b"))) == "no-space"


def test_a_closed_primary_is_not_given_up_on() -> None:
    """A repaired old primary is closed; its base is what the fail-back needs."""
    full = with_engine(with_volume(serving("a", point(1)), free_bytes=5), state=EngineState.CLOSED)
    assert error_of(both(full, empty("b"))) == "no-space"
    assert error_of(both(host("a", volume=None), empty("b")), Policy(source="a")) == "volume-unavailable"


# -- what stands in the way on the target ------------------------------------------------------------------------------


def old_primary(**more: object) -> HostFacts:
    closed = with_live(serving("b", point(1), point(5), generation=1), mounted_at=None, **more)
    return with_engine(closed, state=EngineState.ABSENT, generation=None)


def test_an_old_primary_is_isolated() -> None:
    """Its tail stays in it, and where the histories part is known from the take-over's mark."""
    source = with_live(
        serving("a", point(1), generation=2), properties={"serves": "primary", "generation": "2", "took-over-at": "77"}
    )
    action = decide_rebuild(both(source, old_primary()), POLICY, NEW)
    assert isinstance(action, SetAside)
    assert (action.image, action.to, action.tail_from) == ("b/db", "b/db.isolated-g1", 77)


def test_an_old_primary_in_use_is_refused() -> None:
    """A process that has files of it open is named."""
    facts = both(serving("a", point(1), generation=2), old_primary(in_use_by=("7 java",)))
    assert error_of(facts) == "dataset-busy"


def test_a_strangers_dataset_is_not_touched_unless_allowed() -> None:
    """Refused; with `--isolate-foreign` set aside under a name that settling never removes."""
    live = both(serving("a"), empty("b", image("b/db", ImageRole.FOREIGN, point(4), referenced_bytes=GIB)))
    recv = both(serving("a"), empty("b", image("b/db.recv", ImageRole.FOREIGN, point(4))))
    assert error_of(live) == error_of(recv) == "target-foreign"
    for facts in (live, recv):
        action = decide_rebuild(facts, Policy(isolate_foreign=True), NEW)
        assert isinstance(action, SetAside)
        assert ".isolated-" in action.to


def test_an_empty_dataset_was_made_for_us() -> None:
    """Nothing is in it, so it steps aside without being asked for."""
    facts = both(serving("a"), empty("b", image("b/db", ImageRole.FOREIGN, referenced_bytes=100_000)))
    assert isinstance(decide_rebuild(facts, POLICY, NEW), SetAside)


def test_a_receiving_image_that_went_elsewhere_is_replaced() -> None:
    """It ends beyond the base: it steps aside, under a name that settling removes, and numbers do not clash."""
    went_on = image("b/db.recv", ImageRole.RECV, point(1), point(9))
    facts = both(serving("a", point(1)), empty("b", went_on, image("b/db.old", ImageRole.ISOLATED)))
    action = decide_rebuild(facts, POLICY, NEW)
    assert isinstance(action, SetAside)
    assert (action.image, action.to) == ("b/db.recv", "b/db.old-2")


def test_a_free_name_needs_no_volume() -> None:
    """On a host that tells nothing the wish is granted."""
    assert free_name(host("b", volume=None), "x") == "x"


# -- before the cutover ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transactions",
    [Transactions(open=1, oldest_s=60), Transactions(in_doubt=1), Transactions(of_our_user=2)],
)
def test_old_transactions_are_waited_for(transactions: Transactions) -> None:
    """It holds with the reason, keeps the delta small, and gives up after a while."""
    facts = both(with_engine(serving("a", point(1)), transactions=transactions), based(1))
    waits = decide_rebuild(facts, POLICY, small_rounds())
    assert isinstance(waits, Hold)
    assert waits.reason.startswith("waiting: ")
    later = replace(small_rounds(), waiting_since_s=10.0, now_s=21.0, last_round_end_s=10.5)
    assert isinstance(decide_rebuild(facts, POLICY, later), Round)
    assert error_of(facts, history=replace(small_rounds(), waiting_since_s=-60.0)) == "old-transactions"


def test_a_held_run_waits_for_its_release() -> None:
    """Rounds go on at their pace; `snaprep cutover` releases it."""
    facts, held = both(serving("a", point(1)), based(1)), Policy(hold=True)
    waits = decide_rebuild(facts, held, small_rounds())
    assert isinstance(waits, Hold)
    assert waits.p90_ms is not None
    assert isinstance(decide_rebuild(facts, held, replace(small_rounds(), now_s=30.0)), Round)
    assert isinstance(decide_rebuild(facts, held, replace(ready(small_rounds()), release=True)), Cutover)


def test_a_held_run_does_not_end_on_a_plateau() -> None:
    """Somebody waits for a quieter hour, so it says why and goes on."""
    facts = both(serving("a", point(1)), based(1))
    waits = decide_rebuild(facts, Policy(hold=True), plateau())
    assert isinstance(waits, Hold)
    assert "does not fit" in waits.reason
    unmeasured = replace(plateau(), rounds=(round_done(0, 1.0, link=1.0),), last_round_end_s=None)
    assert isinstance(decide_rebuild(facts, Policy(hold=True), unmeasured), Round)


def plateau() -> History:
    rounds = tuple(round_done(d, d / 20e6 + 0.15) for d in (200_000_000, 180_000_000, 175_000_000, 172_000_000))
    return History(rounds=rounds, last_round_end_s=50.0, now_s=50.0)


def test_a_plateau_is_said_with_what_would_work() -> None:
    """The error carries the budget and, where one would do, the link."""
    action = decide_rebuild(both(serving("a", point(1)), based(1)), POLICY, plateau())
    assert isinstance(action, Refuse)
    assert action.error.id == "not-converging"
    assert "PLATEAU" in action.error.what
    assert " ms" in action.error.what
    assert "MB/s" in action.error.what


def test_a_limit_that_stands_in_the_way_is_seen() -> None:
    """Rounds measured before the limit was lowered do not hide what it does, and the link that would do is told."""
    rounds = tuple(round_done(5_000_000, 0.6, link=10e6) for _ in range(5))
    history = History(rounds=rounds, last_round_end_s=50.0, now_s=50.0)
    policy = Policy(budget_ms=6000, limit_bytes_per_s=500_000)
    action = decide_rebuild(both(serving("a", point(1)), based(1)), policy, history)
    assert isinstance(action, Refuse)
    assert "MB/s on the way" in action.error.what


def test_rounds_are_bounded() -> None:
    """Shrinking, but never enough: after so many rounds it says so."""
    history = History(rounds=(round_done(400_000_000, None), round_done(90_000_000, 20.0)), last_round_end_s=5, now_s=5)
    facts = both(serving("a", point(1)), based(1))
    assert error_of(facts, Policy(rounds_max=2), history) == "not-converging"


def test_cutovers_are_bounded() -> None:
    """After so many that were undone it stops, with the last cause."""
    failed = CutoverTried(ok=False, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=9, error="link-lost")
    facts = both(serving("a", point(1)), based(1))
    again = decide_rebuild(facts, POLICY, replace(ready(small_rounds()), cutovers=(failed, failed)))
    assert isinstance(again, Cutover)
    stop = decide_rebuild(facts, POLICY, replace(small_rounds(), cutovers=(failed,) * 3))
    assert isinstance(stop, Refuse)
    assert stop.error.exit_code == 20
    assert "link-lost" in stop.error.what


# -- taking over -------------------------------------------------------------------------------------------------------

DEAD = host("a", error=NO_ROUTE, volume=None)


def alone(**engine: object) -> HostFacts:
    """The replica of a dead primary."""
    return with_engine(replica("b", point(1)), replicating=False, **engine)


def takeover_error(facts: Facts, target: str | None = None) -> str:
    action = decide_takeover(facts, POLICY, NEW, target)
    assert isinstance(action, Refuse), action
    return action.error.id


def test_a_replica_takes_over_with_the_next_generation() -> None:
    """And when it has, it is done."""
    action = decide_takeover(both(DEAD, alone()), POLICY, NEW)
    assert action == TakeOver(target="b", generation=2, from_state="replica")
    done = decide_takeover(both(DEAD, serving("b", generation=2)), POLICY, History(taken_over=True))
    assert done == Done(serving="b")


def test_two_hosts_that_tell_nothing_are_no_reason_to_look_for_a_replica() -> None:
    """Their own words are the error, with their hint."""
    silent = host("a", error=NOT_ROOT, volume=None), host("b", error=NOT_ROOT, volume=None)
    action = decide_takeover(both(*silent), POLICY, NEW)
    assert isinstance(action, Refuse)
    assert action.error == replace(NOT_ROOT, serving="not known: neither a nor b could be looked at")


def test_a_whole_primary_is_only_opened() -> None:
    """After a reboot of the primary nothing is promoted, and the generation stays."""
    rebooted = with_engine(
        with_live(serving("a", point(1)), mounted_at=None), state=EngineState.ABSENT, generation=None
    )
    action = decide_takeover(both(rebooted, alone()), POLICY, NEW)
    assert action == TakeOver(target="a", generation=1, from_state="absent")


def test_a_received_point_serves_when_nothing_else_is_left() -> None:
    """The live image was withdrawn and the primary died: the newest round is better than nothing."""
    action = decide_takeover(both(DEAD, based(1)), POLICY, NEW)
    assert action == TakeOver(target="b", generation=1, from_state="absent")
    assert takeover_error(both(DEAD, based())) == "no-replica"
    assert takeover_error(both(DEAD, empty("b"))) == "no-replica"


def test_a_take_over_that_died_halfway_is_finished() -> None:
    """Open, but not marked as primary: the same again, from where it is."""
    halfway = with_engine(with_live(alone(), mounted_at="/db"), state=EngineState.GATED, gate_saved=True)
    action = decide_takeover(both(DEAD, halfway), POLICY, NEW)
    assert action == TakeOver(target="b", generation=2, from_state="gated")


@pytest.mark.parametrize("claims", ["replica", "primary"])
@pytest.mark.parametrize("state", [EngineState.PRIMARY, EngineState.GATED])
def test_a_take_over_that_died_before_its_mount_is_finished(state: EngineState, claims: str) -> None:
    """Open at the replica's path, marked or not: no client finds it there, so it does not count as answering."""
    marks = {"serves": claims, "generation": "1" if claims == "replica" else "2"}
    apart = with_live(with_engine(alone(), state=state), properties=marks)
    action = decide_takeover(both(DEAD, apart), POLICY, NEW)
    assert action == TakeOver(target="b", generation=2, from_state=str(state))
    assert takeover_error(both(serving("a"), apart)) == "primary-answers"


def test_an_abort_ends_what_was_not_begun() -> None:
    """A refresh at once; a take-over unless it is halfway, for then finishing is what puts things in order."""
    ended = History(abort=True)
    for action in (decide_refresh(attached(), POLICY, ended), decide_takeover(both(DEAD, alone()), POLICY, ended)):
        assert isinstance(action, Refuse)
        assert (action.error.id, action.error.exit_code) == ("aborted", 11)
    halfway = with_engine(alone(), state=EngineState.PRIMARY)
    assert isinstance(decide_takeover(both(DEAD, halfway), POLICY, ended), TakeOver)


@pytest.mark.parametrize(
    "facts",
    [
        attached(),
        both(serving("a"), serving("b")),
        both(with_engine(serving("a"), state=EngineState.CLOSED), alone()),
        both(with_engine(serving("a"), state=EngineState.GATED), alone()),
        both(replace(with_engine(serving("a"), state=EngineState.UNKNOWN), error=ErrorInfo("encrypted", "x")), alone()),
    ],
)
def test_a_primary_that_answers_is_left_alone(facts: Facts) -> None:
    """Open, idle, gated, or open for others in a way that snaprep cannot look into: it is alive."""
    assert takeover_error(facts) == "primary-answers"


def test_a_connection_that_stands_proves_nothing() -> None:
    """After a power cut the replica's connection stands for hours; the promotion itself asks the primary."""
    action = decide_takeover(both(DEAD, replica("b", point(1))), POLICY, NEW)
    assert action == TakeOver(target="b", generation=2, from_state="replica")


def test_a_take_over_needs_a_server_and_a_known_name() -> None:
    """Nothing is promoted where no server runs; a name outside the pair is a usage error."""
    assert takeover_error(both(DEAD, alone(server_up=False))) == "engine-down"
    assert takeover_error(both(DEAD, alone()), target="c") == "unknown-host"
    assert takeover_error(both(DEAD, alone()), target="a") == "no-replica"


def test_an_encrypted_copy_takes_over_when_its_key_is_there() -> None:
    """What cannot be opened is not promoted; the error names the dataset whose key it is."""
    sealed = with_live(alone(), encrypted=True, locked=True, key_of="b/db.recv")
    action = decide_takeover(both(DEAD, sealed), POLICY, NEW)
    assert isinstance(action, Refuse)
    assert (action.error.id, "zfs load-key b/db.recv" in action.error.hint) == ("key-not-loaded", True)
    assert isinstance(decide_takeover(both(DEAD, with_live(sealed, locked=False)), POLICY, NEW), TakeOver)


# -- refreshing --------------------------------------------------------------------------------------------------------


def test_a_refresh_goes_both_ways_then_settles() -> None:
    """Source to target, target to source, settle, done."""
    first = decide_refresh(attached(), POLICY, NEW)
    assert isinstance(first, Refresh)
    assert (first.sender, first.receiver, first.base.continues) == ("a", "b", True)
    history = History(refreshed=(("a", "b"),))
    second = decide_refresh(attached(), POLICY, history)
    assert isinstance(second, Refresh)
    assert (second.sender, second.base.target_image, second.base.continues) == ("b", "a/db", False)
    history = replace(history, refreshed=(("a", "b"), ("b", "a")))
    assert isinstance(decide_refresh(attached(), POLICY, history), Settle)
    assert decide_refresh(attached(), POLICY, replace(history, settled=True)) == Done(serving="a", replica="b")


@pytest.mark.parametrize(
    ("role", "allowed", "to"),
    [(ImageRole.RECV, True, "a/db.old"), (ImageRole.FOREIGN, False, "")],
)
def test_a_refresh_makes_way_for_itself(role: ImageRole, allowed: bool, to: str) -> None:  # noqa: FBT001
    """What the source once received and no longer continues steps aside; a stranger's is not touched."""
    facts = attached()
    source = facts.hosts[0]
    assert source.volume is not None
    elsewhere = image("a/db.recv", role, point(6))
    source = with_volume(source, images=(*source.volume.images, elsewhere))
    action = decide_refresh(both(source, facts.hosts[1]), POLICY, History(refreshed=(("a", "b"),)))
    if allowed:
        assert isinstance(action, SetAside)
        assert (action.roles.target, action.to) == ("a", to)
    else:
        assert isinstance(action, Refuse)
        assert action.error.id == "target-foreign"


def test_a_refresh_that_broke_in_its_first_stream_is_sent_again() -> None:
    """What is there in part of an image without a point is not set aside: else each try would leave one behind."""
    facts = attached()
    source = facts.hosts[0]
    assert source.volume is not None
    half = image("a/db.recv", ImageRole.RECV, partial=Partial("1-abc"))
    source = with_volume(source, images=(*source.volume.images, half))
    action = decide_refresh(both(source, facts.hosts[1]), POLICY, History(refreshed=(("a", "b"),)))
    assert isinstance(action, Refresh)
    assert (action.sender, action.receiver) == ("b", "a")


@pytest.mark.parametrize(
    ("facts", "id"),
    [
        (both(empty("a"), empty("b")), "no-database"),
        (both(serving("a"), host("b", error=NO_ROUTE)), "host-unreachable"),
        (both(serving("a"), empty("b")), "no-replica"),
        (both(with_engine(serving("a", point(3)), replicating=True), replica("b", point(1))), "no-common-base"),
    ],
)
def test_a_refresh_refuses(facts: Facts, id: str) -> None:
    """Without a running replica and a common point there is nothing to move."""
    action = decide_refresh(facts, POLICY, NEW)
    assert isinstance(action, Refuse)
    assert action.error.id == id
