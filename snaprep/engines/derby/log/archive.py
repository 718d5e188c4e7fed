"""Log archive mode: Derby keeps every log file, and logs what it otherwise writes to the data files only.

A feed needs both. The mode is a line in service.properties, read when the database boots; there are three ways to
switch it on: at the next restart, at once by a bounce, or at once by an online backup. Because work that was not logged
leaves no sign, what counts is since when the mode has been on without a break: that is stored in the database, and a
base from before then is no base for a feed.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from snaprep.agent.rewrite import rewrite
from snaprep.core.errors import CheckFailed, Stopped
from snaprep.core.words import size
from snaprep.engines.derby import files, gate
from snaprep.engines.derby.client import SqlError
from snaprep.engines.derby.halt import Halt
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log.scan import LogPosition
from snaprep.engines.derby.session import Session, files_told, told

PROPERTY = "derby.storage.logArchiveMode"
_FILE = "service.properties"
_ON, _OFF = b"derby.storage.logArchiveMode=true", b"derby.storage.logArchiveMode=false"
_FORMER = "snaprep.archive.former"  # what the mode was before us; its presence says that we switched it on
_SINCE = "snaprep.archive.since"
_ABSENT = "(none)"
# Without NOWAIT a backup waits for as long as a transaction stays open that has done something without a log.
_BACKUP = "CALL SYSCS_UTIL.SYSCS_BACKUP_DATABASE_AND_ENABLE_LOG_ARCHIVE_MODE_NOWAIT(?, 0)"
_COPY = "CALL SYSCS_UTIL.SYSCS_BACKUP_DATABASE_NOWAIT(?)"
_HELD = "XSRSA"
_COPIER = "backup"  # a connection of its own: it is busy for as long as the database is large
_DISABLE = "CALL SYSCS_UTIL.SYSCS_DISABLE_LOG_ARCHIVE_MODE(1)"
_CALL_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The mode of one database.

    `wanted`: it is on at the next boot. `since`: the log position from which on everything was logged and kept, without
    a break, as far as this boot; None when the mode is not on, or nobody has seen it come on. `ours`: we switched it
    on, and `put_back` switches it off.
    """

    wanted: bool
    due: bool  # the mode was wanted before this boot, and nobody has noted its beginning: `confirm`
    since: int | None
    ours: bool
    first_file: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Since:
    """Evidence of an unbroken mode: where it began, and what must not have changed since."""

    position: int
    written: tuple[int, int]  # service.properties: when, how long


def state(session: Session) -> Archive:
    """Look at an open database. Raises `archive-failed` when it does not answer."""
    directory = session.directory
    with files_told():
        wanted = files.log_archived(directory)
        first_file = log.log_files(files.log_directory(directory))[0]
    with told("archive-failed", "log archive mode cannot be looked at"):
        former = _get(session, _FORMER)
        since = _get(session, _SINCE)
    unbroken = _unbroken(directory, since) if wanted else None
    return Archive(
        wanted=wanted,
        due=wanted and unbroken is None and _booted_after_the_wish(directory),
        since=unbroken,
        ours=former is not None,
        first_file=first_file,
    )


def _unbroken(directory: Path, text: str | None) -> int | None:
    """The stored beginning, unless service.properties was written since: then the mode may have been off meanwhile."""
    if text is None:
        return None
    try:
        stored = json.loads(text)
        position, written = int(stored["position"]), tuple(map(int, stored["written"]))
    except (ValueError, KeyError, TypeError):
        return None
    return position if written == _written(directory) else None


def _written(directory: Path) -> tuple[int, int]:
    found = (directory / _FILE).stat()
    return found.st_mtime_ns, found.st_size


# -- switching on ------------------------------------------------------------------------------------------------------


def ask_for(session: Session) -> None:
    """Write the mode down for the next boot of the database, whenever that comes. Nobody is blocked.

    After that boot call `confirm`. Raises `archive-failed`.
    """
    with told("archive-failed", "log archive mode could not be asked for"):
        name = session.admin()
        _keep_former(session)
        if not files.log_archived(session.directory):
            gate.set_property(session.client, name, PROPERTY, "true", _CALL_S)


def _keep_former(session: Session) -> None:
    """Store what the mode was, unless that is stored already."""
    if _get(session, _FORMER) is None:
        former = gate.get_property(session.client, session.admin(), PROPERTY, _CALL_S)
        gate.set_property(session.client, session.admin(), _FORMER, former or _ABSENT, _CALL_S)


def confirm(session: Session) -> bool:
    """Note from where on everything is logged, when the mode was asked for before this boot; fine when it was noted.

    False when the present boot is older than the wish. Raises `archive-failed`.
    """
    directory = session.directory
    with files_told():
        if not files.log_archived(directory):
            return False
    if state(session).since is not None:
        return True
    if not _booted_after_the_wish(directory):
        return False
    _note(session)
    return True


def bounce(session: Session, halt: Halt) -> None:
    """Switch the mode on by shutting the database down and opening it. Sessions of others end.

    Raises `archive-failed`, `shutdown-failed`.
    """
    ask_for(session)
    halt.checkpoint()
    halt.shut_down()
    session.admin(60)
    with files_told():
        wanted = files.log_archived(session.directory)
    if not wanted:
        what = "log archive mode is not on after a restart of the database"
        raise Stopped("archive-failed", what, hint="see derby.log")
    # Whoever opened it did so after the shutdown, so after the wish. The times of files would not tell: some
    # filesystems count in whole seconds.
    _note(session)


