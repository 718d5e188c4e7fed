"""The world of tests/rig, with machines of their own kernels in place of the namespaces' hosts.

The operator stays what it is: a namespace on this machine. The machines' QEMU runs in its network namespace, so their
forwarded ports have the numbers that they have inside, at an address of their own each, and nobody else sees them.
They end when the operator's namespaces end, however that comes about.
"""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.machines import accelerator, image, recipe
from tests.machines import guest as machine
from tests.machines.guest import Forward, Guest, GuestError, Plug
from tests.rig import network
from tests.rig.host import DERBY_HOME, DERBY_PORT, DERBY_PROPERTIES, DERBY_USER, POOL, Host
from tests.rig.node import Node, Pace, RigError, end, inner_pid, patience_s, wait_until
from tests.rig.world import OPERATOR, World

if TYPE_CHECKING:
    from tests.machines.accelerator import Accelerator
    from tests.machines.image import Image

DERBY_LOG = "/var/log/derby-server.log"
DERBY_S = 40.0
# How pgrep finds them; the brackets keep it from finding a shell that asks.
_DERBY = "NetworkServerContro[l] start"
_DAEMONS = {"sshd": ("sshd",), "derby": ("-f", _DERBY)}
# One connection for all the commands of the rig itself: under emulation a handshake takes seconds. The socket's name is
# relative, because whole paths of test directories are too long for a socket.
SHARED_CONNECTION = (
    "-o", "ControlMaster=auto", "-o", "ControlPath=rig-%n", "-o", "ControlPersist=600", "-o", "ConnectTimeout=60",
)  # fmt: skip


@cache
def parts() -> tuple[Image, Accelerator]:
    """What machines are made of here: the image must have been built. Raises RigError."""
    built = image.ready()
    if built is None:
        raise RigError(
            "there is no image of the machines yet: scripts/setup --machines, scripts/rig up, scripts/rig down"
        )
    return built, accelerator.choose(built)


