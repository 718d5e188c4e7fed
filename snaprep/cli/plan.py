"""`snaprep plan`."""

from __future__ import annotations

from typing import Any

from snaprep.cli.app import App, verb
from snaprep.cli.options import apply, run_options, said


@verb
@run_options
def command(app: App, **options: Any) -> int:  # noqa: ANN401 (click's)
    """Show what a rebuild would do. Changes nothing.

    Bytes, seconds and what clients would notice, as far as they can be known.
    """
    pair, policy = apply(*app.config(), said(options))
    return app.finish(app.run.plan(pair, policy, app.sink()))
