"""What the configuration says of a pair, in the form that travels to the agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class DerbySpec:
    """A Derby network server on one host, as its own client reaches it there."""

    database: str  # absolute path of the database directory, as clients know it
    replica_database: str = ""  # where it stands while this host is the replica; clients find nothing at their path
    host: str = "127.0.0.1"
    port: int = 1527
    user: str = "snaprep"
    password: str = field(default="", repr=False)
    java: str = "java"
    classpath: tuple[str, ...] = ()  # jar files; empty: the usual places are searched
    restart_command: tuple[str, ...] = ()  # argv; used only when the server has wedged
    replication_mode: Literal["address", "tunnel"] = "address"
    listen_address: str = ""  # where this host listens when it is the replica
    listen_port: int = 4851
    peer_address: str = ""  # where this host's server connects to when it is the primary
    peer_port: int = 4851


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """One host of a pair."""

    name: str
    pair: str
    volume: Literal["zfs", "directory"] = "zfs"
    dataset: str  # the live image's name: a dataset, or the database's directory
    children: tuple[str, ...] = ()
    mountpoint: str  # where the live image is mounted, the same path on both hosts unless configured
    owner: str = ""  # user:group of the database's files by name; empty: as the source has it
    engine: Literal["derby"] = "derby"
    derby: DerbySpec

    @property
    def replica_mountpoint(self) -> str:
        """Where a replica's image is mounted: not at the path that clients know."""
        return self.beside("replica")

    def beside(self, word: str) -> str:
        """A path next to the one that clients know, for another image."""
        return f"{self.mountpoint.rstrip('/')}.{word}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How the operator gets to a host, and how the other host does."""

    ssh: str  # alias or [user@]host[:port], looked up in ssh_config
    become: Literal["", "sudo"] = ""
    python: str = "python3"
    data_address: str = ""  # the other host's way to this host's sshd; empty: what ssh_config says for the operator
    data_port: int = 0  # 0: as for the operator
    data_user: str = ""  # empty: as for the operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two hosts with one database. Order means nothing: who serves is found by looking."""

    name: str
    hosts: tuple[HostSpec, HostSpec]
    reach: tuple[Reach, Reach]
    relay: bool = False  # data goes through the operator

    def host(self, name: str) -> HostSpec:
        return self.hosts[0] if self.hosts[0].name == name else self.hosts[1]

    def reach_of(self, name: str) -> Reach:
        return self.reach[0] if self.hosts[0].name == name else self.reach[1]
