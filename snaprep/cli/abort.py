"""`snaprep abort`."""

from __future__ import annotations

from snaprep.cli.app import App, verb


@verb
def command(app: App) -> int:
    """End a run and put things back.

    Without a live run: put back what a dead one has left. Open its gate, drop what was half received.
    """
    pair, policy = app.config()
    return app.finish(app.run.command(pair, policy, app.sink(), "abort", None))
