"""The rig's own Java programs: compiled once for each version of their source, and brought to the hosts."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig.host import CLASSPATH, JVM, Host
from tests.rig.node import RigError

if TYPE_CHECKING:
    from tests.rig.node import Node

SOURCES = sorted(Path(__file__).with_name("java").glob("*.java"))
ON_HOSTS = "/var/lib/rig/classes"


def cache_directory() -> Path:
    """Outlives the process; whatever is in it is named after what it was made from, or after its size."""
    path = Path(tempfile.gettempdir(), f"snaprep-rig-cache-{os.getuid()}")
    path.mkdir(mode=0o755, exist_ok=True)
    return path


def version(*sources: Path) -> str:
    """Of a program: changes with any of its sources."""
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


@cache
def classes() -> Path:
    """The directory of the compiled programs. Raises RigError when they do not compile."""
    ready = cache_directory() / f"classes-{version(*SOURCES)}"
    if not ready.exists():
        with tempfile.TemporaryDirectory(dir=cache_directory()) as fresh:
            compile_ = ["javac", "-Xlint:all", "-Werror", "-d", f"{fresh}/classes", *map(str, SOURCES)]
            done = subprocess.run(compile_, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode != 0:
                raise RigError(done.stderr)
            settle(Path(fresh, "classes"), ready)
    return ready


def settle(fresh: Path, ready: Path) -> None:
    """Gives a finished directory its name in the cache; whoever comes second leaves the first one's."""
    try:
        fresh.rename(ready)
    except OSError:
        if not ready.exists():
            raise


def command(node: Node, program: str, *arguments: str, heap_mb: int = 256) -> list[str]:
    """The command line of one of the programs on a node."""
    place = str(classes())
    if isinstance(node, Host):
        place = ON_HOSTS
        node.bring(classes(), ON_HOSTS)
    return [*JVM, f"-Xmx{heap_mb}m", "-cp", f"{CLASSPATH}:{place}", program, *arguments]
