"""Real Derby network servers on 127.0.0.1 for tests, in folders of their own."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.rig.host import JVM

JAVA_DIR = Path("/usr/share/java")
SERVER_JARS = [str(JAVA_DIR / f"{name}.jar") for name in ("derby", "derbynet", "derbytools")]
CLIENT_JARS = [str(JAVA_DIR / "derbyclient.jar")]
AVAILABLE = shutil.which("java") is not None and all(map(os.path.exists, SERVER_JARS + CLIENT_JARS))

# Start anywhere in the range, so that two test sessions on one machine seldom try the same ports.
_ports = itertools.cycle(random.Random().sample(range(18000, 28000), 10000))  # noqa: S311


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError


@dataclass(slots=True)
class Server:
    home: Path
    port: int
    jvm: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.jvm is not None
        return self.jvm.pid

    def url(self, database: str = "bank", attributes: str = "") -> str:
        return f"jdbc:derby://127.0.0.1:{self.port}/{database}{attributes}"

    def database(self, name: str = "bank") -> Path:
        return self.home / name

    def start(self, *, user: str | None = None, options: tuple[str, ...] = ()) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if user is not None:
            self.home.chmod(0o755)
            shutil.chown(self.home, user)
            for folder in itertools.takewhile(lambda f: f != Path(tempfile.gettempdir()), self.home.parents):
                folder.chmod(folder.stat().st_mode | 0o011)
        argv = [
            *JVM, "-Xmx256m", *options, f"-Dderby.system.home={self.home}", "-cp", ":".join(SERVER_JARS),
            "org.apache.derby.drda.NetworkServerControl", "start", "-h", "127.0.0.1", "-p", str(self.port),
            "-noSecurityManager",
        ]  # fmt: skip
        with (self.home / "stdout").open("wb") as out:
            self.jvm = subprocess.Popen(argv, stdout=out, stderr=out, cwd=self.home, start_new_session=True, user=user)
        self._await_port()

    def _await_port(self) -> None:
        for _ in range(600):
            assert self.jvm is not None
            assert self.jvm.poll() is None, (self.home / "stdout").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("Derby does not listen after 30 s")

    def stop(self) -> None:
        """Stop it; when this returns none of its threads answers any more, which a busy machine delays."""
        os.kill(self.pid, signal.SIGSTOP)
        ends = time.monotonic() + 30
        while any(_thread_state(stat) not in "TZ" for stat in Path(f"/proc/{self.pid}/task").glob("*/stat")):
            assert time.monotonic() < ends
            time.sleep(0.005)

    def kill(self) -> None:
        if self.jvm is not None:
            self.jvm.send_signal(signal.SIGCONT)
            self.jvm.kill()
            self.jvm.wait(30)
            self.jvm = None


def _thread_state(stat: Path) -> str:
    """One letter; that of a dead one for a thread that has ended meanwhile."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
