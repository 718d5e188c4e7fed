"""What every verb works with: the options that all share, the configuration, the sink, and the way out."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:  # imported when a verb needs them, so that --help stays quick
    from snaprep.cli.api import Run
    from snaprep.cli.output import Output
    from snaprep.cli.signals import Listener
    from snaprep.control import Control
    from snaprep.core.document import Document
    from snaprep.core.errors import ErrorInfo
    from snaprep.core.model import Policy
    from snaprep.core.spec import Pair
    from snaprep.journal import Entry

_SAID = "snaprep.said"


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:  # noqa: ANN401 (click's)
    """Shared options count wherever they stand, before or after the verb."""
    if ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.COMMANDLINE:
        ctx.meta.setdefault(_SAID, {})[param.name] = value


_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-c", "--config"), {"metavar": "FILE", "help": "The configuration. [env: SNAPREP_CONFIG; ./snaprep.toml]"}),
    (("-v", "--verbose"), {"count": True, "help": "Say more; twice: with tracebacks."}),
    (("--json",), {"is_flag": True, "help": "One JSON document on stdout."}),
    (("--events",), {"metavar": "FILE", "help": "Write events as JSON lines; - is stdout."}),
    (("--no-color",), {"is_flag": True, "help": "No colour. [env: NO_COLOR]"}),
    (("--no-progress",), {"is_flag": True, "help": "Plain lines, no live screen. [env: SNAPREP_NO_PROGRESS]"}),
    (("--show-commands",), {"is_flag": True, "help": "Show the commands that the hosts run."}),
)


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that all verbs share."""
    for names, settings in reversed(_OPTIONS):
        command = click.option(*names, **settings, expose_value=False, callback=_remember)(command)
    return command


