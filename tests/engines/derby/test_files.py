"""Facts from the files of real databases, and from the lock that their server holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from snaprep.engines.derby import files
from snaprep.engines.derby.client import DerbyClient, SqlError
from snaprep.engines.derby.log import scan as log
from tests.engines.derby.server import Server

pytestmark = pytest.mark.derby


@pytest.fixture
def bank(server: Server, client: DerbyClient) -> Path:
    client.open("a", server.url(attributes=";create=true"), "app", "x", 30)
    client.execute("a", "CREATE TABLE t (i INT)", deadline_s=5)
    return server.database()


def _shut_down(server: Server, client: DerbyClient, database: str = "bank") -> None:
    with pytest.raises(SqlError):
        client.open("down", server.url(database, ";shutdown=true"), "app", "x", 30)


def test_the_lock_names_the_server_while_it_has_the_database_booted(
    server: Server, client: DerbyClient, bank: Path
) -> None:
    """The holder is the server's process while the database is booted, and nobody after its shutdown."""
    assert files.locked_by(bank) == server.pid
    _shut_down(server, client)
    assert files.locked_by(bank) is None
    client.open("a", server.url(), "app", "x", 30)
    assert files.locked_by(bank) == server.pid
    assert client.execute("a", "VALUES 1", deadline_s=5).value == "1"  # our look took nothing from it


@pytest.mark.skipif(os.geteuid() != 0, reason="starts a server as another user")
def test_the_lock_of_another_users_server_is_seen(new_server: Callable[..., Server], client: DerbyClient) -> None:
    """Root sees the holder whatever user the server runs as."""
    other = new_server("other", user="nobody")
    client.open("a", other.url(attributes=";create=true"), "app", "x", 30)
    assert files.locked_by(other.database()) == other.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a pid namespace")
def test_a_holder_in_another_pid_namespace_is_unknown_and_not_absent(bank: Path) -> None:
    """From a pid namespace that does not contain the server, the lock must still be seen."""
    look = (
        "import sys; from pathlib import Path; from snaprep.engines.derby import files\n"
        "print(files.locked_by(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", look, str(bank)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == (str(files.UNKNOWN_PID), 0), done.stderr


def test_facts_without_booting(server: Server, client: DerbyClient, bank: Path) -> None:
    """Version, log end, archive mode and jars are read from the files while the server is down."""
    client.execute(
        "a", "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY('derby.storage.logArchiveMode', 'true')", deadline_s=5
    )
    jar = Path(__file__).parents[3] / "snaprep" / "engines" / "derby" / "helper" / "snaprep-sql.jar"
    client.execute("a", "CALL SQLJ.INSTALL_JAR(?, 'APP.HELPER', 0)", [str(jar)], deadline_s=10)
    _shut_down(server, client)
    server.kill()
    facts = files.read(bank)
    assert facts.format_version == (10, 14)
    assert (facts.log_archived, facts.log_unsafe, facts.encrypted, facts.log_apart) == (True, False, False, False)
    assert facts.log_end == log.log_end(bank / "log")
    assert facts.properties["derby.serviceProtocol"] == "org.apache.derby.database.Database"
    assert len(facts.jars) == 1
    assert ".jar.G" in facts.jars[0]  # stored under a UUID and a generation


def test_a_log_kept_elsewhere_is_found(server: Server, client: DerbyClient, tmp_path: Path) -> None:
    """With a logDevice the database says that its log lies apart, and where."""
    elsewhere = tmp_path / "log device"
    client.open("a", server.url(attributes=f";create=true;logDevice={elsewhere}"), "app", "x", 30)
    client.execute("a", "CREATE TABLE t (i INT)", deadline_s=5)
    facts = files.read(server.database())
    assert (facts.log_apart, facts.log_directory) == (True, elsewhere / "log")
    assert files.occupied_bytes(server.database()) > 500_000


def test_properties_that_are_just_written_anew_are_whole(server: Server, client: DerbyClient, bank: Path) -> None:
    """Derby writes service.properties anew whenever one of them changes; no look at it finds less than all of it."""
    put = "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY('derby.storage.logArchiveMode', ?)"
    over = threading.Event()
    missed: list[str] = []

    def look() -> None:
        while not over.is_set():
            try:
                found = files.service_properties(bank)
            except files.NotADatabase as error:
                missed.append(str(error))
            else:
                missed.extend([] if "derby.storage.logArchiveMode" in found else [repr(found)])

    client.execute("a", put, ["true"], deadline_s=5)
    looking = threading.Thread(target=look)
    looking.start()
    try:
        for number in range(40):
            client.execute("a", put, ["true" if number % 2 else "false"], deadline_s=5)
    finally:
        over.set()
        looking.join(10)
    assert missed == []


def test_an_encrypted_database_says_so(server: Server, client: DerbyClient) -> None:
    """An encrypted database has no log end that we could read, and says that it is encrypted."""
    secrets = {"dataEncryption": "true", "bootPassword": "a long boot password"}
    client.begin_open("a", server.url(attributes=";create=true"), "app", "x", secrets).wait(30)
    _shut_down(server, client)
    facts = files.read(server.database())
    assert (facts.encrypted, facts.log_end) == (True, None)


def test_locks_of_a_copy_are_removed_and_of_a_database_kept(bank: Path, tmp_path: Path) -> None:
    """Lock files that travelled in a copy go; those of a booted database stay, with an error."""
    copy = tmp_path / "copy"
    shutil.copytree(bank, copy)
    assert files.locked_by(copy) is None
    assert set(files.remove_lock_files(copy)) == {"db.lck", "dbex.lck"}
    assert files.remove_lock_files(copy) == ()
    with pytest.raises(BlockingIOError):
        files.remove_lock_files(bank)
    assert (bank / "dbex.lck").exists()


def test_no_database_is_told(tmp_path: Path) -> None:
    """A folder without service.properties is no database."""
    with pytest.raises(files.NotADatabase):
        files.read(tmp_path)
    assert files.locked_by(tmp_path) is None


def test_properties_are_read_as_java_writes_them(tmp_path: Path) -> None:
    """Escapes, continued lines, comments and every kind of separator."""
    text = "#c\n!c\n\n a\\ b = x\\ty\nc:d\\u0041\\\n   e\nlogDevice=/a\\:b\nf\n  g   h\n"
    (tmp_path / "service.properties").write_text(text)
    found = files.service_properties(tmp_path)
    assert found == {"a b": "x\ty", "c": "dAe", "logDevice": "/a:b", "f": "", "g": "h"}


def test_client_jars_are_found_or_missed_aloud() -> None:
    """Without configuration the usual places are searched; a jar that was named must exist."""
    assert files.classpath()[0].endswith("derbyclient.jar")
    assert files.classpath(files.classpath()) == files.classpath()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        files.classpath(["/nowhere/derbyclient.jar"])
