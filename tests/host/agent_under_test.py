"""A registry for the tests, streamed to the agent beside snaprep's own code."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from snaprep.agent import serve
from snaprep.agent.serve import Cancelled, Progress
from snaprep.core.errors import Stale
from snaprep.core.volume import Point

_closed: list[str] = []


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    done: int


def echo(point: Point) -> Point:
    return point


def add(one: int, other: int = 1) -> int:
    return one + other


def noisy() -> str:
    print("printed by accident")  # noqa: T201
    subprocess.run(["sh", "-c", "echo from a child; cat"], check=True, timeout=5)
    sys.stderr.write("said on stderr\n")
    return "fine"


def stale() -> None:
    raise Stale("stale", "the base moved", hint="observe again", details=("a", "b"))


def boom() -> None:
    raise RuntimeError("not thought of")


def count(to: int, progress: Progress) -> int:
    for number in range(to):
        progress(Step("counting", number))
    return to


def patient(bound_s: float, cancelled: Cancelled) -> bool:
    return cancelled.wait(bound_s)


def deaf(bound_s: float) -> None:
    time.sleep(bound_s)


def large(size_bytes: int) -> str:
    return "x" * size_bytes


def on_close_write(path: str) -> None:
    _closed.append(path)


def _close() -> None:
    for path in _closed:
        Path(path).write_text("closed")


def start_child() -> int:
    """Another process from the same code; it says its pid and waits for the end of its stdin."""
    argv, descriptors = serve_child()
    child = subprocess.Popen(argv, pass_fds=descriptors, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    return int(child.stdout.readline())


def serve_child() -> tuple[list[str], tuple[int, ...]]:
    from snaprep.agent.bootstrap import child_argv  # noqa: PLC0415

    return child_argv("tests_agent:child")


def child() -> None:
    os.write(1, f"{os.getpid()}\n".encode())
    sys.stdin.read()


REGISTRY = {
    f.__name__: f for f in (echo, add, noisy, stale, boom, count, patient, deaf, large, on_close_write, start_child)
}


def main(code: str | None = None) -> None:
    serve.run(REGISTRY, [_close], code)
