"""`snaprep clean`."""

from __future__ import annotations

import click

from snaprep.cli.app import App, verb
from snaprep.core.errors import Aborted


@verb
@click.option("--isolated", multiple=True, metavar="DATASET", help="Destroy what was set aside, by its name.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask about --isolated.")
def command(app: App, isolated: tuple[str, ...], *, dry_run: bool, yes: bool) -> int:
    """Remove what runs have left behind.

    Only of this pair: snapshots no longer needed, keys, half-received data.
    """
    pair, policy = app.config()
    if isolated and not dry_run and not yes:
        for name in isolated:
            question = f"{name} will be destroyed, with every commit that only it holds."
            if not app.asks(question, name):
                what = f"{name} was not confirmed"
                raise Aborted("not-confirmed", what, hint="type its whole name to go on", serving="nothing was touched")
    return app.finish(app.run.clean(pair, policy, app.sink(), isolated=isolated, dry_run=dry_run))
