from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaprep.engines.derby.client import DerbyClient
from tests.engines.derby import server as derby


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., derby.Server]]:
    """Starts Derby servers in folders below `tmp_path`; all are killed at the end."""
    if not derby.AVAILABLE:
        pytest.skip("no java, or no Derby jars in /usr/share/java")
    with contextlib.ExitStack() as started:

        def start(name: str = "m", *, user: str | None = None, options: tuple[str, ...] = ()) -> derby.Server:
            server = derby.Server(tmp_path / name, derby.free_port())
            started.callback(server.kill)
            server.start(user=user, options=options)
            return server

        yield start


@pytest.fixture
def server(new_server: Callable[..., derby.Server]) -> derby.Server:
    # Statistics are written at moments of the server's own choosing, and are commits.
    return new_server(options=("-Dderby.storage.indexStats.auto=false",))


@pytest.fixture
def client() -> Iterator[DerbyClient]:
    if not derby.AVAILABLE:
        pytest.skip("no java, or no Derby jars in /usr/share/java")
    with DerbyClient.start(derby.CLIENT_JARS) as started:
        yield started
