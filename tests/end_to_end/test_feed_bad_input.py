"""What can be wrong with what a replica is fed from, and with where it stands: each its error, the primary untouched,
and nothing fed that is not whole.

One world and one `follow` for all of them, which ends with every row: see `fed.Fed`.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.fed import ARCHIVE, BACK_S, LOGIN
from tests.rig.derby import Bank, ij
from tests.rig.host import DERBY_PORT, JARS
from tests.rig.node import end, wait_until
from tests.rig.pair import Pair

if TYPE_CHECKING:
    from tests.end_to_end.fed import Fed

pytestmark = pytest.mark.rig

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
    """An encrypted database is refused before anything is touched, and `status` does not say that nobody serves."""
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
    status = secret.snaprep("status")
    assert (status.code, status.error_id) == (3, "encrypted"), status
    assert status.document["serving"] == "db1 has its database open, but does not let snaprep in to look"
    assert f"listens on port {DERBY_PORT}" in status.document["error"]["details"][0]


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
    fed.begin()
