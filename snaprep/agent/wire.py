"""Frames between the operator and an agent: four bytes of length (big endian), then one JSON object.

The operator asks (`Request`), the agent answers once (`Reply`) and may tell how it goes before (`Event`). `Renew`
keeps the session alive: an operator that says nothing for long is taken for dead, and the other way round.
"""

from __future__ import annotations

import collections
import json
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from snaprep.core.codec import decode, encode
from snaprep.core.errors import ErrorInfo

MAX_FRAME_BYTES = 16 * 1024 * 1024
RENEW_EVERY_S = 10.0
SILENCE_S = 60.0  # a peer that said nothing for so long is gone

_STDERR_LINES = 200

_LENGTH = struct.Struct(">I")


class WireError(Exception):
    """The bytes are no frame: the stream was cut inside one, or something else wrote into it."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's first frame. `sha256` is that of the code it runs, as it received it; empty when installed."""

    version: str
    sha256: str
    python: str
    pid: int
    user: str
    login_user: str  # differs from `user` behind sudo
    node: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Request:
    id: int
    op: str
    args: Any
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    id: int
    value: Any = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    event: Any


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int


@dataclass(frozen=True, slots=True)
class Renew:
    number: int


@dataclass(frozen=True, slots=True)
class Renewed:
    number: int


Frame = Hello | Request | Reply | Event | Cancel | Renew | Renewed


def pack(frame: Frame) -> bytes:
    """Raises WireError when the frame is larger than MAX_FRAME_BYTES."""
    # ASCII on purpose: file names that are no UTF-8 survive as escaped surrogates.
    body = json.dumps(encode(frame, Frame), separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body)} bytes is larger than {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame, or None at the end of the stream. Blocks. Raises WireError."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise WireError("the stream ended inside a frame")
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {length} bytes is announced, or these bytes are no frame: {head!r}")
    body = stream.read(length)
    if len(body) < length:
        raise WireError("the stream ended inside a frame")
    try:
        frame: Frame = decode(Frame, json.loads(body))  # type: ignore[arg-type]  # a union is no class
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a frame: {error}") from error
    return frame


class LastWords:
    """What a program says on stderr, drained all the time so that it never blocks; the last lines are kept."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
        self._thread = threading.Thread(target=self._drain, args=(read,), daemon=True, name="stderr")
        self._thread.start()

    def _drain(self, read: Callable[[], bytes]) -> None:
        rest = b""
        while True:
            try:
                data = read()
            except (OSError, ValueError):
                data = b""
            *lines, rest = (rest + data).split(b"\n")
            self._lines.extend(line.decode("utf-8", "replace")[:1000] for line in lines)
            if not data or len(rest) > 65_536:
                self._lines.append(rest.decode("utf-8", "replace")[:1000])
                rest = b""
            if not data:
                return

    def last(self, lines: int = 20, *, wait_s: float = 1.0) -> tuple[str, ...]:
        """The last lines; waits a moment for the end of a program that just died."""
        self._thread.join(wait_s)
        return tuple(line for line in list(self._lines) if line.strip())[-lines:]
