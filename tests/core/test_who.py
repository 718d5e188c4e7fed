"""Who serves is found by looking; where looking does not settle it, the operator is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snaprep.core.action import Roles
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import EngineFacts, EngineState, Facts, HostFacts
from snaprep.core.volume import ImageRole
from snaprep.core.who import describe, judged, servers, serves, serving, who
from tests.core.facts import NO_ROUTE, attached, both, empty, host, image, point, replica, with_engine, with_live
from tests.core.facts import serving as primary


def closed(name: str, generation: int = 1, mounted_at: str | None = "/db") -> HostFacts:
    return with_live(
        with_engine(primary(name, generation=generation), state=EngineState.CLOSED, generation=None),
        mounted_at=mounted_at,
    )


def unknown(name: str, state: EngineState = EngineState.CLOSED) -> HostFacts:
    """A database that no run has ever marked."""
    live = image(f"{name}/db", ImageRole.FOREIGN, mounted_at="/db")
    return host(name, live, engine=EngineFacts(state=state, server_up=True))


@pytest.mark.parametrize(
    ("facts", "source"),
    [
        (attached(), "a"),
        (both(primary("a"), empty("b")), "a"),
        (both(unknown("a", EngineState.PRIMARY), empty("b")), "a"),
        (both(closed("a", 1), primary("b", generation=2)), "b"),
        (both(closed("a", 1), closed("b", 2)), "b"),
        (both(primary("a"), unknown("b")), "a"),
        (both(closed("a", 1), with_live(replica("b"), properties={"serves": "replica"})), "a"),
    ],
)
def test_it_is_seen(facts: Facts, source: str) -> None:
    """Open before closed, the newer generation before the older, never a replica."""
    roles = who(facts)
    assert isinstance(roles, Roles)
    assert roles.source == source


@pytest.mark.parametrize(
    "facts",
    [
        both(primary("a"), primary("b")),
        both(closed("a"), closed("b")),
        both(unknown("a", EngineState.PRIMARY), unknown("b")),
        both(primary("a", generation=1), closed("b", 2)),
    ],
)
def test_it_is_asked(facts: Facts) -> None:
    """Two that could be the right one are not guessed between; both positions are shown."""
    answer = who(facts)
    assert isinstance(answer, ErrorInfo)
    assert answer.id == "ambiguous-source"
    assert len(answer.details) == 2


def test_no_database_at_all() -> None:
    """Two empty hosts have no source."""
    answer = who(both(empty("a"), empty("b")))
    assert isinstance(answer, ErrorInfo)
    assert answer.id == "no-database"


def test_the_operator_says_and_it_is_stamped() -> None:
    """`--source` beats looking, and gets a newer generation so that it need not be said again."""
    facts = both(closed("a", 3), closed("b", 3))
    roles = who(facts, "b")
    assert roles == Roles(source="b", target="a", generation=4)
    stamped = both(closed("a", 3), closed("b", 4))
    assert who(stamped) == Roles(source="b", target="a", generation=4)
    assert who(stamped, "b") == Roles(source="b", target="a", generation=4)


def test_an_unknown_host_is_refused() -> None:
    """A name outside the pair is a usage error."""
    answer = who(attached(), "c")
    assert isinstance(answer, ErrorInfo)
    assert answer.exit_code == 2


@pytest.mark.parametrize(
    ("facts", "name", "words"),
    [
        (attached(), "a", "a serves"),
        (both(primary("a"), primary("b")), None, "a and b both take sessions"),
        (both(with_engine(primary("a"), state=EngineState.GATED), empty("b")), None, "nobody serves: a is gated"),
        (both(closed("a"), empty("b")), "a", "a serves (idle: the first session opens the database)"),
        (both(closed("a"), closed("b")), None, "nobody serves, as far as can be seen"),
        (both(closed("a", mounted_at=None), empty("b")), None, "nobody serves, as far as can be seen"),
        (
            both(closed("a", mounted_at="/db.replica"), replace(empty("b"), error=NO_ROUTE)),
            None,
            "nobody serves, as far as can be seen; b could not be looked at",
        ),
    ],
)
def test_every_message_says_who_serves(facts: Facts, name: str | None, words: str) -> None:
    """By name, and in one sentence that says the same, for every error and report."""
    assert (serves(facts), serving(facts)) == (name, words)


def test_what_is_open_where_no_client_looks_serves_nobody() -> None:
    """A take-over that died right after its promotion leaves an open copy at the replica's path."""
    apart = with_engine(replica("b", point(1)), state=EngineState.PRIMARY, replicating=False)
    dead = replace(empty("a"), error=NO_ROUTE)
    assert servers(both(dead, apart)) == ()
    assert serving(both(dead, apart)) == "nobody serves, as far as can be seen; a could not be looked at"
    assert servers(both(primary("a"), apart)) == ("a",)
    roles = who(both(primary("a"), apart))
    assert isinstance(roles, Roles)
    assert roles.source == "a"


