"""Running other programs: never for longer than was allowed, whatever they do."""

from __future__ import annotations

import time

import pytest

from snaprep.agent import process


def test_a_late_program_is_killed() -> None:
    """At its deadline a program is ended, and said to be late."""
    began_s = time.monotonic()
    with pytest.raises(process.CommandTimeout, match=r"not done after 0\.1 s"):
        process.run(["sleep", "60"], deadline_s=0.1)
    assert time.monotonic() - began_s < 5


def test_what_keeps_the_output_open_is_not_waited_for() -> None:
    """What a killed program has started, or the kernel keeps of it, is left behind."""
    began_s = time.monotonic()
    with pytest.raises(process.CommandTimeout):
        process.run(["sh", "-c", "sleep 20 & sleep 60"], deadline_s=0.1)
    assert time.monotonic() - began_s < 10


def test_commands_are_told_however_many_there_were() -> None:
    """An agent that lives for weeks forgets its oldest command lines, and still tells those of a call."""
    for number in range(1500):
        process.noted(["old", str(number)])
    known = process.newest_command()
    assert process.commands_since(known) == ()
    process.noted(["zfs", "snapshot", "a@my point"])
    assert process.commands_since(known) == ("zfs snapshot 'a@my point'",)
    assert len(process.commands_since(0)) == 1000
