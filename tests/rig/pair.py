"""The pair of a world as its operator sees it: a snaprep.toml, and the real command line, run where the operator
sits; and what has to hold of the two databases afterwards.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tests.rig import check, workload
from tests.rig.derby import ij
from tests.rig.host import DERBY_PORT
from tests.rig.node import Pace, RigError, end, inner_pid, patience_s, signal_inner, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.rig.check import Digest
    from tests.rig.derby import Bank
    from tests.rig.workload import Commit, Workload
    from tests.rig.world import World

ROOT = Path(__file__).parents[2]
USER = "snaprep"
PASSWORD = "rig-password"
VERB_S = 180.0
SHIPPED_S = 20.0  # Derby sends its log buffers at the latest every 5 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a verb printed and how it ended. `document` is that of --json, empty when there was none."""

    code: int
    stdout: str
    stderr: str
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def error_id(self) -> str:
        return str((self.document.get("error") or {}).get("id", ""))

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.stdout}{self.stderr}"


class Running:
    """A verb in the background, followed by its events."""

    def __init__(self, process: subprocess.Popen[bytes], events: Path, out: Path, err: Path) -> None:
        self.process = process
        self.events_file = events
        self._out, self._err = out, err

    @property
    def pid(self) -> int:
        """Of snaprep itself, seen from outside."""
        return inner_pid(self.process)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def events(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        text = self.events_file.read_text() if self.events_file.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def talk(self) -> str:
        """What it has said on stderr so far."""
        return self._err.read_text()

    def wait_event(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 60.0) -> dict[str, Any]:
        """The first event that `wanted` accepts. Raises RigError when the verb ends, or time does, before it."""
        return next(self._follow(wanted, timeout_s))

    def _follow(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float) -> Iterator[dict[str, Any]]:
        until = time.monotonic() + patience_s(timeout_s)
        seen, rest = 0, ""
        while time.monotonic() < until:
            over = not self.running
            if self.events_file.exists():
                with self.events_file.open() as file:
                    file.seek(seen)
                    text = rest + file.read()
                    seen = file.tell()
                *lines, rest = text.split("\n")
                yield from filter(wanted, map(json.loads, lines))
            if over:
                raise RigError(f"the verb ended first: {self.wait(5)}")
            time.sleep(0.002)
        raise RigError(f"not seen within {timeout_s:g} s; events: {self.events()[-5:]}")

    def wait(self, timeout_s: float = VERB_S) -> Result:
        """How it ended. Raises RigError when it does not end in time; then it has been killed."""
        try:
            code = self.process.wait(patience_s(timeout_s))
        except subprocess.TimeoutExpired as late:
            self.kill()
            raise RigError(f"not ended within {timeout_s:g} s: {self._err.read_text()}") from late
        return _result(code, self._out.read_text(), self._err.read_text())

    def interrupt(self, times: int = 1) -> None:
        """Ctrl-C; twice means before the run could obey the first.

        So both arrive while it is stopped, and as different signals: two equal ones would be one to the kernel.
        """
        signal_inner(self.process, signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")  # nsenter stops when its program does, and continues it
        wait_until(lambda: stat.read_text().rsplit(") ", 1)[1].startswith("T"), "the run to be stopped", 10)
        for number in (signal.SIGINT, signal.SIGTERM)[:times]:
            signal_inner(self.process, number)
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 of the operator's program; does nothing when it has ended."""
        end(self.process)


class Pair:
    """`bank` is in the same place on both hosts; which of them serves is nowhere written."""

    volume = "zfs"

    def __init__(
        self,
        world: World,
        bank: Bank,
        *,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        name: str = "bank",
        names: Sequence[str] = (),
    ) -> None:
        """`names` are two of the world's hosts, where it has more."""
        self.world = world
        self.bank = bank
        self.name = name
        self.names = tuple(names or world.hosts)
        self.home = world.home
        password = self.home / "derby-password"
        password.write_text(f"{PASSWORD}\n")
        password.chmod(0o600)
        self.config = self.home / f"snaprep-{name}.toml"
        self.config.write_text(self.toml(changes or {}))

    @property
    def stands_in(self) -> Mapping[str, str]:
        """What each host's table says of its storage."""
        return {"dataset": self.bank.dataset}

    def toml(self, changes: Mapping[str, Mapping[str, Any]]) -> str:
        """The configuration, with the tables in `changes` laid over it."""
        one, two = self.names
        tables: dict[str, dict[str, Any]] = {}
        for name, other in ((one, two), (two, one)):
            address = self.world.address(name, seen_from=other)
            tables[f"hosts.{name}"] = {"ssh": name, "address": address, **self.stands_in}
        tables["derby"] = {
            "database": self.bank.path,
            "user": USER,
            "password_file": str(self.home / "derby-password"),
        }
        tables["rounds"] = {"floor": "100 MiB", **self.world.rounds}
        for name, values in changes.items():
            tables.setdefault(name, {}).update(values)
        lines = [f'pair = "{self.name}"', f'volume = "{self.volume}"']
        for name, values in tables.items():
            lines += [
                f"[{name}]",
                *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()),
            ]
        return "\n".join(lines) + "\n"

    # ------------------------------------------------------------------ the command line

    def argv(self, *words: str) -> list[str]:
        heeds = ["env", "--default-signal=INT,TERM,HUP"]  # whatever started the tests
        return [*heeds, sys.executable, "-m", "snaprep", "-c", str(self.config), *words]

    def snaprep(self, *words: str, timeout_s: float = VERB_S) -> Result:
        """Runs a verb to its end with --json."""
        argv = self.argv("--json", "--no-progress", *words)
        done = self.world.operator.run(argv, check=False, timeout_s=patience_s(timeout_s), cwd=ROOT)
        return _result(done.returncode, done.stdout, done.stderr)

    def must(self, *words: str, code: int = 0, timeout_s: float = VERB_S) -> Result:
        """Like `snaprep`. Raises RigError when it ends with another exit code."""
        result = self.snaprep(*words, timeout_s=timeout_s)
        if result.code != code:
            raise RigError(f"snaprep {' '.join(words)}: {result}")
        return result

    def start(self, *words: str) -> Running:
        """Starts a verb in the background, with --json and --events."""
        folder = Path(tempfile.mkdtemp(prefix="verb-", dir=self.home))
        events, out, err = (folder / name for name in ("events", "out", "err"))
        argv = self.argv("--json", "--no-progress", "--events", str(events), *words)
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = self.world.operator.popen(argv, stdout=stdout, stderr=stderr, cwd=ROOT)
        return Running(process, events, out, err)

    def show(self, *words: str, timeout_s: float = VERB_S) -> int:
        """Runs a verb whose words go straight to this program's own output; its exit code."""
        with _own(sys.stdout) as stdout, _own(sys.stderr) as stderr:
            process = self.world.operator.popen(self.argv(*words), stdout=stdout, stderr=stderr, cwd=ROOT)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired as late:
            end(process)
            raise RigError(f"snaprep {' '.join(words)}: not within {timeout_s:g} s") from late

    def journal(self) -> str:
        """The operator's journal of this pair."""
        return (self.home / f".local/state/snaprep/{self.name}/journal.jsonl").read_text()

    def status(self) -> dict[str, Any]:
        return self.snaprep("status").document

    # ------------------------------------------------------------------ clients

    def urls(self, *names: str) -> list[str]:
        return [self.world.jdbc_url(name, self.bank.path) for name in names or self.names]

    def writers(
        self, *, rate: float = 200.0, writers: int = 4, hot: int | None = None, stall_ms: int = 3000
    ) -> Workload:
        """Clients that know both hosts. `hot`: how many accounts they change. `rate` is at the hosts' pace."""
        return workload.start(
            self.world.operator,
            self.urls(),
            accounts=hot or self.bank.accounts,
            directory=self.home,
            writers=writers,
            rate=rate / Pace.slowness,
            stall_ms=round(patience_s(stall_ms)),
            user="app",
            password="app",
        )

    # ------------------------------------------------------------------ what has to hold

    def served(self, name: str) -> Digest:
        """What clients of that host read."""
        return check.digest_of_url(self.world.operator, self.urls(name)[0], user="app", password="app")

    def stored(self, name: str, dataset: str | None = None) -> Digest:
        """What a dataset of a host holds, read on a clone."""
        return check.digest_of_dataset(self.world[name], dataset or self.bank.dataset, user=USER, password=PASSWORD)

    def replica_differences(self, source: str, target: str, served: Digest | None = None) -> list[str]:
        """What the replica does not hold of the source, when nobody writes: empty as soon as all was shipped.

        `served`: what was read there since the last client stopped.
        """
        self.push(source)
        served = served or self.served(source)
        until = time.monotonic() + patience_s(SHIPPED_S)
        while True:
            found = check.differences(served, self.stored(target))
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.5)

    def push(self, source: str) -> None:
        """Writes log on the source without changing a row. A replica keeps the last 32 KB or so in memory, out of the
        sight of a clone of its files; what comes after them pushes them to the disk.
        """
        much = "update APP.ACCT set bal = bal + 1 where id < 2000"
        url = f"jdbc:derby://127.0.0.1:{DERBY_PORT}/{self.bank.path};user={USER};password={PASSWORD}"
        ij(self.world[source], url, "autocommit off", much, "rollback")

    def isolated(self, name: str) -> list[str]:
        """Datasets that runs have set aside on a host."""
        names = self.world[name].zfs("list", "-H", "-o", "name").splitlines()
        return [dataset for dataset in names if dataset.startswith(f"{self.bank.dataset}.isolated")]

    def isolated_holds(self, name: str, commits: Sequence[Commit]) -> list[Commit]:
        """Which of the commits are in what was set aside on a host."""
        left = list(commits)
        for dataset in self.isolated(name):
            left = check.missing(left, self.stored(name, dataset).journal)
        return [commit for commit in commits if commit not in set(left)]


@contextlib.contextmanager
def _own(stream: IO[str]) -> Iterator[IO[bytes] | int]:
    """A stream of this program as a child can have it."""
    stream.flush()
    try:
        yield stream.fileno()
    except OSError:
        yield subprocess.DEVNULL


def _result(code: int, stdout: str, stderr: str) -> Result:
    try:
        document = json.loads(stdout)
    except ValueError:
        document = {}
    return Result(code=code, stdout=stdout, stderr=stderr, document=document)
