"""`snaprep verify`."""

from __future__ import annotations

import click

from snaprep.cli.app import App, verb


@verb
@click.option("--deep", is_flag=True, help="Compare every row on clones, too.")
def command(app: App, *, deep: bool) -> int:
    """Compare what the replica holds with the source."""
    pair, policy = app.config()
    return app.finish(app.run.verify(pair, policy, app.sink(), deep=deep))
