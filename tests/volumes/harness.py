"""Two hosts' storage on one machine, and the moves of a run, for the contract suite.

A *side* is one host: a volume, the path where its live image is served, and a pool of its own. What differs between
filesystems stays in the function that makes the sides; the suite only moves them.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snaprep.agent import process
from snaprep.core.lineage import common_base, send_flags
from snaprep.core.volume import Image, ImageRole, Point
from snaprep.volumes.base import Volume

STREAM_S = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    volume: Volume
    live: str  # the configured image
    path: Path  # where the engine opens it
    parts: tuple[str, ...]
    create: Callable[[str, str | None], None] = field(repr=False)  # (image, mountpoint): as an administrator would
    raw: Callable[..., str] = field(repr=False)  # the filesystem's own command, as an administrator would type it

    @property
    def recv(self) -> str:
        return f"{self.live}.recv"

    def image(self, name: str) -> Image:
        found = self.volume.facts().image(name)
        assert found is not None, f"{name} is not on {self.name}"
        return found

    def write(self, name: str, size_bytes: int, *, part: str = "") -> None:
        """Random bytes into a file of the live image."""
        (self.path / part / name).write_bytes(os.urandom(size_bytes))

    def digest(self, under: Path | None = None) -> dict[str, str]:
        """Relative path -> SHA-256 of every file."""
        top = under or self.path
        return {
            str(file.relative_to(top)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(top.rglob("*"))
            if file.is_file()
        }

    def point(self) -> Point:
        return self.volume.snapshot(self.live, f"snaprep-p-{next(_numbers)}")

    def present(self, point: str) -> Image:
        """Serve a received point: what a cutover does on the target."""
        self.volume.clone(self.recv, point, self.live, mountpoint=str(self.path), role=ImageRole.LIVE)
        image = self.volume.facts().image(self.live)
        assert image is not None
        return image

    def set_aside(self, image: str, word: str) -> str:
        to = f"{self.live}.{word}-{next(_numbers)}"
        self.volume.rename(image, to)
        return to


def stream_bytes(argv: Sequence[str]) -> bytes:
    return process.run(list(argv), deadline_s=STREAM_S).stdout


def feed(argv: Sequence[str], stream: bytes) -> process.CommandFailed | None:
    """Run a receive on given bytes; how it failed, or None. A receiver that stops reading early is not an accident."""
    receiver = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=process.environment()
    )
    try:
        _, stderr = receiver.communicate(stream, timeout=STREAM_S)
    except subprocess.TimeoutExpired:
        receiver.kill()
        receiver.communicate()
        raise
    if receiver.returncode == 0:
        return None
    return process.CommandFailed(tuple(argv), receiver.returncode, stderr.decode())


def ship(source: Side, target: Side, point: Point, *, image: str | None = None) -> int:
    """Send `point` of the source's live image into the target's recv image, from the newest common base, as a run does.

    A recv image that the increment cannot continue is set aside first. The stream's size in bytes.
    """
    sent, there = source.volume.facts(), target.volume.facts()
    live = sent.image(image or source.live)
    assert live is not None
    base = common_base(sent, live, there, target.recv)
    origin = None
    if there.image(target.recv) is not None and (base is None or not base.continues):
        target.set_aside(target.recv, "old")
        base = common_base(source.volume.facts(), live, target.volume.facts(), target.recv)
    if base is not None and not base.continues:
        origin = f"{base.target_image}@{base.target_point}"
    flags = send_flags(sent, live, there, base)
    streams = source.volume.open_send(live.name, point.name, base.point.guid if base else None, flags=flags)
    total = 0
    for part, argv in streams:
        stream = stream_bytes(argv)
        receive = target.volume.open_receive(
            target.recv, part, origin=origin, base_guid=base.point.guid if base else None
        )
        failed = feed(receive, stream)
        assert failed is None, failed
        total += len(stream)
    target.volume.received(target.recv, point.name, point.guids, tuning=live.tuning)
    return total
