"""Sockets seen and cut from outside: with plain processes, and with a startMaster that hangs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snaprep.engines.derby import sockets
from snaprep.engines.derby.client import DerbyClient, SqlError, SqlTimeout
from tests.engines.derby.server import Server

SET = "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY(?, ?)"


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    """A peer that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


def test_listener_is_found_by_port_and_address(peer: socket.socket) -> None:
    """The process that listens is named; a port or an address that nobody serves gives none."""
    port = peer.getsockname()[1]
    assert sockets.listener(port) == sockets.listener(port, "127.0.0.1") == os.getpid()
    assert sockets.listener(port, "127.0.0.2") is None
    assert sockets.listens(port, "127.0.0.1")
    assert not sockets.listens(port, "127.0.0.2")
    peer.close()
    assert sockets.listener(port) is None


def test_addresses_of_both_families_are_read() -> None:
    """IPv6, IPv4 inside IPv6 and sockets bound to every address count for the address asked for."""
    if not Path("/proc/net/tcp6").exists():
        pytest.skip("the kernel has no IPv6")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        port = both.getsockname()[1]
        assert sockets.listener(port, "127.0.0.1") == sockets.listener(port, "::1") == os.getpid()
        with socket.create_connection(("127.0.0.1", port)), both.accept()[0]:
            (found,) = sockets.connections(os.getpid(), local_port=port)
            assert (found.local, found.remote) == ("127.0.0.1", "127.0.0.1")


def test_cut_ends_the_talk_of_another_process_only_where_it_fits(peer: socket.socket) -> None:
    """The other process reads an end at once; connections that do not fit go on, and the process lives."""
    program = (
        "import socket, sys\n"
        "a = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "b = socket.create_connection(('127.0.0.1', int(sys.argv[2])))\n"
        "print(len(a.recv(1)), flush=True)\n"
        "print(b.recv(1), flush=True)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as second:
        ports = peer.getsockname()[1], second.getsockname()[1]
        argv = [sys.executable, "-c", program, *map(str, ports)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
            first_end, second_end = peer.accept()[0], second.accept()[0]
            assert sockets.connected(other.pid, remote_port=ports[0])
            cut = sockets.cut(other.pid, remote_port=ports[0])
            assert [found.remote_port for found in cut] == [ports[0]]
            assert other.stdout is not None
            assert other.stdout.readline() == "0\n"
            second_end.sendall(b"x")
            assert other.stdout.readline() == "b'x'\n"
            assert other.wait(10) == 0
            first_end.close()
            second_end.close()
    assert sockets.connections(other.pid) == ()


def test_cut_wants_to_be_told_what() -> None:
    """No port means no cut, and a process that is gone is an error."""
    with pytest.raises(ValueError, match="never"):
        sockets.cut(os.getpid())
    with subprocess.Popen(["true"]) as gone:
        gone.wait(10)
    with pytest.raises(ProcessLookupError):
        sockets.cut(gone.pid, remote_port=1)


def test_no_delay_reaches_a_listener_and_what_it_accepts(peer: socket.socket) -> None:
    """The option is set in the other process's own sockets, and inherited by connections that it takes later."""
    program = (
        "import socket\n"
        "listening = socket.create_server(('127.0.0.1', 0))\n"
        "print(listening.getsockname()[1], flush=True)\n"
        "taken = listening.accept()[0]\n"
        "print(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert sockets.no_delay(other.pid, remote_port=port) == 0
        assert sockets.no_delay(other.pid, local_port=port) == 1
        with socket.create_connection(("127.0.0.1", port)):
            assert other.stdout.readline() == "1\n"
    with socket.create_connection(peer.getsockname()) as ours, peer.accept()[0]:
        assert sockets.no_delay(os.getpid(), remote_port=peer.getsockname()[1]) == 1
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    with pytest.raises(ValueError, match="never"):
        sockets.no_delay(os.getpid())


@pytest.mark.derby
@pytest.mark.parametrize("user", [None, "nobody"])
def test_a_hanging_start_master_returns_when_it_is_cut(
    new_server: Callable[..., Server], client: DerbyClient, peer: socket.socket, user: str | None
) -> None:
    """Gate closed, peer silent: after the cut startMaster fails at once, the gate opens and a client can write."""
    if user is not None and os.geteuid() != 0:
        pytest.skip("starts a server as another user")
    server = new_server("gated", user=user)
    client.open("a", server.url(attributes=";create=true"), "keeper", "x", 30)
    client.execute("a", "CREATE TABLE app.t (i INT)", deadline_s=10)
    client.execute("a", SET, ["derby.database.fullAccessUsers", "keeper"], deadline_s=5)
    client.execute("a", SET, ["derby.database.defaultConnectionMode", "noAccess"], deadline_s=5)
    with pytest.raises(SqlError):
        client.open("a", server.url(attributes=";shutdown=true"), "keeper", "x", 10)
    port = peer.getsockname()[1]
    attributes = f";startMaster=true;slaveHost=127.0.0.1;slavePort={port}"
    hanging = client.begin_open("master", server.url(attributes=attributes), "keeper", "x")
    peer_end = peer.accept()[0]
    with pytest.raises(SqlTimeout):
        hanging.wait(1.5)
    began = time.monotonic()
    assert len(sockets.cut(server.pid, remote_port=port)) == 1
    with pytest.raises(SqlError) as refused:
        hanging.wait(10)
    assert time.monotonic() - began < 1.5
    assert refused.value.sqlstates == ("XRE04",)
    client.open("a", server.url(), "keeper", "x", 10)
    for key in ("derby.database.defaultConnectionMode", "derby.database.fullAccessUsers"):
        client.execute("a", SET, [key, None], deadline_s=5)
    client.open("user", server.url(), "app", "x", 10)
    client.execute("user", "INSERT INTO t VALUES 1", deadline_s=5)
    assert client.execute("user", "SELECT i FROM t", deadline_s=5).rows == (("1",),)
    peer_end.close()
