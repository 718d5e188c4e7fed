"""A verified and authenticated SSH connection, by paramiko, as `~/.ssh/config` says.

HostName, User, Port, IdentityFile, IdentitiesOnly, ProxyJump, ProxyCommand, HostKeyAlias, UserKnownHostsFile and
Include are honoured. What paramiko does not know (`Match exec`, `@cert-authority` lines, hardware keys) is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import shlex
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snaprep.agent.process import patient_s
from snaprep.core.errors import HostUnreachable, UsageError

if TYPE_CHECKING:
    import paramiko

_KEEPALIVE_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to get onto a host. What is None comes from ssh's configuration, then from ssh's defaults."""

    name: str  # for people
    address: str  # a name, an address, or an alias in ssh_config
    user: str | None = None
    port: int | None = None
    identity_files: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()  # instead of the user's and the system's
    ssh_config: str | None = "~/.ssh/config"
    become: str = ""  # "" or "sudo"
    python: str = "python3"
    deadline_s: float = field(default_factory=lambda: patient_s(15.0))  # for each of: connect, banner, authentication

    @property
    def user_name(self) -> str:
        return self.user or "the login user"


@dataclass(slots=True)
class Reached:
    """An open connection, and what it stands on (jump hosts, a proxy program)."""

    client: paramiko.SSHClient
    transport: paramiko.Transport
    host_key: str
    stands_on: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def close(self) -> None:
        self.client.close()
        self.stands_on.close()


@dataclass(frozen=True, slots=True)
class _Settings:
    hostname: str
    user: str
    port: int
    identity_files: tuple[str, ...]
    identities_only: bool
    key_name: str  # the name under which known_hosts lists the server
    known_hosts: tuple[str, ...]
    proxy_jump: tuple[str, ...]
    proxy_command: str | None


def reach(login: Login) -> Reached:
    """Connect, verify the host key, authenticate. Raises HostUnreachable with the ids listed in `base`."""
    import paramiko  # noqa: PLC0415 (300 ms; `--help` does without)
    import paramiko.packet  # noqa: PLC0415

    # After 2**29 bytes paramiko starts a re-key that can dead-lock with the peer's next message (paramiko issue
    # 822), so the server decides when to re-key. Calls are far from that size; nothing large travels here.
    paramiko.packet.Packetizer.REKEY_BYTES = 1 << 40
    return _reach(login, _settings(login), depth=0)


def _settings(login: Login) -> _Settings:
    import paramiko  # noqa: PLC0415

    found: dict[str, Any] = {}
    path = Path(login.ssh_config).expanduser() if login.ssh_config else None
    if path is not None and path.exists():
        try:
            found = dict(paramiko.SSHConfig.from_text(_included(path)).lookup(login.address))
        except (paramiko.SSHException, OSError, ValueError) as error:
            hint = "ssh -G shows what ssh makes of it"
            raise UsageError("ssh-config", f"{path} cannot be read: {error}", hint=hint) from error
    hostname = str(found.get("hostname", login.address))
    port = login.port or int(found.get("port", 22))
    default_known = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
    known = login.known_hosts or tuple(shlex.split(found.get("userknownhostsfile", ""))) or default_known
    jump = str(found.get("proxyjump", "none"))
    command = found.get("proxycommand")
    return _Settings(
        hostname=hostname,
        user=login.user or str(found.get("user") or os.environ.get("LOGNAME") or _own_name()),
        port=port,
        identity_files=login.identity_files or tuple(found.get("identityfile", ())),
        identities_only=bool(login.identity_files) or found.get("identitiesonly", "no").lower() == "yes",
        key_name=str(found.get("hostkeyalias") or (hostname if port == 22 else f"[{hostname}]:{port}")),
        known_hosts=tuple(os.path.expanduser(f) for f in known),  # noqa: PTH111 (may be no path: "none")
        proxy_jump=() if jump.lower() == "none" else tuple(j.strip() for j in jump.split(",")),
        proxy_command=None if command is None or str(command).lower() == "none" else str(command),
    )


