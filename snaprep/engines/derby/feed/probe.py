"""Whether this server's Derby boots a copy as a replica without rolling back what is open in it.

Nothing that is written down promises it, so it is tried on a database made for that: a transaction is left open in the
files, the copy is booted, the transaction's end is fed, and the copy takes over. Its server is only asked to open and
close databases in a folder of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snaprep.core.errors import SnaprepError
from snaprep.engines.derby.client import ClientDied, ClientError, SqlError, SqlTimeout
from snaprep.engines.derby.feed.ends import log_told
from snaprep.engines.derby.feed.replica import FedReplica, peer_told
from snaprep.engines.derby.log.reader import LogReader
from snaprep.engines.derby.session import Session

_ORIGIN, _WRITER, _COPY = "probe", "probe-open", "probe-copy"
_CALL_S = 20.0
_CHECKPOINT = "CALL SYSCS_UTIL.SYSCS_CHECKPOINT_DATABASE()"
_CREATE = "CREATE TABLE t (i INT PRIMARY KEY, n INT)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """`behaves`: a fed replica may be booted on this server. `why` says what happened when it does not."""

    behaves: bool
    why: str = ""


def direct_boot(session: Session, folder: Path) -> Probed:
    """Try it, in a folder that does not exist yet, beside the replica's files; removed again. Takes a second or two.

    The server must be up; its user gets the folder. The classes that a boot needs are loaded in it afterwards.
    """
    folder.mkdir(mode=0o700)
    try:
        _give_to_server(session, folder)
        return _tried(session, folder)
    except (SqlError, SqlTimeout, ClientDied, ClientError, SnaprepError, OSError) as error:
        return Probed(behaves=False, why=f"the trial did not come to its end: {error}")
    finally:
        for name in (folder / "origin", folder / "copy"):
            _shut(session, name)
        shutil.rmtree(folder, ignore_errors=True)


def _tried(session: Session, folder: Path) -> Probed:
    origin, copy = folder / "origin", folder / "copy"
    with _open_transaction(session, origin):
        _copy(session, origin, copy)
    with _free_port() as port:
        replica = FedReplica(session, copy, port)
    start = replica.end()
    before = _hashes(copy)
    replica.boot(_CALL_S)
    if _hashes(copy) != before:
        replica.stop(deadline_s=_CALL_S)
        return Probed(behaves=False, why="booting the copy changed its data files")
    feeding = replica.connect(start)
    with log_told(), peer_told(), LogReader(origin / "log", start) as reader:
        while (piece := reader.read()) is not None:
            feeding.play(piece)
    replica.promote(feeding, _CALL_S)
    found = _rows(session, copy)
    if found != (("1", "11"), ("2", "22")):
        return Probed(behaves=False, why=f"after the feed the copy holds {found}")
    return Probed(behaves=True)


@contextlib.contextmanager
def _open_transaction(session: Session, origin: Path) -> Iterator[None]:
    """A database in whose files a transaction is open; at the end it is committed."""
    client = session.client
    session.connect(_ORIGIN, _CALL_S, str(origin), create="true")
    for statement in (_CREATE, "INSERT INTO t VALUES (1, 1)"):
        client.execute(_ORIGIN, statement, deadline_s=_CALL_S)
    session.connect(_WRITER, _CALL_S, str(origin))
    with client.transaction(_WRITER, _CALL_S):
        for statement in ("UPDATE t SET n = 11", "INSERT INTO t VALUES (2, 22)"):
            client.execute(_WRITER, statement, deadline_s=_CALL_S)
        client.execute(_ORIGIN, _CHECKPOINT, deadline_s=_CALL_S)  # writes it to the data files
        yield


def _copy(session: Session, origin: Path, copy: Path) -> None:
    """Nobody writes to the origin meanwhile, so a copy file by file is one of a moment."""
    shutil.copytree(origin, copy, ignore=shutil.ignore_patterns("*.lck"))
    for path in (copy, *copy.rglob("*")):
        _give_to_server(session, path)


def _give_to_server(session: Session, path: Path) -> None:
    pid = session.server_pid
    if pid is None:
        raise FileNotFoundError("the Derby server is not running")
    there = Path("/proc", str(pid)).stat()
    if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(path, there.st_uid, there.st_gid)


def _rows(session: Session, copy: Path) -> tuple[tuple[str | None, ...], ...]:
    session.connect(_COPY, _CALL_S, str(copy))
    return session.client.execute(_COPY, "SELECT i, n FROM t ORDER BY i", deadline_s=_CALL_S).rows


def _hashes(database: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((database / "seg0").glob("*.dat"))
    }


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def _shut(session: Session, database: Path) -> None:
    with contextlib.suppress(SqlError, SqlTimeout, ClientDied, ClientError, SnaprepError):
        session.connect("probe-down", _CALL_S, str(database), shutdown="true")
