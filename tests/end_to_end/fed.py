"""A replica that is fed, for tests that leave it so: what breaks is taken up again, and in the end it is whole."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.rig import check
from tests.rig.derby import rewrite_ballast
from tests.rig.host import DERBY_PORT
from tests.rig.node import wait_until
from tests.rig.pair import PASSWORD, USER
from tests.rig.storm import feeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.host import Host
    from tests.rig.pair import Pair, Running
    from tests.rig.workload import Workload

BACK_S = 90.0
ARCHIVE = ("--archive", "backup")  # clients notice nothing of it
LOGIN = f"user={USER};password={PASSWORD}"
BALLAST_ROWS = 1500  # nearly two files of log at once
WRITES_MOST = 6
GAP_MOST_S = 4.0  # of busy hosts


@dataclass(slots=True)
class Fed:
    """A replica that is fed while clients write. `since` counts what the journal has told."""

    pair: Pair
    clients: Workload
    running: Running

    @property
    def source(self) -> Host:
        return self.pair.world["db1"]

    @property
    def target(self) -> Host:
        return self.pair.world["db2"]

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.pair.journal().splitlines()]

    def fails(self, id: str, since: int) -> None:
        """Wait for the feed to fail with this error ("" for any), which has a hint, while the source serves."""

        def told() -> list[dict[str, Any]]:
            failures = [e["error"] for e in self.entries()[since:] if e["kind"] == "failure"]
            return [error for error in failures if id in ("", error["id"])]

        wait_until(lambda: bool(told()) or not self.running.running, id or "a failure", BACK_S)
        assert told(), self.running.wait(5)
        assert told()[0]["hint"]
        self.clients.wait_for(5)

    def bases(self, since: int) -> list[str]:
        return [e["kind"] for e in self.entries()[since:] if e["kind"] == "round"]

    def fed_again(self) -> None:
        """Wait until the feed tells something new."""
        seen, already = itertools.count(), len(self.running.events())
        self.running.wait_event(lambda e: next(seen) >= already and feeds(e), BACK_S)

    @property
    def url(self) -> str:
        return f"jdbc:derby://127.0.0.1:{DERBY_PORT}/{self.pair.bank.path};{LOGIN}"

    def log_files(self) -> list[str]:
        """The source's log, the oldest first."""
        names = self.source.run(["ls", f"{self.pair.bank.path}/log"]).stdout.split()
        return sorted((n for n in names if n.endswith(".dat")), key=lambda name: int(name[3:-4]))

    @contextmanager
    def without_replica(self) -> Iterator[None]:
        """The target's server is away."""
        self.target.crash("derby")
        try:
            yield
        finally:
            self.target.start_derby()

    def written(self) -> str:
        """Write more log than a file holds; a file that is closed, and was not there before."""
        before, fresh = self.log_files(), list[str]()
        for _ in range(WRITES_MOST):
            rewrite_ballast(self.source, self.url)
            fresh = [name for name in self.log_files() if name not in before]
            if len(fresh) > 1:
                return f"{self.pair.bank.path}/log/{fresh[0]}"
        raise AssertionError(f"not two new files of log: {fresh}")

    def begin(self, *words: str) -> None:
        """Start the program again, which has ended: it goes on where the replica is."""
        self.running = self.pair.start("follow", *ARCHIVE, *words)
        self.running.wait_event(feeds, BACK_S)
        assert not [e for e in self.running.events() if e["event"] == "round"], "a new base was made"

    def end(self) -> None:
        """Have the program end in order."""
        self.running.interrupt()
        result = self.running.wait(BACK_S)
        assert (result.code, result.error_id) == (10, "stopped"), result

    def must_be_whole(self) -> None:
        """Ends clients and program: the replica has every row of the source, and no client ever waited for it."""
        self.clients.wait_for(20)
        self.clients.stop()
        self.end()
        served = self.pair.served("db1")
        assert check.differences(served, self.pair.stored("db2")) == []
        assert check.missing(self.clients.acked(), served.journal) == []
        assert self.clients.gaps().worst_s < GAP_MOST_S, self.clients.gaps()
