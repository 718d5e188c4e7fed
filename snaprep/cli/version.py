"""`snaprep version`."""

from __future__ import annotations

import json
import platform

from snaprep import __version__
from snaprep.cli.app import App, verb


@verb
def command(app: App) -> int:
    """Show the version."""
    python = platform.python_version()
    if app.json:
        document = {"schema": "snaprep/1", "kind": "version", "version": __version__, "python": python, "exit_code": 0}
        app.print(json.dumps(document) + "\n")
    else:
        app.print(f"snaprep {__version__} (Python {python})\n")
    return 0
