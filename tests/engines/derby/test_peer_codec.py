"""The codec of Derby's replication messages, by itself; that Derby understands it is shown in test_feed.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaprep.engines.derby.feed.peer_codec import STREAM_HEADER, Decoder, Kind, Message, NotDerby, encode

values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=50),
    st.binary(max_size=2000),
    st.lists(st.text(max_size=10), max_size=8).map(tuple),
)
messages = st.builds(Message, st.sampled_from(Kind), values)

# What Derby 10.14.2 itself wrote: a replica's acknowledgement and its answer to a wrong position, a primary's version
# and position. All begin alike.
BEGIN = bytes.fromhex(
    "797372003e6f72672e6170616368652e64657262792e696d706c2e73746f72652e7265706c69636174696f6e2e6e65742e"
    "5265706c69636174696f6e4d65737361676500000000000000010c00007870770c0000000000000001000000"
)
LONG = (
    "7372000e6a6176612e6c616e672e4c6f6e673b8be490cc8f23df0200014a000576616c7565787200106a6176612e6c616e672e4e756d626572"
    "86ac951d0b94e08b0200007870"
)
ACK = BEGIN + bytes.fromhex("0b740006554944204f4b78")
WRITTEN = {
    ACK: Message(Kind.ACK, "UID OK"),
    BEGIN
    + bytes.fromhex(
        "0c757200135b4c6a6176612e6c616e672e537472696e673badd256e7e91d7b4702000078700000000674000462616e6b740001327400033234"
        "337400013274000332333874000758524530352e4378"
    ): Message(Kind.ERROR, ("bank", "2", "243", "2", "238", "XRE05.C")),
    BEGIN + bytes.fromhex(f"00{LONG}000000000000000178"): Message(Kind.VERSION, 1),
    BEGIN + bytes.fromhex(f"01{LONG}00000002000000ee78"): Message(Kind.INSTANT, 2 << 32 | 238),
}


@pytest.mark.parametrize(("data", "meaning"), WRITTEN.items())
def test_what_derby_writes_is_read(data: bytes, meaning: Message) -> None:
    """Recorded messages have their meaning, and are byte for byte what we would have written."""
    assert Decoder().feed(STREAM_HEADER + data) == [meaning]
    assert encode(meaning) == data


@given(sent=st.lists(messages, max_size=4), data=st.data())
def test_messages_come_back_however_they_are_cut(sent: list[Message], data: st.DataObject) -> None:
    """Any messages, arriving in any pieces, are the same messages."""
    stream = STREAM_HEADER + b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder, found = Decoder(), list[Message]()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    assert found == sent


@given(sent=messages, place=st.integers(0, 10**6), bit=st.integers(0, 7), rest=st.binary(max_size=20))
def test_damage_is_read_as_something_or_refused(sent: Message, place: int, bit: int, rest: bytes) -> None:
    """Whatever arrives, the decoder waits, gives messages or says NotDerby; it never fails in another way."""
    stream = bytearray(STREAM_HEADER + encode(sent) + rest)
    stream[place % len(stream)] ^= 1 << bit
    decoder = Decoder()
    try:
        for byte in stream:
            decoder.feed(bytes((byte,)))
    except NotDerby:
        pass


@given(noise=st.binary(min_size=5, max_size=200))
def test_noise_is_refused_or_waited_for(noise: bytes) -> None:
    """Noise behind a right greeting makes no message but by being one."""
    try:
        found = Decoder().feed(STREAM_HEADER + noise)
    except NotDerby:
        return
    assert found == []


def test_what_is_announced_is_not_believed() -> None:
    """A peer that announces two gigabytes, or a stranger's greeting, is refused without waiting for more."""
    huge = encode(Message(Kind.LOG, b"x" * 10)).replace(b"\x00\x00\x00\x0axxxxxxxxxx", b"\x7f\xff\xff\xff")
    with pytest.raises(NotDerby, match="more than"):
        Decoder().feed(STREAM_HEADER + huge)
    with pytest.raises(NotDerby, match="does not speak"):
        Decoder().feed(b"SSH-2.0-OpenSSH_10.0\r\n")
    many = encode(Message(Kind.ERROR, ("a",))).replace(b"\x00\x00\x00\x01t", b"\x00\x10\x00\x00t")
    with pytest.raises(NotDerby, match="array"):
        Decoder().feed(STREAM_HEADER + many)


def test_another_version_is_refused() -> None:
    """A message class of another version is not read as if it were ours."""
    other = ACK.replace(b"\x00\x00\x00\x00\x00\x00\x00\x01\x0c", b"\x00\x00\x00\x00\x00\x00\x00\x02\x0c")
    with pytest.raises(NotDerby):
        Decoder().feed(STREAM_HEADER + other)
    with pytest.raises(NotDerby, match="version 2"):
        Decoder().feed(STREAM_HEADER + ACK.replace(b"\x77\x0c" + bytes(7) + b"\x01", b"\x77\x0c" + bytes(7) + b"\x02"))


def test_a_text_that_is_too_long_cannot_be_sent() -> None:
    """The protocol counts a text's bytes in 16 bits."""
    with pytest.raises(ValueError, match="too long"):
        encode(Message(Kind.ACK, "x" * 70_000))
