"""What this host's ZFS can do, asked of the programs themselves and not guessed from a version.

`caps` are words. A word is there when the host can do the thing on both ends of a stream, so what a run may use is the
intersection of both hosts' words:

estimate      `send -nP` tells a stream's size
resume        `receive -s` and `send -t`
origin        `receive -o origin=`, and `send -i` takes any earlier snapshot in a chain of origins
properties    `receive -o NAME=VALUE`: a received image is sealed from its first moment
large_blocks  `-L`      compressed  `-c`      embedded  `-e`
zstd          the pool can hold zstd blocks;  zstd_active  it does
bookmarks     `zfs bookmark`
written       the properties `written` and `receive_resume_token` exist
multi         `zfs snapshot a@x b@x` is one transaction
encryption    the pool can hold encrypted datasets, and `-w` sends them as they lie on disk
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from snaprep.agent.process import CommandFailed, CommandMissing, run
from snaprep.volumes.zfs.errors import explain

_USAGE_STATUS = 2
_USABLE = frozenset({"enabled", "active"})


@dataclass(frozen=True, slots=True)
class Features:
    version: str  # "2.3.9", or "legacy (pool version 23)"
    legacy: bool  # an OpenSolaris-era command line: zfs-fuse, old illumos
    caps: frozenset[str]
    module: str = ""  # the kernel module's version, where it is told


def option_letters(usage: str) -> frozenset[str]:
    """Every option letter that a usage text of `zfs send` or `zfs receive` shows."""
    letters: set[str] = set()
    for group in re.findall(r"(?<![\w-])-([A-Za-z]+)", usage):
        letters.update(group)
    return frozenset(letters)


def capabilities(send_usage: str, receive_usage: str, pool: Mapping[str, str], *, legacy: bool) -> frozenset[str]:
    """The caps that follow from two usage texts and the pool's properties."""
    send, receive = option_letters(send_usage), option_letters(receive_usage)

    def pool_can(feature: str) -> bool:
        return pool.get(f"feature@{feature}") in _USABLE

    found = {
        "estimate": {"n", "P"} <= send,
        "resume": "t" in send and {"s", "A"} <= receive and pool_can("extensible_dataset"),
        "origin": "o" in receive,
        "properties": "o" in receive,
        "large_blocks": "L" in send and pool_can("large_blocks"),
        "compressed": "c" in send and pool_can("lz4_compress"),
        "embedded": "e" in send and pool_can("embedded_data"),
        "zstd": pool_can("zstd_compress"),
        "zstd_active": pool.get("feature@zstd_compress") == "active",
        "bookmarks": pool_can("bookmarks"),
        "written": not legacy,
        "multi": not legacy,
        "encryption": "w" in send and pool_can("encryption"),
    }
    return frozenset(word for word, there in found.items() if there)


def usage(argv: list[str], deadline_s: float) -> str:
    """What a command says of itself when it is called without words."""
    try:
        return run(argv, deadline_s=deadline_s).text
    except CommandFailed as error:
        if error.status != _USAGE_STATUS:
            raise
        return error.stderr


def has_json(get_usage: str) -> bool:
    """Whether `zfs get` has -j, by its usage text: since OpenZFS 2.3."""
    return "[-j" in get_usage


def parse_version(text: str) -> tuple[str, str] | None:
    """`zfs version` prints "zfs-2.3.9-1" and below it the module's, "zfs-kmod-2.3.9-1"; an old one prints its usage."""
    match = re.match(r"zfs-(\S+)(?:\s+zfs-kmod-(\S+))?", text)
    return (match.group(1), match.group(2) or "") if match else None


def pool_properties(pool: str, *, legacy: bool = False, wanted: str = "all", deadline_s: float) -> dict[str, str]:
    """The wanted properties of a pool. An old `zpool get` knows neither -H nor -p: its sizes have three digits."""
    if legacy:
        return parse_pool_columns(pool, run(["zpool", "get", wanted, pool], deadline_s=deadline_s).text)
    text = run(["zpool", "get", "-Hp", "-o", "property,value", wanted, pool], deadline_s=deadline_s).text
    return dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)


def parse_pool_columns(pool: str, text: str) -> dict[str, str]:
    """The property and value columns of a table made for people; a pool's name may hold spaces."""
    found: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        words = line.removeprefix(pool).split()
        if len(words) >= 2:
            found[words[0]] = words[1]
    return found


_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}


def parse_size(text: str) -> int:
    """Bytes of "250M", "1.5T" or "262144000"; 0 for what is not a size."""
    match = re.fullmatch(r"([0-9.]+)([BKMGTPE]?)", text.strip())
    return int(float(match.group(1)) * _UNITS[match.group(2)]) if match else 0


def probe(pool: str, *, deadline_s: float) -> Features:
    """Ask this host's programs. Raises `volume-unavailable`, `unknown-dataset`."""
    try:
        try:
            version = parse_version(run(["zfs", "version"], deadline_s=deadline_s).text)
        except CommandMissing:
            raise
        except CommandFailed as error:
            if error.status != _USAGE_STATUS:
                raise
            version = None
        legacy = version is None
        pool_now = pool_properties(pool, legacy=legacy, deadline_s=deadline_s)
        caps = capabilities(
            usage(["zfs", "send"], deadline_s), usage(["zfs", "receive"], deadline_s), pool_now, legacy=legacy
        )
    except CommandFailed as error:
        raise explain(error) from error
    if version is None:
        return Features(f"legacy (pool version {pool_now.get('version', '?')})", legacy, caps)
    return Features(version[0], legacy, caps, version[1])
