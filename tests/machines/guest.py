"""One machine under QEMU: an overlay of the image as its root disk, a seed disk that makes it itself, data disks, a
user-mode network that is reached through forwarded ports only, and a cable to another machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.machines.accelerator import QEMU, Accelerator
from tests.machines.image import Image

MEMORY_MB = 1536
SEED_MB = 32
TOOL_S = 60.0
END_S = 10.0
BOOT_S = 60.0
ADDRESS = "10.0.2.15"  # in the user-mode network, where nobody but the forwarder sees it
SSH_PORT = 22
PLUG = "plug"  # the socket of a machine's end of the cable
# Where a data disk is found in the machine: the root disk and the seed are the first two.
DATA_DISKS = ("/dev/vdc", "/dev/vdd", "/dev/vde")

# (argv, the directory to run in, the log): starts a machine's QEMU.
Spawn = Callable[[Sequence[str], Path, Path], "subprocess.Popen[bytes]"]


class GuestError(Exception):
    """A machine did not do what it was told; the message carries what it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Whoever connects to `host:port` outside reaches `guest_port` inside."""

    host: str
    port: int
    guest_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """A machine's end of its cable to the machine `peer`, whose folder lies beside its own; `address/prefix`."""

    peer: str
    interface: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What a machine is made of. `folder` holds all that belongs to it, and may be removed when it is off."""

    name: str
    folder: Path
    image: Image
    accelerator: Accelerator
    forwards: tuple[Forward, ...]
    plug: Plug | None = None
    data_mb: tuple[int, ...] = (4096,)
    memory_mb: int = MEMORY_MB
    cpus: int = field(default_factory=lambda: 2 if (os.cpu_count() or 1) >= 4 else 1)

    @property
    def seed(self) -> Path:
        """A tree that is laid over the machine's root at its first boot."""
        return self.folder / "seed"

    @property
    def serial_log(self) -> Path:
        """What the machine has said on its serial line, of all its boots."""
        return self.folder / "serial.log"

    @property
    def qemu_log(self) -> Path:
        return self.folder / "qemu.log"

    def data_disk(self, number: int) -> Path:
        return self.folder / f"data{number}.img"


def prepare(guest: Guest, *, authorized_key: str) -> str:
    """Makes the machine's disks and host key, and the part of its seed that any machine has. Returns the public host
    key, as a known_hosts line wants it.
    """
    for place in ("etc/ssh", "root/.ssh"):
        (guest.seed / place).mkdir(parents=True, exist_ok=True)
    (guest.seed / "root").chmod(0o700)
    (guest.seed / "root/.ssh").chmod(0o700)
    (guest.seed / "etc/hostname").write_text(f"{guest.name}\n")
    network = f"ip addr add {ADDRESS}/24 dev eth0\nip link set eth0 up\n"
    if guest.plug is not None:
        plug = guest.plug.interface
        network += f"ip link set eth1 name {plug}\nip addr add {guest.plug.address} dev {plug}\nip link set {plug} up\n"
    (guest.seed / "etc/network.sh").write_text(network)
    keys = guest.seed / "root/.ssh/authorized_keys"
    keys.write_text(authorized_key)
    keys.chmod(0o600)
    host_key = guest.seed / "etc/ssh/ssh_host_ed25519_key"
    make_key(host_key, guest.name)
    overlay = ["-f", "qcow2", "-b", str(guest.image.disk), "-F", "raw", str(guest.folder / "root.qcow2")]
    tool(["qemu-img", "create", "-q", *overlay])
    for number, size_mb in enumerate(guest.data_mb):
        with guest.data_disk(number).open("wb") as disk:
            disk.truncate(size_mb << 20)
    return " ".join(host_key.with_suffix(".pub").read_text().split()[:2])


def boot(guest: Guest, spawn: Spawn) -> subprocess.Popen[bytes]:
    """Switches the machine on. It answers later: see `await_answer`."""
    seed = guest.folder / "seed.img"
    if not seed.exists():
        with seed.open("wb") as disk:
            disk.truncate(SEED_MB << 20)
        tool(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(guest.seed), str(seed)])
    (guest.folder / PLUG).unlink(missing_ok=True)  # the socket of the boot before
    return spawn(qemu_argv(guest), guest.folder, guest.qemu_log)


def qemu_argv(guest: Guest) -> list[str]:
    disks = [f"file={guest.folder}/root.qcow2,format=qcow2", f"file={guest.folder}/seed.img,format=raw,readonly=on"]
    # A killed machine must not lose what it has flushed, and need not outlive this one: no fsync outside.
    disks += [f"file={guest.data_disk(number)},format=raw,cache=unsafe" for number in range(len(guest.data_mb))]
    forwards = ",".join(f"hostfwd=tcp:{f.host}:{f.port}-{ADDRESS}:{f.guest_port}" for f in guest.forwards)
    argv = [
        "nice", "-n", "10", QEMU, *guest.accelerator.options, "-name", guest.name, "-smp", str(guest.cpus),
        "-m", str(guest.memory_mb), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-chardev", f"file,id=serial,path={guest.serial_log},append=on", "-serial", "chardev:serial",
        "-kernel", str(guest.image.kernel), "-initrd", str(guest.image.initrd),
        "-append", "console=ttyS0 root=/dev/vda rw init=/usr/sbin/machine-init net.ifnames=0 panic=-1 mitigations=off",
        *(word for disk in disks for word in ("-drive", f"if=virtio,{disk}")),
        "-netdev", f"user,id=user,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=user",
    ]  # fmt: skip
    if guest.plug is not None:
        # Names relative to the folder that QEMU runs in: a socket's name must be short.
        ends = f"local.type=unix,local.path={PLUG},remote.type=unix,remote.path=../{guest.plug.peer}/{PLUG}"
        argv += ["-netdev", f"dgram,id=plug,{ends}", "-device", f"virtio-net-pci,netdev=plug,mac={guest.plug.mac}"]
    return argv


def spawn_here(argv: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Starts a machine that outlives this process."""
    with log.open("ab") as out:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, start_new_session=True
        )


def await_answer(guest: Guest, alive: Callable[[], bool], answers: Callable[[], bool]) -> float:
    """Waits until the machine answers over ssh; the seconds that took. Raises GuestError when it has stopped, or does
    not answer in time.
    """
    started = time.monotonic()
    end = started + BOOT_S * guest.accelerator.slowness
    while not answers():
        if not alive():
            raise GuestError(f"{guest.name} has stopped: {last_words(guest.qemu_log)} {last_words(guest.serial_log)}")
        if time.monotonic() > end:
            raise GuestError(f"{guest.name} does not answer: {last_words(guest.serial_log)}")
        time.sleep(0.5)
    return time.monotonic() - started


def last_words(log: Path) -> str:
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def make_key(path: Path, comment: str) -> None:
    tool(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def tool(argv: list[str]) -> None:
    """Raises GuestError when the program fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_S, check=False)
    if done.returncode != 0:
        raise GuestError(f"{argv[0]}: {(done.stdout + done.stderr).strip()}")


def remove(guest: Guest) -> None:
    """Removes all that belongs to a machine that is off."""
    shutil.rmtree(guest.folder, ignore_errors=True)
