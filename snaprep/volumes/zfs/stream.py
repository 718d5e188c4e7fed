"""The command lines of `zfs send` and `zfs receive`, and what their dry run says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from snaprep.volumes.zfs.facts import dataset


def part_of(snapshot: str, part: str) -> str:
    """The same snapshot or bookmark of another part: "a/db@x" with "log" is "a/db/log@x"."""
    image, sign, name = re.split("([@#])", snapshot, maxsplit=1)
    return f"{dataset(image, part)}{sign}{name}"


def options(properties: Mapping[str, str]) -> list[str]:
    return [word for name, value in properties.items() for word in ("-o", f"{name}={value}")]


def send(snapshot: str, base: str | None, flags: Sequence[str]) -> list[str]:
    """One part's stream. The base is named in full: it may live in the origin."""
    return ["zfs", "send", *flags, *(["-i", base] if base else []), snapshot]


def receive(name: str, *, resumable: bool, origin: str | None, properties: Mapping[str, str]) -> list[str]:
    """`resumable`: what has come in stays when the stream breaks."""
    chosen = options(properties)
    if origin:
        chosen += ["-o", f"origin={origin}"]
    return ["zfs", "receive", "-u", *(["-s"] if resumable else []), *chosen, name]


def dry(argv: Sequence[str]) -> list[str]:
    """The same `zfs send`, asked for its size only."""
    return [*argv[:2], "-n", "-P", *argv[2:]]


def parse_estimate(text: str) -> int:
    """The `size` line of `zfs send -nP`. Some versions have printed negative sizes as huge ones: those count as 0."""
    match = re.search(r"^size\t(\d+)$", text, re.MULTILINE)
    size_bytes = int(match.group(1)) if match else 0
    return size_bytes if size_bytes < 1 << 63 else 0
