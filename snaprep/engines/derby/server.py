"""What a running Derby server was started with, read from /proc: nothing is asked of the server itself."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from snaprep.engines.derby import files, sockets

_VERSION = "org/apache/derby/info/DBMS.properties"  # up to 10.14 and after, in derby.jar
_OPTIONS_IN_ENVIRONMENT = ("JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """What could not be read is empty. `home` is derby.system.home, where derby.properties and derby.log lie."""

    pid: int
    user: str
    home: Path
    version: str = ""  # of its derby.jar: "10.14.2.0"
    java: str = ""
    options: Mapping[str, str] = field(default_factory=dict)  # -D
    file: Mapping[str, str] = field(default_factory=dict)  # derby.properties
    seen: bool = True  # this user may look at the process

    def system(self, key: str) -> str | None:
        """A system-wide property; an option goes before the file."""
        return self.options.get(key, self.file.get(key))

    @property
    def properties(self) -> dict[str, str]:
        """Everything of Derby's that was set."""
        every = {**self.file, **self.options}
        return {key: value for key, value in sorted(every.items()) if key.startswith("derby.")}


def running(port: int) -> RunningServer | None:
    """The server that listens on a port; None when this user sees none."""
    pid = sockets.listener(port)
    return None if pid is None else read(pid)


def read(pid: int) -> RunningServer:
    """Everything of one process. A process that is gone, or another user's, gives what can be had."""
    process = Path("/proc", str(pid))
    options = _options(process)
    try:
        place = Path(options.get("derby.system.home") or (process / "cwd").readlink())
        user = _name((process / "stat").stat().st_uid)
    except OSError:
        return RunningServer(pid=pid, user="", home=Path("/"), seen=False)
    # A server in a container has files of its own; its root shows them.
    root = process / "root"
    return RunningServer(
        pid=pid,
        user=user,
        home=place,
        version=_version(process, root),
        java=_java(process, root),
        options=options,
        file=_properties(root, place / "derby.properties"),
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _options(process: Path) -> dict[str, str]:
    """-D options, those from the environment first: the command line has the last word, except over _JAVA_OPTIONS."""
    environment = dict(line.partition("=")[::2] for line in _lines(process / "environ"))
    words = _lines(process / "cmdline")
    for name in _OPTIONS_IN_ENVIRONMENT:
        try:
            more = shlex.split(environment.get(name, ""))
        except ValueError:
            continue
        words = [*words, *more] if name == "_JAVA_OPTIONS" else [*more, *words]
    found = (re.fullmatch(r"-D([^=]+)=?(.*)", word, re.DOTALL) for word in words)
    return {match[1]: match[2] for match in found if match}


def _lines(path: Path) -> list[str]:
    try:
        return [word.decode("utf-8", "replace") for word in path.read_bytes().split(b"\0") if word]
    except OSError:
        return []


def _properties(root: Path, path: Path) -> dict[str, str]:
    try:
        return files.parse_properties(_under(root, path).read_text("latin-1"))
    except OSError:
        return {}


def _version(process: Path, root: Path) -> str:
    """From the jar that the process has open, whatever stands on its classpath now."""
    for link in _links(process / "fd"):
        if link.name == "derby.jar" or re.fullmatch(r"derby-\d[\d.]*\.jar", link.name):
            try:
                with zipfile.ZipFile(_under(root, link)) as jar:
                    said = files.parse_properties(jar.read(_VERSION).decode("latin-1"))
                    maintenance = int(said["derby.version.maint"])
            except (OSError, KeyError, ValueError, zipfile.BadZipFile):
                continue
            numbers = (said["derby.version.major"], said["derby.version.minor"], *divmod(maintenance, 1_000_000))
            return ".".join(map(str, numbers))
    return ""


def _java(process: Path, root: Path) -> str:
    try:
        program = (process / "exe").readlink()
        release = _under(root, program.parents[1] / "release").read_text("utf-8")
    except (OSError, IndexError):
        return ""
    match = re.search(r'^JAVA_VERSION="([^"]*)"', release, re.MULTILINE)
    return match[1] if match else ""


def _links(folder: Path) -> list[Path]:
    found = []
    try:
        for link in os.scandir(folder):
            try:
                found.append(Path(link.path).readlink())
            except OSError:
                continue
    except OSError:
        return []
    return found


def _under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/") if path.is_absolute() else root / path
