"""Streams over a real sshd with a one-run key: what holds, what breaks, and what is refused."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from snaprep.agent import keys, pump
from snaprep.agent.link import Dialer, Link, Listener, StreamHeader
from snaprep.agent.pipe import ALIVE, HEAD, clean_run, runs_here
from snaprep.agent.relay import AGENT_GONE, relay_argv
from snaprep.core.errors import SnaprepError
from snaprep.host.link import Joint
from tests.agent.ways import Laid, Target, folders, header, laid, receive
from tests.host.sshd import USER, Sshd, make_key, sshd

COUNT = ["sh", "-c", "exec cat >/dev/null"]
ENDLESS = ["cat", "/dev/zero"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("link") / "server") as server:
        yield server


def receiving(way: Laid, stream: str = "s1", limits: pump.Limits | None = None) -> Target:
    return receive(lambda: way.listener.take(stream, deadline_s=20), lambda _h, _p: COUNT, limits)


def send(link: Link, stream: str = "s1", *, count: int = 1_000_000, run: str = "run-1") -> pump.Sent:
    return pump.send_stream(link, header(stream, run), [("", ["head", "-c", str(count), "/dev/zero"])])


def failing_send(link: Link, limits: pump.Limits | None = None, argv: Sequence[str] = tuple(ENDLESS)) -> SnaprepError:
    with pytest.raises(SnaprepError) as caught:
        pump.send_stream(link, header(), [("", list(argv))], limits=limits or pump.Limits())
    return caught.value


def read_of(path: Path) -> bytes:
    """What a file of /proc says; nothing when its process, or its thread, has just ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return path.read_bytes()
    return b""


def children(pid: int) -> list[int]:
    """Of all its threads."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in read_of(path).split()]


def relay_pid(server: Sshd) -> int:
    """The newest relay under this sshd."""
    todo, relays = [server.process.pid], []
    while todo:
        pid = todo.pop()
        if b"SCM_RIGHTS" in read_of(Path(f"/proc/{pid}/cmdline")):
            relays.append(pid)
        todo += children(pid)
    return max(relays)


def ssh_pid(folder: Path) -> int:
    """The ssh that this process started with a run's key."""
    key = f"{folder}/key".encode()
    return max(pid for pid in children(os.getpid()) if key in read_of(Path(f"/proc/{pid}/cmdline")))


def test_streams_one_after_another_over_connections_opened_ahead(server: Sshd) -> None:
    """A connection that is prepared or kept is taken within milliseconds, and nothing is left behind."""
    before = server.authorized_keys.read_bytes()
    with laid(server) as way:
        way.dialer.prepare()
        way.dialer.take().close()
        times = []
        for number in range(4):
            way.dialer.prepare()
            target = receiving(way, f"s{number}")
            time.sleep(0.6)  # the time in which a round would run
            began = time.monotonic()
            link = way.dialer.take()
            times.append(time.monotonic() - began)
            assert send(link, f"s{number}").peer.bytes == 1_000_000
            received = target.join().received
            assert received is not None
            assert received.bytes == 1_000_000
        assert sorted(times)[1] < 0.05
    assert server.authorized_keys.read_bytes() == before
    assert folders("run-1") == []


def test_a_connection_is_kept_for_the_next_stream(server: Sshd) -> None:
    """Streams that follow each other share one ssh, also when the sender last said that it was alive; after one that
    failed, or when the ssh was killed meanwhile, another is opened.
    """
    with laid(server) as way:

        def through(stream: str) -> int:
            target = receiving(way, stream)
            link = way.dialer.take()
            assert send(link, stream).peer.bytes == 1_000_000
            assert target.join().error is None
            os.write(link.write_fd, HEAD.pack(ALIVE, 0))
            return ssh_pid(way.dialer.folder)

        first = through("s1")
        assert through("s2") == first
        target = receiving(way)
        assert failing_send(way.dialer.take(), argv=["false"]).id == "send-failed"
        assert target.join().error is not None
        second = through("s4")
        assert second != first
        os.kill(second, signal.SIGKILL)
        os.waitid(os.P_PID, second, os.WEXITED | os.WNOWAIT)
        assert through("s5") != second
    assert folders("run-1") == []


