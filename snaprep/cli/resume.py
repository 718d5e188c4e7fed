"""`snaprep resume`."""

from __future__ import annotations

from typing import Any

from snaprep.cli.app import App, verb
from snaprep.cli.options import apply, in_words, run_options, said


@verb
@run_options
def command(app: App, **options: Any) -> int:  # noqa: ANN401 (click's)
    """Go on with a rebuild that was stopped.

    Its options are used again; those given here count more. A switchover that died is finished first.
    """
    pair, policy = app.config()
    kept = app.remembered_options(pair, "rebuild")
    if kept:
        app.sink().note(f"with the options of the run that was stopped: {in_words(kept)}")
    spoken = {**kept, **said(options)}
    pair, policy = apply(pair, policy, spoken)
    app.remember_options(pair, "rebuild", spoken)
    return app.finish(app.run.rebuild(pair, policy, app.sink(), resume=True, control=app.control()))
