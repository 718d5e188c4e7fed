"""The plan is what the loop would do, with bytes and times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from snaprep.core import preview
from snaprep.core.action import FeedCutover, Refuse, Seed
from snaprep.core.model import CutoverTried, EngineState, Facts, Policy, Transactions
from snaprep.core.preview import Measured, PlannedStep, plan_steps
from snaprep.core.simulated.look import facts_of
from snaprep.core.simulated.simulate import names_in, simulate_run
from snaprep.core.simulated.world import World
from snaprep.core.volume import ImageRole
from tests.core.facts import both, empty, image, point, serving, with_engine, with_volume
from tests.core.models import fresh_world, write
from tests.core.test_interrupted import broken_replica, failed_over, replicated

MEASURED = Measured(link_bytes_per_s=20e6, dirty_bytes_per_s=2e6, hot_bytes=64e6)


def names(steps: tuple[PlannedStep, ...]) -> list[str]:
    return [type(s.action).__name__ for s in steps]


@pytest.mark.parametrize("start", [fresh_world, replicated, broken_replica, failed_over])
def test_the_plan_is_what_the_loop_does(start: Callable[[], World]) -> None:
    """The same kinds of action in the same order as a run in the model world; how many rounds may differ by one."""
    world = start()
    planned = names(plan_steps(facts_of(world), Policy(), MEASURED))
    done = names_in(simulate_run("rebuild", world, Policy(), write, name="p"))
    assert list(dict.fromkeys(planned)) == list(dict.fromkeys(done))
    assert abs(len(planned) - len(done)) <= 1


def test_it_counts_bytes_and_time() -> None:
    """A seed of 200 MB over 20 MB/s is ten seconds; the cutover carries what the last round left."""
    steps = {type(s.action).__name__: s for s in plan_steps(facts_of(fresh_world()), Policy(), MEASURED)}
    assert steps["Seed"].step_bytes == 200_000_000
    assert steps["Seed"].seconds == pytest.approx(10, rel=0.02)
    assert steps["Seed"].blocked_p50_ms == MEASURED.freeze_ms
    assert 0 < steps["Cutover"].step_bytes < 5_000_000
    assert steps["Cutover"].blocked_p50_ms < steps["Cutover"].blocked_p90_ms <= Policy().budget_ms


def test_a_full_copy_is_what_was_estimated() -> None:
    """The filesystem's estimate of a full stream comes before what the image refers to."""
    first = plan_steps(facts_of(fresh_world()), Policy(), replace(MEASURED, full_bytes=150_000_000))
    assert [s.step_bytes for s in first if isinstance(s.action, Seed)] == [150_000_000]


def test_the_first_increment_is_what_was_estimated() -> None:
    """From an old base it cannot be modelled: the filesystem's estimate, else what it counts as written."""
    recv = image("b/db.recv", ImageRole.RECV, point(1))
    facts = both(serving("a", point(1)), empty("b", recv))
    told = plan_steps(facts, Policy(), replace(MEASURED, first_delta_bytes=77_000_000))
    assert told[0].step_bytes == 77_000_000
    assert plan_steps(facts, Policy(), MEASURED)[0].step_bytes == preview.STREAM_BYTES_MIN


def test_an_idle_database_is_cut_over() -> None:
    """When nobody writes and the filesystem cannot estimate, the plan ends with a cutover all the same."""
    recv = image("b/db.recv", ImageRole.RECV, point(1))
    idle = replace(MEASURED, dirty_bytes_per_s=0.0, hot_bytes=None)
    planned = names(plan_steps(both(serving("a", point(1)), empty("b", recv)), Policy(), idle))
    assert planned[-4:] == ["Cutover", "Verify", "Settle", "Done"]