def test_two_runs_at_the_same_time(server: Sshd) -> None:
    """Runs do not see each other's streams, and each takes only its own key away."""
    before = server.authorized_keys.read_bytes()
    with laid(server, "run-1") as one:
        with laid(server, "run-2") as two:
            targets = [receiving(one), receiving(two)]
            sent = [send(one.dialer.take()), send(two.dialer.take(), run="run-2", count=2_000_000)]
            assert [s.peer.bytes for s in sent] == [1_000_000, 2_000_000]
            assert all(t.join().error is None for t in targets)
        assert b"snaprep:run-1" in server.authorized_keys.read_bytes()
    assert server.authorized_keys.read_bytes() == before


def test_two_streams_of_one_run_find_their_receivers(server: Sshd) -> None:
    """Streams that run side by side are told apart by their id, whichever connection came first."""
    with laid(server) as way:
        targets = {name: receiving(way, name) for name in ("a", "b")}
        links = [way.dialer.take(), way.dialer.take()]
        assert send(links[1], "a", count=11).peer.bytes == 11
        assert send(links[0], "b", count=22).peer.bytes == 22
        received = {name: target.join().received for name, target in targets.items()}
        assert {name: r.bytes for name, r in received.items() if r} == {"a": 11, "b": 22}


def test_a_prepared_connection_that_died_is_replaced(server: Sshd) -> None:
    """The ssh that was opened ahead is killed: `take` opens another, and the stream goes through."""
    with laid(server) as way:
        way.dialer.prepare()
        assert way.dialer._ahead is not None
        way.dialer._ahead.result(20)
        ssh = ssh_pid(way.dialer.folder)
        os.kill(ssh, signal.SIGKILL)
        os.waitid(os.P_PID, ssh, os.WEXITED | os.WNOWAIT)  # only then are its pipes closed
        target = receiving(way)
        assert send(way.dialer.take()).peer.bytes == 1_000_000
        assert target.join().error is None


def broken_by(
    server: Sshd, kill: Callable[[Laid], None], limits: pump.Limits | None = None
) -> tuple[Target, SnaprepError]:
    with laid(server) as way:
        target = receiving(way, limits=limits)
        link = way.dialer.take()
        timer = threading.Timer(0.5, kill, args=(way,))
        timer.start()
        began = time.monotonic()
        error = failing_send(link, limits)
        target.join()
        timer.join()
        assert time.monotonic() - began < 20
    return target, error


def test_a_killed_ssh(server: Sshd) -> None:
    """The source's ssh dies in mid-stream: `link-lost` on both sides."""
    target, error = broken_by(server, lambda way: os.kill(ssh_pid(way.dialer.folder), signal.SIGKILL))
    assert error.id == "link-lost"
    assert target.error is not None
    assert target.error.id == "link-lost"


def test_a_killed_relay(server: Sshd) -> None:
    """The relay dies in mid-stream: `link-lost` at the source, and no hang at the target."""
    target, error = broken_by(server, lambda _: os.kill(relay_pid(server), signal.SIGKILL))
    assert error.id == "link-lost"
    assert target.error is not None
    assert target.error.id == "link-lost"


