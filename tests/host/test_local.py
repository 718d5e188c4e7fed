"""The agent on stdio: what an operation may assume, and what an operator gets back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snaprep.core.errors import HostUnreachable, SnaprepError, Stale
from snaprep.core.volume import Point
from snaprep.host.bundle import zip_of_agent
from snaprep.host.local import LocalHost
from tests.host import streamed


@pytest.fixture
def host() -> Iterator[LocalHost]:
    host = LocalHost(entry=streamed.ENTRY, code=streamed.code())
    yield host
    host.close()
    assert host.process.poll() is not None


def refused(host: LocalHost, op: str, args: dict[str, object]) -> SnaprepError:
    with pytest.raises(SnaprepError) as caught:
        host.call(op, args, int, deadline_s=5)
    return caught.value


def test_values_travel_exactly(host: LocalHost) -> None:
    """Dataclasses with 64-bit GUIDs come back equal, and defaults are filled in over there."""
    point = Point("snap", (2**64 - 1, 2**63 + 1), 7, held=True)
    assert host.call("echo", {"point": point}, Point, deadline_s=5) == point
    assert host.call("add", {"one": 1}, int, deadline_s=5) == 2


@pytest.mark.parametrize(
    ("op", "args", "says"),
    [
        ("rm", {}, "no such operation"),
        ("__import__", {}, "no such operation"),
        ("add", {}, "'one' is missing"),
        ("add", {"one": 1, "more": 2}, "unknown argument 'more'"),
        ("add", {"one": "1"}, "one: expected int, got str"),
        ("count", {"to": 1, "progress": 1}, "unknown argument 'progress'"),
    ],
)
def test_only_what_is_listed_runs(host: LocalHost, op: str, args: dict[str, object], says: str) -> None:
    """Unknown operations and arguments that do not fit are refused before anything runs."""
    error = refused(host, op, args)
    assert error.id == "bad-request"
    assert says in error.info.what


def test_errors_keep_their_class_and_words(host: LocalHost) -> None:
    """A SnaprepError arrives as itself; anything else is a bug with its traceback; the session goes on."""
    stale = refused(host, "stale", {})
    assert isinstance(stale, Stale)
    assert (stale.info.hint, stale.info.details) == ("observe again", ("a", "b"))
    bug = refused(host, "boom", {})
    assert bug.id == "bug"
    assert any("in boom" in line for line in bug.info.details)
    assert refused(host, "large", {"size_bytes": 17 << 20}).id == "reply-too-large"
    assert host.call("add", {"one": 1}, int, deadline_s=5) == 2


def test_what_is_printed_by_accident_does_not_break_the_wire(host: LocalHost) -> None:
    """Prints of the agent and of its children go to stderr, and children read an empty stdin."""
    assert host.call("noisy", {}, str, deadline_s=10) == "fine"


def test_progress_comes_before_the_result_and_in_order(host: LocalHost) -> None:
    """Each event arrives, in order, before the call returns."""
    seen: list[Any] = []
    assert host.call("count", {"to": 100}, int, deadline_s=10, on_progress=seen.append) == 100
    assert seen == [{"name": "counting", "done": n} for n in range(100)]


def test_a_mistake_in_a_progress_callback_is_the_callers(host: LocalHost) -> None:
    """An exception in the callback is raised by the call, and the connection lives."""

    def broken(_: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        host.call("count", {"to": 3}, int, deadline_s=5, on_progress=broken)
    assert host.call("add", {"one": 1}, int, deadline_s=5) == 2


def test_requests_run_beside_each_other_and_can_be_cancelled(host: LocalHost) -> None:
    """A slow operation keeps no other from answering, and sees that it is cancelled."""
    began = time.monotonic()
    slow = host.begin("patient", {"bound_s": 30.0}, bool, deadline_s=40)
    assert host.call("add", {"one": 1}, int, deadline_s=5) == 2
    assert not slow.done()
    slow.cancel()
    assert slow.result() is True
    assert time.monotonic() - began < 10


def test_a_deadline_is_kept_even_by_an_operation_that_does_not_listen(host: LocalHost) -> None:
    """The call raises `deadline` soon after its deadline, and the session goes on."""
    began = time.monotonic()
    with pytest.raises(HostUnreachable) as caught:
        host.call("deaf", {"bound_s": 6.0}, type(None), deadline_s=0.5)
    assert caught.value.id == "deadline"
    assert time.monotonic() - began < 4
    assert host.call("add", {"one": 1}, int, deadline_s=5) == 2


def test_the_end_of_the_operator_runs_the_closing(tmp_path: Path) -> None:
    """EOF on stdin: the running operation is cancelled, on_close runs, the process exits with 0."""
    host = LocalHost(entry=streamed.ENTRY, code=streamed.code())
    host.call("on_close_write", {"path": str(tmp_path / "mark")}, type(None), deadline_s=5)
    waiting = host.begin("patient", {"bound_s": 60.0}, bool, deadline_s=90)
    host.close()
    assert host.process.returncode == 0
    assert (tmp_path / "mark").read_text() == "closed"
    with pytest.raises(HostUnreachable):
        waiting.result()
    assert not host.alive


def test_a_signal_runs_the_closing_too(tmp_path: Path) -> None:
    """SIGTERM ends the agent as the end of stdin does."""
    host = LocalHost(entry=streamed.ENTRY, code=streamed.code())
    host.call("on_close_write", {"path": str(tmp_path / "mark")}, type(None), deadline_s=5)
    host.process.terminate()
    assert host.process.wait(20) == 0
    assert (tmp_path / "mark").read_text() == "closed"
    host.close()


def test_an_agent_killed_in_mid_call_is_reported_at_once(host: LocalHost) -> None:
    """kill -9: every call under way and every later one raises `agent-died` with the last words of stderr."""
    host.call("noisy", {}, str, deadline_s=10)
    call = host.begin("patient", {"bound_s": 60.0}, bool, deadline_s=90)
    host.process.kill()
    with pytest.raises(HostUnreachable) as caught:
        call.result()
    assert caught.value.id == "agent-died"
    assert "said on stderr" in caught.value.info.details
    assert "printed by accident" in caught.value.info.details
    with pytest.raises(HostUnreachable):
        host.call("add", {"one": 1}, int, deadline_s=5)


def test_many_calls_from_many_threads(host: LocalHost) -> None:
    """Replies find their callers."""
    wrong: list[int] = []

    def work(start: int) -> None:
        wrong.extend(
            number
            for number in range(start, start + 50)
            if host.call("add", {"one": number, "other": 1}, int, deadline_s=20) != number + 1
        )

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_a_child_from_the_streamed_code_outlives_the_agent(host: LocalHost) -> None:
    """`child_argv` starts a process that needs nothing of the agent once it runs."""
    pid = host.call("start_child", {}, int, deadline_s=10)
    assert b"tests_agent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGTERM)


def test_the_code_is_the_same_every_time() -> None:
    """The zip has the same bytes whenever it is made, and holds data files as well."""
    first = zip_of_agent()
    zip_of_agent.cache_clear()
    assert zip_of_agent() == first
