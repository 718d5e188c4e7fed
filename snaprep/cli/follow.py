"""`snaprep follow`."""

from __future__ import annotations

from typing import Any

import click

from snaprep.cli.app import App, verb
from snaprep.cli.options import Rate, apply, said


@verb
@click.option("--source", metavar="HOST", help="The host that is right, when looking does not settle it.")
@click.option("--limit", type=Rate(), help="Highest rate of the data, as in 50MB/s, or none.")
@click.option("--relay/--no-relay", default=None, help="Send the data through this machine.")
@click.option(
    "--archive",
    type=click.Choice(["restart", "bounce", "backup"]),
    help="How the source comes to keep its log: at its next restart, by one now, or by an online backup.",
)
@click.option(
    "--isolate-foreign/--no-isolate-foreign",
    default=None,
    help="Set aside a dataset on the target that this pair did not make.",
)
def command(app: App, **options: Any) -> int:  # noqa: ANN401 (click's)
    """Feed a replica the log of the other host, until stopped.

    No client is kept out, ever. What breaks is taken up again by itself.
    """
    pair, policy = apply(*app.config(), said(options))
    return app.finish(app.run.follow(pair, policy, app.sink(), control=app.control()))
