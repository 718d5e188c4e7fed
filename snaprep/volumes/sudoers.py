"""What a user may run as root, asked of sudo, and the lines that allow it.

A command here is its argv with the program's whole path. In an argument "[0-9]" stands for a digit, as it does in
sudoers; everything else means itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from snaprep.agent.process import CommandFailed, run

FILE = "/etc/sudoers.d/snaprep"
DIGIT = "[0-9]"
_SPECIAL = re.compile(r"[\\,:=#\s*?\[\]!]")
_FREE = "(root) NOPASSWD: "
_ASK_S = 20.0


def line(user: str, commands: Sequence[Sequence[str]]) -> str:
    """One line of sudoers that allows these commands and nothing else."""
    return f"{user} ALL=(root) NOPASSWD: {', '.join(map(_text, commands))}"


def _text(argv: Sequence[str]) -> str:
    return " ".join(DIGIT.join(_SPECIAL.sub(_escaped, piece) for piece in word.split(DIGIT)) for word in argv)


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


def refused(commands: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Those that sudo does not let this user run without a password. Runs none of them.

    One call where they stand in sudoers as `line` writes them, else one more for each.
    """
    try:
        listed = parse_list(run(["sudo", "-n", "-l"], deadline_s=_ASK_S).text)
    except CommandFailed:  # CommandMissing, too: there is no sudo
        return list(commands)
    return [argv for argv in commands if _text(argv) not in listed and not _allowed(argv)]


def parse_list(text: str) -> frozenset[str]:
    """The commands that `sudo -l` lists as root's and without a password, as they stand in sudoers."""
    found = (row.strip() for row in text.splitlines())
    rows = [row.removeprefix(_FREE).partition(", PASSWD: ")[0] for row in found if row.startswith(_FREE)]
    return frozenset(command for row in rows for command in row.split(", "))


def _allowed(argv: Sequence[str]) -> bool:
    try:
        run(["sudo", "-n", "-l", "--", *(word.replace(DIGIT, "1") for word in argv)], deadline_s=_ASK_S)
    except CommandFailed:
        return False
    return True
