"""`snaprep rebuild`."""

from __future__ import annotations

from typing import Any

import click

from snaprep.cli.app import App, verb
from snaprep.cli.options import apply, run_options, said


@verb
@run_options
@click.option("--dry-run", is_flag=True, help="The same as `snaprep plan`.")
def command(app: App, *, dry_run: bool, **options: Any) -> int:  # noqa: ANN401 (click's)
    """Make the other host a running replica."""
    spoken = said(options)
    pair, policy = apply(*app.config(), spoken)
    if dry_run:
        return app.finish(app.run.plan(pair, policy, app.sink()))
    app.remember_options(pair, "rebuild", spoken)
    return app.finish(app.run.rebuild(pair, policy, app.sink(), resume=False, control=app.control()))