def test_it_opens_gives_up_and_sets_aside() -> None:
    """What stands in the way is planned, too."""
    source = with_engine(serving("a", point(1)), state=EngineState.GATED)
    went_on = image("b/db.recv", ImageRole.RECV, point(1), point(9))
    clone = image("b/db.old", ImageRole.ISOLATED, origin="b/db.recv", origin_guid=1)
    planned = names(plan_steps(both(source, empty("b", went_on, clone)), Policy(), MEASURED))
    assert planned[:3] == ["Reopen", "SetAside", "Round"]
    full = with_volume(serving("a", point(1)), free_bytes=1)
    assert names(plan_steps(both(full, empty("b")), Policy(), MEASURED)) == ["GiveUp", "Refuse"]


@pytest.mark.parametrize(
    ("measured", "id"),
    [
        (replace(MEASURED, dirty_bytes_per_s=40e6, hot_bytes=None), "not-converging"),
        (replace(MEASURED, dirty_bytes_per_s=90e6, hot_bytes=3e9), "not-converging"),
    ],
)
def test_a_plan_that_cannot_work_says_so(measured: Measured, id: str) -> None:
    """Writers that the link cannot follow end the plan as they would end the run."""
    last = plan_steps(facts_of(fresh_world()), Policy(), measured)[-1].action
    assert isinstance(last, Refuse)
    assert last.error.id == id


def test_a_plan_that_waits_for_people_ends_open() -> None:
    """Old transactions cannot be planned away."""
    world = fresh_world()
    facts: Facts = facts_of(world)
    source = with_engine(facts.hosts[0], transactions=Transactions(open=1, oldest_s=900))
    last = plan_steps(both(source, facts.hosts[1]), replace(Policy(), hold=True), MEASURED)[-1].action
    assert isinstance(last, Refuse)
    assert last.error.id == "plan-open"
    assert "a transaction is open for 900 s" in last.error.what
    assert last.error.serving == f"{source.name} serves"


def test_a_plan_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the row of rounds would be."""
    monkeypatch.setattr(preview, "STEPS_MAX", 3)
    last = plan_steps(facts_of(fresh_world()), Policy(), MEASURED)[-1].action
    assert isinstance(last, Refuse)
    assert last.error.id == "plan-open"


@pytest.mark.parametrize("archive", ["bounce", "backup"])
def test_a_plan_in_the_log_lane(archive: Any) -> None:  # noqa: ANN401
    """The same actions as a run, and what keeping the log, and the cutover from the feed, would block."""
    policy = Policy(lane="log", archive=archive)
    measured = replace(MEASURED, log_bytes_per_s=1e6)
    steps = plan_steps(facts_of(fresh_world()), policy, measured)
    assert names(steps)[-1] == "Done"
    done = names_in(simulate_run("rebuild", fresh_world(), policy, write, name="p"))
    assert list(dict.fromkeys(names(steps))) == list(dict.fromkeys(done))
    by_name = {type(s.action).__name__: s for s in steps}
    assert by_name["Feed"].step_bytes == pytest.approx(1e6 * by_name["Seed"].seconds, rel=0.01)
    assert by_name["FeedCutover"].blocked_p50_ms == 700
    tried = CutoverTried(ok=True, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=400, fed=True)
    known = plan_steps(facts_of(fresh_world()), policy, replace(measured, cutovers=(tried,) * 3))
    (cut,) = (s for s in known if isinstance(s.action, FeedCutover))
    assert (cut.blocked_p50_ms, cut.blocked_p90_ms) == (400, 500)
    assert (by_name["KeepLog"].blocked_p50_ms > 0) is (archive == "bounce")


def test_a_plan_goes_over_to_the_log() -> None:
    """Where rounds would not shrink, and the log may come to be kept, as the run would."""
    measured = replace(MEASURED, dirty_bytes_per_s=40e6, hot_bytes=None, log_bytes_per_s=1e6)
    planned = names(plan_steps(facts_of(fresh_world()), Policy(archive="bounce"), measured))
    assert planned[-1] == "Done"
    assert "Choose" in planned
    assert "FeedCutover" in planned
