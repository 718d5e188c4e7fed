"""`snaprep verify`."""

from __future__ import annotations

import click

from snaprep.cli.app import App, verb


@verb
@click.option("--deep", is_flag=True, help="Compare every row of that snapshot, too, on clones.")
def command(app: App, *, deep: bool) -> int:
    """See that the replica is attached and shares a snapshot with the source."""
    pair, policy = app.config()
    return app.finish(app.run.verify(pair, policy, app.sink(), deep=deep))
