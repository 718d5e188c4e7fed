"""`snaprep takeover`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from snaprep.cli.app import App, verb
from snaprep.cli.options import known_host

if TYPE_CHECKING:
    from snaprep.core.report import TakeOverQuestion


@verb
@click.argument("host", required=False)
@click.option("--yes", is_flag=True, help="Do not ask; what may be lost is still said.")
def command(app: App, host: str | None, *, yes: bool) -> int:
    """Make the surviving host serve.

    For a primary that has died. Asks first: there is no way back.
    """
    pair, policy = app.config()
    if host is not None:
        known_host(pair, host)

    def confirm(question: TakeOverQuestion) -> bool:
        for line in question.loss:
            app.sink().note(f"loss: {line}")
        for line in question.fenced:
            app.sink().note(f"fenced: {line}")
        for line in question.not_fenced:
            app.sink().note(f"not fenced: {line}")
        sure = yes or app.asks(f"{question.target} will serve, from what it holds.", question.target)
        if sure and app.listener is not None:
            app.listener.finishing = "a take-over is not stopped in the middle; again to leave at once"
        return sure

    return app.finish(app.run.take_over(pair, policy, app.sink(), host=host, confirm=confirm))
