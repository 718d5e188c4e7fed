"""The program: parse, call the verb, and turn whatever ends it into words and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from snaprep import __version__
from snaprep.cli import (
    abort,
    check,
    clean,
    completion,
    cutover,
    follow,
    init,
    limit,
    plan,
    rebuild,
    refresh,
    resume,
    status,
    switchover,
    takeover,
    verify,
    version,
)
from snaprep.cli.app import App, real_streams, said_before, shared
from snaprep.cli.signals import Interrupted, Listener, listening
from snaprep.core.errors import ErrorInfo, SnaprepError

if TYPE_CHECKING:
    from snaprep.cli.api import Run

_COMPLETE = "_SNAPREP_COMPLETE"
_VERBS = (
    init, check, plan, rebuild, follow, switchover, takeover, refresh, status, cutover, abort, limit, resume, verify,
    clean,
    completion, version,
)  # fmt: skip


class _Verbs(click.Group):
    """The verbs in the order in which one needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(self.commands)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@shared
@click.version_option(__version__, prog_name="snaprep")
def program() -> None:
    """Rebuild a database replica from filesystem snapshots while its users keep working.

    Options that all verbs share may stand before or after the verb. Exit codes say who serves: 0 done, 2 usage,
    3 check failed, 4 stale (nothing was touched); 10 stopped, 11 aborted, 12 cannot converge, 20 cutover undone
    (the source serves); 21 nobody serves; 22 serves, not verified; 30 host unreachable; 75 locked.
    """


for _module in _VERBS:
    program.add_command(_module.command)


def main(
    argv: Sequence[str] | None = None,
    *,
    run: Run | None = None,
    streams: tuple[IO[str], IO[str], IO[str]] | None = None,
) -> int:
    """Run one command line; its exit code. Tests give the module to call and the streams (out, err, in)."""
    stdout, stderr, stdin = streams or real_streams()
    app = App(stdout=stdout, stderr=stderr, stdin=stdin, run_module=run)
    listener = Listener(lambda text: app.sink().note(text), lambda: app.sink().now())
    app.listener = listener
    with listening(listener):
        try:
            return _guarded(app, argv)
        finally:
            if app.output is not None:  # a verb that only says something has left its screen standing
                app.output.close()


def _guarded(app: App, argv: Sequence[str] | None) -> int:
    try:
        if _COMPLETE in os.environ:  # a shell asks for completions
            program.main(prog_name="snaprep", complete_var=_COMPLETE)
        with program.make_context("snaprep", list(sys.argv[1:] if argv is None else argv), obj=app) as ctx:
            code: Any = program.invoke(ctx)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except SnaprepError as error:
        return app.fail(error.info)
    except click.exceptions.NoArgsIsHelpError as error:
        app.stderr.write(error.format_message() + "\n")
        return 2
    except click.ClickException as error:
        app.said = said_before(getattr(error, "ctx", None))
        return app.fail(_usage(error))
    except Interrupted as error:
        return app.fail(_interrupted(app, error.args[0], 128 + error.number))
    except KeyboardInterrupt:
        return app.fail(_interrupted(app, "SIGINT", 130))
    except Exception as error:  # noqa: BLE001 (the last place: a mistake of ours still has to say who serves)
        return app.fail(_bug(app, error))
    return code if isinstance(code, int) else 0


def _usage(error: click.ClickException) -> ErrorInfo:
    """Click's words in our form."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "snaprep"
    return ErrorInfo(
        id="usage",
        what=error.format_message().rstrip("."),
        serving="nothing was touched",
        hint=f"`{where} --help` says what can be said",
        exit_code=2,
    )


def _last_seen(app: App) -> str:
    last = app.output.last if app.output else None
    return f"when last looked: {last.serving}" if last is not None and last.serving else ""


def _interrupted(app: App, name: str, exit_code: int) -> ErrorInfo:
    seen = _last_seen(app)
    return ErrorInfo(
        id="interrupted",
        what=f"ended by {name}",
        serving=seen or "nothing was begun that this program knows of",
        hint="a freeze or gate ends by its lease; `snaprep status` shows how things stand",
        exit_code=exit_code,
    )


def _bug(app: App, error: Exception) -> ErrorInfo:
    """A mistake in snaprep. Its place is always told, the whole trace when asked for twice."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    trace = traceback.format_exception(error) if app.verbose > 1 else []
    details = tuple(line for text in trace for line in text.splitlines() if line.strip())
    return ErrorInfo(
        id="bug",
        what=f"{type(error).__name__}: {error}",
        serving=_last_seen(app) or "who serves is not known here: `snaprep status` looks",
        hint="this is a mistake in snaprep: please report it, with what -vv prints and the journal",
        exit_code=1,
        details=(*details, place) if place else details,
    )