class Machine(Host):
    """A host under QEMU. `state` is its seed: a file of it changed after the first boot changes nothing.

    Killing what `popen` returns kills the connection only: what runs inside ends when it notices.
    """

    def __init__(
        self,
        operator: Node,
        guest: Guest,
        *,
        address: str,
        pool_mb: int,
        derby_heap_mb: int,
        derby_autostart: bool,
    ) -> None:
        Node.__init__(self, guest.name, guest.seed, [], {})
        self.pool_mb = pool_mb
        self.derby_heap_mb = derby_heap_mb
        self.derby_autostart = derby_autostart
        self.derby_uid = recipe.DERBY_UID
        self.daemons = {}
        self.guest = guest
        self.slowness = guest.accelerator.slowness
        self.address = address
        self._operator = operator
        self._qemu: subprocess.Popen[bytes] | None = None
        self._has_pool = False
        self._install()

    def _install(self) -> None:
        self.guest.folder.mkdir(parents=True)
        machine.prepare(self.guest, authorized_key="")
        settings = self.outside("/etc/ssh/sshd_config.d/pace.conf")
        settings.parent.mkdir()
        settings.write_text(f"SetEnv SNAPREP_PATIENCE={self.guest.accelerator.slowness:g}\n")
        home = self.outside(DERBY_HOME)
        home.mkdir(parents=True)
        (home / "derby.properties").write_text(DERBY_PROPERTIES)
        for path in (home, home / "derby.properties"):
            shutil.chown(path, self.derby_uid, self.derby_uid)

    def inside(self, path: str | Path) -> Path:
        raise RigError(f"{self.name} has a kernel of its own: {path} is reached by commands only")

    def bring(self, directory: Path, place: str) -> None:
        if self.run(["test", "-e", place], check=False).returncode == 0:
            return
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(directory, arcname=".", filter=_source_only)
        self.run(["mkdir", "-p", place])
        with self.popen(["tar", "-C", place, "-xf", "-"], stdin=subprocess.PIPE) as unpacking:
            _, stderr = unpacking.communicate(packed.getvalue(), timeout=patience_s(60))
        if unpacking.returncode != 0:
            raise RigError(f"{self.name}: {directory} to {place}: {stderr.decode(errors='replace')}")

    # ------------------------------------------------------------------ power

    def power_on(self) -> None:
        if self._qemu is not None:
            raise RigError(f"{self.name} is already up")

        def spawn(argv: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
            with log.open("ab") as out:
                return self._operator.popen(argv, stdout=out, stderr=out, cwd=folder)

        self._qemu = machine.boot(self.guest, spawn)
        self.pid = inner_pid(self._qemu)

    def power_off(self) -> None:
        if self._qemu is None:
            return
        end(self._qemu)
        self._qemu = None
        self.pid = 0

    def start_daemons(self) -> None:
        """Waits for what the machine's first process starts: ZFS, and ssh after it. Then Derby."""
        self.start_sshd()
        self.start_zfs()
        if self.derby_autostart:
            self.start_derby()

    # ------------------------------------------------------------------ daemons

    def runs(self, name: str) -> bool:
        return self.run(["pgrep", *_DAEMONS[name]], check=False).returncode == 0

    def crash(self, name: str) -> None:
        """kill -9 of `sshd` (with its sessions, ours too) or `derby`; returns when it is gone."""
        self.run(["pkill", "-9", *_DAEMONS[name]], check=False)
        if name == "derby":
            wait_until(lambda: not self.runs(name), f"end of {name}", 10)

    def start_zfs(self) -> None:
        if not self._has_pool:
            self.run(["zpool", "create", "-m", "none", "-O", "atime=off", POOL, machine.DATA_DISKS[0]])
            self._has_pool = True

    def start_sshd(self) -> None:
        """Waits for it: the first process starts it, and starts it again."""
        qemu = self._qemu

        def answers() -> bool:
            return self.run(["true"], check=False).returncode == 0

        try:
            machine.await_answer(self.guest, lambda: qemu is not None and qemu.poll() is None, answers)
        except GuestError as error:
            raise RigError(str(error)) from error

    def stop_derby(self) -> None:
        where = ["-h", "127.0.0.1", "-p", str(DERBY_PORT)]
        self.run(self._derby_command(["shutdown", *where]), user=DERBY_USER)
        wait_until(lambda: not self.runs("derby"), f"{self.name}: end of Derby", 10)

    def _derby_start(self) -> list[str]:
        return self._derby_command(["start", "-h", "0.0.0.0", "-p", str(DERBY_PORT), "-noSecurityManager"])  # noqa: S104

    def _launch_derby(self) -> None:
        if self.runs("derby"):
            raise RigError(f"{self.name}: derby runs already")
        start = f"setsid {shlex.join(self._derby_start())} >{DERBY_LOG} 2>&1 </dev/null &"
        self.run(["touch", DERBY_LOG])
        self.run(["chown", DERBY_USER, DERBY_LOG])
        self.run(["sh", "-c", start], user=DERBY_USER, cwd=DERBY_HOME)

    def _await_derby(self) -> None:
        # Waited for inside: each look from outside costs an emulated processor more than a second's wait.
        ready = f"grep -q 'ready to accept connections' {DERBY_LOG}"
        wait = f"until {ready}; do pgrep -f '{_DERBY}' >/dev/null || exit 1; sleep 1; done"
        done = self.run(["sh", "-c", wait], check=False, timeout_s=DERBY_S)
        if done.returncode != 0:
            raise RigError(f"{self.name}: derby ended: {self.run(['cat', DERBY_LOG]).stdout}")

    # ------------------------------------------------------------------ programs

    def argv(self, argv: Sequence[str | Path], *, cwd: str | Path | None = None, user: str | None = None) -> list[str]:
        become = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"] if user is not None else []
        place = ["env", f"--chdir={cwd}"] if cwd is not None else []
        command = shlex.join([*become, *place, *map(str, argv)])
        return self._operator.argv(
            ["ssh", *SHARED_CONNECTION, self.name, command], cwd=f"{self._operator.env['HOME']}/.ssh"
        )

    def entered(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: str | Path | None, user: str | None
    ) -> tuple[list[str], dict[str, str]]:
        setting = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
        return self.argv([*setting, *argv], cwd=cwd, user=user), self.env

    def ip(self, commands: str) -> subprocess.CompletedProcess[str]:
        return self.run(["ip", "-batch", "-"], stdin=commands, check=False)


class Machines(World):
    """A world whose hosts are two machines, under KVM where that works."""

    @classmethod
    def make_host(
        cls,
        operator: Node,
        name: str,
        state: Path,
        *,
        pool_mb: int,
        derby_heap_mb: int,
        derby_autostart: bool,
        derby_uid: int,  # noqa: ARG003 - the image has its user
    ) -> Host:
        built, way = parts()
        own, peer = (1, "db2") if name == "db1" else (2, "db1")
        address = f"127.0.3.{own}"
        forwards = tuple(Forward(host=address, port=port, guest_port=port) for port in (machine.SSH_PORT, DERBY_PORT))
        guest = Guest(
            name=name,
            folder=state,
            image=built,
            accelerator=way,
            forwards=forwards,
            # As the world numbers its cables: the third one joins the two hosts.
            plug=Plug(peer=peer, interface=f"to-{peer}", address=f"10.91.3.{own}/30", mac=f"02:00:00:91:03:0{own}"),
            data_mb=(pool_mb,),
        )
        return Machine(
            operator,
            guest,
            address=address,
            pool_mb=pool_mb,
            derby_heap_mb=derby_heap_mb,
            derby_autostart=derby_autostart,
        )

    @property
    def rounds(self) -> Mapping[str, str]:  # type: ignore[override]
        """Emulated machines cut over in half a minute, on a busy host in two."""
        return {} if Pace.slowness == 1.0 else {"budget": "240s", "undo": "40s"}

    def stop(self) -> None:
        super().stop()
        Pace.slowness = 1.0

    def address(self, name: str, *, seen_from: str = OPERATOR) -> str:
        host = self.hosts.get(name)
        if seen_from == OPERATOR and isinstance(host, Machine):
            return host.address
        return super().address(name, seen_from=seen_from)

    def _power_on(self) -> None:
        Pace.slowness = parts()[1].slowness
        self.operator.env["SNAPREP_PATIENCE"] = f"{Pace.slowness:g}"
        self.operator.power_on()
        network.loopback(self.operator)
        self._write_ssh_config()
        for host in self.hosts.values():
            host.power_on()
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(lambda host: host.start_daemons(), self.hosts.values()))

    def _connect(self, node: Node) -> None:
        """The cables are QEMU's; their rates and cuts are put back as the hosts' own settings."""
        for names, cable in self.cables.items():
            if node.name in names and OPERATOR not in names:
                cable.plugged = True


def _source_only(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.name.endswith("__pycache__") else entry
