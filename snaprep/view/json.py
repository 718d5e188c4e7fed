"""The documents of `--json` and the lines of `--events`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from snaprep.core.document import SCHEMA, Document, error_to_json, plain, rfc3339, to_json
from snaprep.core.errors import ErrorInfo


def document(value: Document | ErrorInfo) -> str:
    """One document with an end of line."""
    content = error_to_json(value) if isinstance(value, ErrorInfo) else to_json(value)
    return json.dumps(content, indent=2) + "\n"


def event_line(kind: str, fields: Mapping[str, Any], now_s: float | None = None) -> str:
    """One event. What `fields` says of schema, time and event does not count."""
    head = {"schema": SCHEMA, "at": rfc3339(time.time() if now_s is None else now_s), "event": kind}
    body = {k: plain(v, k) for k, v in fields.items() if k not in head}
    return json.dumps({**head, **body}, separators=(",", ":")) + "\n"
