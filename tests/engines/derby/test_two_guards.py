"""Two runs on one host that halt the same database: the second leaves it to the first."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from snaprep.agent import feed_steps
from snaprep.agent.host import AgentHost
from snaprep.agent.steps import gate_prepare
from snaprep.core.errors import SnaprepError, Stopped, may_pass
from tests.engines.derby.pairs import Two, agent_of
from tests.rig.node import wait_until

pytestmark = pytest.mark.derby
_LEASE_MS = 60_000


@pytest.fixture
def agents(pair: Two) -> Iterator[tuple[AgentHost, AgentHost]]:
    """Of two pairs that have one database as their source."""
    both = agent_of(pair.at_source, "first"), agent_of(pair.at_source, "second")
    try:
        yield both
    finally:
        for agent in both:
            agent.close()


@pytest.mark.parametrize("act", ["freeze", "gate_close"])
def test_what_another_guard_halts_is_refused_for_now(pair: Two, agents: tuple[AgentHost, AgentHost], act: str) -> None:
    """The error is one that passes, so that the run looks anew; and giving up does not open what the first closed."""
    first, second = agents
    for agent in agents:
        agent.guard.ready()
    first.guard.call("gate_close", {"lease_ms": _LEASE_MS}, deadline_s=20)
    with pytest.raises(SnaprepError) as caught:
        second.guard.call(act, {"lease_ms": _LEASE_MS}, deadline_s=20)
    assert may_pass(caught.value.id)
    assert caught.value.id == "guard-at-work"
    gives_up = threading.Thread(target=second.guard.call, args=("put_back",), kwargs={"deadline_s": 60})
    gives_up.start()
    gives_up.join(0.5)
    assert gives_up.is_alive()
    assert not pair.lets_in()
    first.guard.call("put_back", deadline_s=20)
    gives_up.join(20)
    assert not gives_up.is_alive()
    assert pair.lets_in()
    second.guard.call(act, {"lease_ms": _LEASE_MS}, deadline_s=20)


def test_two_that_bounce_at_once(pair: Two, agents: tuple[AgentHost, AgentHost]) -> None:
    """Each has its log kept or hears that another is at it; nobody breaks off the other's."""
    ended: list[str] = []

    def bounce(agent: AgentHost) -> None:
        said = "kept"
        try:
            feed_steps.keep_log(agent, how="bounce")
        except SnaprepError as error:
            said = error.id
        ended.append(said)

    threads = [threading.Thread(target=bounce, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ended) in (["kept", "kept"], ["guard-at-work", "kept"])
    assert pair.lets_in()
    for agent in agents:
        assert agent.engine.keeps_log()


@pytest.mark.parametrize("bounced", [True, False])
def test_a_session_that_ends_amid_the_preparation(
    agents: tuple[AgentHost, AgentHost], monkeypatch: pytest.MonkeyPatch, *, bounced: bool
) -> None:
    """It is no failure when another pair's shutdown has ended it, for then the log is kept; else it is one."""
    first, second = agents

    def overtaken(host: AgentHost) -> None:
        if host is first:
            gate_prepare(host)
            return
        if bounced:
            feed_steps.keep_log(first, how="bounce")
        raise Stopped("gate-failed", "the session ended")

    monkeypatch.setattr(feed_steps, "gate_prepare", overtaken)
    if bounced:
        assert feed_steps.keep_log(second, how="bounce") == 0
        return
    with pytest.raises(SnaprepError) as caught:
        feed_steps.keep_log(second, how="bounce")
    assert caught.value.id == "gate-failed"


def test_nobody_comes_in_while_a_database_is_bounced(pair: Two, agents: tuple[AgentHost, AgentHost]) -> None:
    """A client that comes back at once would be at work amid the shutdown, and may hang the server: it is refused
    until all is over.
    """
    let_in: list[bool] = []
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            let_in.append(pair.lets_in())

    knocking = threading.Thread(target=knock)
    knocking.start()
    wait_until(lambda: bool(let_in), "a client", 20)
    try:
        assert 0 < feed_steps.keep_log(agents[0], how="bounce") < 30
        wait_until(lambda: bool(let_in) and let_in[-1], "the client to be back", 20)
    finally:
        over.set()
        knocking.join(60)
    refused = [number for number, came in enumerate(let_in) if not came]
    assert let_in[0]
    assert refused == list(range(refused[0], refused[-1] + 1))
    assert feed_steps.keep_log(agents[0], how="bounce") == 0
