"""Options of runs: their types, and how they change the configuration's policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from snaprep.units import parse_duration_ms, parse_rate

if TYPE_CHECKING:
    from snaprep.core.model import Policy
    from snaprep.core.spec import Pair

    _Whole = click.ParamType[int]
else:
    _Whole = click.ParamType  # not generic in every release that will do

NO_LIMIT = 0  # what the word "none" stands for, in options and in the journal


class Duration(_Whole):
    """A time with its unit, in milliseconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        if isinstance(value, int):
            return value
        try:
            return parse_duration_ms(value)
        except ValueError as error:
            self.fail(f'{error}; write it as "500ms", "3s" or "1min"', param, ctx)


class Rate(_Whole):
    """Bytes per second, or NO_LIMIT for `none`."""

    name = "RATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        if isinstance(value, int):
            return value
        if value == "none":
            return NO_LIMIT
        try:
            return parse_rate(value)
        except ValueError as error:
            self.fail(f'{error}; write it as "50 MB/s" or "400 Mbit/s", or none', param, ctx)


_RUN_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--source",), {"metavar": "HOST", "help": "The host that is right, when looking does not settle it."}),
    (("--hold/--no-hold",), {"default": None, "help": "Go on with rounds and wait for `snaprep cutover`."}),
    (("--budget",), {"type": Duration(), "help": "The longest time that a client may get no commit."}),
    (("--limit",), {"type": Rate(), "help": "Highest rate of the data, as in 50MB/s, or none."}),
    (("--freeze",), {"type": click.Choice(["base", "always", "never"]), "help": "Which snapshots freeze."}),
    (
        ("--lane",),
        {
            "type": click.Choice(["auto", "pages", "log"]),
            "help": "What is shipped after the base: increments, the log, or what is measured to be better.",
        },
    ),
    (
        ("--archive",),
        {
            "type": click.Choice(["restart", "bounce", "backup"]),
            "help": "How the source comes to keep its log, for the log lane.",
        },
    ),
    (("--relay/--no-relay",), {"default": None, "help": "Send the data through this machine."}),
    (
        ("--isolate-foreign/--no-isolate-foreign",),
        {"default": None, "help": "Set aside a dataset on the target that this pair did not make."},
    ),
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of `rebuild`, `plan` and `resume`."""
    for names, settings in reversed(_RUN_OPTIONS):
        command = click.option(*names, **settings)(command)
    return command


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the operator has said, without what was left out."""
    return {k: v for k, v in options.items() if v is not None}


_KEPT: dict[str, type] = {
    "source": str, "hold": bool, "budget": int, "limit": int, "freeze": str, "relay": bool, "isolate_foreign": bool,
    "lane": str, "archive": str,
}  # fmt: skip


def known(options: object) -> dict[str, Any]:
    """Options as a journal holds them, without what this version does not know."""
    if not isinstance(options, Mapping):
        return {}
    return {k: v for k, v in options.items() if type(v) is _KEPT.get(k)}


def in_words(options: Mapping[str, Any]) -> str:
    """Options as one would type them."""
    return " ".join(_word(name.replace("_", "-"), value) for name, value in options.items())


def _word(name: str, value: object) -> str:
    match name, value:
        case _, bool():
            return f"--{name}" if value else f"--no-{name}"
        case "budget", _:
            return f"--budget {value}ms"
        case "limit", _:
            return "--limit none" if value == NO_LIMIT else f"--limit {value}B/s"
        case _:
            return f"--{name} {value}"


def apply(pair: Pair, policy: Policy, said: Mapping[str, Any]) -> tuple[Pair, Policy]:
    """Lay what was said over the configuration. Raises UsageError when it does not fit together."""
    from snaprep.config import check_policy, without_snapshots  # noqa: PLC0415 (msgspec is slow to import)

    same = {k: said[k] for k in ("source", "hold", "freeze", "isolate_foreign", "archive", "lane") if k in said}
    if pair.hosts[0].volume == "directory":
        same |= {key: without_snapshots(key, same[key]) for key in ("lane", "freeze") if key in same}
    if "budget" in said:
        same["budget_ms"] = said["budget"]
    if "limit" in said:
        same["limit_bytes_per_s"] = said["limit"] if said["limit"] != NO_LIMIT else None
    changed = replace(policy, **same)
    check_policy(changed)
    _known_source(pair, changed)
    return (replace(pair, relay=said["relay"]) if "relay" in said else pair), changed


def _known_source(pair: Pair, policy: Policy) -> None:
    if policy.source is not None:
        known_host(pair, policy.source)


def known_host(pair: Pair, name: str) -> None:
    """Raises UsageError `unknown-host`."""
    from snaprep.core.errors import UsageError  # noqa: PLC0415

    names = [h.name for h in pair.hosts]
    if name not in names:
        raise UsageError(
            "unknown-host",
            f"{name} is not a host of the pair {pair.name}",
            hint=f"the hosts are {names[0]} and {names[1]}",
            serving="nothing was touched",
        )
