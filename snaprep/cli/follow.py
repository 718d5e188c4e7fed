"""`snaprep follow`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snaprep.cli.app import App, verb
from snaprep.cli.options import Rate, apply, said

if TYPE_CHECKING:
    from snaprep.view.metrics import Metrics


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
@click.option("--metrics", metavar="FILE", help="Keep the lag in a file for Prometheus' node exporter (FILE.prom).")
def command(app: App, metrics: str | None, **options: Any) -> int:  # noqa: ANN401 (click's)
    """Feed a replica the log of the other host, until stopped.

    No client is kept out, ever. What breaks is taken up again by itself.
    """
    pair, policy = apply(*app.config(), said(options))
    sink = app.sink()
    if metrics is not None:
        sink.tell(_metrics(metrics))
    if address := os.environ.get("NOTIFY_SOCKET"):
        from snaprep.view.notify import Notify  # noqa: PLC0415 (systemd's services only)

        sink.tell(Notify(address))
    return app.finish(app.run.follow(pair, policy, sink, control=app.control()))


def _metrics(path: str) -> Metrics:
    from snaprep.core.errors import UsageError  # noqa: PLC0415
    from snaprep.view.metrics import Metrics  # noqa: PLC0415 (the library is slow to import)

    try:
        return Metrics(Path(path))
    except OSError as error:
        what = f"metrics cannot be written to {path}: {error.strerror}"
        hint = "choose a file in the folder that the node exporter reads, where you may write"
        raise UsageError("metrics-unwritable", what, hint=hint, serving="nothing was touched") from error
