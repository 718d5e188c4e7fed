"""What is told outside as JSON: whole documents for `--json`, and for `--events` what is new between two samples.

What `to_json` gives is a promise, kept in docs/json.md.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from snaprep.core.errors import ErrorInfo
from snaprep.core.report import CheckReport, Plan, Report, Status

SCHEMA = "snaprep/1"

Document: TypeAlias = Report | Plan | Status | CheckReport

_KINDS: dict[type, str] = {Report: "report", Plan: "plan", Status: "status", CheckReport: "check"}


def to_json(value: Document) -> dict[str, Any]:
    """The document of `--json`, ready for `json.dumps`."""
    return {"schema": SCHEMA, "kind": _KINDS[type(value)], **_object(value), "exit_code": value.exit_code}


def error_to_json(error: ErrorInfo) -> dict[str, Any]:
    """The document of `--json` for a command that ended before it had anything else to show."""
    return {
        "schema": SCHEMA,
        "kind": "error",
        "serving": error.serving,
        "error": _object(error),
        "exit_code": error.exit_code,
    }


def rfc3339(epoch_s: float) -> str:
    """UTC with milliseconds."""
    moment = dt.datetime.fromtimestamp(epoch_s, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(value: object, name: str = "") -> Any:  # noqa: ANN401 (whatever json.dumps takes)
    """Any value of this module as JSON's own types; `name` is the field it stands in and decides on the unit."""
    if isinstance(value, bool) or value is None:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return _object(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict):
        return {str(k): plain(v, str(k)) for k, v in value.items()}
    if isinstance(value, tuple | list | frozenset | set):
        items = sorted(value, key=str) if isinstance(value, frozenset | set) else value
        return [plain(v) for v in items]
    if isinstance(value, int | float):
        return _number(value, name)
    return str(value)


def _object(value: object) -> dict[str, Any]:
    assert is_dataclass(value)
    return {f.name: plain(getattr(value, f.name), f.name) for f in fields(value)}


def _number(value: float, name: str) -> int | float | str:
    if name.endswith("_at"):
        return rfc3339(value)
    if name.endswith("guid"):
        return str(value)  # 64 bits: more than a JSON reader keeps
    if name.endswith(("_bytes", "_bytes_per_s")):
        return round(value)
    if isinstance(value, float):
        return round(value, 1)
    return value


@dataclass(frozen=True, slots=True)
class Change:
    """What is new between two samples: the kinds of event that views and `--events` derive from reports."""

    event: Literal["state", "round", "lane", "forecast", "serving"]
    fields: dict[str, Any] = field(default_factory=dict)


def changes(before: Report | None, after: Report) -> tuple[Change, ...]:
    """What happened between two samples of one run. The order is the order in which it is told."""
    found: list[Change] = []
    if before is None or (before.state, before.reason) != (after.state, after.reason):
        found.append(Change("state", {"state": after.state.value, "reason": after.reason}))
    told = {(r.number, r.kind): r.state for r in before.rounds} if before else {}
    found += [Change("round", _object(r)) for r in after.rounds if told.get((r.number, r.kind)) != r.state]
    if after.lane is not None and (before is None or before.lane != after.lane):
        found.append(Change("lane", _object(after.lane)))
    if after.forecast is not None and (before is None or before.forecast != after.forecast):
        found.append(Change("forecast", _object(after.forecast)))
    if before is None or before.serving != after.serving:
        found.append(Change("serving", {"serves": after.serves, "serving": after.serving}))
    return tuple(found)
