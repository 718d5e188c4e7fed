"""The Java helper and its Python side, against a real network server."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from snaprep.engines.derby.client import ClientDied, ClientError, DerbyClient, SqlError, SqlTimeout
from tests.engines.derby.server import CLIENT_JARS, Server

pytestmark = pytest.mark.derby

ROOT = Path(__file__).parents[3]
FREEZE = "CALL SYSCS_UTIL.SYSCS_FREEZE_DATABASE()"
THAW = "CALL SYSCS_UTIL.SYSCS_UNFREEZE_DATABASE()"
PASSWORD = "correct horse battery"


@pytest.fixture
def opened(server: Server, client: DerbyClient) -> DerbyClient:
    client.open("a", server.url(attributes=";create=true"), "app", PASSWORD, 30)
    client.open("b", server.url(), "app", PASSWORD, 10)
    client.execute("a", "CREATE TABLE t (i INT, v VARCHAR(50))", deadline_s=10)
    return client


def _await(condition: Callable[[], bool], deadline_s: float = 10) -> None:
    ends = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_jar_is_what_its_source_compiles_to() -> None:
    """Compiling the source again must give the classes in the committed jar, byte for byte."""
    if shutil.which("javac") is None:
        pytest.skip("no javac on this machine")
    program = runpy.run_path(str(ROOT / "scripts" / "build-helper"))
    committed, built = (
        {entry: archive.read(entry) for entry in archive.namelist()}
        for archive in (zipfile.ZipFile(program["JAR"]), zipfile.ZipFile(BytesIO(program["build"]())))
    )
    manifest = "META-INF/MANIFEST.MF"
    if committed[manifest] != built[manifest]:
        pytest.skip(f"packed with another compiler: {committed[manifest]!r}, here {built[manifest]!r}")
    assert committed == built


def test_text_survives_the_way_to_the_database_and_back(opened: DerbyClient) -> None:
    """Nulls, empty texts, blanks, line ends and non-ASCII text must come back as they went."""
    texts = [None, "", " ", "~", "=", "a b\nc\td", "Grüße 💾", "'; DROP TABLE t"]
    for number, text in enumerate(texts):
        opened.execute("a", "INSERT INTO t VALUES (?, ?)", [str(number), text], deadline_s=5)
    rows = opened.execute("b", "SELECT v, i FROM t ORDER BY i", deadline_s=5).rows
    assert [row[0] for row in rows] == texts
    assert rows[0][1] == "0"


def test_errors_carry_the_whole_chain(server: Server, opened: DerbyClient) -> None:
    """A SqlError must hold every SQLState, those that the server folded into a message included."""
    with pytest.raises(SqlError) as plain:
        opened.execute("a", "SELECT nothing FROM t", deadline_s=5)
    assert plain.value.sqlstates == ("42X04",)
    with pytest.raises(SqlError) as nested:
        opened.open("x", server.url("other", ";createFrom=/nonexistent"), "app", PASSWORD, 10)
    assert nested.value.sqlstates[0] == "XJ040"
    assert len(nested.value.sqlstates) > 1
    with pytest.raises(SqlError) as down:
        opened.open("x", server.url(attributes=";shutdown=true"), "app", PASSWORD, 10)
    assert (down.value.sqlstates, down.value.chain[0].code) == (("08006",), 45000)


def test_unknown_names_are_refused(opened: DerbyClient) -> None:
    """A connection or statement that does not exist must be an error at once, not a wait."""
    with pytest.raises(ClientError, match="no connection"):
        opened.execute("nobody", "VALUES 1", deadline_s=5)
    with pytest.raises(ClientError, match="no statement"):
        opened.run("a", "nothing", 5)


def test_a_hang_on_one_connection_blocks_no_other(server: Server, opened: DerbyClient) -> None:
    """While a commit waits for a frozen database, other connections answer, and the thaw lets it through."""
    opened.prepare("b", "thaw", THAW, 5)
    opened.run("b", "thaw", 5)
    opened.open("w", server.url(), "app", PASSWORD, 5)
    opened.execute("w", "INSERT INTO t VALUES (0, 'plan is compiled')", deadline_s=5)
    opened.execute("a", FREEZE, deadline_s=5)
    stuck = opened.begin("w", "INSERT INTO t VALUES (0, 'plan is compiled')")
    with pytest.raises(SqlTimeout):
        stuck.wait(0.3)
    assert not stuck.done()
    assert opened.execute("a", "VALUES 1", deadline_s=5).value == "1"
    opened.run("b", "thaw", 5)
    assert stuck.wait(5).rows == ()


def test_an_abandoned_connection_frees_its_name(server: Server, opened: DerbyClient) -> None:
    """After abandon, a name whose connection hangs can be opened again and works."""
    server.stop()
    stuck = opened.begin("b", "VALUES 1")
    with pytest.raises(SqlTimeout):
        stuck.wait(0.2)
    opened.abandon("b")
    os.kill(server.pid, signal.SIGCONT)
    opened.open("b", server.url(), "app", PASSWORD, 10)
    assert opened.execute("b", "VALUES 2", deadline_s=5).value == "2"


def test_a_transaction_is_all_or_nothing(opened: DerbyClient) -> None:
    """Statements inside `transaction` are committed together, and none when the body raises."""
    with opened.transaction("a", 5):
        opened.execute("a", "INSERT INTO t VALUES (1, 'kept')", deadline_s=5)
    with pytest.raises(KeyError), opened.transaction("a", 5):  # noqa: PT012
        opened.execute("a", "INSERT INTO t VALUES (2, 'lost')", deadline_s=5)
        raise KeyError
    assert opened.execute("b", "SELECT v FROM t", deadline_s=5).rows == (("kept",),)


def test_last_words_thaw_when_the_parent_is_gone(server: Server, opened: DerbyClient) -> None:
    """When stdin ends without a farewell, the registered thaw runs on its own and the JVM ends."""
    for name in ("a", "b"):
        opened.prepare(name, "thaw", THAW, 5)
        opened.run(name, "thaw", 5)
    opened.set_last_words([("a", "thaw"), ("b", "thaw")], bound_s=3)
    opened.execute("a", FREEZE, deadline_s=5)
    opened._stdin.close()
    opened._jvm.wait(10)
    with DerbyClient.start(CLIENT_JARS) as other:
        other.open("o", server.url(), "app", PASSWORD, 10)
        other.execute("o", "INSERT INTO t VALUES (7, 'thawed')", deadline_s=5)


def test_last_words_have_a_bound(server: Server, opened: DerbyClient) -> None:
    """The JVM waits for a server that does not answer until the bound, and then ends while there is still no answer."""
    opened.prepare("a", "thaw", THAW, 5)
    opened.set_last_words([("a", "thaw")], bound_s=0.5)
    server.stop()
    began = time.monotonic()
    opened._stdin.close()
    opened._jvm.wait(60)  # for ever, without a bound
    assert time.monotonic() - began >= 0.5


def test_shutdown_takes_the_last_words_back(server: Server, opened: DerbyClient) -> None:
    """An orderly end runs no last words."""
    opened.prepare("a", "say", "INSERT INTO t VALUES (9, 'said')", 5)
    opened.set_last_words([("a", "say")], bound_s=3)
    opened.shutdown()
    with DerbyClient.start(CLIENT_JARS) as other:
        other.open("o", server.url(), "app", PASSWORD, 10)
        assert other.execute("o", "SELECT * FROM t", deadline_s=5).rows == ()


def test_everybody_who_waits_hears_of_the_death(server: Server, opened: DerbyClient) -> None:
    """When the JVM is killed, waiting and later calls raise ClientDied."""
    server.stop()
    stuck = opened.begin("a", "VALUES 1")
    os.kill(opened.pid, signal.SIGKILL)
    with pytest.raises(ClientDied):
        stuck.wait(10)
    _await(lambda: not opened.alive)
    with pytest.raises(ClientDied):
        opened.execute("b", "VALUES 1", deadline_s=5)


def test_a_jvm_that_cannot_start_says_why() -> None:
    """Options that Java does not know must show in the error of the first call."""
    with DerbyClient.start([], properties={"x": "1"}, java="java") as no_driver, pytest.raises(SqlError) as error:
        no_driver.open("a", "jdbc:derby://127.0.0.1:1/x", "app", PASSWORD, 10)
    assert error.value.sqlstates == ("08001",)
    dead = DerbyClient.start([], java="false")
    with pytest.raises(ClientDied):
        dead.open("a", "jdbc:derby://127.0.0.1:1/x", "app", PASSWORD, 10)
    dead.shutdown()


def test_the_password_is_nowhere_to_be_seen(server: Server, opened: DerbyClient) -> None:
    """Not in argv, environment, repr, errors of the server, or the server's log; and not accepted in a URL."""
    seen = [Path(f"/proc/{opened.pid}/{name}").read_text("latin-1") for name in ("cmdline", "environ")]
    seen += [repr(opened), repr(opened.begin_open("p", server.url(), "app", PASSWORD))]
    with pytest.raises(SqlError) as error:
        opened.execute("a", f'VALUES "{PASSWORD}"', deadline_s=5)
    seen += [str(error.value), repr(error.value), (server.home / "derby.log").read_text()]
    assert not any(PASSWORD in text for text in seen)
    assert "***" in str(error.value)
    with pytest.raises(ValueError, match="not in the URL") as refused:
        opened.begin_open("x", server.url(attributes=f";user=app;password={PASSWORD}"), "", "")
    assert PASSWORD not in str(refused.value)


