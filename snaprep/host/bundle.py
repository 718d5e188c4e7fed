"""The agent's code as a zip in memory, made from the installed package: same files, same bytes."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from pathlib import Path

import snaprep

_ROOMS = ("core", "agent", "engines", "volumes")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's zero: the bytes must not tell when they were packed


@functools.cache
def zip_of_agent() -> bytes:
    """What a host needs to run the agent: `core`, `agent`, `engines` and `volumes`, data files included."""
    package = Path(snaprep.__file__).parent
    files = [package / "__init__.py"]
    for room in _ROOMS:
        files += (f for f in (package / room).rglob("*") if f.is_file() and _belongs(f.relative_to(package)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in sorted(files):
            info = zipfile.ZipInfo(f"snaprep/{file.relative_to(package).as_posix()}", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, file.read_bytes())
    return buffer.getvalue()


def _belongs(path: Path) -> bool:
    if "simulated" in path.parts:  # the model world has no business on a database host
        return False
    return "__pycache__" not in path.parts and path.suffix != ".pyc" and not path.name.startswith(".")


@functools.cache
def sha256_of_agent() -> str:
    return hashlib.sha256(zip_of_agent()).hexdigest()
