"""snaprep.toml: read strictly, then turned into the `Pair` and the `Policy` that everything else works with.

Every mistake is a UsageError that names the file and the key's path. Durations and sizes are strings with a unit ("3s",
"50 MB/s"): a bare number is refused, because nobody can tell what it counts.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

from snaprep.config_example import example
from snaprep.config_form import At, Derby, Feed, Host, Leases, Replication, Root, Rounds, Transactions
from snaprep.core.errors import UsageError
from snaprep.core.model import Policy
from snaprep.core.spec import DerbySpec, HostSpec, Pair, Reach

DATASET_LENGTH_MAX = 200  # ZFS allows 255; names that a run derives need the rest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DATASET_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.: -]*[A-Za-z0-9_.:-])?")
_POOL = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.: -]*[A-Za-z0-9_.:-])?")
_ADDRESS = re.compile(r"[A-Za-z0-9:\[][A-Za-z0-9_.:%\]-]*")
_SSH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9\[][A-Za-z0-9_.:%\]-]*")
_PROGRAM = re.compile(r"[A-Za-z0-9_./+][A-Za-z0-9_./+-]*")
_WITHOUT_SNAPSHOTS = Policy(lane="log", freeze="never", archive="backup")
_OWNER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*(?::[A-Za-z_][A-Za-z0-9_.-]*)?")


def find(explicit: str | None = None) -> Path:
    """The file to use: what was said, else ./snaprep.toml, else the one under ~/.config.

    Raises UsageError `config-not-found`.
    """
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [Path(explicit).expanduser()] if explicit else [Path("snaprep.toml"), home / "snaprep" / "snaprep.toml"]
    for place in places:
        if place.is_file():
            return place
    what = f"there is no {' and no '.join(str(p) for p in places)}"
    raise UsageError(
        "config-not-found",
        what,
        hint="`snaprep init` writes one; -c FILE says where it is",
        serving="nothing was touched",
    )


def load(file: Path) -> tuple[Pair, Policy]:
    """Read a configuration file and the password files that it names.

    Raises UsageError `config-*` or `password-file-*`.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        what = f"{file} cannot be read: {error.strerror}"
        hint = "make it readable for you, or name another with -c FILE"
        raise UsageError("config-unreadable", what, hint=hint, serving="nothing was touched") from error
    return parse(data, str(file), file.parent)


def parse(data: bytes, file: str = "snaprep.toml", folder: Path | None = None) -> tuple[Pair, Policy]:
    """The same from text. Relative password files are looked up from `folder`."""
    at = At(file)
    try:
        raw = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            "config-syntax", f"{file} is not TOML: {error}", hint="texts stand in quotes", serving="nothing was touched"
        ) from error
    root = at.table(raw, Root)
    if not _NAME.fullmatch(root.pair):
        at.fail("pair", f"{root.pair!r} is not a name", "letters, digits, _ . -, beginning with a letter or digit")
    return _pair(at, root, folder or Path()), _policy(at, root)


def _pair(at: At, root: Root, folder: Path) -> Pair:
    if len(root.hosts) != 2:
        what = f"a pair has two hosts, here are {len(root.hosts)}"
        at.fail("hosts", what, "one table for each host: [hosts.NAME]", "config-hosts")
    for name in root.hosts:
        if not _NAME.fullmatch(name):
            at.fail("hosts", f"{name!r} is not a name", "letters, digits, _ . -", "config-hosts")
    one, two = (_read_host(at, root, name) for name in root.hosts)
    if one.replication.mode != two.replication.mode:
        at.fail("derby.replication.mode", "both hosts need the same mode")
    if one.table.ssh == two.table.ssh:
        at.fail(f"hosts.{two.name}.ssh", f"{two.table.ssh!r} is the other host, too", id="config-hosts")
    specs = (_host_spec(one, two, root, folder), _host_spec(two, one, root, folder))
    return Pair(name=root.pair, hosts=specs, reach=(_reach(one), _reach(two)), relay=root.relay)


@dataclass(frozen=True, slots=True)
class _HostTables:
    """One host's tables, with its own values of [derby] laid over the common ones."""

    name: str
    at: At
    table: Host
    derby: Derby
    replication: Replication
    own: frozenset[str]  # keys of [hosts.NAME.derby]
    base: At

    def where(self, key: str) -> At:
        """The table that a key of [derby] was said in."""
        return self.at.into("derby") if key in self.own else self.base


def _read_host(at: At, root: Root, name: str) -> _HostTables:
    here, base = at.into(f"hosts.{name}"), at.into("derby")
    host = here.table(root.hosts[name], Host)
    common, own = base.table(root.derby, Derby), here.into("derby").table(host.derby, Derby)
    base.into("replication").table(common.replication, Replication)
    here.into("derby.replication").table(own.replication, Replication)
    return _HostTables(
        name=name,
        at=here,
        table=host,
        derby=base.table({**root.derby, **host.derby}, Derby),
        replication=base.into("replication").table({**common.replication, **own.replication}, Replication),
        own=frozenset(host.derby),
        base=base,
    )


