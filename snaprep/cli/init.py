"""`snaprep init`."""

from __future__ import annotations

from pathlib import Path

import click

from snaprep.cli.app import App, verb, write_new
from snaprep.core.errors import UsageError


@verb
@click.argument("file", default="snaprep.toml")
@click.option("--pair", default="bank", help="The pair's name.")
@click.option("--hosts", nargs=2, default=("db1", "db2"), metavar="ONE TWO", help="How you reach the two by SSH.")
@click.option("--dataset", default="tank/bank", help="The dataset that holds the database.")
@click.option("--database", default="/srv/bank/db", help="The folder of the database.")
def command(app: App, file: str, *, pair: str, hosts: tuple[str, str], dataset: str, database: str) -> int:
    """Write a first, commented snaprep.toml.

    FILE - prints it. Nothing else is changed.
    """
    from snaprep import config  # noqa: PLC0415 (msgspec is slow to import)

    names = tuple(h.rpartition("@")[2].partition(":")[0] for h in hosts)
    text = config.example(pair, (names[0], names[1]), ssh=hosts, dataset=dataset, database=database)
    config.parse(text.encode(), file)
    if file == "-":
        app.print(text)
        return 0
    try:
        write_new(Path(file), text)
    except FileExistsError as error:
        hint = "choose another name, or `snaprep init -` to print it"
        raise UsageError("config-exists", f"{file} exists", hint=hint, serving="nothing was touched") from error
    except OSError as error:
        what = f"{file} cannot be written: {error.strerror}"
        hint = "choose a place where you may write, or `snaprep init -` to print it"
        raise UsageError("config-unwritable", what, hint=hint, serving="nothing was touched") from error
    app.sink().note(f"{file} is written. Look through it, then: snaprep check")
    return 0
