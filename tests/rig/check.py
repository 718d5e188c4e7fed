"""What is in a database, and what is missing from it: one that is served, or one in any dataset or snapshot."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.rig import java
from tests.rig.derby import DATABASE
from tests.rig.node import END_S, RigError, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.rig.host import Host
    from tests.rig.node import Node
    from tests.rig.workload import Commit

DIGEST_S = 300.0
_clone_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Table:
    """`sha256` sums the hashes of all rows, in whatever order; `consistent` is SYSCS_CHECK_TABLE's answer."""

    rows: int
    sha256: str
    consistent: bool


@dataclass(frozen=True, slots=True)
class Digest:
    """All tables by `SCHEMA.NAME`, and the (writer, seq) of every row of JOURNAL."""

    tables: dict[str, Table]
    journal: frozenset[tuple[int, int]]

    @property
    def consistent(self) -> bool:
        return all(table.consistent for table in self.tables.values())


def digest_of_url(node: Node, url: str, *, user: str = "", password: str = "") -> Digest:
    """Reads a database through `url` from `node`. While writers are at work it is no single moment's state."""
    done = node.run(java.command(node, "Digest"), stdin=f"{url}\n{user}\n{password}\n", timeout_s=DIGEST_S)
    return _parse(done.stdout)


def journal_of_url(node: Node, url: str, *, user: str = "", password: str = "") -> frozenset[tuple[int, int]]:
    """The (writer, seq) of every row of JOURNAL, without reading the other tables."""
    done = node.run(java.command(node, "Digest", "journal"), stdin=f"{url}\n{user}\n{password}\n", timeout_s=DIGEST_S)
    return _parse(done.stdout).journal


def digest_of_dataset(host: Host, name: str, *, database: str = DATABASE, user: str = "", password: str = "") -> Digest:
    """Reads the database in a dataset, or in a snapshot of one, without touching it: a clone is booted
    by an engine of its own, as after a power cut, and destroyed. `user` is for a database whose gate is
    closed. A dataset that was cut off by a power cut is mounted once, out of everybody's way, because ZFS
    makes no snapshot of it before its intent log is replayed.
    """
    number = next(_clone_numbers)
    dataset, _, snapshot = name.partition("@")
    origin = name if snapshot else f"{dataset}@rig-digest-{number}"
    clone = f"{dataset.partition('/')[0]}/rig-digest-{number}"
    if not snapshot and host.run(["zfs", "snapshot", origin], check=False).returncode != 0:
        _replay_intents(host, dataset, f"/srv/rig-replay-{number}")
        host.zfs("snapshot", origin)
    try:
        place = f"/srv/rig-digest-{number}"
        host.zfs("clone", "-o", f"mountpoint={place}", origin, clone)
        try:
            path = f"{place}/{database}"
            host.run(["rm", "-f", f"{path}/db.lck", f"{path}/dbex.lck"])
            return digest_of_url(host, f"jdbc:derby:{path}", user=user, password=password)
        finally:
            _destroy(host, clone)
    finally:
        if not snapshot:
            _destroy(host, origin)


def missing(commits: Iterable[Commit], journal: Iterable[tuple[int, int]]) -> list[Commit]:
    """The acknowledged commits that the journal does not hold."""
    there = set(journal)
    return [commit for commit in commits if (commit.writer, commit.seq) not in there]


def differences(one: Digest, other: Digest) -> list[str]:
    """In words, a line for each table that is not the same in both; empty when all are."""
    lines = []
    for name in sorted(one.tables.keys() | other.tables.keys()):
        here, there = one.tables.get(name), other.tables.get(name)
        if here != there:
            lines.append(f"{name}: {here} against {there}")
    return lines


def _replay_intents(host: Host, dataset: str, place: str) -> None:
    former = [
        host.zfs("get", "-H", "-o", "property,value,source", name, dataset).split("\t")
        for name in ("canmount", "mountpoint")
    ]
    try:
        host.zfs("set", "canmount=noauto", dataset)
        host.zfs("set", f"mountpoint={place}", dataset)
        host.zfs("mount", dataset)
        host.zfs("unmount", dataset)
    finally:
        for name, value, source in former:
            back = ["set", f"{name}={value}"] if source in {"local", "received"} else ["inherit", name]
            host.zfs(*back, dataset)


def _destroy(host: Host, name: str) -> None:
    # The engine's last files may be held for a moment after its process has ended.
    wait_until(lambda: host.run(["zfs", "destroy", name], check=False).returncode == 0, f"destroy {name}", END_S)


def _parse(text: str) -> Digest:
    tables: dict[str, Table] = {}
    journal: set[tuple[int, int]] = set()
    for line in text.splitlines():
        match line.split():
            case ["T", name, rows, sha256, checked]:
                tables[name] = Table(int(rows), sha256, checked == "1")
            case ["J", writer, seq]:
                journal.add((int(writer), int(seq)))
            case _:
                raise RigError(f"not a digest: {line}")
    return Digest(tables, frozenset(journal))