@pytest.mark.parametrize(
    ("facts", "acted", "code", "shown"),
    [
        (attached(), False, 1, 1),
        (attached(), True, 1, 10),
        (attached(), True, 3, 10),
        (attached(), True, 12, 12),
        (attached(), True, 21, 20),
        (attached(), True, 30, 30),
        (both(closed("a"), empty("b")), True, 1, 10),
        (both(with_engine(primary("a"), state=EngineState.GATED), empty("b")), False, 3, 3),
        (both(with_engine(primary("a"), state=EngineState.GATED), empty("b")), True, 1, 21),
        (both(with_engine(primary("a"), state=EngineState.GATED), empty("b")), True, 20, 21),
        (both(with_engine(primary("a"), state=EngineState.GATED), empty("b")), True, 75, 75),
    ],
)
def test_the_code_of_an_error_is_the_state_that_was_found(
    facts: Facts,
    acted: bool,  # noqa: FBT001
    code: int,
    shown: int,
) -> None:
    """Before anything was done it is the error's own; after that it says whether somebody serves."""
    info = judged(ErrorInfo("x", "y", exit_code=code), facts, acted=acted)
    assert info.exit_code == shown
    assert info.serving == serving(facts)


def test_a_position_is_a_line() -> None:
    """What stands under an ambiguous answer."""
    assert describe(replace(empty("b"), error=NO_ROUTE)) == "b: no route [host-unreachable]"
    assert describe(empty("b")) == "b: absent, generation 0, no mark of a primary"
    noted = replace(with_engine(empty("b"), note="process 7 has it open"), error=NO_ROUTE)
    assert describe(noted) == "b: no route [host-unreachable]; process 7 has it open"
    line = describe(with_engine(primary("a", point(1)), position_text="(3, 44)"))
    assert line == "a: primary, generation 1, last known as primary, at (3, 44), newest snapshot snaprep-p-r-001"


def test_a_database_that_lets_us_not_in_may_serve_others() -> None:
    """Open in a process that refuses us: that is not nobody, and an error keeps its own code."""
    facts = both(with_engine(primary("a"), state=EngineState.UNKNOWN), empty("b"))
    assert servers(facts) == ()
    assert serving(facts) == "a has its database open, but does not let snaprep in to look"
    assert judged(ErrorInfo("login-refused-by-engine", "y", exit_code=3), facts, acted=True).exit_code == 3


def test_a_primary_that_answered_its_replica_serves_out_of_sight() -> None:
    """An operator who cannot see it must not read that nobody serves."""
    info = ErrorInfo("primary-answers", "it has answered", serving="the primary serves", exit_code=3)
    out_of_sight = both(host("a", volume=None, error=NO_ROUTE), replica("b", point(1)))
    assert judged(info, out_of_sight, acted=True) == info
