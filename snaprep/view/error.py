"""An error: its id, what happened, who serves, and what to do."""

from __future__ import annotations

import textwrap

from rich.text import Text

from snaprep.core.errors import ErrorInfo, NobodyServes
from snaprep.view.text import WIDTH, hint, paragraph, paragraphs, safe


def error_lines(error: ErrorInfo) -> list[Text]:
    head = f"error[{safe(error.id)}]: "
    what = textwrap.wrap(
        head + safe(error.what), WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    first = Text(what[0] if what else head)
    first.stylize("bold red", 0, len(head.rstrip()))
    style = "bold red" if error.exit_code == NobodyServes.exit_code else ""
    return [
        first,
        *(Text(line) for line in what[1:]),
        *paragraphs("", error.details),
        *paragraph("", error.serving, style),
        *hint(error.hint),
    ]