def by_backup(session: Session, folder: Path, deadline_s: float = 24 * 3600) -> Path:
    """Switch the mode on without a break, by Derby's own online backup into a folder; returns the copy's directory.

    The copy is a whole database, a base for a feed. Writers go on, but nothing unlogged (index, import) may run.
    Raises `archive-failed`, `backup-held`: the mode is then as it was.
    """
    with told("archive-failed", "the online backup failed"):
        _keep_former(session)
    copied = _copied(session, _BACKUP, folder, deadline_s)
    with files_told():
        # The mode went on before the backup began to copy, so from the copy's own end on everything is logged.
        end = log.log_end(files.log_directory(copied))
    _note(session, end)
    return copied


def copy(session: Session, folder: Path, deadline_s: float = 24 * 3600) -> Path:
    """The same where the mode is on: Derby's online backup into a folder; returns the copy's directory.

    Raises `archive-failed`, `backup-held`.
    """
    return _copied(session, _COPY, folder, deadline_s)


def _copied(session: Session, statement: str, folder: Path, deadline_s: float) -> Path:
    with told("archive-failed", "the online backup failed"):
        session.connect(_COPIER, _CALL_S)
        try:
            session.client.execute(_COPIER, statement, [str(folder)], deadline_s=deadline_s)
        except SqlError as error:
            if _HELD not in error.sqlstates:
                raise
            what = "the online backup did not begin: a transaction is open that has installed a jar, or written "
            what += "something without a log (an index, an import), and holds it up until it ends"
            hint = "end it, then go on; SYSCS_DIAG.TRANSACTION_TABLE shows what is open"
            raise Stopped("backup-held", what, hint=hint) from error
    return folder / session.directory.name


def _note(session: Session, position: LogPosition | None = None) -> None:
    directory = session.directory
    with files_told():
        at = position or log.log_end(files.log_directory(directory))
    since = _Since(position=at.instant, written=_written(directory))
    with told("archive-failed", "the beginning of log archive mode could not be noted"):
        gate.set_property(session.client, session.admin(), _SINCE, json.dumps(asdict(since)), _CALL_S)


def _booted_after_the_wish(directory: Path) -> bool:
    """Derby writes db.lck when it boots a database."""
    try:
        booted_ns = (directory / files.LOCK_NOTE).stat().st_mtime_ns
    except FileNotFoundError:
        return False
    return booted_ns > _written(directory)[0]


# -- keeping and letting go --------------------------------------------------------------------------------------------


def needed_file(logs: Path) -> int:
    """The oldest log file that Derby's own recovery needs, by its last checkpoint. Raises LogDamaged."""
    return log.checkpoint_reach(logs).file


def release(database: Path, keep_from: int) -> tuple[int, ...]:
    """Remove archived log files that nobody needs: before the file of a position that every follower has stored.

    Never one that Derby's recovery needs, never the last two, and from the oldest on, so that a gap cannot arise.
    Returns the numbers removed.
    """
    with files_told():
        logs = files.log_directory(database)
        numbers = log.numbers(logs)
        limit = min(needed_file(logs), LogPosition.from_instant(keep_from).file, numbers[-1] - 1)
    gone = []
    for number in numbers:
        if number >= limit:
            break
        with contextlib.suppress(FileNotFoundError):
            log.path_of(logs, number).unlink()
            gone.append(number)
    return tuple(gone)


def room_bytes(database: Path) -> int:
    """What is left on the filesystem of the log, for users other than root."""
    found = os.statvfs(files.log_directory(database))
    return found.f_bavail * found.f_frsize


def must_have_room(database: Path, floor_bytes: int) -> None:
    """Raises `archive-no-room`: the replica is to be given up, so that the primary lives."""
    left = room_bytes(database)
    if left < floor_bytes:
        what = f"{size(left)} are left for the log, and {size(floor_bytes)} are needed"
        raise CheckFailed("archive-no-room", what, hint="make room, then seed the replica again")


def before_us(session: Session) -> str:
    """What the mode was before we switched it on, as the property said it; empty when we did not.

    Raises `archive-failed`.
    """
    with told("archive-failed", "log archive mode cannot be looked at"):
        return _get(session, _FORMER) or ""


def forget(directory: Path, before: str) -> None:
    """Have a replica not keep its log once it is promoted, when the mode was off before us. Fine where there is none.

    The mode stands in a file that no log carries. A replica does not write that file, and reads it at its next boot.
    """
    path = directory / _FILE
    if before in ("", "true") or not path.is_file() or _ON not in (text := path.read_bytes()):
        return
    rewrite(path, text.replace(_ON, _OFF))


def put_back(session: Session) -> bool:
    """Switch the mode off again and let go of what it kept, if it was us who switched it on. False when it was not.

    Takes effect at once. Raises `archive-failed`.
    """
    with told("archive-failed", "log archive mode could not be switched off"):
        name = session.admin()
        former = _get(session, _FORMER)
        if former is None:
            return False
        if former.lower() != "true":
            session.client.execute(name, _DISABLE, deadline_s=_CALL_S)
        if former == _ABSENT:
            with contextlib.suppress(SqlError):
                gate.set_property(session.client, name, PROPERTY, None, _CALL_S)
        for key in (_SINCE, _FORMER):
            gate.set_property(session.client, name, key, None, _CALL_S)
    return True


def _get(session: Session, key: str) -> str | None:
    return gate.get_property(session.client, session.admin(), key, _CALL_S)