def _included(path: Path, depth: int = 0) -> str:
    """The file with its `Include` lines replaced by what they name, which paramiko leaves out without a word."""
    if depth > 16:
        raise ValueError("Include leads in a circle")
    lines = []
    for line in path.read_text("utf-8", "surrogateescape").splitlines():
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() != "include":
            lines.append(line)
            continue
        for pattern in shlex.split(rest):
            full = Path("~/.ssh").expanduser() / Path(pattern).expanduser()
            lines += [_included(Path(found), depth + 1) for found in sorted(glob.glob(str(full)))]  # noqa: PTH207
    return "\n".join(lines)


def _own_name() -> str:
    import pwd  # noqa: PLC0415

    return pwd.getpwuid(os.getuid()).pw_name


def _reach(login: Login, settings: _Settings, depth: int) -> Reached:
    import paramiko  # noqa: PLC0415

    if depth > 8:
        what = f"ProxyJump of {login.address} leads in a circle"
        raise UsageError("ssh-config", what, hint="ssh -G shows what ssh makes of it")
    client = paramiko.SSHClient()
    _load_known_hosts(client.get_host_keys(), settings)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    stands_on = contextlib.ExitStack()
    stands_on.callback(client.close)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(stands_on.close)
        sock = _way(login, settings, stands_on, depth)
        transport = _connect(client, login, settings, sock)
        on_failure.pop_all()
    key = transport.get_remote_server_key()
    transport.set_keepalive(_KEEPALIVE_S)
    return Reached(client, transport, f"{key.get_name()} {key.get_base64()}", stands_on)


def _load_known_hosts(into: paramiko.HostKeys, settings: _Settings) -> None:
    """Line by line: paramiko's own loader fails as a whole on a marker (`@revoked`) or a key it cannot parse."""
    import paramiko.hostkeys  # noqa: PLC0415

    for file in settings.known_hosts:
        with contextlib.suppress(FileNotFoundError, PermissionError), Path(file).open(encoding="utf-8") as lines:
            for line in map(str.strip, lines):
                if line and line[0] not in "#@":
                    with contextlib.suppress(paramiko.hostkeys.InvalidHostKey, paramiko.SSHException, ValueError):
                        entry = paramiko.hostkeys.HostKeyEntry.from_line(" ".join(line.split()[:3]))
                        if entry is not None and entry.key is not None:
                            for name in entry.hostnames or ():
                                into.add(name, entry.key.get_name(), entry.key)


def _way(login: Login, settings: _Settings, stands_on: contextlib.ExitStack, depth: int) -> Any:  # noqa: ANN401
    """The socket to speak SSH over: straight, through jump hosts, or through a program."""
    if settings.proxy_jump:
        *before, last = settings.proxy_jump
        jump = _jump_login(login, last)
        jump_settings = _settings(jump)
        if before:
            jump_settings = dataclasses.replace(jump_settings, proxy_jump=tuple(before))
        reached = _reach(jump, jump_settings, depth + 1)
        stands_on.callback(reached.close)
        return _through(login, settings, reached)
    if settings.proxy_command:
        return _program(settings, stands_on)
    try:
        return socket.create_connection((settings.hostname, settings.port), login.deadline_s)
    except OSError as error:
        raise _unreachable(login, settings, error) from error


def _through(login: Login, settings: _Settings, reached: Reached) -> paramiko.Channel:
    import paramiko  # noqa: PLC0415

    try:
        return reached.transport.open_channel(
            "direct-tcpip", (settings.hostname, settings.port), ("127.0.0.1", 0), timeout=login.deadline_s
        )
    except (paramiko.SSHException, OSError) as error:
        raise _unreachable(login, settings, error) from error


def _jump_login(login: Login, jump: str) -> Login:
    """The login for one element of ProxyJump: [user@]host[:port], or ssh://..."""
    jump = jump.removeprefix("ssh://")
    user, _, rest = jump.rpartition("@")
    host, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    return Login(
        name=f"{rest} (jump host of {login.name})",
        address=(host if colon else rest).strip("[]"),
        user=user or None,
        port=int(port) if colon else None,
        known_hosts=login.known_hosts,
        ssh_config=login.ssh_config,
        identity_files=login.identity_files,
        deadline_s=login.deadline_s,
    )