@dataclass
class App:
    """One call of the program. `run` and the streams are given by tests; else they are the real ones."""

    stdout: IO[str]
    stderr: IO[str]
    stdin: IO[str]
    run_module: Run | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    output: Output | None = None
    listener: Listener | None = None

    @property
    def run(self) -> Run:
        if self.run_module is None:
            self.run_module = cast("Run", importlib.import_module("snaprep.run"))
        return self.run_module

    @property
    def json(self) -> bool:
        return bool(self.said.get("json"))

    @property
    def color(self) -> bool:
        return not self.said.get("no_color") and not os.environ.get("NO_COLOR")

    @property
    def verbose(self) -> int:
        return int(self.said.get("verbose") or 0)

    def config(self) -> tuple[Pair, Policy]:
        """Read the configuration. The passwords that it names are masked in all output from here on."""
        from snaprep import config  # noqa: PLC0415 (msgspec is slow to import)

        pair, policy = config.load(config.find(self.said.get("config") or os.environ.get("SNAPREP_CONFIG")))
        self.secrets = tuple(h.derby.password for h in pair.hosts if h.derby.password)
        return pair, policy

    def sink(self) -> Output:
        if self.output is None:
            from snaprep.cli.output import Output  # noqa: PLC0415 (rich is slow to import)
            from snaprep.core.errors import UsageError  # noqa: PLC0415

            events = str(self.said.get("events") or "")
            if events == "-" and self.json:
                what = "--json and --events - both want stdout"
                raise UsageError("options-conflict", what, hint="--events FILE", serving="nothing was touched")
            self.output = Output(
                stdout=self.stdout,
                stderr=self.stderr,
                secrets=self.secrets,
                events=events,
                color=self.color,
                progress=not self.said.get("no_progress"),
                show_commands=bool(self.said.get("show_commands")),
                verbose=self.verbose > 0,
            )
        return self.output

    def control(self) -> Control:
        """What signals ask of the run that begins now."""
        from snaprep.control import Control  # noqa: PLC0415

        control = Control()
        if self.listener is not None:
            self.listener.control = control
        return control

    def remember_options(self, pair: Pair, name: str, options: Mapping[str, Any]) -> None:
        """Keep what was said for `snaprep resume`. Raises UsageError when the journal cannot be written."""
        from snaprep.journal import Journal  # noqa: PLC0415

        Journal.open(pair.name, secrets=self.secrets).must_append("options", verb=name, options=dict(options))

    def remembered_options(self, pair: Pair, name: str) -> dict[str, Any]:
        """What was said when the newest run of that verb began, unless it went well; damage to the journal is told."""
        from snaprep.cli.options import known  # noqa: PLC0415
        from snaprep.journal import Journal  # noqa: PLC0415

        reading = Journal.of(pair.name).read()
        for sentence in reading.damaged:
            self.sink().note(sentence)
        return known(unfinished_options(reading.entries, name))

    def finish(self, value: Document) -> int:
        """Show what a verb has found or done; its exit code."""
        from snaprep.view import show_document  # noqa: PLC0415 (rich is slow to import)
        from snaprep.view.console import Masked  # noqa: PLC0415

        if self.output is not None:
            self.output.close()
        with self._quiet_pipe():
            show_document(value, Masked(self.stdout, self.secrets), json=self.json, color=self.color)
        return value.exit_code

    def print(self, text: str) -> None:
        with self._quiet_pipe():
            self.stdout.write(text)
            self.stdout.flush()

    def fail(self, error: ErrorInfo) -> int:
        """Show an error on stderr, and as the document when one was asked for; its exit code."""
        from snaprep.view import show_error  # noqa: PLC0415 (rich is slow to import)
        from snaprep.view.console import Masked, Talk  # noqa: PLC0415

        if self.output is not None:
            self.output.close()
        out, talk = Masked(self.stdout, self.secrets), Talk(self.stderr, self.secrets)
        with self._quiet_pipe():
            show_error(error, out, talk, json=self.json, color=self.color)
        return error.exit_code

    @contextlib.contextmanager
    def _quiet_pipe(self) -> Iterator[None]:
        """`snaprep status | head -1` is no error."""
        try:
            yield
        except BrokenPipeError:
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.stdout.fileno())
                os.close(null)

    def asks(self, question: str, wanted: str) -> bool:
        """Ask on stderr; true when exactly `wanted` is typed. Without a terminal that is an error."""
        from snaprep.core.errors import UsageError  # noqa: PLC0415

        if not self.stdin.isatty():
            what = f"this has to be confirmed by typing {wanted}, and there is no terminal to ask on"
            hint = "--yes, when you are sure"
            raise UsageError("needs-yes", what, hint=hint, serving="nothing was touched")
        if self.output is not None:
            self.output.pause()
        self.stderr.write(f"{question} Type {wanted} to go on: ")
        self.stderr.flush()
        with self._interruptible():
            return self.stdin.readline().strip() == wanted

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first signal ends the verb: nothing is done while it waits for a person."""
        listener = self.listener
        kept = listener.control if listener is not None else None
        try:
            if listener is not None:
                listener.control = None
            yield
        finally:
            if listener is not None:
                listener.control = kept


def unfinished_options(entries: Sequence[Entry], name: str) -> Any:  # noqa: ANN401 (what JSON holds)
    """The options of the newest run of a verb; nothing once it, or a run that went on with it, has ended well."""
    options, run = None, ""
    for entry in entries:
        if entry.kind == "options" and entry.get("verb") == name:
            options = entry.get("options")
        elif entry.kind == "begin" and entry.get("verb") in (name, "resume"):
            run = entry.run
        elif entry.kind == "end" and entry.run == run and entry.get("state") == "done":
            options = None
    return options


def said_before(ctx: click.Context | None) -> Mapping[str, Any]:
    """The shared options that were read before the command line turned out wrong."""
    return ctx.meta.get(_SAID, {}) if ctx is not None else {}


def verb(function: Callable[..., int]) -> click.Command:
    """Make a command of a function that takes the App and its own options and gives an exit code."""

    @click.pass_context
    def call(ctx: click.Context, /, **values: Any) -> int:  # noqa: ANN401 (click's)
        app = ctx.find_object(App)
        assert app is not None
        app.said = ctx.meta.get(_SAID, {})
        return function(app, **values)

    name = function.__module__.rpartition(".")[2]
    wrapped = functools.update_wrapper(call, function)
    return click.command(name, context_settings={"help_option_names": ["-h", "--help"]})(shared(wrapped))


def real_streams() -> tuple[IO[str], IO[str], IO[str]]:
    """Standard streams that write out what the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    return sys.stdout, sys.stderr, sys.stdin


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet. Raises FileExistsError."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
