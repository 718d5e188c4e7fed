"""The program as a process of its own: start-up, signals, pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from dataclasses import replace
from snaprep.cli.main import main
from snaprep.core.errors import Aborted, Stopped
from tests.cli.standin import StandIn
from tests.view import samples

def during(sink, control):
    sink.report(samples.RUNNING)
    print("begun", flush=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if control is None or sys.argv[1] == "stuck":
            time.sleep(0.05)
            continue
        control.wait(0.05)
        if control.abort.is_set():
            raise Aborted("aborted", "ended as asked", serving="db1 serves")
        if control.stop.is_set() and sys.argv[1] == "obeys":
            raise Stopped("stopped", "stopped as asked", serving="db1 serves")
        time.sleep(0.05)

sys.exit(main(sys.argv[2:], run=StandIn(during=during)))
"""


@contextlib.contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A snaprep that is in the middle of its verb."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-c", PROGRAM, *argv],  # whatever started the tests
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read talk up to a line with `text`; the program ends itself after 30 s, so this does, too."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"never said: {text}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_stops_in_order(number: signal.Signals) -> None:
    """The first signal asks the run to stop after its step; the exit code says that it can be resumed."""
    with running("obeys", "rebuild") as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 10
    assert f"{number.name}: finishing this step" in err
    assert "error[stopped]" in err


def test_second_signal_aborts() -> None:
    """A second signal asks the run to put things back."""
    with running("deaf", "rebuild") as process:
        process.send_signal(signal.SIGINT)
        read_until(process, "finishing this step")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 11
    assert "aborting" in err


def test_third_signal_leaves_at_once() -> None:
    """A run that listens to nothing is left by the third signal, with who served when last looked."""
    with running("stuck", "rebuild") as process:
        for wanted in ("finishing this step", "aborting"):
            process.send_signal(signal.SIGINT)
            read_until(process, wanted)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert "when last looked: db1 serves" in err


def test_a_verb_without_steps_ends_at_once() -> None:
    """`status` has nothing to finish: a signal ends it with 128 and its number."""
    with running("obeys", "status") as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "error[interrupted]" in err
    assert "when last looked: db1 serves" in err


def test_usr1_prints_a_line() -> None:
    """SIGUSR1 prints the state in one line and disturbs nothing."""
    with running("obeys", "rebuild") as process:
        read_until(process, "state held")  # drawn from the report
        process.send_signal(signal.SIGUSR1)
        read_until(process, "state held")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 10


def test_a_closed_pipe_is_quiet() -> None:
    """`snaprep ... | head` ends without a word, with the verb's own exit code."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "snaprep", "version"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(write)
    assert done.returncode == 0
    assert done.stderr == ""


def test_help_is_quick() -> None:
    """`snaprep --help` imports neither SSH nor screens nor the configuration's codec."""
    heavy = ("paramiko", "rich", "msgspec", "snaprep.run")
    code = f"import sys, snaprep.cli.main as m; m.main(['--help']); print([x for x in {heavy!r} if x in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "rebuild" in done.stdout
