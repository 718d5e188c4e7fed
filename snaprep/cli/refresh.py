"""`snaprep refresh`."""

from __future__ import annotations

from snaprep.cli.app import App, verb


@verb
def command(app: App) -> int:
    """Move the common snapshot forward.

    The replica goes on running. A later fail-back stays small. A run that follows is told to do it.
    """
    pair, policy = app.config()
    return app.finish(app.run.refresh(pair, policy, app.sink(), control=app.control()))
