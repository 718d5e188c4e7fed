"""The sample database: a bank with accounts and a journal, in a dataset of its own on a host."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.rig import java
from tests.rig.host import CLASSPATH, DERBY_USER, JVM
from tests.rig.node import RigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.rig.host import Host

DATABASE = "bank"
# Measured: with its index and its share of the pages an account takes about 1150 bytes.
ACCOUNTS_PER_MB = 910
BUILD_S = 600
CALL_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """Where a sample database is: `mountpoint/bank` in `dataset`, with `accounts` rows in ACCT."""

    dataset: str
    mountpoint: str
    accounts: int

    @property
    def path(self) -> str:
        return f"{self.mountpoint}/{DATABASE}"


def bank_of(size_mb: int, dataset: str = "tank/bank", mountpoint: str = "/srv/bank") -> Bank:
    """What `create_bank` with the same arguments makes."""
    return Bank(dataset=dataset, mountpoint=mountpoint, accounts=size_mb * ACCOUNTS_PER_MB)


def create_bank(
    host: Host,
    *,
    size_mb: int = 20,
    dataset: str = "tank/bank",
    mountpoint: str = "/srv/bank",
    canmount: str = "noauto",
    properties: Mapping[str, str] = MappingProxyType({}),
) -> Bank:
    """Creates and mounts the dataset and fills it with a cleanly shut down database of `size_mb` that belongs
    to the user `derby`. Derby itself boots it for the first client that asks. The database is built once for
    each size and copied from then on.
    """
    if not mountpoint.startswith("/srv/"):
        raise RigError(f"{mountpoint} is not below /srv, which is all that a host has for itself")
    built = build(size_mb)
    layout = {"recordsize": "8K", "atime": "off", "mountpoint": mountpoint, "canmount": canmount, **properties}
    options = [word for name, value in layout.items() for word in ("-o", f"{name}={value}")]
    host.zfs("create", *options, dataset)
    if host.zfs("get", "-Hp", "-o", "value", "mounted", dataset) != "yes":
        host.zfs("mount", dataset)
    fill(host, built, mountpoint)
    return bank_of(size_mb, dataset, mountpoint)


def build(size_mb: int) -> Path:
    """A directory that holds `bank`, from the cache or made now."""
    version = java.version(*(source for source in java.SOURCES if source.stem == "Bank"))
    ready = java.cache_directory() / f"bank-{size_mb}mb-{version}"
    if not ready.exists():
        with tempfile.TemporaryDirectory(dir=java.cache_directory()) as fresh:
            place = Path(fresh, "home")
            place.mkdir()
            arguments = [str(place / DATABASE), str(size_mb * ACCOUNTS_PER_MB)]
            program = [*JVM, "-cp", f"{CLASSPATH}:{java.classes()}", "Bank", *arguments]
            done = subprocess.run(program, capture_output=True, text=True, timeout=BUILD_S, check=False)
            if done.returncode != 0:
                raise RigError(done.stderr)
            shutil.rmtree(place / DATABASE / "tmp", ignore_errors=True)
            java.settle(place, ready)
    return ready


def fill(host: Host, built: Path, mountpoint: str) -> None:
    """Copies what `build` made into a directory of the host, and gives this to the server's user."""
    host.run(["chown", f"{DERBY_USER}:{DERBY_USER}", mountpoint])
    owner = [f"--owner={host.derby_uid}", f"--group={host.derby_uid}"]
    packing = subprocess.Popen(
        ["tar", "-C", str(built), *owner, "-cf", "-", DATABASE], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    unpacking = host.popen(["tar", "-C", mountpoint, "--numeric-owner", "-xpf", "-"], stdin=packing.stdout)
    if packing.stdout is not None:
        packing.stdout.close()
    _, stderr = unpacking.communicate(timeout=BUILD_S)
    if packing.wait(CALL_S) != 0 or unpacking.returncode != 0:
        raise RigError(f"copying the database in: {stderr.decode(errors='replace')}")


def ij(host: Host, url: str, *statements: str, check: bool = True, timeout_s: float = CALL_S) -> str:
    """Runs statements with Derby's own client on the host and returns what it printed. The URL and the
    statements go through standard input. Raises RigError when one of them printed an error (with `check`).
    """
    script = "\n".join([f"connect '{url}';", *(f"{statement};" for statement in statements), "exit;"])
    argv = [*JVM, "-cp", CLASSPATH, "org.apache.derby.tools.ij"]
    said = host.run(argv, stdin=f"{script}\n", timeout_s=timeout_s, cwd="/tmp").stdout
    if check and "ERROR " in said:
        raise RigError(f"{host.name}: {said}")
    return said


def add_ballast(host: Host, url: str, rows: int) -> None:
    """Adds a table that no client touches, to write log with: see `rewrite_ballast`."""
    ij(
        host,
        url,
        "create table APP.BALLAST as select * from APP.ACCT with no data",
        f"insert into APP.BALLAST select * from APP.ACCT where id < {rows}",  # noqa: S608 (a number)
    )


def rewrite_ballast(host: Host, url: str, times: int = 1) -> None:
    """Writes some 2000 bytes of log for each of its rows: as it was, and as it is."""
    ij(host, url, *["update APP.BALLAST set filler = substr(filler, 2) || substr(filler, 1, 1)"] * times, timeout_s=300)
