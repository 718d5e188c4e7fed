"""`snaprep cutover`."""

from __future__ import annotations

from snaprep.cli.app import App, verb


@verb
def command(app: App) -> int:
    """Let a held run go on to its cutover."""
    pair, policy = app.config()
    return app.finish(app.run.command(pair, policy, app.sink(), "cutover", None))
