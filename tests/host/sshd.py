"""A real sshd for one test: its own port, keys and files, nothing of the system's touched."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snaprep.agent.link import Way
from snaprep.host.reach import Login

USER = pwd.getpwuid(os.getuid()).pw_name


@dataclass(frozen=True, slots=True)
class Sshd:
    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def authorized_keys(self) -> Path:
        return self.folder / "ssh" / "authorized_keys"

    @property
    def key(self) -> Path:
        """The operator's."""
        return self.folder / "operator"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def host_key(self) -> str:
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def login(self, name: str = "there", *, python: str = "python3", become: str = "") -> Login:
        return Login(
            name=name, address="127.0.0.1", user=USER, port=self.port, identity_files=(str(self.key),),
            known_hosts=(str(self.known_hosts),), ssh_config=None, python=python, become=become,
        )  # fmt: skip

    def way(self, *, host_key: str | None = None) -> Way:
        return Way(address="127.0.0.1", port=self.port, user=USER, host_keys=(host_key or self.host_key,))

    def log(self) -> str:
        return (self.folder / "log").read_text()


def make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=20)
    return path.with_name(path.name + ".pub").read_text().strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def sshd(folder: Path, *, options: str = "") -> Iterator[Sshd]:
    folder.mkdir(exist_ok=True)
    (folder / "ssh").mkdir(mode=0o700)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it, whatever its configuration
    port = free_port()
    host_key = " ".join(make_key(folder / "host_key").split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "ssh" / "authorized_keys").write_text(make_key(folder / "operator") + "\n")
    (folder / "ssh" / "authorized_keys").chmod(0o600)
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
        f"StrictModes no\nPermitRootLogin yes\nMaxStartups 100\nAuthorizedKeysFile {folder}/ssh/authorized_keys\n"
        f"{options}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        _await_port(port, process)
        yield Sshd(folder, port, process)
    finally:
        process.terminate()
        process.wait(5)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return