def _program(settings: _Settings, stands_on: contextlib.ExitStack) -> socket.socket:
    """A ProxyCommand, with one end of a socket pair as its stdin and stdout.

    Not paramiko.ProxyCommand: it has no timeouts on writing and leaves the program behind.
    """
    assert settings.proxy_command is not None
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {settings.proxy_command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.terminate()
        try:
            process.wait(3.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(3.0)

    stands_on.callback(end)
    return ours


def _connect(client: paramiko.SSHClient, login: Login, settings: _Settings, sock: Any) -> paramiko.Transport:  # noqa: ANN401
    import paramiko  # noqa: PLC0415

    known = client.get_host_keys()
    _alias_keys(known, settings)
    keys = [str(p) for f in settings.identity_files if (p := Path(f).expanduser()).exists()]
    try:
        client.connect(
            settings.hostname,
            port=settings.port,
            username=settings.user,
            key_filename=keys,  # type: ignore[arg-type]  # a list is taken too
            look_for_keys=not settings.identities_only,
            allow_agent=True,
            sock=sock,
            timeout=login.deadline_s,
            banner_timeout=login.deadline_s,
            auth_timeout=login.deadline_s,
            channel_timeout=login.deadline_s,
            transport_factory=_transport,
        )
    except paramiko.BadHostKeyException as error:
        raise HostUnreachable(
            "host-key-changed",
            f"{login.name} ({settings.key_name}) shows another host key than known_hosts: {_fingerprint(error.key)}",
            hint=f"if the host was really reinstalled: ssh-keygen -R '{settings.key_name}', then connect once by hand",
        ) from error
    except paramiko.AuthenticationException as error:
        raise HostUnreachable(
            "login-refused",
            f"{login.name} refuses {settings.user}: {error}",
            hint=f"make this work: ssh -p {settings.port} {settings.user}@{settings.hostname} true; "
            "a key with a passphrase must be in ssh-agent",
        ) from error
    except paramiko.SSHException as error:
        if "not found in known_hosts" in str(error):
            raise HostUnreachable(
                "host-key-unknown",
                f"the host key of {login.name} ({settings.key_name}) is not in known_hosts",
                hint="connect once by hand and compare the fingerprint: "
                f"ssh -p {settings.port} {settings.user}@{settings.hostname}",
            ) from error
        raise _unreachable(login, settings, error) from error
    except (OSError, EOFError) as error:
        raise _unreachable(login, settings, error) from error
    transport = client.get_transport()
    if transport is None:
        raise _unreachable(login, settings, EOFError("the connection closed"))
    _refuse_revoked(login, settings, transport.get_remote_server_key())
    return transport


def _alias_keys(known: paramiko.HostKeys, settings: _Settings) -> None:
    """SSHClient looks its server up as `host` or `[host]:port`; ssh uses HostKeyAlias where one is set."""
    looked_up = settings.hostname if settings.port == 22 else f"[{settings.hostname}]:{settings.port}"
    if settings.key_name != looked_up:
        for kind, key in (known.lookup(settings.key_name) or {}).items():
            known.add(looked_up, kind, key)


def _transport(sock: Any, **options: Any) -> paramiko.Transport:  # noqa: ANN401
    import paramiko  # noqa: PLC0415

    transport = paramiko.Transport(sock, **options)
    security = transport.get_security_options()
    # paramiko's own order starts with aes128-ctr and a separate MAC: half the speed.
    security.ciphers = sorted(security.ciphers, key=lambda cipher: "gcm" not in cipher)
    return transport


def _refuse_revoked(login: Login, settings: _Settings, key: paramiko.PKey) -> None:
    """paramiko skips `@revoked` lines. A revoked key is refused whatever host the line names."""
    for file in settings.known_hosts:
        with contextlib.suppress(FileNotFoundError, PermissionError), Path(file).open(encoding="utf-8") as lines:
            if any(line.startswith("@revoked") and key.get_base64() in line.split() for line in lines):
                raise HostUnreachable(
                    "host-key-changed",
                    f"{login.name} shows a host key that {file} marks as revoked: {_fingerprint(key)}",
                    hint="do not connect; ask whoever revoked it",
                )


def _fingerprint(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _unreachable(login: Login, settings: _Settings, error: BaseException) -> HostUnreachable:
    said = str(error) or type(error).__name__
    return HostUnreachable(
        "host-unreachable",
        f"{login.name} ({settings.hostname} port {settings.port}) cannot be reached: {said}",
        hint=f"make this work: ssh -p {settings.port} {settings.user}@{settings.hostname} true",
    )
