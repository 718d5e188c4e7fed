"""What the tree promises about itself: who may import whom, and what may stand in its texts."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from snaprep.cli.main import program

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "snaprep"
TEXTS = {".py", ".md", ".toml", ".yml", ".yaml", ".java", ".sh", ".txt", ".service", ".timer", ".j2", ".cfg", ""}

# A room, and what of the package it may import: whole rooms, or single modules of one. Rooms are found by the longest
# name that fits, so `engines.derby.recipe` is told apart from the rest of its room.
ARROWS: dict[str, set[str]] = {
    "core": {"core"},
    "units": set(),
    "control": {"core"},
    "journal": {"core"},
    "config": {"config", "config_example", "config_form", "core", "units"},
    "config_example": set(),
    "config_form": {"core", "units"},
    "engines.base": {"core"},
    "engines.derby.recipe": {"core", "engines.base"},
    "engines.recipes": {"core", "engines.base", "engines.derby.recipe"},
    "engines": {"core", "engines", "agent.process", "agent.rewrite"},
    "volumes": {"core", "volumes", "agent.identity", "agent.process"},
    "agent": {"agent", "core", "engines", "volumes", "__init__"},
    "host": {"host", "core", "agent", "__init__"},
    "session": {"core", "host", "agent.link"},
    "observe": {"core", "session"},
    "act": {"act", "core", "engines.base", "host.base", "session"},
    # What acts asks for the recipes of a pair's engine, whichever it is; nothing else of an engine.
    "loop": {"act", "control", "core", "engines.recipes", "journal", "loop", "observe", "session"},
    "verbs": {
        "act",
        "control",
        "core",
        "engines.base",
        "engines.recipes",
        "journal",
        "observe",
        "session",
        "verbs",
    },
    "run": {"act", "control", "core", "journal", "loop", "observe", "session", "verbs"},
    "view": {"view", "core", "journal", "units"},
    "cli": {"cli", "config", "control", "core", "journal", "run", "units", "view", "__init__"},
    "__main__": {"cli"},
    "__init__": set(),
}
# What is not of the standard library, and the rooms that may know it.
PACKAGES = {
    "click": {"cli"},
    "rich": {"view", "cli"},
    "prometheus_client": {"view"},
    "msgspec": {"config_form"},
    "paramiko": {"host"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path: Path) -> list[str]:
    """Every import of a module, those inside functions too, as full names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def own(name: str) -> str:
    """The module of the package that an import means: the name may end with something that is in it."""
    parts = name.split(".")[1:]
    while parts:
        place = PACKAGE.joinpath(*parts)
        if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
            return ".".join(parts)
        parts.pop()
    return "__init__"


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in ARROWS if within(module, room)), key=len, default="")


def test_arrows() -> None:
    """Each room imports only what the design lets it see."""
    wrong = []
    for path in modules():
        module = name_of(path)
        room = room_of(module)
        assert room, f"{module} belongs to no room: add it to the design, then here"
        for name in imports(path):
            if name.partition(".")[0] != "snaprep":
                continue
            wanted = own(name)
            if not any(within(wanted, allowed) for allowed in ARROWS[room]):
                wrong.append(f"{module} imports {wanted}")
    assert wrong == []


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import one another, directly or not (strongly connected components), each circle sorted."""
    beyond: dict[str, set[str]] = {}
    for module in graph:
        seen, ahead = set[str](), list(graph[module])
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                ahead += graph.get(name, ())
        beyond[module] = seen
    found = {tuple(sorted(n for n in beyond[m] if m in beyond.get(n, ()))) for m in graph if m in beyond[m]}
    return sorted(map(list, found))


def test_no_circles() -> None:
    """No module imports itself by way of others, not even inside a function or for its types only."""
    graph = {
        name_of(path): {own(name) for name in imports(path) if name.partition(".")[0] == "snaprep"}
        for path in modules()
    }
    assert circles(graph) == []


def test_circles_are_found() -> None:
    """The search sees long circles and two at a time, and not what only leads to one."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": {"e"}, "f": set[str]()}
    assert circles(graph) == [["a", "b", "c"], ["e"]]


def test_foreign_packages() -> None:
    """What is installed from outside is known only in the room that is there for it; agents need none of it."""
    wrong = []
    for path in modules():
        room = room_of(name_of(path))
        for name in imports(path):
            top = name.partition(".")[0]
            if top in {"snaprep", "__future__"} or top in sys.stdlib_module_names:
                continue
            if room not in PACKAGES.get(top, set()):
                wrong.append(f"{name_of(path)} imports {top}")
    assert wrong == []


def test_no_engine_is_asked_for_its_name() -> None:
    """Engines differ in their own room and nowhere else; a host only sees whether its agent has the one asked for."""
    asks = re.compile(r"""engine\w*\s*(?:==|in)\s*[("']""")
    found = [
        f"{path}:{number}"
        for path in modules()
        if not within(name_of(path), "engines")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if asks.search(line)
    ]
    assert found == []


def texts() -> list[Path]:
    skipped = {"__pycache__"}
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file()
        and path.suffix in TEXTS
        and not any(part in skipped for part in path.parts)
        and not any(part.startswith(".") and part != ".ci" for part in path.relative_to(ROOT).parts[:-1])
        and path.name not in {"LICENSE", ".coverage", ".git"}  # a worktree's .git is a file
    ]


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("marks of unfinished work", r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
        ("paths of one machine", r"(?<![\w.}])/(?:wo" + r"rk/|Us" + r"ers/|ho" + r"me/ubuntu|root/\w)"),
        ("switched off tests", r"pytest\.mark\.(?:x" + r"fail|sk" + r"ip)\b"),
    ],
)
def test_texts(what: str, pattern: str) -> None:
    """No text of the tree holds what has no place in it."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == [], what


def test_ignores_are_explained() -> None:
    """Every rule that the linter is told to ignore stands with the reason."""
    entry = re.compile(r"^  \"[A-Z]+\d*\",")
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    assert [line for line in lines if entry.match(line) and " # " not in line] == []


def named_verbs(text: str) -> list[str]:
    """The verbs in a document's commands: `snaprep VERB` in a code span, and lines of a session."""
    options = r"(?: -\S+(?: [\w./]+(?= [a-z]))?)*"
    spans = re.findall(rf"`snaprep{options} ([a-z]+)", text)
    sessions = re.findall(rf"^\s*[$#] (?:\.venv/bin/)?snaprep{options} ([a-z]+)", text, re.MULTILINE)
    return spans + sessions


def test_texts_name_verbs_that_exist() -> None:
    """What documents and hints tell a user to type is there."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *modules()]
    wrong = [
        f"{path.relative_to(ROOT)}: snaprep {verb}"
        for path in documents
        for verb in named_verbs(path.read_text())
        if verb not in program.commands
    ]
    assert wrong == []


def test_verbs_are_found_in_texts() -> None:
    """The search for verbs sees spans and sessions, with options in front of the verb."""
    text = "Say `snaprep resume` or `snaprep -c x.toml status`.\n\n    $ snaprep --json plan\n    # snaprep rebuild\n"
    assert named_verbs(text) == ["resume", "status", "plan", "rebuild"]
