"""`snaprep limit`."""

from __future__ import annotations

import click

from snaprep.cli.app import App, verb
from snaprep.cli.options import NO_LIMIT, Rate


@verb
@click.argument("rate", type=Rate())
def command(app: App, rate: int) -> int:
    """Change the rate of a run on its way.

    RATE is, for instance, 50MB/s, 400Mbit/s, or none.
    """
    pair, policy = app.config()
    value = None if rate == NO_LIMIT else rate
    return app.finish(app.run.command(pair, policy, app.sink(), "limit", value))
