"""`snaprep status`: how the pair stands."""

from __future__ import annotations

from rich.text import Text

from snaprep.core.report import HostStatus, Status
from snaprep.view.error import error_lines
from snaprep.view.run import feed_words
from snaprep.view.text import hint, paragraph, paragraphs, safe, size, table

_HEADS = ("host", "role", "engine", "gen", "position", "newest snapshot", "pool", "free", "pinned")


def status_lines(status: Status) -> list[Text]:
    title = Text.assemble((safe(status.pair), "bold"), ": ", safe(status.serving or "who serves is not known"))
    lines = [title]
    seen = [h for h in status.hosts if not h.error]
    if seen:
        lines += table(_HEADS, [_row(h) for h in seen], frozenset({3, 7, 8}))
    for host in status.hosts:
        lines += _about_host(host)
    lines += paragraph("replica", status.replication)
    if status.feed is not None:
        lines += paragraph("feed", feed_words(status.feed))
    if status.base is not None:
        lines += paragraph("base", f"{status.base.name} (guid {status.base.guid})")
    elif len(seen) == len(status.hosts):  # with a host unseen, it is not known
        lines += paragraph("base", "none: the next rebuild is a full send")
    if status.last_run:
        again = "; `snaprep resume` goes on with it" if status.resumable else ""
        lines += paragraph("last run", f"{status.last_run}, {status.last_verb}: {status.last_state}{again}")
    for kept in status.kept:
        lines += paragraph("kept", f"{kept.host}: {kept.name}: {kept.why}")
    lines += paragraphs("warning", status.warnings, "yellow")
    lines += paragraph("journal", status.journal)
    if status.error is not None:
        return [*lines, Text(""), *error_lines(status.error)]
    return [*lines, *hint(status.hint)]


def _row(host: HostStatus) -> tuple[str, ...]:
    return (
        host.name,
        host.role,
        host.engine_state if host.server_up else f"{host.engine_state}, server down",
        "-" if host.generation is None else str(host.generation),
        host.position or "-",
        host.newest or "-",
        host.store_health or "-",
        size(host.free_bytes),
        size(host.pinned_bytes),
    )


def _about_host(host: HostStatus) -> list[Text]:
    lines = []
    if host.error:
        lines += paragraph(host.name, host.error, "red")
    if host.guarded:
        lines += paragraph(host.name, f"is {host.guarded} at present; the guard ends it when its lease does", "yellow")
    if host.held_by is not None:
        run = host.held_by
        lines += paragraph("run", f"{run.run}, {run.verb}; by {run.operator}, pid {run.pid} (seen on {host.name})")
    return lines
