"""What of a Derby server and its database could stop a run, or make a replica that is not one. Changes nothing.

A closed database is not opened to be looked at: opening it writes. What only an open one tells is then said to be
unproven.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from snaprep.agent import process
from snaprep.core.errors import CheckFailed, SnaprepError
from snaprep.core.model import OPEN_STATES, REPLICA_STATES, EngineFacts, EngineState, Finding
from snaprep.core.spec import DerbySpec
from snaprep.engines.derby import files, gate, server, sockets
from snaprep.engines.derby.client import DerbyClient, SqlError
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.server import RunningServer
from snaprep.engines.derby.session import Session
from snaprep.engines.derby.state import State

_BUFFER_ADVICE_BYTES = 1 << 20
_BUFFER_DEFAULT_BYTES = 32_768
_BUFFERS = 10
_CALL_S = 10.0
_OWNER = "SELECT AUTHORIZATIONID FROM SYS.SYSSCHEMAS WHERE SCHEMANAME = 'SYSIBM'"
_ACCESS = "VALUES SYSCS_UTIL.SYSCS_GET_USER_ACCESS(CURRENT_USER)"
_BLINDING = ("no-java", "no-derby-client", "encrypted", "log-device", "database-damaged")  # nothing more can be asked
_NOT_ALLOWED = ("42504", "42502", "4251D")  # may not call, may not read, is not the owner
_SECRET = "(not shown)"  # noqa: S105 (stands for one)


def findings(state: State, *, as_target: bool) -> list[Finding]:
    """A finding for each thing looked at."""
    session = state.session
    spec, directory = session.spec, session.directory
    found = list(_client(spec))
    up = server.running(spec.port)
    found += _server(spec, up)
    if (directory / "service.properties").is_file():
        found += _database(directory)
    if any(f.level == "fail" and f.id in _BLINDING for f in found):
        return found
    try:
        facts = state.facts()
    except SnaprepError as error:
        return [*found, Finding(error.id, "fail", error.info.what, error.info.hint)]
    if up is not None:
        found += _shared(up, directory)
        found += _settings(up, directory, as_target=as_target)
        found += _owner(up, directory, facts)
    found += _session(session, facts, up, as_target=as_target)
    found += _replication(spec, facts, up, as_target=as_target)
    return found


def traits(spec: DerbySpec) -> dict[str, str]:
    """What should be equal on both hosts, by name. Secrets are left out."""
    up = server.running(spec.port)
    if up is None:
        return {}
    told = {f"property {key}": _shown(key, value) for key, value in up.properties.items() if key != "derby.system.home"}
    seen = {"Derby": up.version, "Java": up.java, "server": "network" if _outward(spec.port) else "loopback"}
    return {**{key: value for key, value in seen.items() if value}, **told}


# -- programs and the server -----------------------------------------------------------------------------------------


def _client(spec: DerbySpec) -> Iterator[Finding]:
    """What our own client needs."""
    try:
        said = process.run([spec.java, "-version"], deadline_s=30)
    except process.CommandMissing:
        yield Finding("no-java", "fail", f"there is no {spec.java} on this host", "install a JRE, or set derby.java")
        return
    except process.CommandFailed as error:
        yield Finding("no-java", "fail", f"{spec.java} does not run: {error}", "set derby.java to one that does")
        return
    first = next(iter((said.stderr + said.text).splitlines()), "")
    yield Finding("java", "ok", f"our client runs on {first}")
    try:
        jars = files.classpath(spec.classpath)
    except FileNotFoundError as error:
        yield Finding("no-derby-client", "fail", str(error), "install Derby's client, or set derby.classpath")
    else:
        yield Finding("derby-client", "ok", f"Derby's client is {', '.join(jars)}")


def _server(spec: DerbySpec, up: RunningServer | None) -> Iterator[Finding]:
    if up is None and sockets.listens(spec.port):
        what = f"somebody listens on port {spec.port} whose process this user may not see"
        yield Finding("server-unseen", "warn", what, "as root, check reads the server's own settings")
        return
    if up is None:
        yield Finding("engine-down", "fail", f"no server listens on port {spec.port}", "start the Derby server")
        return
    if not up.version:
        what = (
            f"process {up.pid} ({up.user or 'of another user'}) listens on port {spec.port} and has no derby.jar open"
        )
        yield Finding("server-unknown", "warn", what, "is that the Derby server? replication needs equal versions")
    else:
        java = f" on Java {up.java}" if up.java else ""
        what = f"Derby {up.version}{java} serves on port {spec.port} as {up.user}, pid {up.pid}"
        yield Finding("server", "ok", what)
    yield from _restart(spec)


def _shared(up: RunningServer, directory: Path) -> Iterator[Finding]:
    others = sorted(files.booted_by(up.pid) - {str(directory.resolve())})
    if others:
        what = (
            f"the server has {', '.join(others)} open as well: nothing shows whose a session is, so none is ended first"
        )
        hint = "give the database a server of its own: a shutdown that meets work may hang it"
        yield Finding("server-shared", "warn", what, hint)


def _restart(spec: DerbySpec) -> Iterator[Finding]:
    if not spec.restart_command:
        hint = 'set derby.restart_command, as in ["systemctl", "restart", "derby"]'
        yield Finding("no-restart-command", "warn", "a server that has wedged has to be restarted by hand", hint)
        return
    program = spec.restart_command[0]
    if not any(Path(folder, program).is_file() for folder in process.environment()["PATH"].split(":")):
        yield Finding("restart-command", "warn", f"restart_command names {program}, which is not there")
    else:
        yield Finding("restart-command", "ok", f"a wedged server is restarted by {' '.join(spec.restart_command)}")


def _settings(up: RunningServer, directory: Path, *, as_target: bool) -> Iterator[Finding]:
    """System-wide properties of the running server that break a promise of ours, or cost something."""
    if not up.seen:
        yield Finding("server-unseen", "warn", "this user may not read the server's settings", "run check as root")
        return
    if (up.system("derby.system.durability") or "").lower() == "test":
        yield Finding(
            "durability-test",
            "fail",
            "the server runs with derby.system.durability=test: it acknowledges commits that are not on disk",
            "remove it and restart; a snapshot of such a database cannot be recovered",
        )
    yield from _buffer(up)
    if (up.system("derby.system.bootAll") or "").lower() == "true" and directory.is_relative_to(up.home):
        what = f"derby.system.bootAll opens every database below {up.home} when the server starts, this one too"
        hint = "remove it: a copy must not be opened before its role is known"
        yield Finding("boots-by-itself", "fail" if as_target else "warn", what, hint)
    for key in ("derby.user.", "derby.connection.requireAuthentication"):
        if any(name.startswith(key) for name in up.properties):
            what = f"users or authentication stand in {up.home}/derby.properties or in the server's options"
            yield Finding("system-wide-users", "ok", f"{what}: they do not travel with the database")
            return


def _buffer(up: RunningServer) -> Iterator[Finding]:
    text = up.system("derby.replication.logBufferSize") or ""
    size_bytes = int(text) if text.strip().isdigit() else _BUFFER_DEFAULT_BYTES
    if size_bytes >= _BUFFER_ADVICE_BYTES:
        yield Finding("log-buffer", "ok", f"replication buffers {_BUFFERS} x {size_bytes >> 10} KiB of log")
        return
    what = (
        f"replication buffers only {_BUFFERS} x {size_bytes >> 10} KiB of log: once they are full every writer waits "
        "5 s, and then the primary drops its replica without a word"
    )
    yield Finding("log-buffer", "warn", what, "derby.replication.logBufferSize=1048576 in derby.properties; restart")


def _owner(up: RunningServer, directory: Path, facts: EngineFacts) -> Iterator[Finding]:
    """The server must be able to write what it opens."""
    if facts.state is EngineState.ABSENT or up.user in ("", "root"):
        return
    try:
        owner = directory.owner()
    except (OSError, KeyError):
        owner = ""
    if owner == up.user:
        return
    what = f"the files belong to {owner or 'a number without a name'}, the server runs as {up.user}"
    yield Finding("server-user", "warn", what, "give the files to the server's user, or set `owner`")


# -- the database's files --------------------------------------------------------------------------------------------


def _database(directory: Path) -> Iterator[Finding]:
    try:
        files.refuse_unsupported(directory)
    except CheckFailed as error:
        yield Finding(error.id, "fail", error.info.what, error.info.hint)
        return
    try:
        found = files.read(directory)
    except (log.LogDamaged, OSError) as error:
        yield Finding("database-damaged", "fail", f"{directory} cannot be read: {error}", "look at derby.log")
        return
    version = ".".join(map(str, found.format_version))
    yield Finding("database", "ok", f"{directory} has the format of Derby {version}; its log ends at {found.log_end}")
    if found.log_unsafe:
        what = "the database was last written with derby.system.durability=test: no crash of it can be recovered"
        yield Finding("durability-test", "fail", what, "run it without that, then copy it afresh")
    if found.log_archived:
        what = "log archive mode is on: log files are kept until a backup deletes them, and travel with every copy"
        yield Finding("log-archive", "ok", what)
    if found.jars:
        what = f"{len(found.jars)} jars are installed in the database: {', '.join(found.jars)}"
        yield Finding("jars", "ok", f"{what}; one that is added later reaches a replica by a rebuild only")


# -- our session -----------------------------------------------------------------------------------------------------


def _session(session: Session, facts: EngineFacts, up: RunningServer | None, *, as_target: bool) -> Iterator[Finding]:
    user = session.spec.user
    if facts.state in OPEN_STATES:
        try:
            yield from _inside(session, up, facts)
        except SqlError as error:
            yield Finding("engine-refused", "fail", f"the database refused to tell about itself: {error}")
    elif facts.state is EngineState.UNKNOWN:
        if "authentication" in facts.note.lower():
            what = f"Derby refused the login of {user}: {facts.note}"
            yield Finding("login-refused-by-engine", "fail", what, "check derby.user and password_file")
        elif any(state in facts.note for state in _NOT_ALLOWED):
            what = f"SQL authorization is on and {user} does not own the database: {facts.note}"
            yield Finding("not-owner", "fail", what, "set derby.user to the database's owner")
        else:
            yield Finding("engine-silent", "fail", f"the database does not let us in: {facts.note}", "see derby.log")
    elif facts.state is EngineState.CLOSED and not as_target:
        what = f"the database is closed, so the login of {user} and the sessions were not tried"
        yield Finding("login-unproven", "warn", what, "run check again while clients are at work")


def _inside(session: Session, up: RunningServer | None, facts: EngineFacts) -> Iterator[Finding]:
    """What only an open database tells."""
    client, name = session.client, session.admin()
    user = session.spec.user
    access = str(client.execute(name, _ACCESS, deadline_s=_CALL_S).value)
    owner = str(client.execute(name, _OWNER, deadline_s=_CALL_S).value)
    guarded = (_effective(client, name, up, "derby.database.sqlAuthorization") or "").lower() == "true"
    asks = (_effective(client, name, up, "derby.connection.requireAuthentication") or "").lower() == "true"
    if access != "FULLACCESS":
        hint = "name it in derby.database.fullAccessUsers"
        yield Finding("login-weak", "fail", f"{user} has {access} and may not change properties", hint)
    elif guarded and owner.upper() != user.upper():
        what = f"SQL authorization is on and the database belongs to {owner}: {user} may neither gate nor shut it down"
        yield Finding("not-owner", "fail", what, f"set derby.user to {owner}")
    else:
        proof = "with a password" if asks else "and no password is asked for: any client may use that name"
        yield Finding("login", "ok", f"{user} is let in, also while the gate is closed, {proof}")
    yield from _gate(client, name, up)
    yield from _work(facts, user)


def _effective(client: DerbyClient, name: str, up: RunningServer | None, key: str) -> str | None:
    """An option of the JVM goes before the database's own value, and that before derby.properties."""
    own = gate.get_property(client, name, key, _CALL_S)
    if up is None:
        return own
    return up.options.get(key) or own or up.file.get(key)


