"""`snaprep completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from snaprep.cli.app import App, verb


@verb
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(app: App, shell: str) -> int:
    """Print the completion script of a shell.

    For instance: eval "$(snaprep completion bash)"
    """
    root = click.get_current_context().find_root().command
    made = get_completion_class(shell)
    assert made is not None
    app.print(made(root, {}, "snaprep", "_SNAPREP_COMPLETE").source() + "\n")
    return 0
