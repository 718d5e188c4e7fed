"""The test registry as code to stream: what `zip_of_agent` makes, with one module more."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path

from snaprep.host.bundle import zip_of_agent

ENTRY = "tests_agent:main"


@functools.cache
def code() -> bytes:
    buffer = io.BytesIO(zip_of_agent())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.write(Path(__file__).with_name("agent_under_test.py"), "tests_agent.py")
    return buffer.getvalue()
