"""The pump over plain pipes: every way in which a stream can go wrong, and that it goes right."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snaprep.agent import pump
from snaprep.agent.flow import DATA, Flow
from snaprep.agent.link import Link, StreamHeader
from snaprep.agent.pipe import HEAD, HEADER, header_bytes
from snaprep.core.errors import SnaprepError, Stale, may_pass
from tests.agent.ways import Target, header, pipe_pair, receive

QUICK = pump.Limits(stall_s=1.0, finish_s=3.0, progress_s=0.05)


def into(path: Path) -> list[str]:
    return ["sh", "-c", f"exec cat > {path}"]


def send_failure(link: Link, argv: list[str], limits: pump.Limits = QUICK) -> SnaprepError:
    with pytest.raises(SnaprepError) as caught:
        pump.send_stream(link, header(), [("", argv)], limits=limits)
    return caught.value


def received_by(link: Link, argv: list[str]) -> Target:
    return receive(lambda: link, lambda _h, _p: argv, QUICK)


def running(mark: str) -> bool:
    """Whether a program with this word in its command line is alive."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if mark.encode() in line and state != "Z":
                return True
    return False


@pytest.mark.parametrize("size", [0, 1, 5, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 20_000_003])
def test_every_byte_arrives(tmp_path: Path, size: int) -> None:
    """Streams of any size arrive whole, with the same count and digest at both ends."""
    data = os.urandom(size)
    (tmp_path / "data").write_bytes(data)
    source, link = pipe_pair()
    target = received_by(link, into(tmp_path / "copy"))
    sent = pump.send_stream(source, header(), [("", ["cat", str(tmp_path / "data")])], limits=QUICK)
    done = pump.PartDone("", size, hashlib.sha256(data).hexdigest())
    assert sent.parts == sent.peer.parts == (done,)
    assert target.join().received == sent.peer
    assert (tmp_path / "copy").read_bytes() == data


