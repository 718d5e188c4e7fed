"""Clients of the sample database, and the record of what was acknowledged to them."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.rig import java
from tests.rig.node import RigError, end, patience_s, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from tests.rig.node import Node

# Every run of this process has writers of its own, so that the journal never holds two rows of one name.
_writer_numbers = itertools.count(1)
STOP_S = 40.0


@dataclass(frozen=True, slots=True, order=True)
class Commit:
    """One transaction. `start_ns` and `ack_ns` are time.monotonic_ns() of this machine; `wall_ms` is the
    time of day, in milliseconds since 1970, when the client knew.
    """

    writer: int
    seq: int
    start_ns: int
    ack_ns: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Gaps:
    """The longest times without an acknowledged commit: for all writers together and for each one."""

    overall_s: float
    by_writer: dict[int, float] = field(default_factory=dict)

    @property
    def worst_s(self) -> float:
        """What the unluckiest writer saw."""
        return max(self.by_writer.values(), default=0.0)


class Workload:
    """Running writers. The record can be read at any time, while they run and after they were killed."""

    def __init__(self, process: subprocess.Popen[bytes], record: Path, writers: Sequence[int]) -> None:
        self.record = record
        self.writers = tuple(writers)
        self._process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Lets every writer end its transaction. Raises RigError when the program failed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired as late:
            end(self._process)
            raise RigError("the workload did not stop") from late
        if code != 0:
            raise RigError(f"the workload failed (exit {code}): {self._log().read_text()}")

    def kill(self) -> None:
        """kill -9 of the clients, as of an application server; does nothing when they have ended."""
        end(self._process)
        if self._process.stdin is not None:
            self._process.stdin.close()

    # ------------------------------------------------------------------ the record

    def acked(self) -> list[Commit]:
        """All acknowledged commits, in the order in which the writers knew of them."""
        return self._commits("A")

    def unknown(self) -> list[Commit]:
        """Commits that ended in an error: they may be in the database or not, and count as neither."""
        return self._commits("U")

    def errors(self) -> list[str]:
        """Every other error: `writer seq monotonic_ns sqlstate message`."""
        return [line[2:] for line in self._lines() if line.startswith("E ")]

    def reads(self) -> int:
        """How many queries the reader made; known after `stop`."""
        return next((int(line[2:]) for line in self._lines() if line.startswith("R ")), 0)

    def wait_for(self, more: int, timeout_s: float = 30.0) -> None:
        """Returns when `more` commits were acknowledged from now on. Raises RigError after `timeout_s`."""
        seen, offset = 0, self.record.stat().st_size

        def reached() -> bool:
            nonlocal seen, offset
            if not self.running:
                raise RigError(f"the workload has ended: {self._log().read_text()}")
            with self.record.open("rb") as record:
                record.seek(offset)
                whole = record.read().rpartition(b"\n")[0]
            # The first line may have been met in its middle; then it is not counted.
            seen += sum(line.startswith(b"A ") for line in whole.splitlines())
            offset += len(whole)
            return seen >= more

        try:
            wait_until(reached, f"{more} more commits", timeout_s)
        except RigError as error:
            raise RigError(f"{error}; last error of a client: {self.errors()[-1:]}") from error

    def gaps(self) -> Gaps:
        """The longest gaps of the whole run, from the first acknowledged commit to the last."""
        return longest_gaps(self.acked())

    def gap_around(self, moment_ns: int) -> Gaps:
        """The gaps that contain `moment_ns` (time.monotonic_ns()). A writer that has had no commit since
        then is counted up to now, while the workload runs.
        """
        until = time.monotonic_ns() if self.running else None
        return gaps_around(self.acked(), moment_ns, until)

    def _commits(self, kind: str) -> list[Commit]:
        lines = (line.split() for line in self._lines() if line.startswith(f"{kind} "))
        return [Commit(*map(int, words[1:])) for words in lines]

    def _lines(self) -> list[str]:
        text = self.record.read_text(errors="replace")
        return text[: text.rfind("\n") + 1].splitlines()

    def _log(self) -> Path:
        return self.record.with_suffix(".log")


def start(
    node: Node,
    urls: Sequence[str],
    *,
    accounts: int,
    directory: Path,
    writers: int = 4,
    rate: float = 0.0,
    reader: bool = False,
    backoff_ms: int = 20,
    stall_ms: int = 10_000,
    user: str = "",
    password: str = "",
) -> Workload:
    """Starts `writers` clients on `node` (the operator: `directory` must be visible there). Each tries `urls` in turn,
    beginning with the first, waiting `backoff_ms` at the hosts' pace after every failure. `rate` is the total of
    commits per second that they aim at, 0 for as fast as they can. A connection on which nothing came back for
    `stall_ms` is given up. `accounts` may be smaller than the table: then only that many are hot.
    """
    numbers = [next(_writer_numbers) for _ in range(writers)]
    record = Path(tempfile.mkdtemp(prefix="work-", dir=directory)) / "record"
    record.touch()
    settings = {
        "urls": " ".join(urls),
        "record": str(record),
        "first_writer": str(numbers[0]),
        "writers": str(writers),
        "rate": str(rate),
        "accounts": str(accounts),
        "reader": str(int(reader)),
        "backoff_ms": f"{patience_s(backoff_ms):.0f}",  # an emulated server can do nothing beside refusing them
        "stall_ms": str(stall_ms),
        "user": user,
        "password": password,
    }
    with record.with_suffix(".log").open("wb") as log:
        process = node.popen(java.command(node, "Work"), stdin=subprocess.PIPE, stdout=log, stderr=log)
    if process.stdin is None:
        raise RigError("the workload has no standard input")
    process.stdin.write("".join(f"{key}={value}\n" for key, value in settings.items()).encode() + b"\n")
    process.stdin.flush()
    return Workload(process, record, numbers)


def longest_gaps(commits: Iterable[Commit]) -> Gaps:
    by_writer = {writer: _longest(times) for writer, times in _times(commits).items()}
    return Gaps(_longest(_times_of_all(commits)), by_writer)


def gaps_around(commits: Iterable[Commit], moment_ns: int, until_ns: int | None = None) -> Gaps:
    by_writer = {writer: _around(times, moment_ns, until_ns) for writer, times in _times(commits).items()}
    return Gaps(_around(_times_of_all(commits), moment_ns, until_ns), by_writer)


def _times(commits: Iterable[Commit]) -> dict[int, list[int]]:
    times: defaultdict[int, list[int]] = defaultdict(list)
    for commit in commits:
        times[commit.writer].append(commit.ack_ns)
    return {writer: sorted(acks) for writer, acks in times.items()}


def _times_of_all(commits: Iterable[Commit]) -> list[int]:
    return sorted(commit.ack_ns for commit in commits)


def _longest(times: Sequence[int]) -> float:
    return max((after - before for before, after in itertools.pairwise(times)), default=0) / 1e9


def _around(times: Sequence[int], moment_ns: int, until_ns: int | None) -> float:
    before = max((ack for ack in times if ack <= moment_ns), default=None)
    after = min((ack for ack in times if ack > moment_ns), default=until_ns)
    return 0.0 if before is None or after is None else (after - before) / 1e9
