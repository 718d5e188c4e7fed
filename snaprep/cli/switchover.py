"""`snaprep switchover`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from snaprep.cli.app import App, verb
from snaprep.cli.options import Duration, known_host

if TYPE_CHECKING:
    from snaprep.core.report import SwitchQuestion


@verb
@click.argument("host", required=False)
@click.option("--budget", type=Duration(), help="The longest time that a client may get no commit.")
@click.option("--yes", is_flag=True, help="Do not ask; what will be done is still said.")
def command(app: App, host: str | None, *, budget: int | None, yes: bool) -> int:
    """Let primary and replica change places.

    HOST is to serve afterwards; without it, the one that is the replica now. Nothing is lost, nothing is copied.
    """
    pair, policy = app.config()
    if host is not None:
        known_host(pair, host)
    if budget is not None:
        from snaprep.config import check_policy  # noqa: PLC0415 (msgspec is slow to import)

        policy = replace(policy, budget_ms=budget)
        check_policy(policy)

    def confirm(question: SwitchQuestion) -> bool:
        app.sink().note(
            f"clients are cut off for about {question.p50_ms:.0f} ms, P90 {question.p90_ms:.0f} ms "
            f"(budget {question.budget_ms:.0f} ms); {question.source} follows {question.target} afterwards"
        )
        return yes or app.asks(f"{question.target} will serve instead of {question.source}.", question.target)

    return app.finish(app.run.switch_over(pair, policy, app.sink(), host=host, confirm=confirm, control=app.control()))