def test_small_pieces_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that writes a few kilobytes at a time does not make a frame of each write."""
    pieces = 400
    frames: list[bytes] = []
    frame = Flow.frame

    def counted(flow: Flow, kind: bytes, payload: memoryview, stalled: Callable[[float], None]) -> None:
        frames.append(kind)
        frame(flow, kind, payload, stalled)

    monkeypatch.setattr(Flow, "frame", counted)
    source, link = pipe_pair()
    target = received_by(link, ["cat"])
    program = f"import os,time\nfor _ in range({pieces}): os.write(1, bytes(4096)); time.sleep(0.0001)"
    sent = pump.send_stream(source, header(), [("", [sys.executable, "-c", program])], limits=QUICK)
    assert sent.bytes == 4096 * pieces
    assert target.join().received == sent.peer
    assert frames.count(DATA) < pieces / 2


def test_parts_follow_each_other_in_one_stream(tmp_path: Path) -> None:
    """Each part has its own two programs; the target's is chosen from the header and the part's name."""
    source, link = pipe_pair()
    seen: list[tuple[StreamHeader, str]] = []

    def opener(what: StreamHeader, part: str) -> list[str]:
        seen.append((what, part))
        return into(tmp_path / f"copy{part}")

    target = receive(lambda: link, opener, QUICK)
    parts = [(name, ["sh", "-c", f"printf %s {name or 'root'}"]) for name in ("", "a", "b")]
    sent = pump.send_stream(source, header(parts=("", "a", "b")), parts, limits=QUICK)
    assert [p.part for p in sent.parts] == ["", "a", "b"]
    assert target.join().received is not None
    assert [(tmp_path / f"copy{n}").read_text() for n in ("", "a", "b")] == ["root", "a", "b"]
    assert seen == [(header(parts=("", "a", "b")), name) for name in ("", "a", "b")]


def test_a_receiver_that_fails_early_stops_the_sender_with_its_words() -> None:
    """Disk full after a while: the sender stops at once, and raises what the receiver said."""
    source, link = pipe_pair()
    target = received_by(link, ["sh", "-c", "head -c 1000000 >/dev/null; echo out of space >&2; exit 3"])
    began = time.monotonic()
    error = send_failure(source, ["cat", "/dev/zero"], pump.Limits())
    assert error.id == "receive-failed"
    assert "status 3" in error.info.what
    assert error.info.details == ("out of space",)
    assert time.monotonic() - began < 5
    failed = target.join().error
    assert failed is not None
    assert failed.id == "receive-failed"
    assert not running("/dev/zero")


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_program_that_was_killed(side: str) -> None:
    """Both ends raise `program-killed`, which may pass, say whose it was, and tell how far the stream came."""
    source, link = pipe_pair()
    sends, ends = "head -c 3000000 /dev/zero; ", "kill -9 $$"
    target = received_by(link, ["sh", "-c", "cat >/dev/null" if side == "source" else f"head -c 9 >/dev/null; {ends}"])
    told: list[int] = []
    with pytest.raises(SnaprepError) as raised:
        pump.send_stream(
            source,
            header(),
            [("", ["sh", "-c", sends + (ends if side == "source" else "cat /dev/zero")])],
            on_progress=lambda moved: told.append(moved.total_bytes),
        )
    failed = target.join().error
    assert failed is not None
    assert raised.value.id == failed.id == "program-killed"
    assert raised.value.info.what == f"the {side}'s sh -c was killed by signal 9"
    assert may_pass(failed.id)
    assert told[-1] >= (3_000_000 if side == "source" else 9)


def test_a_receiver_that_fails_at_its_end(tmp_path: Path) -> None:
    """A bad exit status after the whole stream is an error at both ends, too."""
    source, link = pipe_pair()
    target = received_by(link, ["sh", "-c", "cat >/dev/null; echo bad stream >&2; exit 1"])
    error = send_failure(source, ["head", "-c", "3000000", "/dev/zero"])
    assert (error.id, error.info.details) == ("receive-failed", ("bad stream",))
    assert target.join().error is not None


def test_a_receiver_that_is_not_installed() -> None:
    """A missing program at the target is reported to the sender by name."""
    source, link = pipe_pair()
    target = received_by(link, ["no-such-program"])
    error = send_failure(source, ["cat", "/dev/zero"])
    assert error.id == "command-missing"
    assert "no-such-program" in error.info.what
    assert target.join().error is not None


def test_a_target_that_refuses() -> None:
    """What the target raises from the header reaches the sender with its class."""
    source, link = pipe_pair()

    def refuse(what: StreamHeader, _part: str) -> list[str]:
        raise Stale("stale", f"the base is not {what.base_guid}")

    target = receive(lambda: link, refuse, QUICK)
    error = send_failure(source, ["cat", "/dev/zero"])
    assert isinstance(error, Stale)
    assert str(2**64 - 1) in error.info.what
    assert isinstance(target.join().error, Stale)


def test_a_sender_that_fails_leaves_no_whole_stream(tmp_path: Path) -> None:
    """A sending program with a bad status: both ends raise, and the receiver never saw a clean end."""
    source, link = pipe_pair()
    script = f"cat > {tmp_path}/copy; echo clean > {tmp_path}/clean"
    target = received_by(link, ["sh", "-c", script])
    error = send_failure(source, ["sh", "-c", "head -c 5000000 /dev/zero; echo no such snapshot >&2; exit 2"])
    assert (error.id, error.info.details) == ("send-failed", ("no such snapshot",))
    failed = target.join().error
    assert failed is not None
    assert (failed.id, failed.info.details) == ("send-failed", ("no such snapshot",))
    assert not (tmp_path / "clean").exists()


def _write_all(fd: int, data: bytes) -> None:
    os.set_blocking(fd, True)
    while data:
        data = data[os.write(fd, data) :]


@pytest.mark.parametrize("spoil", ["byte", "count", "cut", "frame", "huge"])
def test_a_damaged_stream_is_never_committed(tmp_path: Path, spoil: str) -> None:
    """A changed byte, a wrong count, a cut, or rubbish: an error, no clean end, and the last chunk held back."""
    source, link = pipe_pair()
    target = received_by(link, ["sh", "-c", f"cat > {tmp_path}/copy; echo clean > {tmp_path}/clean"])
    data = b"0123456789" * 1000
    digest = hashlib.sha256(data).hexdigest()
    wire = HEAD.pack(HEADER, len(header_bytes(header()))) + header_bytes(header()) + HEAD.pack(b"P", 2) + b'""'
    wire += HEAD.pack(b"D", 6000) + data[:6000]
    rest = data[6000:]
    trailer = f'{{"part":"","bytes":{10_001 if spoil == "count" else 10_000},"sha256":"{digest}"}}'.encode()
    if spoil == "byte":
        rest = b"X" + rest[1:]
    if spoil == "frame":
        wire += HEAD.pack(b"Q", 4000) + rest
    elif spoil == "huge":
        wire += HEAD.pack(b"D", 1 << 30) + rest
    else:
        wire += HEAD.pack(b"D", 4000) + rest
    if spoil != "cut":
        wire += HEAD.pack(b"T", len(trailer)) + trailer
    _write_all(source.write_fd, wire)
    if spoil == "cut":
        source.close()
    failed = target.join().error
    assert failed is not None
    assert failed.id == ("link-lost" if spoil == "cut" else "stream-damaged")
    assert not (tmp_path / "clean").exists()
    copy = tmp_path / "copy"  # not there when the program was ended before it began
    assert not copy.exists() or len(copy.read_bytes()) < len(data)
    source.close()


def test_a_peer_that_says_nothing_is_a_stall_at_the_sender() -> None:
    """A target that takes no bytes and says nothing: `link-stalled` within the limit."""
    source, link = pipe_pair()
    began = time.monotonic()
    error = send_failure(source, ["cat", "/dev/zero"])
    assert error.id == "link-stalled"
    assert time.monotonic() - began < 5
    link.close()


def test_a_peer_that_says_nothing_is_a_stall_at_the_receiver() -> None:
    """A source that stops in mid-stream without closing: `link-stalled` within the limit."""
    source, link = pipe_pair()
    target = received_by(link, ["cat"])
    source.send(HEADER, header_bytes(header()))
    source.send(b"P", b'""')
    source.send(b"D", b"x" * 100)
    failed = target.join().error
    assert failed is not None
    assert failed.id == "link-stalled"
    source.close()


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_program_that_stops_moving(side: str) -> None:
    """A program that hangs at either end: `program-stalled` at both ends, and it is killed."""
    source, link = pipe_pair()
    stuck = ["sh", "-c", "trap '' TERM; sleep 77.25 & wait; wait"]
    target = received_by(link, stuck if side == "target" else ["cat"])
    began = time.monotonic()
    error = send_failure(source, ["cat", "/dev/zero"] if side == "target" else stuck)
    assert error.id == "program-stalled"
    failed = target.join().error
    assert failed is not None
    assert failed.id == "program-stalled"
    assert time.monotonic() - began < 15
    assert not running("77.25")


def test_a_slow_program_is_no_stall() -> None:
    """Programs that take long but keep moving, and a receiver that takes long to finish, are waited for."""
    source, link = pipe_pair()
    limits = pump.Limits(stall_s=1.0, finish_s=10.0)
    target = receive(lambda: link, lambda _h, _p: ["sh", "-c", "cat >/dev/null; sleep 2.5"], limits)
    slow = ["sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.6; done"]
    sent = pump.send_stream(source, header(), [("", slow)], limits=limits)
    assert sent.bytes == 8
    assert target.join().received is not None


def test_a_chatty_receiver_does_not_block() -> None:
    """Megabytes on stderr are drained; the last of it is kept."""
    source, link = pipe_pair()
    script = "cat >/dev/null; head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo the last word >&2"
    target = received_by(link, ["sh", "-c", script])
    sent = pump.send_stream(source, header(), [("", ["echo", "x"])], limits=QUICK)
    assert sent.peer.said[-1] == "the last word"
    assert target.join().received is not None


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_cancel_ends_both_sides(side: str) -> None:
    """Cancelled at either end: both ends end soon, and no program is left."""
    source, link = pipe_pair()
    cancelled = threading.Event()
    target = receive(lambda: link, lambda _h, _p: ["cat"], cancelled=cancelled if side == "target" else None)
    threading.Timer(0.5, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(SnaprepError) as caught:
        pump.send_stream(
            source, header(), [("", ["cat", "/dev/zero", "/dev/null"])],
            cancelled=cancelled if side == "source" else None,
        )  # fmt: skip
    failed = target.join().error
    assert failed is not None
    ends = (caught.value, failed) if side == "source" else (failed, caught.value)
    assert ends[0].id == "cancelled"
    assert ends[1].id in ("cancelled", "link-lost")
    assert time.monotonic() - began < 10


def test_the_rate_limit_can_change_while_a_stream_runs() -> None:
    """A limit is kept within a tenth or so, and a new one takes effect at once."""
    source, link = pipe_pair()
    target = received_by(link, ["sh", "-c", "exec cat >/dev/null"])
    throttle = pump.Throttle(2_000_000)
    seen: list[pump.Moved] = []
    threading.Timer(1.5, lambda: setattr(throttle, "bytes_per_s", None)).start()
    began = time.monotonic()
    argv = ["head", "-c", "60000000", "/dev/zero"]
    pump.send_stream(source, header(), [("", argv)], limits=QUICK, throttle=throttle, on_progress=seen.append)
    took_s = time.monotonic() - began
    at_one_s = max(m.total_bytes for m in seen if m.seconds < 1.4)
    assert 1_500_000 < at_one_s < 4_000_000
    assert 1.4 < took_s < 6
    assert target.join().received is not None


def test_progress_is_told_while_bytes_move() -> None:
    """Progress counts up, with a rate."""
    source, link = pipe_pair()
    target = received_by(link, ["sh", "-c", "exec cat >/dev/null"])
    seen: list[pump.Moved] = []
    argv = ["sh", "-c", "for i in 1 2 3 4 5; do head -c 1000000 /dev/zero; sleep 0.1; done"]
    pump.send_stream(source, header(), [("", argv)], limits=QUICK, on_progress=seen.append)
    totals = [m.total_bytes for m in seen]
    assert len(totals) >= 3
    assert totals == sorted(totals)
    assert any(m.rate_bytes_s > 1_000_000 for m in seen)
    target.join()


def test_nothing_is_left_open() -> None:
    """After streams that went well and badly, no descriptor and no program is left."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for argv in (["echo", "x"], ["false"], ["no-such-program"]):
        source, link = pipe_pair()
        target = received_by(link, ["sh", "-c", "exec cat >/dev/null"])
        try:
            pump.send_stream(source, header(), [("", argv)], limits=QUICK)
        except SnaprepError as error:
            assert error.id in ("send-failed", "command-missing")  # noqa: PT017
        target.join()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_peer_that_is_stopped_for_a_moment_is_waited_for() -> None:
    """A receiver that is stopped for less than the limit goes on where it was."""
    source, link = pipe_pair()
    limits = pump.Limits(stall_s=6.0)
    script = "import os,sys,time\nos.read(0,1)\ntime.sleep(1.5)\nwhile os.read(0,1<<20): pass"
    target = receive(lambda: link, lambda _h, _p: [sys.executable, "-c", script], limits)
    sent = pump.send_stream(source, header(), [("", ["head", "-c", "30000000", "/dev/zero"])], limits=limits)
    assert sent.bytes == 30_000_000
    assert target.join().received is not None


def test_the_sender_dies() -> None:
    """The source's agent is killed: the target raises `link-lost`, and its program sees no clean end."""
    there, back = os.pipe(), os.pipe()
    code = (
        "import sys\nfrom snaprep.agent import pump\nfrom snaprep.agent.link import Link\n"
        "from tests.agent.ways import header\n"
        f"link = Link({back[0]}, {there[1]}, why=lambda: '', on_close=lambda _: None)\n"
        "pump.send_stream(link, header(), [('', ['cat', '/dev/zero', '/dev/random'])])\n"
    )
    sender = subprocess.Popen([sys.executable, "-c", code], pass_fds=(back[0], there[1]), stderr=subprocess.DEVNULL)
    os.close(back[0])
    os.close(there[1])
    link = Link(there[0], back[1], why=lambda: "", on_close=lambda _: None)
    target = receive(lambda: link, lambda _h, _p: ["sh", "-c", "exec cat >/dev/null"])
    time.sleep(1.0)
    assert target.thread.is_alive()
    os.kill(sender.pid, signal.SIGKILL)
    sender.wait(5)
    failed = target.join().error
    assert failed is not None
    assert failed.id == "link-lost"
