"""The tables of snaprep.toml as they are written, and a place in the file that can say what is wrong there."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_type_hints

import msgspec

from snaprep.core.errors import UsageError
from snaprep.units import parse_duration_ms, parse_rate, parse_size

_PROBLEM = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`")
_NONE_SUCH = {"engine": "unknown-engine", "volume": "unknown-volume"}
_NOT_ONE_OF = re.compile(r"Invalid enum value '(?P<value>.*)'")


class Table(msgspec.Struct, forbid_unknown_fields=True):
    """A table of the file. A key that is not named here is refused."""


class Root(Table):
    pair: str
    hosts: dict[str, dict[str, Any]]
    engine: Literal["derby"] = "derby"
    volume: Literal["zfs", "directory"] = "zfs"
    relay: bool = False
    derby: dict[str, Any] = {}
    rounds: dict[str, Any] = {}
    leases: dict[str, Any] = {}
    transactions: dict[str, Any] = {}
    feed: dict[str, Any] = {}


class Host(Table):
    ssh: str
    dataset: str = ""
    become: Literal["", "sudo"] = ""
    python: str = "python3"
    children: tuple[str, ...] = ()
    mountpoint: str = ""
    owner: str = ""
    address: str = ""
    data_port: int = 0
    data_user: str = ""
    replication_address: str = ""
    derby: dict[str, Any] = {}


class Derby(Table):
    database: str = ""
    host: str = "127.0.0.1"
    port: int = 1527
    user: str = "snaprep"
    password_file: str = ""
    java: str = "java"
    classpath: tuple[str, ...] = ()
    restart_command: tuple[str, ...] = ()
    replication: dict[str, Any] = {}


class Replication(Table):
    mode: Literal["address", "tunnel"] = "address"
    port: int = 4851
    tunnel_port: int = 4852


class Rounds(Table):
    budget: str = "4s"
    undo: str = "1s"
    freeze: Literal["base", "always", "never"] = "base"
    limit: str = ""
    floor: str = "1 GiB"
    max: int = 50
    hold_pace: str = "10s"
    attempts: int = 3


class Leases(Table):
    freeze: str = "10s"


class Feed(Table):
    lane: Literal["auto", "pages", "log"] = "auto"
    archive: Literal["", "restart", "bounce", "backup"] = ""
    refresh: str = "1h"


class Transactions(Table):
    wait: str = "60s"
    old: str = "5s"


_T = TypeVar("_T", bound=Table)


@dataclass(frozen=True, slots=True)
class At:
    """A place in the file, for reading what is there and for saying what is wrong with it."""

    file: str
    path: str = ""

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path and name else self.path or name

    def into(self, name: str) -> At:
        return At(self.file, self.key(name))

    def fail(self, key: str, what: str, hint: str = "", id: str = "config-value") -> NoReturn:
        raise UsageError(id, f"{self.file}: {self.key(key)}: {what}", hint=hint, serving="nothing was touched")

    def table(self, raw: Mapping[str, Any], form: type[_T]) -> _T:
        try:
            return msgspec.convert(dict(raw), type=form, strict=True)
        except msgspec.ValidationError as error:
            self._refuse(str(error), form)

    def _refuse(self, message: str, form: type[Table]) -> NoReturn:
        found = _PROBLEM.fullmatch(message)
        what, path = (found["what"], found["path"] or "") if found else (message, "")
        names = [f.name for f in msgspec.structs.fields(form)]
        if unknown := _UNKNOWN.fullmatch(what):
            near = difflib.get_close_matches(unknown["key"], names, n=1, cutoff=0.6)
            hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(names)}"
            self.fail(unknown["key"], "there is no such key", hint, "config-unknown-key")
        if "missing required field" in what:
            self.fail(what.split("`")[1], "is missing", "`snaprep init -` prints an example", "config-missing-key")
        if wrong := _NOT_ONE_OF.fullmatch(what):
            known = ", ".join(json.dumps(value) for value in get_args(get_type_hints(form)[path]))
            self.fail(
                path, f"{wrong['value']!r} is none of those known here", known, _NONE_SUCH.get(path, "config-value")
            )
        wants_text = "Expected `str`" in what and ("got `int`" in what or "got `float`" in what)
        text = 'write it as text with its unit, as in "3s" or "1 GiB"'
        hint = text if wants_text else "`snaprep init -` prints an example of every key"
        self.fail(path, what[:1].lower() + what[1:], hint, "config-type")

    def duration_ms(self, key: str, text: str, least_ms: int = 1) -> int:
        try:
            value = parse_duration_ms(text)
        except ValueError as error:
            self.fail(key, str(error), 'durations are written as "500ms", "3s", "1min" or "2h"')
        if value < least_ms:
            self.fail(key, f"{text!r} is less than {least_ms} ms")
        return value

    def size(self, key: str, text: str) -> int:
        try:
            return parse_size(text)
        except ValueError as error:
            self.fail(key, str(error), 'sizes are written as "500 MB" or "1 GiB"')

    def rate(self, key: str, text: str) -> int | None:
        try:
            return parse_rate(text) if text else None
        except ValueError as error:
            self.fail(key, str(error), 'rates are written as "50 MB/s" or "400 Mbit/s"; "" means no limit')

    def port(self, key: str, value: int, least: int = 1) -> int:
        if not least <= value <= 65535:
            self.fail(key, f"{value} is not a port")
        return value

    def matching(self, key: str, text: str, form: re.Pattern[str], means: str) -> str:
        if text and not form.fullmatch(text):
            self.fail(key, f"{text!r} is not {means}")
        return text

    def directory(self, key: str, text: str) -> str:
        if not text.startswith("/") or os.path.normpath(text) != text or ";" in text or not text.isprintable():
            self.fail(key, f"{text!r} is not a plain absolute path", "it begins with /, without . or .. or ; in it")
        return text
