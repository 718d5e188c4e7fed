"""Looking at a database on a real server, and flushing it, without doing more than is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from snaprep.core.model import EngineState
from snaprep.core.spec import DerbySpec
from snaprep.engines.derby import files, gate
from snaprep.engines.derby.client import DerbyClient, SqlError
from snaprep.engines.derby.forgotten import close_forgotten
from snaprep.engines.derby.host import DerbyHost
from snaprep.engines.derby.log import scan as log
from tests.engines.derby.server import CLIENT_JARS, Server

pytestmark = pytest.mark.derby


def closed_copy(server: Server, client: DerbyClient, to: str) -> Path:
    """A database that was shut down, at another place."""
    client.open("made", server.url("made", ";create=true"), "app", "x", 60)
    with pytest.raises(SqlError, match="08006"):
        client.open("shutdown", server.url("made", ";shutdown=true"), "app", "x", 30)
    return Path(shutil.copytree(server.database("made"), server.database(to)))


def looker(server: Server, *, replica: str) -> DerbyHost:
    spec = DerbySpec(
        database=str(server.database("bank")),
        replica_database=str(server.database(replica)),
        port=server.port,
        user="app",
        classpath=tuple(CLIENT_JARS),
    )
    return DerbyHost(spec)


def test_a_copy_that_ends_while_it_is_looked_at_stays_closed(
    server: Server, client: DerbyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that comes just after a replica has ended would open it as a database; it is shut down again."""
    copy = closed_copy(server, client, "bank.replica")
    host = looker(server, replica="bank.replica")
    try:
        monkeypatch.setattr(files, "locked_by", lambda _: server.pid)  # as it was a moment ago
        assert host.facts().state is EngineState.CLOSED
        monkeypatch.undo()
        assert files.locked_by(copy) is None
    finally:
        host.close()


def test_a_guarded_database_is_not_connected_to(server: Server, client: DerbyClient) -> None:
    """What a guard says is believed: a session between its two shutdowns would open the database."""
    copy = closed_copy(server, client, "bank")
    host = looker(server, replica="nowhere")
    try:
        assert host.facts("gated").state is EngineState.GATED
        assert files.locked_by(copy) is None
    finally:
        host.close()


def test_a_site_that_lets_in_whom_it_names_is_not_gated(server: Server, client: DerbyClient) -> None:
    """Its own properties look like a closed gate; with their values stored, before it is closed, it still serves."""
    closed_copy(server, client, "bank")
    host = looker(server, replica="nowhere")
    try:
        admin = host.session.admin()
        for key, value in (("fullAccessUsers", "app,site"), ("defaultConnectionMode", "noAccess")):
            gate.set_property(host.session.client, admin, f"derby.database.{key}", value, 10)
        host.halt.gate_prepare()
        assert (host.facts().state, host.facts().gate_saved) == (EngineState.PRIMARY, True)
        host.halt.gate_close()
        assert host.facts().state is EngineState.GATED
        host.halt.gate_open()
        assert (host.facts().state, host.facts().gate_saved) == (EngineState.PRIMARY, False)
    finally:
        host.close()


def test_a_copy_that_somebody_opened_is_let_go_of(server: Server, client: DerbyClient) -> None:
    """A replica's copy that is open as an ordinary database is shut down like a replica, down to its last file."""
    copy = closed_copy(server, client, "bank.replica")
    client.open("opened", server.url("bank.replica"), "app", "x", 30)
    host = looker(server, replica="bank.replica")
    try:
        assert host.facts().state is EngineState.PRIMARY
        assert files.held_open(server.pid, copy)
        host.let_go()
        assert files.locked_by(copy) is None
        assert not files.held_open(server.pid, copy)
    finally:
        host.close()


def test_what_is_flushed_is_not_flushed_again(server: Server, client: DerbyClient) -> None:
    """A second checkpoint is asked for only when something was written since the first."""
    client.open("bank", server.url("bank", ";create=true"), "app", "x", 60)
    client.execute("bank", "CREATE TABLE T (id INT)", deadline_s=30)
    logs = server.database("bank") / "log"
    host = looker(server, replica="nowhere")
    try:
        host.halt.checkpoint()
        first = log.checkpoint(logs)
        host.halt.checkpoint()
        assert log.checkpoint(logs) == first
        client.execute("bank", "INSERT INTO T VALUES (1)", deadline_s=30)
        host.halt.checkpoint()
        assert log.checkpoint(logs) > first
    finally:
        host.close()


def test_what_was_forgotten_is_closed(server: Server) -> None:
    """The server's Java collects when it is asked to, and nothing of the asking is left."""
    host = looker(server, replica="nowhere")
    try:
        close_forgotten(host.session)
        close_forgotten(host.session)  # what the first one made is gone, so it can be made again
        with pytest.raises(SqlError, match="not found"):
            host.session.connect("again", 10, "memory:snaprep-forgotten")
    finally:
        host.close()
