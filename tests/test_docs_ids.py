"""Every id of an error, and of a finding that is not good, is explained on a page under docs/."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from snaprep.core import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "snaprep"
# The model world of the simulation: what it raises is never shown to a user.
MODEL = set((PACKAGE / "core" / "simulated").glob("*.py"))
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
# Where a call carries its id when it is not named: the position of the argument, by the name of what is called.
POSITION = dict.fromkeys(ERRORS, 0) | {
    "ErrorInfo": 0,
    "_error": 0,
    "_told": 0,
    "_kind": 1,
    "fail": 3,
    "_unreachable": 0,
}
ID = re.compile(r"[a-z]+(?:-[a-z]+)*")


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def first(node: ast.expr) -> ast.expr:
    """Of a tuple the first element, else the node."""
    return node.elts[0] if isinstance(node, ast.Tuple) and node.elts else node


def ids_of(tree: ast.AST) -> Iterator[str]:
    """Ids that stand as texts in calls that make errors, as defaults of a parameter `id`, or in a name `id_`."""
    for node in ast.walk(tree):
        for value in carriers(node):
            for part in ast.walk(value):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and ID.fullmatch(part.value):
                    yield part.value


def bad(finding: ast.Call) -> bool:
    """Whether a finding may be more than `ok`."""
    level = finding.args[1] if len(finding.args) > 1 else None
    return isinstance(level, ast.IfExp) or (isinstance(level, ast.Constant) and level.value in ("warn", "fail"))


def carriers(node: ast.AST) -> list[ast.expr]:
    """Where a node names an id, if it does."""
    if isinstance(node, ast.Call) and called(node) == "Finding" and bad(node):
        return node.args[:1]
    if isinstance(node, ast.Call) and called(node) in POSITION:
        place = POSITION[called(node)]
        return [k.value for k in node.keywords if k.arg == "id"] or node.args[place : place + 1]
    if isinstance(node, ast.FunctionDef):
        taken = [*node.args.posonlyargs, *node.args.args][::-1]
        pairs = [*zip(taken, node.args.defaults[::-1], strict=False)]
        pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        return [default for arg, default in pairs if arg.arg == "id"]
    if isinstance(node, ast.Assign) and getattr(first(node.targets[0]), "id", "") == "id_":
        return [] if isinstance(node.value, ast.Call) else [first(node.value)]
    return []


def ids() -> set[str]:
    files = [path for path in PACKAGE.rglob("*.py") if path not in MODEL]
    return {found for path in files for found in ids_of(ast.parse(path.read_text()))}


def explained() -> set[str]:
    """What stands in code spans of the pages, as `id` or as `error[id]`."""
    pages = (ROOT / "docs").rglob("*.md")
    return {word for page in pages for word in re.findall(r"`(?:error\[)?([a-z-]+)\]?`", page.read_text())}


def test_every_error_id_is_explained() -> None:
    """Whoever reads an id on the screen finds it in the documents."""
    assert sorted(ids() - explained()) == []


def test_ids_are_found() -> None:
    """The search sees each way in which the code names an id."""
    text = (
        'Stopped("one-a", "x")\nErrorInfo(id="two-b", what="x")\nat.fail("key", "x", "y", "three-c")\n'
        'at.fail("key", "x", id="four-d")\n_kind("pat", "five-e")\ndef f(what: str, id: str = "six-f") -> None: ...\n'
        'id_, hint = "seven-g", "x"\nFinding("no-error", "ok", "x")\n'
        'Finding("eight-h", "warn", "x")\n'
    )
    assert sorted(ids_of(ast.parse(text))) == sorted(
        ["one-a", "two-b", "three-c", "four-d", "five-e", "six-f", "seven-g", "eight-h"]
    )
