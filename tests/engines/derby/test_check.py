"""What check says of a Derby server and its database, on real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaprep.core.errors import CheckFailed
from snaprep.core.model import EngineState
from snaprep.core.spec import DerbySpec
from snaprep.engines.derby.client import DerbyClient, SqlError
from snaprep.engines.derby.host import DerbyHost
from tests.engines.derby import server as derby

pytestmark = pytest.mark.derby
NewServer = Callable[..., derby.Server]
CREATE_S = 60.0
SECRET = "secret"
CALL_S = 20.0
AUTHENTICATED = (
    "-Dderby.connection.requireAuthentication=true",
    "-Dderby.user.app=secret",
    "-Dderby.user.other=secret",
)


@pytest.fixture
def host() -> Iterator[Callable[..., DerbyHost]]:
    """Makes hosts for a server; their clients end with the test."""
    made: list[DerbyHost] = []

    def make(server: derby.Server, user: str = "app", password: str = SECRET, java: str = "java") -> DerbyHost:
        database, jars = str(server.database()), tuple(derby.CLIENT_JARS)
        made.append(
            DerbyHost(
                DerbySpec(
                    database=database, port=server.port, user=user, password=password, java=java, classpath=jars,
                    listen_port=derby.free_port(), peer_port=derby.free_port(),
                )
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for one in made:
        one.close()


def opened(client: DerbyClient, server: derby.Server, attributes: str = "", user: str = "app") -> None:
    client.open("bank", server.url("bank", f";create=true{attributes}"), user, "secret", CREATE_S)


def levels(host: DerbyHost, *, as_target: bool = False) -> dict[str, str]:
    return {f.id: f.level for f in host.check(as_target=as_target)}


def test_a_server_of_several_databases(
    new_server: NewServer, client: DerbyClient, host: Callable[..., DerbyHost]
) -> None:
    """It is said that a server has other databases open, by their names, and nothing of one that has none."""
    server = new_server()
    opened(client, server)
    checked = host(server)
    assert "server-shared" not in levels(checked)
    client.open("other", server.url("other", ";create=true"), "app", "secret", CREATE_S)
    (shared,) = [finding for finding in checked.check(as_target=False) if finding.id == "server-shared"]
    assert (shared.level, str(server.database("other")) in shared.what) == ("warn", True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"log-buffer": "warn", "login": "ok", "server": "ok", "no-restart-command": "warn"}),
        (("-Dderby.replication.logBufferSize=1048576",), {"log-buffer": "ok"}),
        (("-Dderby.system.durability=test",), {"durability-test": "fail"}),
        (("-Dderby.system.bootAll=true",), {"boots-by-itself": "warn"}),
        (("-Dderby.database.defaultConnectionMode=fullAccess",), {"gate-overridden": "fail"}),
        ((*AUTHENTICATED,), {"login": "ok", "system-wide-users": "ok"}),
    ],
)
def test_settings_of_the_running_server(
    new_server: NewServer,
    client: DerbyClient,
    host: Callable[..., DerbyHost],
    options: tuple[str, ...],
    expected: dict[str, str],
) -> None:
    """Options that the server was started with are found on its command line, whatever the files say."""
    server = new_server(options=options)
    opened(client, server)
    assert levels(host(server)).items() >= expected.items()


def test_properties_file(
    new_server: NewServer, client: DerbyClient, host: Callable[..., DerbyHost], tmp_path: Path
) -> None:
    """derby.properties of the server's home counts, and its secrets do not leave the host."""
    (tmp_path / "m").mkdir()
    text = "derby.system.durability=test\nderby.database.readOnlyAccessUsers=app\nderby.user.app=secret\n"
    (tmp_path / "m" / "derby.properties").write_text(text)
    server = new_server()
    opened(client, server, user="boss")
    looked = host(server, user="boss")
    assert levels(looked).items() >= {"durability-test": "fail", "gate-overridden": "fail"}.items()
    traits = looked.traits()
    assert traits["Derby"] == "10.14.2.0"
    assert traits["property derby.system.durability"] == "test"
    assert "secret" not in str(traits)


def test_gate_of_its_own(new_server: NewServer, client: DerbyClient, host: Callable[..., DerbyHost]) -> None:
    """Where the database keeps to its own properties, options cannot hold the gate open."""
    server = new_server(options=("-Dderby.database.defaultConnectionMode=fullAccess",))
    opened(client, server)
    sql = "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY('derby.database.propertiesOnly', 'true')"
    client.execute("bank", sql, deadline_s=CALL_S)
    assert "gate-overridden" not in levels(host(server))


