"""The messages of Derby's replication as bytes: the small part of Java's serialization that they are made of.

Each message is an Externalizable object of one class: a version, a type, and one value (a Long, a String, an array of
Strings, an array of bytes, or nothing). Derby resets its stream before each message, so every message stands alone.
Anything else in the stream is refused: nothing a peer sends makes an object here, and nothing it announces is believed
before it has arrived.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

STREAM_HEADER = b"\xac\xed\x00\x05"
PROTOCOL_VERSION = 1
MESSAGE_MOST_BYTES = 32 << 20
_STRINGS_MOST = 64
_RESETS_MOST = 64

_CLASS = "org.apache.derby.impl.store.replication.net.ReplicationMessage"
_NULL, _REFERENCE, _CLASS_DESCRIPTION, _OBJECT, _STRING, _ARRAY = 0x70, 0x71, 0x72, 0x73, 0x74, 0x75
_BLOCK, _END_BLOCK, _RESET = 0x77, 0x78, 0x79
_FIRST_HANDLE = 0x7E0000


class Kind(IntEnum):
    """What a message says."""

    VERSION = 0
    INSTANT = 1
    LOG = 10
    ACK = 11
    ERROR = 12
    PING = 13
    PONG = 14
    STOP = 20
    FAILOVER = 21


Value = int | str | bytes | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Message:
    """One message with its value."""

    kind: Kind
    value: Value = None


class NotDerby(Exception):
    """What came is no message of Derby's replication, or one that is larger than any."""


class _Short(Exception):
    """More bytes are needed."""


@dataclass(frozen=True, slots=True)
class _Class:
    """A class description as it stands in a stream: everything that says what follows."""

    name: str
    uid: int
    flags: int
    fields: tuple[tuple[str, str], ...]
    parent: _Class | None


def _uid(digits: str) -> int:
    return int.from_bytes(bytes.fromhex(digits), "big", signed=True)


_NUMBER = _Class("java.lang.Number", _uid("86ac951d0b94e08b"), 2, (), None)
_LONG = _Class("java.lang.Long", _uid("3b8be490cc8f23df"), 2, (("J", "value"),), _NUMBER)
_BYTES = _Class("[B", _uid("acf317f8060854e0"), 2, (), None)
_STRINGS = _Class("[Ljava.lang.String;", _uid("add256e7e91d7b47"), 2, (), None)
_MESSAGE = _Class(_CLASS, PROTOCOL_VERSION, 0x0C, (), None)


def encode(message: Message) -> bytes:
    """One message, with the reset before it. Raises ValueError when the value cannot be sent."""
    head = _BLOCK.to_bytes() + b"\x0c" + struct.pack(">qi", PROTOCOL_VERSION, message.kind)
    parts = (
        _RESET.to_bytes(), _OBJECT.to_bytes(), _described(_MESSAGE), head, _valued(message.value),
        _END_BLOCK.to_bytes(),
    )  # fmt: skip
    return b"".join(parts)


def _described(kind: _Class | None) -> bytes:
    if kind is None:
        return _NULL.to_bytes()
    fields = b"".join(code.encode() + _utf(name) for code, name in kind.fields)
    head = struct.pack(">qBH", kind.uid, kind.flags, len(kind.fields))
    return (
        _CLASS_DESCRIPTION.to_bytes()
        + _utf(kind.name)
        + head
        + fields
        + _END_BLOCK.to_bytes()
        + _described(kind.parent)
    )


def _valued(value: Value) -> bytes:
    if value is None:
        return _NULL.to_bytes()
    if isinstance(value, int):
        return _OBJECT.to_bytes() + _described(_LONG) + struct.pack(">q", value)
    if isinstance(value, bytes):
        return _ARRAY.to_bytes() + _described(_BYTES) + struct.pack(">i", len(value)) + value
    if isinstance(value, str):
        return _STRING.to_bytes() + _utf(value)
    return _ARRAY.to_bytes() + _described(_STRINGS) + struct.pack(">i", len(value)) + b"".join(map(_valued, value))


def _utf(text: str) -> bytes:
    """Java's own UTF-8: no byte is zero, and what lies outside the first plane is two surrogates."""
    units = text.encode("utf-16-be", "surrogatepass")
    pairs = (units[i : i + 2].decode("utf-16-be", "surrogatepass") for i in range(0, len(units), 2))
    data = b"".join(b"\xc0\x80" if unit == "\0" else unit.encode("utf-8", "surrogatepass") for unit in pairs)
    if len(data) > 0xFFFF:
        raise ValueError(f"a text of {len(data)} bytes is too long for the protocol")
    return struct.pack(">H", len(data)) + data


