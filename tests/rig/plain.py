"""The sample database in a plain directory, on the host's own filesystem: no snapshots, no datasets."""

from __future__ import annotations

import itertools
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.rig import check
from tests.rig.derby import DATABASE, Bank, bank_of, build, fill
from tests.rig.host import DERBY_USER
from tests.rig.node import signal_inner
from tests.rig.pair import PASSWORD, USER, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.rig.check import Digest
    from tests.rig.host import Host
    from tests.rig.world import World

FOLDER = "/var/lib/bank"  # it survives the power cut of a host, as on a disk
_numbers = itertools.count(1)


def create_plain_bank(world: World, name: str, *, size_mb: int = 20) -> Bank:
    """The folder on all hosts, and in that of one host a cleanly shut down database."""
    for host in world.hosts.values():
        host.run(["install", "-d", "-o", DERBY_USER, "-g", DERBY_USER, FOLDER])
    fill(world[name], build(size_mb), FOLDER)
    return bank_of(size_mb, "", FOLDER)


@contextmanager
def _still(host: Host) -> Iterator[None]:
    """Nobody writes to the host's databases meanwhile."""
    server = host.daemons["derby"]
    signal_inner(server, signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)  # nsenter has stopped with it, and continues it


class PlainPair(Pair):
    """A pair whose storage is the database's own directory."""

    volume = "directory"

    @property
    def stands_in(self) -> Mapping[str, str]:
        return {}

    def names_in(self, name: str) -> list[str]:
        """What lies in the folder of the database on a host."""
        return self.world[name].run(["ls", "-A", FOLDER]).stdout.split()

    def stored(self, name: str, dataset: str | None = None) -> Digest:
        """What a directory holds, read on a copy; without a name that of the replica, else that of the primary."""
        there = self.names_in(name)
        found = dataset or next(n for n in (f"{DATABASE}.replica", DATABASE) if n in there)
        host, copy = self.world[name], f"/srv/look-{next(_numbers)}"
        with _still(host):
            host.run(["cp", "-a", f"{FOLDER}/{found}", copy])
        try:
            host.run(["rm", "-f", f"{copy}/db.lck", f"{copy}/dbex.lck"])
            return check.digest_of_url(host, f"jdbc:derby:{copy}", user=USER, password=PASSWORD)
        finally:
            host.run(["rm", "-rf", copy])

    def isolated(self, name: str) -> list[str]:
        return [n for n in self.names_in(name) if n.startswith(f"{DATABASE}.isolated")]
