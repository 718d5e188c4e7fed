"""A database host: a node with its own sshd, its own zfs-fuse with one pool on a file, and its own Derby
network server, which runs as the unprivileged user `derby`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig.node import END_S, Node, RigError, end, inner_pid, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POOL = "tank"
POOL_FILE = f"/var/lib/rig/{POOL}.img"
DERBY_HOME = "/var/lib/derby"
DERBY_PORT = 1527
DERBY_USER = "derby"
JARS = tuple(f"/usr/share/java/{name}.jar" for name in ("derby", "derbynet", "derbytools", "derbyclient"))
CLASSPATH = ":".join(JARS)
# Two cores are shared by all the machines of a world: a light collector and the quick compiler only. No file of
# counters: it is named after the pid, which operators of other worlds have as well, and a JVM complains of that.
JVM = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData")
DAEMON_S = 30.0
HIDDEN = ("/etc", "/var", "/root", "/run", "/srv")

SSHD_CONFIG = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile .ssh/authorized_keys
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 200:30:400
MaxSessions 200
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""

DERBY_PROPERTIES = """\
derby.replication.logBufferSize=1048576
derby.stream.error.logSeverityLevel=0
"""


class Host(Node):
    """`derby_autostart` says whether `boot` starts Derby; it may be changed while the host is off."""

    def __init__(
        self, name: str, state: Path, *, pool_mb: int, derby_heap_mb: int, derby_autostart: bool, derby_uid: int
    ) -> None:
        below = [path for path in HIDDEN if state.is_relative_to(path)]
        if below:
            raise RigError(f"{state} would be hidden by the host's own {below[0]}")
        super().__init__(name, state, _mounts(state), {})
        self.pool_mb = pool_mb
        self.derby_heap_mb = derby_heap_mb
        self.derby_autostart = derby_autostart
        self.derby_uid = derby_uid
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._has_pool = False
        self._install()

    # ------------------------------------------------------------------ what is on its disk

    def outside(self, path: str | Path) -> Path:
        """Where a file of the host below /etc, /var or /root lies outside: to be changed only while the
        host is off, to be read at any time.
        """
        return self.state / str(path).lstrip("/")

    def inside(self, path: str | Path) -> Path:
        """A path that leads into the running host, for reading and writing from outside."""
        return Path(f"/proc/{self.pid}/root", str(path).lstrip("/"))

    def bring(self, directory: Path, place: str) -> None:
        """Copies a directory to the running host, unless it is there already."""
        if not self.inside(place).exists():
            shutil.copytree(directory, self.inside(place))

    @property
    def ssh_public_key(self) -> str:
        """The type and key, without comment, as a known_hosts line wants them."""
        return " ".join(self.outside("/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])

    def log(self, daemon: str) -> Path:
        return self.state / "log" / f"{daemon}.log"

    def _install(self) -> None:
        for place in ("etc/ssh", "etc/zfs", "var/lib/rig", "root/.ssh", "log", "work-etc", "work-var"):
            (self.state / place).mkdir(parents=True, exist_ok=True)
        (self.state / "root/.ssh").chmod(0o700)
        (self.state / "root").chmod(0o700)
        self._add_users()
        with self.outside(POOL_FILE).open("wb") as disk:
            disk.truncate(self.pool_mb << 20)
        self.outside("/etc/hostname").write_text(f"{self.name}\n")
        self.outside("/etc/ssh/sshd_config").write_text(SSHD_CONFIG)
        key = self.outside("/etc/ssh/ssh_host_ed25519_key")
        make_ssh_key(key, self.name)
        home = self.outside(DERBY_HOME)
        home.mkdir(parents=True)
        (home / "derby.properties").write_text(DERBY_PROPERTIES)
        for path in (home, home / "derby.properties"):
            shutil.chown(path, self.derby_uid, self.derby_uid)

    def _add_users(self) -> None:
        uid = self.derby_uid
        added = {
            "passwd": f"{DERBY_USER}:x:{uid}:{uid}::{DERBY_HOME}:/usr/sbin/nologin",
            "group": f"{DERBY_USER}:x:{uid}:",
            "shadow": f"{DERBY_USER}:!:20000::::::",
        }
        for name, line in added.items():
            old = Path("/etc", name).read_text().splitlines()
            kept = [entry for entry in old if not entry.startswith((f"{DERBY_USER}:", "root:"))]
            root = next(entry for entry in old if entry.startswith("root:"))
            # Without PAM sshd takes a "!" in front of a password for a locked account, keys included.
            root = "root:*:20000:0:99999:7:::" if name == "shadow" else root
            new = self.outside(f"/etc/{name}")
            new.write_text("\n".join([root, *kept, line]) + "\n")
            new.chmod(0o640 if name == "shadow" else 0o644)

    # ------------------------------------------------------------------ power

    def start_daemons(self) -> None:
        """What the host's init system would start at boot: storage, then sshd, then Derby."""
        derby = self.derby_autostart
        if derby:
            self._launch_derby()  # the JVM warms up while the pool is imported
        self.start_zfs()
        self.start_sshd()
        if derby:
            self._await_derby()

    def power_off(self) -> None:
        super().power_off()
        for process in self.daemons.values():
            process.wait(END_S)
        self.daemons.clear()

    # ------------------------------------------------------------------ daemons

    def daemon_pid(self, name: str) -> int:
        """The outside pid of `zfs-fuse`, `sshd` or `derby`. Raises RigError when it does not run."""
        process = self.daemons.get(name)
        if process is None:
            raise RigError(f"{self.name}: {name} was not started")
        return inner_pid(process)

    def runs(self, name: str) -> bool:
        process = self.daemons.get(name)
        return process is not None and process.poll() is None

    def crash(self, name: str) -> None:
        """kill -9 of `zfs-fuse`, `sshd` (with its sessions) or `derby`; returns when it is gone."""
        process = self.daemons.pop(name)
        end(process, signal.SIGKILL)
        if name == "sshd":
            self.run(["pkill", "-9", "-x", "sshd"], check=False)  # sees this host's processes only

    def start_zfs(self) -> None:
        """Starts zfs-fuse, after a crash too, with the pool imported and mounted as at a boot: datasets
        with canmount=noauto stay unmounted.
        """
        for line in Path(f"/proc/{self.pid}/mounts").read_text().splitlines():
            _, path, kind, *_ = line.split()
            if kind == "fuse.zfs":  # dead mounts of the daemon before
                self.run(["umount", "-l", path])
        socket = self.inside("/run/zfs/zfs_socket")
        socket.unlink(missing_ok=True)
        self._launch("zfs-fuse", ["zfs-fuse", "--no-daemon", "--no-kstat-mount"])
        # The socket is there a moment before somebody listens to it.
        self._await("zfs-fuse", lambda: socket.is_socket() and not self.run(["zpool", "list"], check=False).returncode)
        if not self._has_pool:
            self.run(["zpool", "create", "-m", "none", "-O", "atime=off", POOL, POOL_FILE])
            self._has_pool = True
        elif self.run(["zpool", "list", "-H", POOL], check=False).returncode != 0:
            # It may be importing what was there before by itself, so only what comes of it counts.
            self.run(["zpool", "import", "-f", "-d", str(Path(POOL_FILE).parent), POOL], check=False)
            self.run(["zpool", "list", "-H", POOL])
        self.run(["zfs", "mount", "-a"])

    def start_sshd(self) -> None:
        self._launch("sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config"])
        self._await("sshd", lambda: "Server listening on 0.0.0.0" in self.log("sshd").read_text())

    def start_derby(self) -> None:
        self._launch_derby()
        self._await_derby()

    def stop_derby(self) -> None:
        """The documented shutdown of the server: its databases are shut down cleanly."""
        process = self.daemons.pop("derby")
        where = ["-h", "127.0.0.1", "-p", str(DERBY_PORT)]
        self.run(self._derby_command(["shutdown", *where]), user=DERBY_USER)
        process.wait(END_S)

    def restart_derby(self) -> None:
        if self.runs("derby"):
            self.stop_derby()
        self.daemons.pop("derby", None)
        self.start_derby()

    def _derby_command(self, words: Sequence[str]) -> list[str]:
        system = [f"-Dderby.system.home={DERBY_HOME}", "-cp", CLASSPATH]
        heap = f"-Xmx{self.derby_heap_mb}m"
        return [*JVM, heap, *system, "org.apache.derby.drda.NetworkServerControl", *words]

    def _launch_derby(self) -> None:
        start = ["start", "-h", "0.0.0.0", "-p", str(DERBY_PORT), "-noSecurityManager"]  # noqa: S104
        self._launch("derby", self._derby_command(start), user=DERBY_USER, cwd=DERBY_HOME)

    def _await_derby(self) -> None:
        self._await("derby", lambda: "ready to accept connections" in self.log("derby").read_text())

    def _launch(self, name: str, argv: Sequence[str], *, user: str | None = None, cwd: str | None = None) -> None:
        if self.runs(name):
            raise RigError(f"{self.name}: {name} runs already")
        # Every start has its own log file: what is waited for must be of this start.
        with self.log(name).open("wb") as out:
            self.daemons[name] = self.popen(argv, stdout=out, stderr=subprocess.STDOUT, user=user, cwd=cwd)

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        process = self.daemons[name]
        wait_until(lambda: ready() or process.poll() is not None, f"{self.name}: {name}", DAEMON_S)
        if process.poll() is not None:
            raise RigError(f"{self.name}: {name} ended: {self.log(name).read_text()}")

    # ------------------------------------------------------------------ conveniences

    def zfs(self, *words: str, check: bool = True) -> str:
        """`zfs WORDS` on the host; returns what it printed, without the last newline."""
        return self.run(["zfs", *words], check=check).stdout.rstrip("\n")

    def guid(self, name: str) -> str:
        return self.zfs("get", "-Hp", "-o", "value", "guid", name)


def make_ssh_key(path: Path, comment: str) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(argv, check=True, timeout=30, stdin=subprocess.DEVNULL)


def _mounts(state: Path) -> list[list[str]]:
    """Private copies of all that daemons, packages and snaprep keep on a host. What must survive a power
    cut lies in the state directory; the rest is memory. /tmp comes last: the state may be below it.
    """
    return [
        ["overlay", "/etc", f"{state}/etc", f"{state}/work-etc"],
        ["overlay", "/var", f"{state}/var", f"{state}/work-var"],
        ["bind", "/root", f"{state}/root"],
        ["tmpfs", "/srv", "755"],
        ["tmpfs", "/run", "755"],
        *(["mkdir", path, "0755"] for path in ("/run/sshd", "/run/zfs", "/run/lock/zfs", "/var/lib/snaprep")),
        ["tmpfs", "/tmp", "1777"],
    ]
