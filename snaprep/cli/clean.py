"""`snaprep clean`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from snaprep.cli.app import App, verb
from snaprep.core.errors import Aborted

if TYPE_CHECKING:
    from snaprep.core.model import Policy
    from snaprep.core.spec import Pair


@verb
@click.option(
    "--isolated", multiple=True, metavar="[HOST:]DATASET", help="Destroy what was set aside, by its name; repeatable."
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask about --isolated.")
def command(app: App, isolated: tuple[str, ...], *, dry_run: bool, yes: bool) -> int:
    """Remove what runs have left behind.

    Only of this pair: snapshots no longer needed, keys, half-received data.
    """
    pair, policy = app.config()
    if isolated and not dry_run and not yes:
        isolated = _confirmed(app, pair, policy, isolated)
    return app.finish(app.run.clean(pair, policy, app.sink(), isolated=isolated, dry_run=dry_run))


def _confirmed(app: App, pair: Pair, policy: Policy, isolated: tuple[str, ...]) -> tuple[str, ...]:
    """What is named, each with its host, after somebody has typed it.

    A dry run refuses what is not there, or may not go: nobody is asked about that. It holds no lock, so a person may
    take long to answer; the run that follows looks again.
    """
    seen = app.run.clean(pair, policy, app.sink(), isolated=isolated, dry_run=True)
    asked = [(k, f"{k.host}:{k.name}") for k in seen.kept if {k.name, f"{k.host}:{k.name}"} & set(isolated)]
    for kept, name in asked:
        question = f"{kept.name} on {kept.host} will be destroyed, with every commit that only it holds."
        if not app.asks(question, name):
            what = f"{name} was not confirmed"
            raise Aborted("not-confirmed", what, hint="type its whole name to go on", serving="nothing was touched")
    return tuple(name for _, name in asked)
