"""The operator's machine, the database hosts, and the cables between them.

    with World.start(tmp_path) as world:
        world["db1"].zfs("create", "tank/x")
        world.operator.run(["ssh", "db1", "hostname"])

Nothing of a world has a name outside of it, so any number may run at once; all of it ends with the process
that started it, however that ends. What is left then is its directory, which the next `start` below the
same parent sweeps away.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from tests.rig import network
from tests.rig.host import DERBY_PORT, Host, make_ssh_key
from tests.rig.network import Cable
from tests.rig.node import Node, alive, end, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from types import TracebackType

PREFIX = "rig-"
OPERATOR = "operator"
DERBY_UID = 900
RELAY = Path(__file__).with_name("relay.py")


class World:
    """`hosts` by name; `operator` is where a person sits: no database, no pool, an ssh key that opens root
    on every host, host keys pinned, `Host` aliases in `~/.ssh/config`.
    """

    # What the hosts' pace asks for in a pair's configuration, table [rounds].
    rounds: Mapping[str, str] = MappingProxyType({})

    def __init__(self, directory: Path, hosts: Sequence[Host], operator: Node) -> None:
        self.directory = directory
        self.operator = operator
        self.hosts = {host.name: host for host in hosts}
        nodes: list[Node] = [operator, *hosts]
        pairs = enumerate(itertools.combinations(nodes, 2), start=1)
        self.cables = {frozenset((a.name, b.name)): Cable(number=n, ends=(a, b)) for n, (a, b) in pairs}
        self._relay: subprocess.Popen[bytes] | None = None
        self._rtt_ms = 0.0

    # ------------------------------------------------------------------ life

    @classmethod
    def start(
        cls,
        parent: Path | None = None,
        *,
        names: Sequence[str] = ("db1", "db2"),
        pool_mb: int = 4096,
        derby: bool = True,
        derby_heap_mb: int = 256,
        derby_uids: Sequence[int] | None = None,
    ) -> Self:
        """A running world in a fresh directory below `parent` (default: the temporary directory). `derby`
        says whether the hosts start Derby at boot; `derby_uids` gives its user another number on each
        host. Raises RigError; then nothing is left.
        """
        derby_uids = derby_uids or [DERBY_UID] * len(names)
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        sweep(parent)
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        (directory / "pid").write_text(str(os.getpid()))
        operator = _operator(directory / OPERATOR)
        hosts = [
            cls.make_host(
                operator,
                name,
                directory / name,
                pool_mb=pool_mb,
                derby_heap_mb=derby_heap_mb,
                derby_autostart=derby,
                derby_uid=uid,
            )
            for name, uid in zip(names, derby_uids, strict=True)
        ]
        world = cls(directory, hosts, operator)
        try:
            world._install()
            world._power_on()
        except BaseException:
            world.stop()
            raise
        return world

    @classmethod
    def make_host(
        cls,
        operator: Node,  # noqa: ARG003 - for hosts of other kinds, which are reached from there
        name: str,
        state: Path,
        *,
        pool_mb: int,
        derby_heap_mb: int,
        derby_autostart: bool,
        derby_uid: int,
    ) -> Host:
        """A host that is off, with its disk in `state`."""
        return Host(
            name,
            state,
            pool_mb=pool_mb,
            derby_heap_mb=derby_heap_mb,
            derby_autostart=derby_autostart,
            derby_uid=derby_uid,
        )

    def stop(self) -> None:
        """Ends everything at once and removes the directory."""
        self._stop_relay()
        for node in (*self.hosts.values(), self.operator):
            node.power_off()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def node(self, name: str) -> Node:
        return self.operator if name == OPERATOR else self.hosts[name]

    # ------------------------------------------------------------------ power

    def power_off(self, name: str) -> None:
        """Pulls the plug of a host: every process of it is killed, memory file systems are lost."""
        self.hosts[name].power_off()
        for names, cable in self.cables.items():
            if name in names:
                network.unplugged(cable)

    def boot(self, name: str) -> None:
        """Powers a host on and starts its daemons (Derby if `derby_autostart`), cables as before."""
        host = self.hosts[name]
        host.power_on()
        self._connect(host)
        host.start_daemons()

    def reboot(self, name: str) -> None:
        self.power_off(name)
        self.boot(name)

    def _power_on(self) -> None:
        nodes = [self.operator, *self.hosts.values()]
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(Node.power_on, nodes))
            self._write_ssh_config()
            list(map(self._connect, nodes))
            list(pool.map(Host.start_daemons, self.hosts.values()))

    def _connect(self, node: Node) -> None:
        network.loopback(node)
        for names, cable in self.cables.items():
            if node.name in names:
                network.plug(cable)

    # ------------------------------------------------------------------ addresses

    def cable(self, a: str, b: str) -> Cable:
        return self.cables[frozenset((a, b))]

    def address(self, name: str, *, seen_from: str = OPERATOR) -> str:
        """The address of host `name` on its cable to `seen_from`; every other address of it would do only
        with routes, and there are none.
        """
        if name == seen_from:
            return "127.0.0.1"
        return self.cable(name, seen_from).address(self.node(name))

    def jdbc_url(self, name: str, database: str = "/srv/bank/bank", *, seen_from: str = OPERATOR) -> str:
        return f"jdbc:derby://{self.address(name, seen_from=seen_from)}:{DERBY_PORT}/{database}"

    # ------------------------------------------------------------------ the cables

    def link(self, a: str = "db1", b: str = "db2", *, rate_mbit: float | None) -> None:
        """Limits the cable between two nodes, both directions each; None lifts the limit."""
        network.set_rate(self.cable(a, b), rate_mbit)

    def cut_link(self, a: str = "db1", b: str = "db2", *, silent: bool = True) -> None:
        """Cuts a cable. Silently: packets vanish and connections hang. Otherwise the interfaces go down
        and every attempt fails at once.
        """
        if silent:
            network.cut(self.cable(a, b))
        else:
            network.set_carrier(self.cable(a, b), up=False)

    def heal_link(self, a: str = "db1", b: str = "db2") -> None:
        network.set_carrier(self.cable(a, b), up=True)
        network.heal(self.cable(a, b))

    def isolate_host(self, name: str) -> None:
        """Cuts every cable of a host, silently: it runs, and nobody can tell."""
        for names, cable in self.cables.items():
            if name in names:
                network.cut(cable)

    def operator_rtt(self, rtt_ms: float | None) -> None:
        """Makes the operator's new ssh connections take `rtt_ms` more for every round trip."""
        self._stop_relay()
        self._rtt_ms = rtt_ms or 0.0
        if self._rtt_ms:
            routes = [f"{self._relay_address(name)}={self.address(name)}" for name in self.hosts]
            log = self.directory / "relay.log"
            with log.open("wb") as out:
                argv: list[str | Path] = [sys.executable, "-I", "-S", RELAY, str(self._rtt_ms), *routes]
                self._relay = self.operator.popen(argv, stdout=out, stderr=out)
            wait_until(lambda: log.read_text().startswith("up"), "relay", 10)
        self._write_ssh_config()

    def _stop_relay(self) -> None:
        if self._relay is not None:
            end(self._relay)
            self._relay = None

    def _relay_address(self, name: str) -> str:
        return f"127.0.2.{list(self.hosts).index(name) + 1}"

    # ------------------------------------------------------------------ ssh

    @property
    def home(self) -> Path:
        """The operator's home directory; the same path inside and outside."""
        return self.directory / OPERATOR / "home"

    @property
    def ssh_config(self) -> Path:
        """For ssh clients that run outside of the operator's namespaces, such as testinfra's: it enters
        them for every connection.
        """
        return self.directory / "ssh_config"

    def testinfra(self, name: str) -> Any:  # noqa: ANN401 - the package has no types
        """The host as pytest-testinfra sees it through ssh."""
        import testinfra  # noqa: PLC0415 - needed by tests only; the rig runs without it

        return testinfra.get_host(f"ssh://root@{name}", ssh_config=str(self.ssh_config))

    def _install(self) -> None:
        self._write_hosts_files()
        ssh = self.home / ".ssh"
        make_ssh_key(ssh / "id_ed25519", OPERATOR)
        public = (ssh / "id_ed25519.pub").read_text()
        known = []
        for host in self.hosts.values():
            allowed = host.outside("/root/.ssh/authorized_keys")
            allowed.write_text(public)
            allowed.chmod(0o600)
            names = (host.name, self.address(host.name), self._relay_address(host.name))
            known.append(f"{','.join(names)} {host.ssh_public_key}\n")
        (ssh / "known_hosts").write_text("".join(known))

    def _write_hosts_files(self) -> None:
        for node in (self.operator, *self.hosts.values()):
            others = [host.name for host in self.hosts.values() if host is not node]
            lines = [f"127.0.0.1 localhost\n127.0.1.1 {node.name}\n"]
            lines += [f"{self.address(name, seen_from=node.name)} {name}\n" for name in others]
            (node.state / "etc/hosts").write_text("".join(lines))

    def _write_ssh_config(self) -> None:
        """Every file of it is replaced whole: a client may be reading."""
        ssh = self.home / ".ssh"
        common = (
            f"  User root\n  IdentityFile {ssh}/id_ed25519\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {ssh}/known_hosts\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        )
        inside, outside = "", ""
        for name in self.hosts:
            address = self._relay_address(name) if self._rtt_ms else self.address(name)
            inside += f"Host {name}\n  HostName {address}\n{common}"
            proxy = f"nsenter -t {self.operator.pid} -n socat - TCP:{address}:22"
            outside += f"Host {name}\n  HostName {address}\n  ProxyCommand {proxy}\n{common}"
        for path, text in ((ssh / "config", inside), (self.ssh_config, outside)):
            fresh = path.with_name(f"{path.name}.new")
            fresh.write_text(text)
            fresh.chmod(0o600)
            fresh.replace(path)


def _operator(state: Path) -> Node:
    """A private /etc, in which root's home is the operator's own, because ssh looks there and not at HOME."""
    home = state / "home"
    for place in ("etc", "work-etc", "home/.ssh"):
        (state / place).mkdir(parents=True)
    (home / ".ssh").chmod(0o700)
    lines = Path("/etc/passwd").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("root:")]
    (state / "etc/passwd").write_text("\n".join([f"root:x:0:0:root:{home}:/bin/sh", *kept]) + "\n")
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    mounts = [["overlay", "/etc", f"{state}/etc", f"{state}/work-etc"]]
    return Node(OPERATOR, state, mounts, {"HOME": str(home), "PATH": path})


def sweep(parent: Path) -> None:
    """Removes the directories of worlds whose process is gone."""
    for directory in parent.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError, ValueError):
            if not alive(int((directory / "pid").read_text())):
                shutil.rmtree(directory, ignore_errors=True)
