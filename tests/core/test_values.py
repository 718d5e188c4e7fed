"""Errors, recipes, steps on the wire, and the facts' own small questions."""

from __future__ import annotations

import pickle

import pytest

from snaprep.core.errors import Aborted, ErrorInfo, SnaprepError, Stale, from_info, may_pass, named
from snaprep.core.model import HostFacts, Policy
from snaprep.core.perform import Performed, StepDone, fill, to_call, undo_calls
from snaprep.core.recipe import Arg, Ref, Step, calls, resolve, stages, undo_of, unresolved
from snaprep.core.volume import ImageRole
from tests.core.facts import attached, host, image, point
from tests.core.models import PAIR, SECRET

OPEN, THAW = Step(host="a", op="gate_open"), Step(host="a", op="thaw")


def test_an_error_survives_wire_and_pickle() -> None:
    """Class, id and words come back; an unknown exit code gives the base class."""
    error = Stale("base-gone", "the base is gone", hint="look again", serving="a serves", details=("x",))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is Stale
    assert again.info == error.info
    assert again.id == "base-gone"
    assert type(from_info(ErrorInfo("x", "y", exit_code=11))) is Aborted
    assert type(from_info(ErrorInfo("x", "y", exit_code=99))) is SnaprepError


def test_steps_of_one_host_go_in_one_call() -> None:
    """Neighbours are grouped, the order stays."""
    a, b = Step(host="a", op="x"), Step(host="b", op="y")
    assert calls((a, a, b, a)) == [(a, a), (b,), (a,)]


def test_steps_beside_others_are_one_stage() -> None:
    """At most one call a host runs at a time, and what waits for nothing does not wait."""
    a, b = Step(host="a", op="x"), Step(host="b", op="y")
    beside = Step(host="b", op="z", beside=True)
    assert stages((a, beside, beside, b, a)) == [[(a,), (beside, beside)], [(b,)], [(a,)]]
    assert stages((beside, a)) == [[(beside,)], [(a,)]]
    assert stages((b, beside)) == [[(b,)], [(beside,)]]


def test_the_undo_is_newest_first() -> None:
    """What was done last is taken back first."""
    assert undo_of((Step(host="a", op="x", undo=(OPEN,)), Step(host="a", op="y", undo=(THAW,)))) == (THAW, OPEN)


def test_references_are_filled_in() -> None:
    """By key, by field of a mapping or of a value; one to a step that has not run is an error."""
    results = {"s": {"guids": (1,)}, "n": 5, "p": point(3)}
    args: dict[str, Arg] = {"a": Ref("s", "guids"), "b": Ref("n"), "c": Ref("p", "guid"), "d": 7}
    assert resolve(args, results) == {"a": (1,), "b": 5, "c": 3, "d": 7}
    with pytest.raises(KeyError):
        resolve({"a": Ref("none")}, results)


def test_a_recipe_that_refers_forward_is_found() -> None:
    """Each reference must lie behind."""
    uses = Step(host="a", op="use", args={"x": Ref("make"), "y": 1})
    make = Step(host="a", op="make_it", name="make")
    assert unresolved((uses, make)) == ["use refers to make"]
    assert unresolved((make, uses)) == []
    there = Step(host="b", op="use", args={"x": Ref("make")}, beside=True)
    assert unresolved((make, there)) == ["use refers to make"]


def test_a_step_travels_with_what_is_known() -> None:
    """Values of earlier calls are put in; those of the same call are filled in on the host."""
    step = Step(
        host="a", op="use", args={"x": Ref("s", "guid"), "y": Ref("n"), "z": Ref("t", "f"), "w": 1}, undo=(OPEN,)
    )
    call = to_call(step, {"s": {"guid": 4}, "n": 5})
    assert fill(call.args, {"t": {"f": 6}}) == {"x": 4, "y": 5, "z": 6, "w": 1}
    assert [u.op for u in undo_calls([call, call])] == ["gate_open"]


def test_a_call_says_what_failed() -> None:
    """The first step with an error, or none."""
    bad = StepDone("x", "x", 0, 1, error=ErrorInfo("e", "e"))
    assert Performed((StepDone("y", "y", 0, 1), bad)).failed == bad
    assert Performed().failed is None


def test_facts_answer_by_name() -> None:
    """One's own host, and the other."""
    facts = attached()
    assert facts.host("b").name == facts.other("a").name == "b"
    assert facts.host("a").name == facts.other("b").name == "a"


def test_a_host_that_tells_nothing_has_nothing() -> None:
    """Every question has an answer."""
    silent = HostFacts(name="x")
    assert silent.live is None
    assert silent.recv is None
    assert silent.claimed_generation == 0
    assert not silent.claims_primary
    assert not silent.has_database
    assert not silent.stands_at_path
    assert host("x", image("x/db", ImageRole.LIVE, mounted_at="/y"), mountpoint="").stands_at_path


def test_a_pair_is_asked_by_name() -> None:
    """Hosts and ways to reach them, in the order of the configuration."""
    assert PAIR.host("b").dataset == "b/db"
    assert PAIR.reach_of("b").ssh == "b"
    assert PAIR.reach_of("a").ssh == "a"
    assert SECRET not in repr(PAIR)


def test_an_image_is_asked_for_its_points() -> None:
    """By their GUIDs."""
    there = image("x/db.recv", ImageRole.RECV, point(1))
    assert there.point(1) == point(1)
    assert there.point(2) is None


def test_the_gate_lasts_as_long_as_leaves_time_for_an_undo() -> None:
    """Inside the budget."""
    assert Policy(budget_ms=3000, undo_ms=500).cutover_lease_ms == 2500


def test_what_an_agent_says_is_told_with_its_name() -> None:
    """Readers sit elsewhere: "this host" means nothing to them."""
    assert named(ErrorInfo("no-java", "no java on this host"), "db2").what == "db2: no java on this host"
    assert named(ErrorInfo("stale", "db2 was booted"), "db2").what == "db2 was booted"


def test_what_may_pass_is_tried_again() -> None:
    """A link that broke may come back, a stream that was damaged is sent again; a key that is refused stays refused."""
    assert may_pass("link-lost")
    assert may_pass("stream-damaged")
    assert not may_pass("link-refused")
    assert not may_pass("target-full")
