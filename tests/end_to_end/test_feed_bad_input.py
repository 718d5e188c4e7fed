"""What can be wrong with what a replica is fed from, and with where it stands: each its error, the primary untouched,
and nothing fed that is not whole.

One world and one `follow` for all of them: what breaks is taken up again, and at the end every row is there.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig import check
from tests.rig.derby import Bank, add_ballast, ij, rewrite_ballast
from tests.rig.host import DERBY_PORT, JARS
from tests.rig.node import end, wait_until
from tests.rig.pair import PASSWORD, USER, Pair
from tests.rig.storm import feeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.host import Host
    from tests.rig.pair import Running
    from tests.rig.workload import Workload

pytestmark = pytest.mark.rig

BACK_S = 90.0
ARCHIVE = ("--archive", "backup")  # clients notice nothing of it
LOGIN = f"user={USER};password={PASSWORD}"
REPLICA = "/srv/bank.replica/bank"
LEFT_BYTES = 40 << 20
FLIP = "f = open({path!r}, 'r+b'); f.seek(400000); b = f.read(1); f.seek(-1, 1); f.write(bytes([b[0] ^ 1]))"
# The same engine, which says of itself that it is another one.
FORGE = """
import zipfile
with zipfile.ZipFile({jar!r}) as old, zipfile.ZipFile("/tmp/forged.jar", "w") as new:
    for name in old.namelist():
        new.writestr(name, old.read(name).replace(b"version.maint=2000000", b"version.maint=3000000"))
"""


@dataclass(slots=True)
class Fed:
    """A replica that is fed while clients write. `mark` and `since` count what the journal tells."""

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
        """Wait for this error, with a hint; nothing was fed meanwhile, and the source serves."""

        def told() -> list[dict[str, Any]]:
            failures = [e["error"] for e in self.entries()[since:] if e["kind"] == "failure"]
            return [error for error in failures if error["id"] == id]

        wait_until(lambda: bool(told()) or not self.running.running, id, BACK_S)
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
        yield
        self.target.start_derby()

    def written(self) -> str:
        """Write more log than a file holds; a file that is closed, and was not there before."""
        before = self.log_files()
        rewrite_ballast(self.source, self.url)
        fresh = [name for name in self.log_files() if name not in before]
        assert len(fresh) > 1, fresh
        return f"{self.pair.bank.path}/log/{fresh[0]}"


@pytest.fixture(scope="module")
def fed(shared_pair: Pair) -> Iterator[Fed]:
    with shared_pair.writers(rate=20) as clients:
        clients.wait_for(20)
        running = shared_pair.start("follow", *ARCHIVE)
        try:
            running.wait_event(feeds, BACK_S)
            fed = Fed(shared_pair, clients, running)
            add_ballast(fed.source, fed.url, 1500)
            yield fed
        finally:
            running.kill()


def test_archive_mode_switched_off(fed: Fed) -> None:
    """When somebody switches the mode off nothing more is fed; it is switched on again, and a new base is made."""
    mark = len(fed.entries())
    ij(fed.source, fed.url, "CALL SYSCS_UTIL.SYSCS_DISABLE_LOG_ARCHIVE_MODE(0)")
    fed.fails("archive-off", mark)
    fed.fed_again()
    assert fed.bases(mark)


@pytest.mark.parametrize("id", ["log-damaged", "log-gap"])
def test_a_file_that_is_not_whole(fed: Fed, id: str) -> None:
    """A byte that has changed in a file not fed yet, or a file that is gone: not fed, and a new base is made."""
    mark = len(fed.entries())
    with fed.without_replica():
        path = fed.written()
        fed.source.run(["python3", "-c", FLIP.format(path=path)] if id == "log-damaged" else ["mv", path, "/srv/away"])
    fed.fails(id, mark)
    fed.fed_again()
    assert fed.bases(mark)


def test_another_database_in_its_place(fed: Fed) -> None:
    """What somebody has put in the replica's place is not fed, however much it looks like one: a new base is made."""
    mark = len(fed.entries())
    with fed.without_replica():
        fed.target.run(["rm", "-rf", REPLICA])
        ij(fed.target, f"jdbc:derby:{REPLICA};create=true;{LOGIN}", "create table T (I int)")
        fed.target.run(["chown", "-R", "derby:derby", REPLICA])
    wait_until(lambda: bool(fed.bases(mark)), "a new base", BACK_S)
    fed.fed_again()


