"""The session's ends that no well-behaved operator causes."""

from __future__ import annotations

import os
import threading
import time
from typing import BinaryIO

import pytest

from snaprep.agent import wire
from snaprep.agent.serve import Cancelled, own_hello, serve


class Session:
    """`serve` in a thread, with the operator's ends of its pipes."""

    def __init__(self, silence_s: float = 30.0) -> None:
        stdin, self.write_fd = os.pipe()
        read_fd, stdout = os.pipe()
        self.replies: BinaryIO = os.fdopen(read_fd, "rb")
        self.closed, self.cancelled = threading.Event(), threading.Event()

        def patient(cancelled: Cancelled) -> None:
            cancelled.wait(20)
            self.cancelled.set()

        self.stdin, self.stdout = os.fdopen(stdin, "rb"), os.fdopen(stdout, "wb")

        def work() -> None:
            serve(
                {"patient": patient}, self.stdin, self.stdout, hello=own_hello(None), on_close=[self.closed.set],
                silence_s=silence_s,
            )  # fmt: skip

        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert isinstance(wire.read_frame(self.replies), wire.Hello)

    def send(self, data: bytes) -> None:
        os.write(self.write_fd, data)

    def end(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert self.closed.is_set()
        self.hang_up()
        for file in (self.replies, self.stdin, self.stdout):
            file.close()

    def hang_up(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1


def test_an_operator_who_falls_silent_is_taken_for_dead() -> None:
    """Without any frame for `silence_s` the session ends, cancels what runs, and closes."""
    session = Session(silence_s=1.0)
    session.send(wire.pack(wire.Request(1, "patient", {}, 60)))
    began = time.monotonic()
    session.end()
    assert session.cancelled.is_set()
    assert 0.5 < time.monotonic() - began < 5


def test_renewing_keeps_the_session() -> None:
    """`Renew` frames are answered, and count as signs of life."""
    session = Session(silence_s=1.0)
    for number in range(6):
        session.send(wire.pack(wire.Renew(number)))
        assert wire.read_frame(session.replies) == wire.Renewed(number)
        assert session.thread.is_alive()
        time.sleep(0.3)
    session.hang_up()
    session.end()


def test_an_overdue_request_is_cancelled_by_the_agent_itself() -> None:
    """The deadline of a request holds without the operator's word."""
    session = Session()
    session.send(wire.pack(wire.Request(1, "patient", {}, 0.3)))
    assert wire.read_frame(session.replies) == wire.Reply(1)
    session.hang_up()
    session.end()


@pytest.mark.parametrize(
    "rubbish",
    [b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\2[]", b'\0\0\0\5{"a"', b"\xff\xff\xff\xff", wire.pack(wire.Renewed(1))],
)
def test_rubbish_on_stdin_ends_the_session(rubbish: bytes) -> None:
    """What is no frame, or not an operator's, is never guessed at: the session closes."""
    session = Session()
    session.send(rubbish)
    session.hang_up()
    session.end()


def test_a_frame_that_is_too_large_is_not_sent() -> None:
    """Sixteen MiB are the limit in both directions."""
    with pytest.raises(wire.WireError, match="larger than"):
        wire.pack(wire.Event(1, "x" * wire.MAX_FRAME_BYTES))
