"""`snaprep check`."""

from __future__ import annotations

from snaprep.cli.app import App, verb


@verb
def command(app: App) -> int:
    """Look for what could stop a run. Changes nothing."""
    pair, policy = app.config()
    return app.finish(app.run.check(pair, policy, app.sink()))
