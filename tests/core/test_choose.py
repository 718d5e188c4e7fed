"""Which lane is taken when nobody has named one: by what was measured, and by what the operator allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snaprep.core.action import Choose, FeedCutover, Hold, KeepLog, Prepare, Refuse, Round
from snaprep.core.estimate import bytes_per_s, written_words
from snaprep.core.lane import decide_lane
from snaprep.core.model import CutoverTried, Facts, History, KeptLog, Policy
from snaprep.core.simulated.faults import Fault
from snaprep.core.simulated.simulate import names_in, simulate_run
from snaprep.core.simulated.world import Load, advance
from snaprep.core.volume import ImageRole
from tests.core.facts import AB, both, empty, image, point, round_done, serving, small_rounds, with_engine
from tests.core.models import fresh_world, write
from tests.core.test_follow import fed, source
from tests.core.test_lane import FEEDING

KEPT = KeptLog(wanted=True, since=1, first=1)
LOG_BYTES_PER_S = 1e6


def measured(history: History, log_bytes_per_s: float | None = LOG_BYTES_PER_S) -> History:
    return replace(history, rounds=tuple(replace(r, log_bytes_per_s=log_bytes_per_s) for r in history.rounds))


def plateau() -> History:
    rounds = tuple(round_done(d, d / 20e6 + 0.15) for d in (200_000_000, 180_000_000, 175_000_000, 172_000_000))
    return measured(History(rounds=rounds, last_round_end_s=50.0, now_s=50.0))


def slow() -> History:
    """A cutover would fit a budget of 20 s, and ship 60 MB in 3 s."""
    rounds = (round_done(900_000_000, None), round_done(300_000_000, 45.0), round_done(110_000_000, 15.0))
    return measured(History(rounds=rounds, last_round_end_s=50.0, now_s=50.0))


def facts(kept: KeptLog | None = None) -> Facts:
    recv = image("b/db.recv", ImageRole.RECV, point(1))
    return both(with_engine(serving("a", point(1)), kept_log=kept), empty("b", recv))


def chosen(history: History, kept: KeptLog | None = None, **policy: Any) -> Choose:  # noqa: ANN401
    action = decide_lane(facts(kept), Policy(**policy), history)
    assert isinstance(action, Choose), action
    assert action.roles == AB
    return action


def test_pages_that_fit_are_taken() -> None:
    """Once, before the target is made ready, with the figures that it rests on."""
    action = chosen(measured(small_rounds()), KEPT)
    assert action.lane == "pages"
    assert "increments 0.4 MB/s, log 1.0 MB/s; cutover P90" in action.why
    assert (action.page_bytes_per_s, action.log_bytes_per_s) == (400_000, LOG_BYTES_PER_S)
    assert isinstance(decide_lane(facts(KEPT), Policy(), replace(small_rounds(), lane="pages")), Prepare)
    assert chosen(small_rounds()).why.startswith("cutover P90")


def test_a_clearly_shorter_cutover_is_taken_when_the_log_is_kept() -> None:
    """And where it comes to be kept in the way that was named, what that costs counts."""
    for kept, archive in ((KEPT, None), (KeptLog(due=True), None), (None, "bounce"), (None, "backup")):
        action = chosen(slow(), kept, budget_ms=20_000, archive=archive)
        assert action.lane == "log", (kept, archive)
    assert "from a feed 2500 ms" in chosen(slow(), budget_ms=20_000, archive="bounce").why
    tried = CutoverTried(ok=True, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=400, fed=True)
    of_this_pair = replace(slow(), cutovers=(tried,) * 3)
    assert "from a feed 1500 ms" in chosen(of_this_pair, budget_ms=20_000, archive="bounce").why


@pytest.mark.parametrize(
    ("archive", "history", "why"),
    [
        (None, slow(), "a keeps none, and nobody has said how it may come to"),
        ("restart", slow(), "from its next restart on only, and pages will do"),
        ("backup", replace(slow(), unfeedable=True), "b cannot be fed"),
        ("backup", measured(slow(), None), "how fast it is written is not known"),
        ("backup", measured(slow(), 19e6), "19.0 MB/s of it are written, and the way carries 20.0 MB/s"),
    ],
)
def test_it_is_never_a_surprise(archive: Any, history: History, why: str) -> None:  # noqa: ANN401
    """What was not allowed, or is not known to do, is not done; and it is said."""
    action = chosen(history, budget_ms=20_000, archive=archive)
    assert (action.lane, why in action.why) == ("pages", True), action.why


@pytest.mark.parametrize("archive", ["restart", "bounce", "backup"])
def test_a_plateau_goes_over_to_the_log_where_that_is_allowed(archive: Any) -> None:  # noqa: ANN401
    """By itself, with the figures; then the log is kept, and fed."""
    action = chosen(plateau(), archive=archive)
    assert action.lane == "log"
    assert "rounds do not shrink enough; increments" in action.why
    assert chosen(plateau(), KEPT).lane == "log"
    after = replace(plateau(), lane="log")
    assert isinstance(decide_lane(facts(), Policy(archive=archive), after), KeepLog)
    assert chosen(replace(after, unfeedable=True, rounds=slow().rounds), budget_ms=20_000).lane == "pages"


def test_a_plateau_says_what_would_help() -> None:
    """Where the log lane is not allowed the run ends, and names it, and why it was not taken."""
    refused = decide_lane(facts(), Policy(), plateau())
    assert isinstance(refused, Refuse)
    assert refused.error.id == "not-converging"
    assert "not in the log lane: a keeps none" in refused.error.what
    assert "--lane log" in refused.error.hint
    named = decide_lane(facts(), Policy(lane="pages"), plateau())
    assert isinstance(named, Refuse)
    assert "log lane" not in named.error.what
    assert "log 1.0 MB/s" in named.error.what
    small = decide_lane(facts(KEPT), Policy(budget_ms=2000), plateau())
    assert isinstance(small, Refuse)
    assert "its cutover may take 1500 ms, and 1000 ms are allowed" in small.error.what
    tried = CutoverTried(ok=True, predicted_p50_ms=1, predicted_p90_ms=1, blocked_ms=400, fed=True)
    of_this_pair = replace(plateau(), cutovers=(tried,) * 3)
    assert isinstance(decide_lane(facts(KEPT), Policy(budget_ms=2000), of_this_pair), Choose)


def test_a_held_run_goes_over_too() -> None:
    """It would wait for a quieter hour in pages; in the log it is ready at once."""
    held: dict[str, Any] = {"hold": True, "hold_pace_s": 100.0}
    assert chosen(plateau(), KEPT, **held).lane == "log"
    assert isinstance(decide_lane(facts(), Policy(**held), plateau()), Hold)
    assert isinstance(decide_lane(facts(KEPT), Policy(**held), measured(small_rounds())), Hold)


def test_what_was_fed_already_is_gone_on_with() -> None:
    """After a `follow` nothing has to be shipped but the last of the log; what cannot be fed gets pages."""
    seen = both(replace(source(point(1)), feed=FEEDING), fed(point(1)))
    action = decide_lane(seen, Policy(), History())
    assert isinstance(action, Choose)
    assert (action.lane, "was fed already" in action.why) == ("log", True)
    assert isinstance(decide_lane(seen, Policy(), History(lane="log", settled=True)), FeedCutover)
    assert isinstance(decide_lane(seen, Policy(), History(unfeedable=True)), Round)


def test_other_actions_come_first() -> None:
    """What is set right, or refused for another reason, has nothing to do with lanes."""
    assert isinstance(decide_lane(both(empty("a"), empty("b")), Policy(), History()), Refuse)
    down = decide_lane(both(serving("a", point(1)), with_engine(empty("b"), server_up=False)), Policy(), plateau())
    assert isinstance(down, Refuse)
    assert down.error.id == "engine-down"


def test_rates() -> None:
    """Nothing is said of what was not looked at twice, or was counted anew."""
    assert bytes_per_s((1.0, 100), 3.0, 300) == 100
    for before, now_s, count in ((None, 3.0, 1), ((1.0, 1), 3.0, None), ((3.0, 1), 3.0, 1), ((1.0, 9), 3.0, 1)):
        assert bytes_per_s(before, now_s, count) is None
    assert written_words(()) == ""


HOT = Load(dirty_bytes_per_s=3e7, hot_bytes=5e8, log_bytes_per_s=1e6)


def test_a_hot_set_in_the_model() -> None:
    """Rounds that do not shrink end in the log lane where that is allowed, and in an error where it is not; killed
    anywhere, the next run gets there.
    """
    policy = Policy(archive="bounce")
    done = simulate_run("rebuild", fresh_world(HOT), policy, write)
    names = names_in(done)
    assert (done.error, done.broken) == (None, [])
    assert names[names.index("Choose") :][:3] == ["Choose", "KeepLog", "Round"]
    assert names[-5:] == ["Feed", "FeedCutover", "Verify", "KeepNoLog", "Done"], names
    refused = simulate_run("rebuild", fresh_world(HOT), Policy(), write)
    assert refused.error is not None
    assert refused.error.id == "not-converging"
    for at in range(1, len(done.steps) + 2, 3):
        for kill in ("operator", "agent", "server", "host"):
            world = fresh_world(HOT)
            struck = simulate_run("rebuild", world, policy, write, (Fault(at, kill),))
            assert struck.broken == [], (at, kill, struck.steps)
            advance(world, 60)
            if world.hosts["a"].live is not None and not world.hosts["a"].live.mounted:
                continue  # its host was booted: that is for a take-over
            again = simulate_run("rebuild", world, policy, write, name="again")
            assert (again.broken, again.error) == ([], None), (at, kill, again.steps[-5:], again.error)
