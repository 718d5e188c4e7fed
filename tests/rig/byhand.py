"""What an administrator would do without snaprep, as Derby's manual and a ZFS tutorial have it."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.rig.derby import ij
from tests.rig.host import CLASSPATH, DERBY_PORT, DERBY_USER, JVM
from tests.rig.node import RigError, end, wait_until
from tests.rig.pair import PASSWORD, USER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.pair import Pair
    from tests.rig.world import World

CIPHER = "aes128-gcm@openssh.com"
REPLICATION_PORT = 4851
COPY_S = 3600.0
DATASET = "tank/by-hand"
PLACE = "/srv/by-hand"


def trust(world: World, source: str, target: str) -> None:
    """Lets root of one host log in to the other, for good."""
    db1, db2 = world[source], world[target]
    key = "/root/.ssh/id_ed25519"
    if not db1.inside(key).exists():
        db1.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    public = db1.inside(f"{key}.pub").read_text()
    allowed = db2.inside("/root/.ssh/authorized_keys")
    if public not in allowed.read_text():
        allowed.write_text(allowed.read_text() + public)
    db1.inside("/root/.ssh/known_hosts").write_text(f"{target} {db2.ssh_public_key}\n")


def rebuild(pair: Pair, source: str = "db1", target: str = "db2") -> None:
    """Derby's documented procedure: shut the database down cleanly, copy it whole, start the slave, start the master.
    Clients are kept away from the source's host meanwhile, because the first of them would boot the database.
    """
    world, db1, db2 = pair.world, pair.world[source], pair.world[target]
    trust(world, source, target)
    db2.restart_derby()  # ends a slave of an earlier rebuild
    layout = ["-o", "recordsize=8K", "-o", f"mountpoint={PLACE}", DATASET]
    db2.zfs("create", *layout)
    ship = f"tar -C {pair.bank.mountpoint} -cf - {pair.bank.path.rpartition('/')[2]}"
    land = f"tar -C {PLACE} -xpf -"
    with away(world, source):
        db1.restart_derby()
        db1.run(["sh", "-c", f"{ship} | ssh -c {CIPHER} {target} '{land}'"], timeout_s=COPY_S)
        db2.run(["chown", "-R", f"{DERBY_USER}:{DERBY_USER}", PLACE])
        address = world.address(target, seen_from=source)
        with slave(pair, target, address):
            url = f"{_local(pair.bank.path)};startMaster=true;slaveHost={address};slavePort={REPLICATION_PORT}"
            ij(db1, url)


@contextmanager
def away(world: World, name: str) -> Iterator[None]:
    """No client reaches the host, and each is told so at once."""
    world.cut_link("operator", name, silent=False)
    try:
        yield
    finally:
        world.heal_link("operator", name)


@contextmanager
def slave(pair: Pair, target: str, address: str) -> Iterator[None]:
    """startSlave, which returns when the master has come."""
    db2 = pair.world[target]
    path = f"{PLACE}/{pair.bank.path.rpartition('/')[2]}"
    url = f"{_local(path)};startSlave=true;slaveHost={address};slavePort={REPLICATION_PORT}"
    waiting = db2.popen([*JVM, "-cp", CLASSPATH, "org.apache.derby.tools.ij"], stdin=subprocess.PIPE, cwd="/tmp")
    try:
        if waiting.stdin is None:
            raise RigError("ij has no standard input")
        waiting.stdin.write(f"connect '{url}';\nexit;\n".encode())
        waiting.stdin.flush()
        wait_until(lambda: f":{REPLICATION_PORT} " in db2.run(["ss", "-ltn"]).stdout, "the slave to listen", 60)
        yield
        said = waiting.communicate(timeout=60)[0].decode()
        if "XRE08" not in said:
            raise RigError(f"startSlave: {said}")
    finally:
        end(waiting)


def forget(pair: Pair, source: str = "db1", target: str = "db2") -> None:
    """Ends that replication and removes the copy."""
    pair.world[target].restart_derby()
    pair.world[source].restart_derby()
    pair.world[target].zfs("destroy", "-r", DATASET)


def send_s(world: World, snapshot: str, dataset: str, base: str = "") -> float:
    """Seconds of one `zfs send | ssh | zfs receive` from db1 to db2."""
    increment = f"-i {base} " if base else ""
    pipe = f"zfs send {increment}{snapshot} | ssh -c {CIPHER} db2 zfs receive -u {dataset}"
    began_s = time.monotonic()
    world["db1"].run(["bash", "-o", "pipefail", "-c", pipe], timeout_s=COPY_S)
    return time.monotonic() - began_s


def rounds_s(world: World, dataset: str, count: int) -> list[float]:
    """Seconds of each of so many rounds with nothing written, on db1's own shell, over one held connection to db2:
    snapshot, send, receive, the GUID read back and compared.
    """
    control = "-o ControlMaster=auto -o ControlPath=/run/by-hand-%C -o ControlPersist=60"
    script = f"""
set -e -o pipefail
zfs snapshot {dataset}@hand-0
zfs send {dataset}@hand-0 | ssh -c {CIPHER} {control} db2 zfs receive -u {DATASET}-rounds
for n in $(seq {count}); do
    began=$(date +%s%N)
    zfs snapshot {dataset}@hand-$n
    zfs send -i {dataset}@hand-$((n - 1)) {dataset}@hand-$n | ssh {control} db2 zfs receive -u {DATASET}-rounds
    here=$(zfs get -Hp -o value guid {dataset}@hand-$n)
    there=$(ssh {control} db2 zfs get -Hp -o value guid {DATASET}-rounds@hand-$n)
    [ "$here" = "$there" ]
    echo $(($(date +%s%N) - began))
done
ssh {control} -O exit db2 2>/dev/null
"""
    said = world["db1"].run(["bash", "-c", script], timeout_s=600).stdout
    return [int(word) / 1e9 for word in said.split()]


def _local(path: str) -> str:
    return f"jdbc:derby://127.0.0.1:{DERBY_PORT}/{path};user={USER};password={PASSWORD}"
