from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaprep.engines.derby.client import DerbyClient
from tests.engines.derby import server as derby
from tests.engines.derby.pairs import Two, two


@pytest.fixture
def derby_is_here() -> None:
    if not derby.AVAILABLE:
        pytest.skip("no java, or no Derby jars in /usr/share/java")


@pytest.fixture
def pair(derby_is_here: None, tmp_path: Path) -> Iterator[Two]:
    """A bank without log archive mode, and the place of its replica."""
    with two(tmp_path, archived=False) as made:
        yield made


@pytest.fixture
def archived_pair(derby_is_here: None, tmp_path: Path) -> Iterator[Two]:
    """The same with log archive mode on, which nobody of ours has asked for."""
    with two(tmp_path) as made:
        yield made


@pytest.fixture
def new_server(derby_is_here: None, tmp_path: Path) -> Iterator[Callable[..., derby.Server]]:
    """Starts Derby servers in folders below `tmp_path`; all are killed at the end."""
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
def client(derby_is_here: None) -> Iterator[DerbyClient]:
    with DerbyClient.start(derby.CLIENT_JARS) as started:
        yield started
