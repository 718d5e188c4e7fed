"""`snaprep status`."""

from __future__ import annotations

from snaprep.cli.app import App, verb


@verb
def command(app: App) -> int:
    """Show who serves and how the pair stands.

    Also what replicates, what a run is doing, and what has to be done.
    """
    pair, policy = app.config()
    return app.finish(app.run.status(pair, policy, app.sink()))