def test_logins(new_server: NewServer, client: DerbyClient, host: Callable[..., DerbyHost]) -> None:
    """A wrong password and a user who is not the owner are told apart."""
    server = new_server(options=(*AUTHENTICATED, "-Dderby.database.sqlAuthorization=true"))
    opened(client, server)
    assert levels(host(server, password="wrong"))["login-refused-by-engine"] == "fail"
    assert levels(host(server, user="other"))["not-owner"] == "fail"
    assert levels(host(server))["login"] == "ok"


def test_weak_login(server: derby.Server, client: DerbyClient, host: Callable[..., DerbyHost]) -> None:
    """A user who may only read could not close the gate."""
    opened(client, server)
    sql = "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY('derby.database.readOnlyAccessUsers', 'other')"
    client.execute("bank", sql, deadline_s=CALL_S)
    assert levels(host(server, user="other"))["login-weak"] == "fail"


def test_files(server: derby.Server, client: DerbyClient, host: Callable[..., DerbyHost], tmp_path: Path) -> None:
    """Archive mode and installed jars are told; a closed database is not opened to be looked at."""
    opened(client, server)
    sql = "CALL SYSCS_UTIL.SYSCS_BACKUP_DATABASE_AND_ENABLE_LOG_ARCHIVE_MODE(?, 0)"
    client.execute("bank", sql, [str(tmp_path / "backup")], deadline_s=CREATE_S)
    (server.database() / "jar" / "APP").mkdir(parents=True)
    (server.database() / "jar" / "APP" / "TAX.jar.G1").write_bytes(b"")
    looked = host(server)
    assert levels(looked).items() >= {"log-archive": "ok", "jars": "ok"}.items()
    looked.halt.shut_down()
    assert levels(looked)["login-unproven"] == "warn"
    assert not (server.database() / "db.lck").exists()


def test_log_apart(server: derby.Server, client: DerbyClient, host: Callable[..., DerbyHost], tmp_path: Path) -> None:
    """A log at an absolute path of its own is refused: a replica stands elsewhere and would write into it."""
    opened(client, server, f";logDevice={tmp_path / 'apart'}")
    looked = host(server)
    assert levels(looked)["log-device"] == "fail"
    assert tmp_path / "apart" / "log" in looked.places
    with pytest.raises(CheckFailed, match="logDevice"):
        looked.facts()


def test_encrypted(new_server: NewServer, client: DerbyClient, host: Callable[..., DerbyHost]) -> None:
    """An encrypted database is refused before its log is read; whether it is open, and where, is told all the same."""
    server = new_server()
    key = {"bootPassword": "0123456789abcdef"}
    url = server.url("bank", ";create=true;dataEncryption=true")
    client.begin_open("bank", url, "app", "secret", key).wait(CREATE_S)
    looked = host(server)
    assert levels(looked)["encrypted"] == "fail"
    with pytest.raises(CheckFailed, match="encrypted"):
        looked.facts()
    seen = looked.outside()
    assert (seen.state, seen.server_up, seen.server_pid) == (EngineState.UNKNOWN, True, server.pid)
    assert seen.note == f"process {server.pid} has it open and listens on port {server.port}"
    with pytest.raises(SqlError, match="08006"):
        client.open("shutdown", server.url("bank", ";shutdown=true"), "app", "secret", CREATE_S)
    assert (looked.outside().state, looked.outside().note) == (EngineState.CLOSED, "")
    with pytest.raises(SqlError, match="XJ040"):  # nobody opens it without its key
        client.open("bank", server.url(), "app", "secret", CREATE_S)
    assert looked.outside().state is EngineState.CLOSED


def test_what_is_missing(host: Callable[..., DerbyHost], tmp_path: Path) -> None:
    """No server, no Java and no client are failures with a hint, not accidents."""
    nobody = derby.Server(tmp_path, derby.free_port())
    assert levels(host(nobody))["engine-down"] == "fail"
    assert (host(nobody).outside().state, host(nobody).outside().server_up) == (EngineState.ABSENT, False)
    assert levels(host(nobody, java="no-such-java"))["no-java"] == "fail"
    lacking = DerbyHost(DerbySpec(database=str(tmp_path / "bank"), port=nobody.port, classpath=("/no/such.jar",)))
    assert levels(lacking)["no-derby-client"] == "fail"
