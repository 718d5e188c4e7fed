"""The agent over a real sshd: who is let in, and what is said when not."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaprep.core.errors import HostUnreachable
from snaprep.host.reach import Login, reach
from snaprep.host.ssh import SshHost
from tests.host import streamed
from tests.host.sshd import USER, Sshd, free_port, make_key, sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


def start(login: Login) -> SshHost:
    return SshHost(login, entry=streamed.ENTRY, code=streamed.code())


def refusal(login: Login) -> HostUnreachable:
    with pytest.raises(HostUnreachable) as caught:
        start(login).close()
    assert caught.value.info.hint
    assert login.name in caught.value.info.what
    return caught.value


def test_calls_over_ssh(server: Sshd) -> None:
    """An agent starts, answers within milliseconds, and ends with the connection."""
    began = time.monotonic()
    host = start(server.login())
    started_s = time.monotonic() - began
    try:
        pid = host.hello.pid
        times = []
        for number in range(300):
            before = time.monotonic()
            assert host.call("add", {"one": number}, int, deadline_s=5) == number + 1
            times.append(time.monotonic() - before)
        assert started_s < 10
        assert statistics.median(times) < 0.05
        assert host.host_key == server.host_key
        assert host.hello.login_user == USER
    finally:
        host.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not host.alive


def test_a_ten_megabyte_reply_and_a_noisy_agent(server: Sshd) -> None:
    """A large reply and output on stderr do not block each other."""
    host = start(server.login())
    try:
        assert host.call("noisy", {}, str, deadline_s=10) == "fine"
        assert len(host.call("large", {"size_bytes": 10 << 20}, str, deadline_s=60)) == 10 << 20
    finally:
        host.close()


def test_nobody_listens() -> None:
    """A closed port is `host-unreachable`."""
    assert refusal(Login(name="there", address="127.0.0.1", port=free_port(), ssh_config=None)).id == "host-unreachable"


def test_a_silent_server_does_not_hang_us() -> None:
    """A port that accepts and says nothing is `host-unreachable` after the deadline."""
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as silent:
        login = Login(name="there", address="127.0.0.1", port=silent.getsockname()[1], ssh_config=None, deadline_s=1.0)
        began = time.monotonic()
        assert refusal(login).id == "host-unreachable"
        assert time.monotonic() - began < 10


def test_an_unknown_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    """Without an entry in known_hosts nothing is sent."""
    (tmp_path / "none").write_text("")
    login = dataclasses.replace(server.login(), known_hosts=(str(tmp_path / "none"),))
    assert refusal(login).id == "host-key-unknown"


def test_a_changed_host_key_is_refused(server: Sshd, tmp_path: Path) -> None:
    """Another key of the same kind in known_hosts is `host-key-changed`, and so is a revoked one."""
    other = " ".join(make_key(tmp_path / "other").split()[:2])
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {other}\n")
    login = dataclasses.replace(server.login(), known_hosts=(str(tmp_path / "known"),))
    assert refusal(login).id == "host-key-changed"
    (tmp_path / "known").write_text(f"{server.known_hosts.read_text()}@revoked * {server.host_key}\n")
    assert refusal(login).id == "host-key-changed"


def test_a_refused_key(server: Sshd, tmp_path: Path) -> None:
    """A key that the host does not know is `login-refused`."""
    make_key(tmp_path / "stranger")
    login = dataclasses.replace(server.login(), identity_files=(str(tmp_path / "stranger"),))
    assert refusal(login).id == "login-refused"


def test_no_python_there(server: Sshd) -> None:
    """A missing interpreter is named."""
    error = refusal(server.login(python="python3.99"))
    assert error.id == "no-python"
    assert "python3.99" in error.info.what


def test_an_old_python_there(server: Sshd, tmp_path: Path) -> None:
    """A Python that is too old, with no newer one in PATH, is named with its version."""
    old = tmp_path / "python-old"
    # What `python -I -S -c CODE ...` does, as another version.
    old.write_text(
        f"#!{sys.executable} -IS\nimport os, sys\nsys.version_info = (3, 9, 2)\nsys.version = '3.9.2 (old)'\n"
        "os.environ['PATH'] = ''\ncode = sys.argv[4]\nsys.argv = ['-c', *sys.argv[5:]]\nexec(code)\n"
    )
    old.chmod(0o755)
    error = refusal(server.login(python=str(old)))
    assert error.id == "no-python"
    assert "3.9.2" in error.info.what


def test_sudo(server: Sshd) -> None:
    """Where sudo is missing the error is `privilege`; where it is there, root needs no password for it."""
    if shutil.which("sudo") is None:
        assert refusal(server.login(become="sudo")).id == "privilege"
        return
    host = start(server.login(become="sudo"))
    assert host.hello.user == "root"
    host.close()


def test_a_program_that_ends_at_once(server: Sshd) -> None:
    """An agent that never says hello is `agent-died`, with its last words."""
    error = refusal(server.login(python="false"))
    assert error.id == "agent-died"
    with pytest.raises(HostUnreachable) as caught:
        SshHost(server.login(), entry="tests_agent:nothing", code=streamed.code())
    assert caught.value.id == "agent-died"
    assert any("nothing" in line for line in caught.value.info.details)


def test_an_agent_killed_over_ssh(server: Sshd) -> None:
    """kill -9 of the agent ends the call under way with `agent-died`."""
    host = start(server.login())
    call = host.begin("patient", {"bound_s": 60.0}, bool, deadline_s=90)
    os.kill(host.hello.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(HostUnreachable) as caught:
        call.result()
    assert caught.value.id == "agent-died"
    assert time.monotonic() - began < 10
    host.close()


def test_an_operator_who_vanishes(server: Sshd, tmp_path: Path) -> None:
    """When the operator's connection breaks without a word, the agent runs its closing and goes."""
    host = start(server.login())
    host.call("on_close_write", {"path": str(tmp_path / "mark")}, type(None), deadline_s=5)
    host.reached.transport.sock.close()
    until = time.monotonic() + 20
    while not (tmp_path / "mark").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    host.close()