def test_a_stranger_on_the_replicas_port(fed: Fed) -> None:
    """Who listens there is named, and is fed nothing; when he has gone the feed goes on from the same base."""
    mark = len(fed.entries())
    argv = ["socat", "TCP-LISTEN:4851,fork,reuseaddr", "OPEN:/tmp/heard,creat,append"]
    with fed.without_replica():
        wait_until(lambda: ":4851" not in fed.target.run(["ss", "-ltn"]).stdout, "the port to be free", 10)
        thief = fed.target.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: ":4851" in fed.target.run(["ss", "-ltn"]).stdout, "the stranger", 10)
    try:
        fed.fails("replication-port-taken", mark)
        assert fed.target.run(["cat", "/tmp/heard"], check=False).stdout == ""
    finally:
        end(thief)
    fed.fed_again()
    assert not fed.bases(mark)


def test_a_full_target(fed: Fed) -> None:
    """Before the replica's disk is full it is not fed any more; with room again it goes on from the same base."""
    mark = len(fed.entries())
    free = int(fed.target.zfs("get", "-Hp", "-o", "value", "available", "tank"))
    fed.target.zfs("create", "-o", f"reservation={free - LEFT_BYTES}", "tank/ballast")
    fed.fails("no-space", mark)
    fed.written()
    fed.target.zfs("destroy", "tank/ballast")
    fed.fed_again()
    assert not fed.bases(mark)


def test_an_encrypted_database(fed: Fed) -> None:
    """An encrypted database is refused before anything is touched."""
    source = fed.source
    source.zfs("create", "-o", "mountpoint=/srv/secret", "-o", "canmount=noauto", "tank/secret")
    source.zfs("mount", "tank/secret")
    source.run(["chown", "derby:derby", "/srv/secret"])
    key = "dataEncryption=true;bootPassword=clotted-cream"
    url = f"jdbc:derby://127.0.0.1:{DERBY_PORT}//srv/secret/bank;create=true;{key};{LOGIN}"
    ij(source, url, "create table T (I int)")
    secret = Pair(fed.pair.world, Bank(dataset="tank/secret", mountpoint="/srv/secret", accounts=0), name="secret")
    before = source.zfs("get", "-H", "-s", "local", "-o", "property,value", "all", "tank/secret")
    refused = secret.snaprep("follow", *ARCHIVE)
    assert (refused.code, refused.error_id) == (3, "encrypted"), refused
    assert source.zfs("get", "-H", "-s", "local", "-o", "property,value", "all", "tank/secret") == before
    assert "tank/secret" not in fed.target.zfs("list", "-H", "-o", "name").split()


def test_another_version_of_the_engine(fed: Fed) -> None:
    """A server of another version is not fed: the program ends and says which versions there are."""
    jar = next(jar for jar in JARS if jar.endswith("derby.jar"))
    fed.target.run(["python3", "-c", FORGE.format(jar=jar)])
    with fed.without_replica():
        fed.target.run(["mount", "--bind", "/tmp/forged.jar", jar])
    try:
        ended = fed.running.wait(BACK_S)
        assert (ended.code, ended.error_id) == (10, "engine-versions-differ"), ended
        assert "10.14.2.0" in ended.document["error"]["what"]
        assert "10.14.3.0" in ended.document["error"]["what"]
        assert ended.document["error"]["serving"] == "db1 serves"
    finally:
        fed.target.crash("derby")
        fed.target.run(["umount", jar])
        fed.target.start_derby()


def test_in_the_end_every_row_is_there(fed: Fed) -> None:
    """After all of it the replica goes on from where it was, with every row; no client ever waited for it."""
    mark = len(fed.entries())
    fed.running = fed.pair.start("follow", *ARCHIVE)
    fed.running.wait_event(feeds, BACK_S)
    assert not fed.bases(mark)
    fed.clients.wait_for(20)
    fed.clients.stop()
    fed.running.interrupt()
    assert fed.running.wait(BACK_S).code == 10
    served = fed.pair.served("db1")
    assert check.differences(served, fed.pair.stored("db2")) == []
    assert check.missing(fed.clients.acked(), served.journal) == []
    assert fed.clients.gaps().worst_s < 4, fed.clients.gaps()