def test_a_killed_sshd(server: Sshd) -> None:
    """The target's sshd session dies in mid-stream: `link-lost` on both sides, with ssh's words at the source."""

    def kill(_: Laid) -> None:
        parent = int(Path(f"/proc/{relay_pid(server)}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)

    target, error = broken_by(server, kill)
    assert error.id == "link-lost"
    assert ";" in error.info.what
    assert target.error is not None


def test_a_stopped_peer(server: Sshd) -> None:
    """The target's sshd session is stopped: both sides end with `link-stalled`, and nobody waits for ever."""
    stopped: list[int] = []

    def stop(_: Laid) -> None:
        parent = int(Path(f"/proc/{relay_pid(server)}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGSTOP)
        stopped.append(parent)

    try:
        target, error = broken_by(server, stop, pump.Limits(stall_s=2.0))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
    assert error.id == "link-stalled"
    assert target.error is not None
    assert target.error.id == "link-stalled"


def test_the_receiving_agent_is_killed(server: Sshd, tmp_path: Path) -> None:
    """kill -9 of the agent that receives: the source sees the link end, not a hang."""
    code = (
        "import sys, time\nfrom snaprep.agent import pump\nfrom snaprep.agent.link import Listener\n"
        f"l = Listener('run-9', {USER!r}, greets=True)\nprint(l.command[-1], flush=True)\n"
        "pump.receive_stream(l.take('s1', deadline_s=20), lambda h, p: ['sh', '-c', 'exec cat >/dev/null'])\n"
    )
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    dialer = Dialer("run-9")
    try:
        assert agent.stdout is not None
        command = relay_argv(agent.stdout.readline().strip())
        line = keys.authorized_line(dialer.public_key, "run-9", command, lifetime_s=600)
        authorized = keys.authorize(line, "run-9", USER, str(server.authorized_keys))
        dialer.aim(server.way())
        link = dialer.take()
        threading.Timer(0.5, agent.kill).start()
        assert failing_send(link).id == "link-lost"
        with pytest.raises(SnaprepError) as caught:  # and nobody is there any more
            dialer.take()
        assert caught.value.id == "link-lost"
        keys.withdraw(authorized)
    finally:
        agent.kill()
        agent.wait(5)
        assert agent.stdout is not None
        agent.stdout.close()
        dialer.close()
        assert runs_here()["run-9"] is False
        clean_run("run-9")
        assert "run-9" not in runs_here()


def test_another_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    """The source sees another host key than the operator verified: `link-host-key`, and no byte is sent."""
    other = " ".join(make_key(tmp_path / "other").split()[:2])
    with laid(server, host_key=other) as way, pytest.raises(SnaprepError) as caught:
        way.dialer.take()
    assert caught.value.id == "link-host-key"


def test_an_expired_key_is_refused(server: Sshd) -> None:
    """A key past its expiry, by the target's clock, does not get in."""
    with laid(server, lifetime_s=-60) as way, pytest.raises(SnaprepError) as caught:
        way.dialer.take()
    assert caught.value.id == "link-refused"
    assert caught.value.info.hint


def test_a_withdrawn_key_is_refused(server: Sshd) -> None:
    """After the run its key is worth nothing."""
    with laid(server) as way:
        keys.clean(USER, frozenset({"run-1"}), str(server.authorized_keys))
        with pytest.raises(SnaprepError) as caught:
            way.dialer.take()
    assert caught.value.id == "link-refused"


def test_nobody_at_the_address(server: Sshd) -> None:
    """An unreachable target is `link-lost` with ssh's words, soon."""
    with laid(server) as way:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        way.dialer.aim(replace(server.way(), port=port))
        with pytest.raises(SnaprepError) as caught:
            way.dialer.take()
    assert caught.value.id == "link-lost"
    assert "refused" in caught.value.info.what


def one_run_ssh(way: Laid, *options: str, command: str = "") -> subprocess.CompletedProcess[str]:
    argv = way.dialer.argv()
    at = argv.index("--")
    argv = [*argv[:at], *options, *argv[at:], *([command] if command else [])]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)


def test_the_key_runs_nothing_else(server: Sshd, tmp_path: Path) -> None:
    """Another command, a terminal, or a subsystem all end in the relay."""
    with laid(server) as way:
        mark = tmp_path / "mark"
        done = one_run_ssh(way, command=f"touch {mark}")
        assert not mark.exists()
        assert done.stdout.startswith("G")
        assert "PTY allocation request failed" in one_run_ssh(way, "-tt", "-oLogLevel=INFO").stderr


@pytest.mark.parametrize("kind", ["remote", "remote-socket", "local", "dynamic-remote", "agent"])
def test_the_key_forwards_nothing(server: Sshd, tmp_path: Path, kind: str) -> None:
    """Neither remote nor local forwarding, nor sockets, nor an ssh-agent gets through the one-run key."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    option = {
        "remote": f"-R127.0.0.1:{port}:127.0.0.1:1",
        "remote-socket": f"-R{tmp_path}/socket:127.0.0.1:1",
        "dynamic-remote": f"-R{port}",
        "local": f"-W127.0.0.1:{server.port}",
        "agent": "-A",
    }[kind]
    with laid(server) as way:
        argv = way.dialer.argv()
        argv[1:1] = ["-v", "-oExitOnForwardFailure=yes", option]
        argv[argv.index("-oLogLevel=ERROR")] = "-oLogLevel=DEBUG1"
        running = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            if kind == "agent":
                relay = None
                until = time.monotonic() + 10
                while relay is None and time.monotonic() < until:
                    try:
                        relay = relay_pid(server)
                    except (ValueError, FileNotFoundError):
                        time.sleep(0.05)
                assert relay is not None
                assert b"SSH_AUTH_SOCK" not in Path(f"/proc/{relay}/environ").read_bytes()
            else:
                assert running.wait(20) != 0
                assert running.stderr is not None
                said = running.stderr.read().decode()
                assert "prohibited" in said or "forwarding failed" in said or "request failed" in said
                assert not (tmp_path / "socket").exists()
        finally:
            running.kill()
            running.communicate(timeout=10)


def test_a_relay_without_an_agent_says_so(tmp_path: Path) -> None:
    """Nobody on the socket: a status and a sentence of its own."""
    done = subprocess.run(relay_argv(str(tmp_path / "none")), capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == AGENT_GONE
    assert "nobody listens for this run" in done.stderr


def as_nobody(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, user=65534, group=65534, extra_groups=[], capture_output=True, timeout=10, check=False)


def test_a_stranger_may_not_bring_descriptors() -> None:
    """The socket's folder is private, and another user's connection is dropped even if it gets there."""
    listener = Listener("run-1", USER, greets=True)
    try:
        assert listener.folder.stat().st_mode & 0o777 == 0o700
        path = Path(listener.command[-1])
        argv = ["/usr/bin/python3", *relay_argv(str(path))[1:]]  # one that anybody may run
        assert as_nobody(argv).returncode == AGENT_GONE
        for folder in (listener.folder, path):
            folder.chmod(0o777)
        done = as_nobody(argv)
        assert done.returncode != 0
        assert done.stdout == b""
        listener.folder.chmod(0o700)
    finally:
        listener.close()
    assert folders("run-1") == []


def test_through_the_operator(server: Sshd, tmp_path: Path) -> None:
    """`relay`: two ssh of the operator, joined; the agents see links as always, and losing one side ends both."""
    with sshd(tmp_path / "other") as other:
        source, target = Listener("run-1", USER, greets=False), Listener("run-1", USER, greets=True)
        joints = []
        try:
            for stream in ("a", "b"):
                joint = Joint(other.login("source"), source.command, server.login("target"), target.command)
                joints.append(joint)
                got = receive(lambda s=stream: target.take(s, deadline_s=20), lambda _h, _p: COUNT)  # type: ignore[misc]
                assert send(source.take(None, deadline_s=20), stream, count=30_000_000).peer.bytes == 30_000_000
                assert got.join().error is None
            joint = Joint(other.login("source"), source.command, server.login("target"), target.command)
            joints.append(joint)
            got = receive(lambda: target.take("s1", deadline_s=20), lambda _h, _p: COUNT)
            link = source.take(None, deadline_s=20)
            threading.Timer(0.5, lambda: os.kill(relay_pid(server), signal.SIGKILL)).start()
            assert failing_send(link).id == "link-lost"
            failed = got.join().error
            assert failed is not None
            assert failed.id == "link-lost"
        finally:
            for joint in joints:
                joint.close()
            source.close()
            target.close()
    assert folders("run-1") == []


def test_a_header_reaches_the_target_unchanged(server: Sshd) -> None:
    """The target can check the 64-bit GUIDs of what is about to come."""
    seen: list[StreamHeader] = []

    def opener(what: StreamHeader, _part: str) -> list[str]:
        seen.append(what)
        return COUNT

    with laid(server) as way:
        target = receive(lambda: way.listener.take("s1", deadline_s=20), opener)
        send(way.dialer.take())
        target.join()
    assert seen == [header()]