def _reach(tables: _HostTables) -> Reach:
    here, host = tables.at, tables.table
    if not host.ssh:
        here.fail("ssh", "is empty", "an alias of your ssh_config, or user@host:port", "config-missing-key")
    return Reach(
        ssh=here.matching("ssh", host.ssh, _SSH, "an alias or [user@]host[:port]"),
        become=host.become,
        python=here.matching("python", host.python, _PROGRAM, "a program") or "python3",
        data_address=here.matching("address", host.address, _ADDRESS, "an address"),
        data_port=here.port("data_port", host.data_port, least=0),
        data_user=here.matching("data_user", host.data_user, _NAME, "a user's name"),
    )


def _host_spec(tables: _HostTables, other: _HostTables, root: Root, folder: Path) -> HostSpec:
    here, host = tables.at, tables.table
    derby = _derby_spec(tables, other, folder)
    if root.volume == "directory":
        return _directory_spec(tables, root, derby)
    if not host.dataset:
        here.fail("dataset", "is missing", "`snaprep init -` prints an example", "config-missing-key")
    mountpoint = here.directory("mountpoint", host.mountpoint or str(Path(derby.database).parent))
    if not derby.database.startswith(mountpoint.rstrip("/") + "/"):
        what = f"{derby.database} does not lie under {mountpoint}"
        here.fail("mountpoint", what, "the dataset has to hold the whole database")
    return HostSpec(
        name=tables.name,
        pair=root.pair,
        volume=root.volume,
        dataset=_dataset(here, "dataset", host.dataset),
        children=tuple(_child(here, c, host.dataset) for c in host.children),
        mountpoint=mountpoint,
        owner=here.matching("owner", host.owner, _OWNER, "user or user:group by name"),
        engine=root.engine,
        derby=derby,
    )


def _directory_spec(tables: _HostTables, root: Root, derby: DerbySpec) -> HostSpec:
    """The image is the database's own directory: nothing else is renamed with it."""
    here, host = tables.at, tables.table
    for key, value in (("dataset", host.dataset), ("children", host.children), ("mountpoint", host.mountpoint)):
        if value:
            what = 'has no meaning with volume = "directory": the database\'s own directory is what is copied'
            here.fail(key, what, "leave it out", "config-volume")
    return HostSpec(
        name=tables.name,
        pair=root.pair,
        volume=root.volume,
        dataset=derby.database,
        mountpoint=derby.database,
        owner=here.matching("owner", host.owner, _OWNER, "user or user:group by name"),
        engine=root.engine,
        derby=derby,
    )


def _without_snapshots(at: At, root: Root) -> Policy:
    """What goes without being said where there are no snapshots. Raises UsageError for what is said and cannot be."""
    for table, key, said in (("feed", "lane", root.feed), ("rounds", "freeze", root.rounds)):
        if key in said:
            without_snapshots(key, said[key], at.into(table))
    return _WITHOUT_SNAPSHOTS


def without_snapshots(key: str, said: str, at: At | None = None) -> str:
    """What `lane` or `freeze` comes to where there are no snapshots. Raises UsageError `config-volume`."""
    only = str(getattr(_WITHOUT_SNAPSHOTS, key))
    if said not in (only, "auto"):
        what = f'{said!r} needs snapshots, and volume = "directory" has none'
        (at or At("command line")).fail(key, what, f'leave it out, or "{only}"', "config-volume")
    return only


def _dataset(here: At, key: str, name: str) -> str:
    """Names go to the zfs command as they are, never through a shell; here they are held to what ZFS allows."""
    pool, *rest = name.split("/")
    if not rest:
        what = f"{name!r} is a pool" if _POOL.fullmatch(name) else f"{name!r} is not a dataset"
        here.fail(key, what, "a dataset of its own for the database, as in tank/bank", "config-dataset")
    if not _POOL.fullmatch(pool) or not all(_DATASET_PART.fullmatch(p) for p in rest):
        hint = "letters, digits, _ - : . and spaces inside; parts divided by /"
        here.fail(key, f"{name!r} is not a dataset's name", hint, "config-dataset")
    if len(name) > DATASET_LENGTH_MAX:
        here.fail(key, f"the name has {len(name)} letters, at most {DATASET_LENGTH_MAX} fit", id="config-dataset")
    return name


def _child(here: At, child: str, dataset: str) -> str:
    if not all(_DATASET_PART.fullmatch(p) for p in child.split("/")):
        what = f"{child!r} is not the name of a dataset below {dataset}"
        here.fail("children", what, 'written without the parent, as in ["log"]', "config-dataset")
    return child


