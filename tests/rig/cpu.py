"""CPU time of all that runs in a world, processes that end meanwhile included, by looking often; and pinning."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tests.rig.node import Node
    from tests.rig.world import World

LOOK_S = 0.1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Meter:
    """`with Meter(world) as meter:` ... `meter.mark()` at two moments; the difference is CPU seconds."""

    def __init__(self, world: World) -> None:
        nodes = [world.operator, *world.hosts.values()]
        self._namespaces = {_namespace(node.pid) for node in nodes}
        self._seen: dict[tuple[int, str], int] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def mark(self) -> float:
        """CPU seconds of all processes seen so far, since each began."""
        self._look()
        with self._lock:
            return sum(self._seen.values()) / TICKS_PER_S

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        for entry in os.listdir("/proc"):  # noqa: PTH208 - looked at ten times a second
            if not entry.isdigit():
                continue
            try:
                if _namespace(int(entry)) not in self._namespaces:
                    continue
                words = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            with self._lock:
                self._seen[int(entry), words[19]] = int(words[11]) + int(words[12])


def pin(node: Node, core: int) -> None:
    """Everything that runs on a node, and all that it will start, on one core of those that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    own = _namespace(node.pid)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended
            if _namespace(int(process.name)) == own:
                for task in (process / "task").iterdir():
                    os.sched_setaffinity(int(task.name), {cores[core % len(cores)]})


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - called for every process there is