class Decoder:
    """Takes bytes as they come and gives the messages that are whole. Memory is bounded by the longest message."""

    def __init__(self, most_bytes: int = MESSAGE_MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._data = bytearray()
        self._greeted = False
        self._wanted = 0  # of a message that is announced: how much must be there before it is worth another look

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now. Raises NotDerby; nothing can be read after that."""
        self._data += data
        found: list[Message] = []
        if not self._greeted:
            if not STREAM_HEADER.startswith(self._data[: len(STREAM_HEADER)]):
                raise NotDerby("the peer does not speak Derby's replication protocol")
            if len(self._data) < len(STREAM_HEADER):
                return found
            del self._data[: len(STREAM_HEADER)]
            self._greeted = True
        while self._data and len(self._data) >= self._wanted:
            reader = _Reader(self._data, self._most_bytes)
            try:
                found.append(reader.message())
            except _Short:
                self._wanted = reader.wanted
                break
            del self._data[: reader.at]
            self._wanted = 0
        return found


class _Reader:
    """Reads one message from the front of a buffer."""

    def __init__(self, data: bytearray, most_bytes: int) -> None:
        self._data = data
        self._most_bytes = most_bytes
        self._handles: list[_Class | str | None] = []
        self.at = 0
        self.wanted = 0

    def message(self) -> Message:
        resets = 0
        while (tag := self._byte()) == _RESET:
            resets += 1
            if resets > _RESETS_MOST:
                raise NotDerby("nothing but resets")
        if tag != _OBJECT:
            raise NotDerby(f"an object was expected, not {tag:#x}")
        self._expect_class(_MESSAGE)
        self._handles.append(None)
        if self._take(2) != bytes((_BLOCK, 12)):
            raise NotDerby("a message without its head")
        version, number = struct.unpack(">qi", self._take(12))
        if version != PROTOCOL_VERSION:
            raise NotDerby(f"version {version} of the protocol")
        value = self._value()
        if self._byte() != _END_BLOCK:
            raise NotDerby("a message that does not end")
        try:
            return Message(Kind(number), value)
        except ValueError as error:
            raise NotDerby(f"a message of the unknown type {number}") from error

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if end > self._most_bytes:
            raise NotDerby(f"a message of more than {self._most_bytes} bytes")
        if end > len(self._data):
            self.wanted = end
            raise _Short
        taken = bytes(memoryview(self._data)[self.at : end])
        self.at = end
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _text(self) -> str:
        (length,) = struct.unpack(">H", self._take(2))
        try:
            units = self._take(length).replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
            return units.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")
        except UnicodeDecodeError as error:
            raise NotDerby("a text that is none") from error

    def _class(self, depth: int = 0) -> _Class | None:
        tag = self._byte()
        if tag == _NULL:
            return None
        if tag == _REFERENCE:
            known = self._known()
            if isinstance(known, _Class):
                return known
            raise NotDerby("a class was expected")
        if tag != _CLASS_DESCRIPTION or depth > 2:
            raise NotDerby("a class was expected")
        name = self._text()
        uid, flags, count = struct.unpack(">qBH", self._take(11))
        place = len(self._handles)
        self._handles.append(None)
        if count > 1:
            raise NotDerby(f"an object of {name}")
        fields = tuple((chr(self._byte()), self._text()) for _ in range(count))
        if any(code in "[L" for code, _ in fields) or self._byte() != _END_BLOCK:
            raise NotDerby(f"an object of {name}")
        found = _Class(name, uid, flags, fields, self._class(depth + 1))
        self._handles[place] = found
        return found

    def _known(self) -> _Class | str | None:
        place = int.from_bytes(self._take(4), "big") - _FIRST_HANDLE
        if not 0 <= place < len(self._handles):
            raise NotDerby("a reference to nothing")
        return self._handles[place]

    def _expect_class(self, *expected: _Class) -> _Class:
        found = self._class()
        for kind in expected:
            if found == kind:
                return kind
        raise NotDerby(f"an object of {found.name if found else 'no class'}")

    def _value(self) -> Value:
        tag = self._byte()
        if tag == _NULL:
            return None
        if tag == _STRING:
            return self._string()
        if tag == _OBJECT:
            self._expect_class(_LONG)
            self._handles.append(None)
            (number,) = struct.unpack(">q", self._take(8))
            return int(number)
        if tag != _ARRAY:
            raise NotDerby(f"a value that begins with {tag:#x}")
        kind = self._expect_class(_BYTES, _STRINGS)
        self._handles.append(None)
        (length,) = struct.unpack(">i", self._take(4))
        if length < 0 or (kind is _STRINGS and length > _STRINGS_MOST):
            raise NotDerby(f"an array of {length}")
        return self._take(length) if kind is _BYTES else tuple(self._element() for _ in range(length))

    def _string(self) -> str:
        text = self._text()
        self._handles.append(text)
        return text

    def _element(self) -> str:
        """A string of an array; Java writes the same one a second time as a reference, and null as it is."""
        tag = self._byte()
        if tag == _NULL:
            return ""
        if tag == _STRING:
            return self._string()
        known = self._known() if tag == _REFERENCE else None
        if not isinstance(known, str):
            raise NotDerby("a text was expected")
        return known