def test_nothing_is_left_on_disk(opened: DerbyClient) -> None:
    """The helper's jar lives in memory: the JVM has no file of ours open."""
    maps = Path(f"/proc/{opened.pid}/maps").read_text()
    links = [str(link.readlink()) for link in Path(f"/proc/{opened.pid}/fd").iterdir()]
    assert not re.search(r"(?<!memfd:)snaprep-sql", maps)
    assert [link for link in links if "snaprep-sql" in link and not link.startswith("/memfd:")] == []


def test_it_runs_from_a_zip(server: Server, tmp_path: Path) -> None:
    """The agent is streamed as a zip: the jar must be found inside it and reach the JVM."""
    with zipfile.ZipFile(tmp_path / "agent.zip", "w") as packed:
        for path in (ROOT / "snaprep").rglob("*"):
            if path.suffix in {".py", ".jar"}:
                packed.write(path, path.relative_to(ROOT))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from snaprep.engines.derby import client, files, sockets\n"
        "from snaprep.engines.derby.log import scan as log\n"
        "assert client.__file__.startswith(sys.argv[1])\n"
        "with client.DerbyClient.start(sys.argv[3:]) as started:\n"
        "    started.open('a', sys.argv[2], 'app', 'x', 30)\n"
        "    print(started.execute('a', 'VALUES 42', deadline_s=5).value)\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", program, str(tmp_path / "agent.zip")]
    argv += [server.url(attributes=";create=true"), *CLIENT_JARS]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "42\n", done.stderr


def test_death_of_the_parent_thaws(server: Server, opened: DerbyClient) -> None:
    """When the process that froze is killed with SIGKILL, writers go on by themselves."""
    program = (
        "import os, signal, sys\n"
        "from snaprep.engines.derby.client import DerbyClient\n"
        "client = DerbyClient.start(sys.argv[2:])\n"
        "for name in 'ab':\n"
        "    client.open(name, sys.argv[1], 'app', 'x', 30)\n"
        f"    client.prepare(name, 'thaw', {THAW!r}, 5)\n"
        "    client.run(name, 'thaw', 5)\n"
        "client.set_last_words([('a', 'thaw'), ('b', 'thaw')], 3)\n"
        f"client.execute('a', {FREEZE!r}, deadline_s=5)\n"
        "print('frozen', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    argv = [sys.executable, "-c", program, server.url(), *CLIENT_JARS]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("frozen\n", -signal.SIGKILL), done.stderr
    opened.execute("a", "INSERT INTO t VALUES (1, 'goes on')", deadline_s=5)
