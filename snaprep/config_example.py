"""The commented snaprep.toml that `snaprep init` writes. Every key stands in it, with its default or a first value."""

from __future__ import annotations

import json
from string import Template

_TEXT = Template("""\
# One pair for snaprep: two hosts with one database. Who serves is found by looking: their order means nothing.
# Unknown keys are refused. Durations and sizes are texts with a unit: "3s", "1 GiB", "50 MB/s".

# The pair's name: marks snapshots and datasets as this pair's own, and names its journal.
pair = $pair
# The database engine.
engine = "derby"
# The storage: "zfs", or "directory" on hosts without it. Then every base is a whole copy, made by Derby's online backup
# of the database's own directory: leave out below what names datasets (dataset, children, mountpoint), freeze and lane.
volume = "zfs"
# Send the data through this machine when the hosts cannot reach each other by SSH.
relay = false

[hosts.$host_one]
# How you reach the host: an alias of your ssh_config, or user@host:port. It is checked against your known_hosts.
ssh = $ssh_one
# "sudo" when that login is neither root nor, with OpenZFS, the account of the database with rights of its own.
become = ""
# The Python there, 3.11 or newer.
python = "python3"
# The dataset that holds the database and nothing else.
dataset = $dataset
# Datasets below it that belong to the database, without the parent's name, as in ["log"].
children = []
# Where the dataset is mounted; empty: the folder of the database.
mountpoint = ""
# Owner of the database's files, "user:group" by name; empty: as on the other host.
owner = ""
# Where the OTHER host reaches this one: for the data, and for replication unless that has an address of its own.
# An IP address, or a name that leads to it on both hosts (Debian's /etc/hosts says 127.0.1.1 for a host's own name).
address = $address_one
# SSH port and user there for the data; 0 and empty: as for you.
data_port = 0
data_user = ""
# The address for Derby's replication when it is another one. That traffic is not encrypted: use a private network.
replication_address = ""

[hosts.$host_two]
# The same keys. A table [hosts.$host_two.derby] would hold values of [derby] that differ on this host.
ssh = $ssh_two
become = ""
python = "python3"
dataset = $dataset
children = []
mountpoint = ""
owner = ""
address = $address_two
data_port = 0
data_user = ""
replication_address = ""

[derby]
# The folder of the database, an absolute path.
database = $database
# Where the network server listens, as seen on its own host.
host = "127.0.0.1"
port = 1527
# A user with the rights of a database owner, used by nobody else: the gate would not stop other sessions of it.
user = "snaprep"
# A file on this machine that holds its password and that only you can read (chmod 600).
password_file = ""
# The Java for snaprep's own client on the hosts.
java = "java"
# Derby's jar files; empty: the usual places are searched.
classpath = []
# What restarts a server that has wedged, as in ["systemctl", "restart", "derby"]; empty: never done.
restart_command = []

[derby.replication]
# "address": the primary connects straight to the replica. "tunnel": both ends are on 127.0.0.1 and you keep a tunnel.
mode = "address"
# Where the replica listens.
port = 4851
# With mode "tunnel": the local port on the primary's host that leads to the replica's.
tunnel_port = 4852

[rounds]
# The longest time that a client may get no commit at the cutover, an undo included.
budget = "4s"
# What of it is kept free for the undo.
undo = "1s"
# Which snapshots freeze the database: "base" (the first one), "always", or "never".
freeze = "base"
# Highest rate of the data, as in "50 MB/s"; empty: no limit.
limit = ""
# Free space on the source under which the replica is given up so that the primary lives.
floor = "1 GiB"
# The most rounds before a cutover.
max = 50
# How far apart rounds are while a run is held.
hold_pace = "10s"
# How often a cutover is tried before the run ends.
attempts = 3

[leases]
# A freeze ends by itself after this time. A closed gate does after what the budget leaves beside the undo.
freeze = "10s"

[transactions]
# How long a cutover waits for old transactions before the run stops and says so.
wait = "60s"
# From which age a transaction is old: the cutover would roll it back.
old = "5s"

[feed]
# What a rebuild ships after the base: increments of "pages", the "log", or "auto": pages, unless the log is measured
# to be clearly better and the primary keeps it, or may come to by what `archive` names.
lane = "auto"
# How the primary comes to keep its log, for `snaprep follow` and the log lane: at its next "restart", by a "bounce"
# (the database is away for a moment), or by a "backup" (Derby's online backup: nobody waits, the database is read and
# written once more). Empty: at its next restart, and not at all for "auto".
archive = ""
# How often `snaprep follow` moves the common snapshot on, so that a fail-back stays small; empty: only when
# `snaprep refresh` says so.
refresh = "1h"
""")


def example(
    pair: str = "bank",
    hosts: tuple[str, str] = ("db1", "db2"),
    *,
    ssh: tuple[str, str] = ("", ""),
    addresses: tuple[str, str] = ("", ""),
    dataset: str = "tank/bank",
    database: str = "/srv/bank/db",
) -> str:
    """The text of a first snaprep.toml. `ssh` and `addresses` are the hosts' names unless they are given."""
    one, two = hosts
    values = {
        "pair": pair,
        "ssh_one": ssh[0] or one,
        "ssh_two": ssh[1] or two,
        "address_one": addresses[0] or one,
        "address_two": addresses[1] or two,
        "dataset": dataset,
        "database": database,
    }
    quoted = {k: json.dumps(v, ensure_ascii=False) for k, v in values.items()}  # a TOML text, too
    return _TEXT.substitute(quoted, host_one=_key(one), host_two=_key(two))


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else json.dumps(name)