def test_ssh_config_and_jump_hosts(server: Sshd, tmp_path: Path) -> None:
    """HostName, User, Port, IdentityFile, known_hosts, HostKeyAlias, ProxyJump, ProxyCommand and Include hold."""
    with sshd(tmp_path / "jump") as jump:
        known = tmp_path / "known"
        known.write_text(f"aliased {server.host_key}\n{jump.known_hosts.read_text()}{server.known_hosts.read_text()}")
        common = f"  HostName 127.0.0.1\n  User {USER}\n  UserKnownHostsFile {known}\n  IdentitiesOnly yes\n"
        config = tmp_path / "config"
        config.write_text(
            f"Host db\n{common}  Port {server.port}\n  IdentityFile {server.key}\n  HostKeyAlias aliased\n"
            f"Host hop\n{common}  Port {jump.port}\n  IdentityFile {jump.key}\n"
            f"Host behind\n{common}  Port {server.port}\n  IdentityFile {server.key}\n  ProxyJump hop\n"
            f"Host piped\n{common}  Port {server.port}\n  IdentityFile {server.key}\n"
            "  ProxyCommand ssh-proxy-stand-in %h %p\n".replace(
                "ssh-proxy-stand-in", f"{sys.executable} {Path(__file__).with_name('proxy.py')}"
            )
        )
        outer = tmp_path / "outer"
        outer.write_text(f"Include {tmp_path}/conf*\nHost *\n  User nobody-at-all\n")
        for alias in ("db", "behind", "piped"):
            host = start(Login(name=alias, address=alias, ssh_config=str(outer)))
            try:
                assert host.call("add", {"one": 1}, int, deadline_s=5) == 2, alias
            finally:
                host.close()


def test_the_control_plane_prefers_gcm(server: Sshd) -> None:
    """AES-GCM is negotiated, and paramiko does not start a re-key by itself."""
    reached = reach(server.login())
    try:
        assert "gcm" in reached.transport.remote_cipher  # type: ignore[attr-defined]
        assert reached.transport.packetizer.REKEY_BYTES == 1 << 40
    finally:
        reached.close()


def test_paramiko_is_imported_only_when_needed() -> None:
    """Loading the package does not pay for paramiko."""
    code = "import sys, snaprep.host.ssh; sys.exit('paramiko' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
