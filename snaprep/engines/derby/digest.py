"""What is in an open database, table by table, so that two copies can be compared without moving a row.

The rows are hashed inside the helper's JVM, beside the server; only a count and a sum come out of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from snaprep.engines.derby.client import DerbyClient, SqlError

_COLUMNS = (
    "SELECT S.SCHEMANAME, T.TABLENAME, C.COLUMNNAME, CAST(C.COLUMNDATATYPE AS VARCHAR(1000)) "
    "FROM SYS.SYSTABLES T JOIN SYS.SYSSCHEMAS S ON T.SCHEMAID = S.SCHEMAID "
    "JOIN SYS.SYSCOLUMNS C ON C.REFERENCEID = T.TABLEID WHERE T.TABLETYPE = 'T' ORDER BY 1, 2, C.COLUMNNUMBER"
)
_CHECK = "VALUES SYSCS_UTIL.SYSCS_CHECK_TABLE(?, ?)"
_LIST_S = 60.0


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str  # as the catalogue says it: VARCHAR(20) NOT NULL


@dataclass(frozen=True, slots=True)
class Table:
    schema: str
    name: str
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def tables(client: DerbyClient, name: str) -> tuple[Table, ...]:
    """Every table that is not the system's."""
    found: dict[tuple[str, str], list[Column]] = {}
    for row in client.execute(name, _COLUMNS, deadline_s=_LIST_S).rows:
        schema, table, column, kind = (str(cell) for cell in row)
        found.setdefault((schema, table), []).append(Column(column, kind))
    return tuple(Table(schema, table, tuple(columns)) for (schema, table), columns in found.items())


def query(table: Table) -> str:
    """All rows with every column that can be read without classes of the application."""
    chosen = [expression for column in table.columns if (expression := _read(column))]
    return f"SELECT {', '.join(chosen) or '1'} FROM {_quoted(table.schema)}.{_quoted(table.name)}"  # noqa: S608 (names are quoted; values are none of it)


def digest(client: DerbyClient, name: str, deadline_s: float) -> dict[str, str]:
    """Table -> "rows:sum:checked". `sum` does not depend on the order; `checked` is Derby's own check of the indexes.

    `deadline_s` is for each table. Raises SqlError, SqlTimeout, ClientDied.
    """
    found = {}
    for table in tables(client, name):
        count, total = client.digest(name, query(table), deadline_s=deadline_s).rows[0]
        found[str(table)] = f"{count}:{total}:{_checked(client, name, table, deadline_s)}"
    return found


def _checked(client: DerbyClient, name: str, table: Table, deadline_s: float) -> str:
    """An inconsistent table is answered with an exception that says what is wrong with it."""
    try:
        client.execute(name, _CHECK, [table.schema, table.name], deadline_s=deadline_s)
    except SqlError as error:
        return f"damaged, {error.sqlstates[0]}"
    return "consistent"


def _read(column: Column) -> str | None:
    if column.type.startswith('"'):  # an object of a class that only the application has
        return None
    if column.type.split()[0] == "XML":
        return f"XMLSERIALIZE({_quoted(column.name)} AS CLOB)"
    return _quoted(column.name)


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
