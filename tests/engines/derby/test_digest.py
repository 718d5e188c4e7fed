"""Digests of whole databases, on a real Derby server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from snaprep.core.spec import DerbySpec
from snaprep.engines.derby import gate
from snaprep.engines.derby.client import DerbyClient, SqlError
from snaprep.engines.derby.digest import digest
from snaprep.engines.derby.files import locked_by
from snaprep.engines.derby.host import DerbyHost
from tests.engines.derby.server import CLIENT_JARS, Server

pytestmark = pytest.mark.derby
CREATE_S = 60.0
CALL_S = 30.0
PRICE = (
    "CREATE TYPE APP.PRICE EXTERNAL NAME 'java.util.Locale' LANGUAGE JAVA",
    'CREATE TABLE "odd ""schema""".PRICES (id INT, price APP.PRICE)',
)
LAYOUT = (
    "CREATE TABLE PEOPLE (id INT PRIMARY KEY, name VARCHAR(20), born DATE, height DOUBLE)",
    'CREATE SCHEMA "odd ""schema"""',
    'CREATE TABLE "odd ""schema"""."my table" ("a ""b""" VARCHAR(9) FOR BIT DATA, text CLOB, image BLOB, doc XML)',
    "CREATE VIEW TALL AS SELECT * FROM PEOPLE WHERE height > 2",
    *PRICE,
)


def filled(client: DerbyClient, server: Server, name: str, rows: list[str]) -> str:
    """Opens a new database under its own name, with people, and a table that has every kind of column."""
    client.open(name, server.url(name, ";create=true"), "app", "x", CREATE_S)
    for sql in (*LAYOUT, *rows):
        client.execute(name, sql, deadline_s=CALL_S)
    client.execute(
        name,
        'INSERT INTO "odd ""schema"""."my table" VALUES (X\'00ff\', ?, CAST(X\'010203\' AS BLOB), '
        "XMLPARSE(DOCUMENT '<a>1</a>' PRESERVE WHITESPACE))",
        ["long \U0001f600" * 9000],
        deadline_s=CALL_S,
    )
    client.execute(name, 'INSERT INTO "odd ""schema"""."my table" (text) VALUES (NULL)', deadline_s=CALL_S)
    return name


PEOPLE = [
    "INSERT INTO PEOPLE VALUES (1, 'Ann', DATE('2001-02-03'), 1.75)",
    "INSERT INTO PEOPLE VALUES (2, NULL, NULL, 1e300)",
    "INSERT INTO PEOPLE VALUES (3, '', NULL, NULL)",
]


def test_what_differs_is_named(server: Server, client: DerbyClient) -> None:
    """Equal rows in another order give equal digests, and one changed value shows in its table only."""
    one = digest(client, filled(client, server, "one", PEOPLE), CALL_S)
    other_name = filled(client, server, "other", PEOPLE[::-1])
    other = digest(client, other_name, CALL_S)
    assert set(one) == {"APP.PEOPLE", 'odd "schema".my table', 'odd "schema".PRICES'}
    assert one == other
    assert one["APP.PEOPLE"].split(":")[0] == "3"
    assert one["APP.PEOPLE"].endswith(":consistent")
    client.execute(other_name, "UPDATE PEOPLE SET name = '' WHERE id = 2", deadline_s=CALL_S)
    changed = digest(client, other_name, CALL_S)
    assert {table for table in one if one[table] != changed[table]} == {"APP.PEOPLE"}


CHANGES = (
    "SET image = CAST(X'010204' AS BLOB) WHERE image IS NOT NULL",
    "SET image = NULL",
    "SET text = text || '.' WHERE text IS NOT NULL",
    "SET text = '' WHERE text IS NULL",
    "SET doc = XMLPARSE(DOCUMENT '<a>2</a>' PRESERVE WHITESPACE) WHERE doc IS NOT NULL",
    'SET "a ""b""" = X\'00fe\' WHERE "a ""b""" IS NOT NULL',
)


def test_long_values_count(server: Server, client: DerbyClient) -> None:
    """A change in the content of any long or binary value changes the digest, null and empty included."""
    name = filled(client, server, "one", [])
    seen = [digest(client, name, CALL_S)]
    for change in CHANGES:
        client.execute(name, f'UPDATE "odd ""schema"""."my table" {change}', deadline_s=CALL_S)
        seen.append(digest(client, name, CALL_S))
    assert all(one != other for number, one in enumerate(seen) for other in seen[:number])


def test_a_long_value_needs_no_memory(new_server: Callable[..., Server], client: DerbyClient) -> None:
    """A value that is larger than the helper's memory is read piece by piece."""
    server = new_server(options=("-Xmx1g",))  # it makes the value in its own memory
    client.open("big", server.url("big", ";create=true"), "app", "x", CREATE_S)
    client.execute("big", "CREATE TABLE BIG (content CLOB(512M))", deadline_s=CALL_S)
    client.execute("big", "INSERT INTO BIG VALUES (?)", ["x" * (1 << 20)], deadline_s=CALL_S)
    for _ in range(5):
        client.execute("big", "UPDATE BIG SET content = content || content", deadline_s=60)
    rows, _ = client.digest("big", "SELECT content FROM BIG", deadline_s=60).rows[0]
    assert rows == "1"


def test_a_refusal_is_told(server: Server, client: DerbyClient) -> None:
    """A query that the server refuses raises its SQLState."""
    client.open("one", server.url("one", ";create=true"), "app", "x", CREATE_S)
    with pytest.raises(SqlError, match="42X05"):
        client.digest("one", "SELECT * FROM NOTHING", deadline_s=CALL_S)


def test_a_doctored_copy_is_found(server: Server, client: DerbyClient, tmp_path: Path) -> None:
    """Two copies of a gated database are opened, read and shut down; the table that somebody changed is named."""
    name = filled(client, server, "one", PEOPLE)
    gate.save(client, name, CALL_S)
    gate.close(client, name, "app", CALL_S)
    with pytest.raises(SqlError, match="08006"):
        client.open("shutdown", server.url("one", ";shutdown=true"), "app", "x", CALL_S)
    copies = [tmp_path / "true", tmp_path / "doctored"]
    for copy in copies:
        shutil.copytree(server.database("one"), copy)
    client.open("doctor", f"jdbc:derby://127.0.0.1:{server.port}/{copies[1]}", "app", "x", CALL_S)
    client.execute("doctor", "UPDATE PEOPLE SET height = 1.76 WHERE id = 1", deadline_s=CALL_S)
    with pytest.raises(SqlError, match="08006"):
        client.open("doctor", f"jdbc:derby://127.0.0.1:{server.port}/{copies[1]};shutdown=true", "app", "x", CALL_S)
    host = DerbyHost(
        DerbySpec(database=str(server.database("one")), port=server.port, user="app", classpath=tuple(CLIENT_JARS))
    )
    try:
        true, doctored = (host.digest(copy) for copy in copies)
    finally:
        host.close()
    assert {table for table in true if true[table] != doctored[table]} == {"APP.PEOPLE"}
    assert [locked_by(copy) for copy in copies] == [None, None]