def _derby_spec(tables: _HostTables, other: _HostTables, folder: Path) -> DerbySpec:
    derby, where = tables.derby, tables.where
    if not derby.database:
        tables.base.fail("database", "is missing", "the absolute path of the database's folder", "config-missing-key")
    listen, peer = _listens(tables), _connects(tables, other)
    return DerbySpec(
        database=where("database").directory("database", derby.database),
        host=where("host").matching("host", derby.host, _ADDRESS, "an address"),
        port=where("port").port("port", derby.port),
        user=derby.user,
        password=_password(where("password_file"), derby.password_file, folder),
        java=derby.java,
        classpath=derby.classpath,
        restart_command=derby.restart_command,
        replication_mode=tables.replication.mode,
        listen_address=listen[0],
        listen_port=listen[1],
        peer_address=peer[0],
        peer_port=peer[1],
    )


def _listens(tables: _HostTables) -> tuple[str, int]:
    """Where this host waits for its primary when it is the replica."""
    here = tables.where("replication").into("replication")
    port = here.port("port", tables.replication.port)
    if tables.replication.mode == "tunnel":
        if here.port("tunnel_port", tables.replication.tunnel_port) == port:
            here.fail("tunnel_port", f"{port} is the replica's own port; roles change, so they must differ")
        return "127.0.0.1", port
    key = "replication_address" if tables.table.replication_address else "address"
    address = tables.table.replication_address or tables.table.address
    if not address:
        hint = f'where the other host reaches {tables.name}; or [derby.replication] mode = "tunnel"'
        tables.at.fail("address", "is missing", hint, "config-missing-key")
    return tables.at.matching(key, address, _ADDRESS, "an address"), port


def _connects(tables: _HostTables, other: _HostTables) -> tuple[str, int]:
    """Where this host's server connects to when it is the primary."""
    if tables.replication.mode == "tunnel":
        return "127.0.0.1", tables.replication.tunnel_port
    return _listens(other)


def _password(at: At, name: str, folder: Path) -> str:
    """The first line's worth of a file that only its owner can read."""
    if not name:
        return ""
    path = folder / Path(name).expanduser()
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(4096)
    except OSError as error:
        hint = "the password of derby.user stands alone in that file, on this machine"
        at.fail("password_file", f"{path} cannot be read: {error.strerror}", hint, "password-file-unreadable")
    if mode & 0o077:
        what = f"{path} can be read by others (mode {mode:04o})"
        at.fail("password_file", what, f"chmod 600 {path}", "password-file-mode")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        hint = "the password of derby.user stands alone in that file, in UTF-8"
        at.fail("password_file", f"{path} is not text", hint, "password-file-unreadable")


def _policy(at: At, root: Root) -> Policy:
    in_rounds, in_leases, in_transactions = at.into("rounds"), at.into("leases"), at.into("transactions")
    rounds = in_rounds.table(root.rounds, Rounds)
    leases = in_leases.table(root.leases, Leases)
    transactions = in_transactions.table(root.transactions, Transactions)
    in_feed = at.into("feed")
    feed = in_feed.table(root.feed, Feed)
    for key, value in (("max", rounds.max), ("attempts", rounds.attempts)):
        if value < 1:
            in_rounds.fail(key, f"{value} is less than 1")
    fixed = _without_snapshots(at, root) if root.volume == "directory" else None
    policy = Policy(
        budget_ms=in_rounds.duration_ms("budget", rounds.budget),
        undo_ms=in_rounds.duration_ms("undo", rounds.undo),
        freeze=fixed.freeze if fixed else rounds.freeze,
        freeze_lease_ms=in_leases.duration_ms("freeze", leases.freeze, 1000),
        limit_bytes_per_s=in_rounds.rate("limit", rounds.limit),
        hold_pace_s=in_rounds.duration_ms("hold_pace", rounds.hold_pace) / 1000,
        rounds_max=rounds.max,
        cutover_attempts=rounds.attempts,
        transaction_wait_s=in_transactions.duration_ms("wait", transactions.wait, 0) / 1000,
        transaction_old_s=in_transactions.duration_ms("old", transactions.old, 0) / 1000,
        archive=feed.archive or (fixed.archive if fixed else None),
        refresh_s=in_feed.duration_ms("refresh", feed.refresh) / 1000 if feed.refresh else None,
        lane=fixed.lane if fixed else feed.lane,
        floor_bytes=in_rounds.size("floor", rounds.floor),
    )
    check_policy(policy, at)
    return policy


def check_policy(policy: Policy, at: At | None = None) -> None:
    """What no single key can tell. Also asked after the command line has changed the policy. Raises UsageError."""
    at = at or At("command line")
    if policy.budget_ms <= policy.undo_ms:
        what = f"{policy.budget_ms} ms leaves nothing beside the undo of {policy.undo_ms} ms"
        at.fail("rounds.budget", what, "raise it")


__all__ = ["check_policy", "example", "find", "load", "parse", "without_snapshots"]