def _gate(client: DerbyClient, name: str, up: RunningServer | None) -> Iterator[Finding]:
    """The gate is three properties of the database. JVM options go before them, derby.properties fills in."""
    only = (gate.get_property(client, name, "derby.database.propertiesOnly", _CALL_S) or "").lower() == "true"
    if up is None or only:
        return
    keys = ("fullAccessUsers", "readOnlyAccessUsers", "defaultConnectionMode")
    over = [f"-Dderby.database.{key}" for key in keys if f"derby.database.{key}" in up.options]
    if "derby.database.readOnlyAccessUsers" in up.file:
        over.append("derby.database.readOnlyAccessUsers in derby.properties")
    if over:
        what = f"the gate would not close: {', '.join(over)} goes before the database's own properties"
        yield Finding("gate-overridden", "fail", what, "set it in the database, or derby.database.propertiesOnly=true")


def _work(facts: EngineFacts, user: str) -> Iterator[Finding]:
    """What sessions are doing that a cutover would meet."""
    doing = facts.transactions
    if doing.of_our_user:
        what = f"{doing.of_our_user} sessions that are not ours log in as {user}: the gate would not stop them"
        yield Finding("foreign-sessions", "fail", what, "give snaprep a user of its own")
    if doing.in_doubt:
        what = f"{doing.in_doubt} XA transactions are prepared and in doubt: a cutover waits for them"
        yield Finding("xa-in-doubt", "fail", what, "let their manager commit or roll them back")
    if doing.open:
        yield Finding("transactions", "ok", f"{doing.open} transactions are open")


