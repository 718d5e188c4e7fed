"""The documents of `--json` that no run of a model has."""

from __future__ import annotations

from snaprep.core.document import error_to_json, plain
from snaprep.core.errors import ErrorInfo


def test_a_command_that_ends_early_says_so_in_a_document() -> None:
    """Who serves and the exit code stand where every other document has them; details are a list."""
    error = ErrorInfo(id="no-plan", what="there is none", serving="db1 serves", exit_code=13, details=("a", "b"))
    document = error_to_json(error)
    assert (document["kind"], document["serving"], document["exit_code"]) == ("error", "db1 serves", 13)
    assert document["error"]["details"] == ["a", "b"]


def test_the_keys_of_a_table_decide_on_the_units() -> None:
    """A table of the journal is written like the fields of a document."""
    assert plain({"sent_bytes": 1.6, "took_s": 1.25, "guid": 1 << 63}) == {
        "sent_bytes": 2,
        "took_s": 1.2,
        "guid": str(1 << 63),
    }