# -- replication -----------------------------------------------------------------------------------------------------


def _replication(
    spec: DerbySpec, facts: EngineFacts, up: RunningServer | None, *, as_target: bool
) -> Iterator[Finding]:
    if spec.replication_mode == "tunnel":
        yield from _tunnel(spec, as_target=as_target)
    elif not as_target:
        yield _plaintext(spec.peer_address)
    pid = sockets.listener(spec.listen_port)
    if as_target and facts.state not in REPLICA_STATES and sockets.listens(spec.listen_port):
        server_itself = pid is not None and up is not None and pid == up.pid
        who = "the Derby server itself" if server_itself else f"process {pid} ({_comm(pid)})" if pid else "somebody"
        what = f"{who} listens on port {spec.listen_port}, where the replica has to wait for its primary"
        hint = "restart that server" if server_itself else "set derby.replication.port to a free one"
        yield Finding("replication-port-taken", "fail", what, hint)


def _plaintext(address: str) -> Finding:
    what = f"replication goes to {address} as plain text, without a password"
    try:
        private = ipaddress.ip_address(address).is_private
    except ValueError:
        return Finding("replication-plaintext", "ok", f"{what}: keep it on a network of your own")
    if private:
        return Finding("replication-plaintext", "ok", f"{what}, on a private network")
    hint = 'use a private address, or [derby.replication] mode = "tunnel"'
    return Finding("replication-plaintext", "warn", f"{what}, and that is a public address", hint)


def _tunnel(spec: DerbySpec, *, as_target: bool) -> Iterator[Finding]:
    if as_target:
        return
    pid = sockets.listener(spec.peer_port)
    if pid is None:
        what = f"nobody listens on 127.0.0.1:{spec.peer_port}, where the tunnel to the replica should begin"
        yield Finding("tunnel-down", "fail", what, "start the tunnel's unit")
    elif not _comm(pid).startswith("ssh"):
        what = f"process {pid} ({_comm(pid)}) listens on port {spec.peer_port}; that is no ssh"
        yield Finding("tunnel-unknown", "warn", what, "replication is plain text: let it go through ssh")
    else:
        yield Finding("tunnel", "ok", f"{_comm(pid)} (pid {pid}) keeps the tunnel on port {spec.peer_port}")


# -- small things ----------------------------------------------------------------------------------------------------


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def _outward(port: int) -> bool:
    """Whether clients on other machines reach the server."""
    return any(not ipaddress.ip_address(address).is_loopback for address in sockets.listening_addresses(port))


def _shown(key: str, value: str) -> str:
    secret = key.startswith("derby.user.") or "password" in key.lower()
    return _SECRET if secret else value
