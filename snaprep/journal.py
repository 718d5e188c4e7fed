"""What a run decided and what came of it, one JSON line each, under the operator's state directory.

Invariant: a line that was written stays readable whatever happens after it. Lines are appended with one write and
fsynced; a line cut in the middle is told and stepped over, and what follows it starts on a line of its own. The journal
explains; the hosts decide. So a journal that can no longer be written never stops a run: `trouble` says why.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from snaprep.core.action import Action
from snaprep.core.document import plain, rfc3339
from snaprep.core.errors import UsageError
from snaprep.core.model import CutoverTried, History

SIZE_MAX_BYTES = 8 << 20
RUNS_KEPT = 50
LOCK_WAIT_S = 5.0  # a writer holds the lock for one line
MASK = "***"
MASKED_LENGTH_MIN = 4  # masking a shorter secret wherever it occurs would garble every text

_SECRET_KEY = re.compile(r"password|passphrase|secret|private_key", re.IGNORECASE)
_PAIR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `at` is what the operator's clock said; order is the order of lines."""

    kind: str
    run: str
    at: str
    fields: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 (what JSON holds)
        return self.fields.get(name, default)


@dataclass(frozen=True, slots=True)
class Reading:
    """`damaged` has a sentence for each line that could not be read."""

    entries: tuple[Entry, ...]
    damaged: tuple[str, ...]


def state_dir() -> Path:
    """Where journals live: XDG_STATE_HOME, else ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return Path(base) / "snaprep" if Path(base).is_absolute() else Path.home() / ".local" / "state" / "snaprep"


def _path_of(pair: str) -> Path:
    if not _PAIR_NAME.fullmatch(pair):
        raise ValueError(f"not a pair's name: {pair!r}")
    return state_dir() / pair / "journal.jsonl"


class Journal:
    """The journal of one pair, perhaps bound to one run."""

    def __init__(self, path: Path, run: str = "", secrets: tuple[str, ...] = ()) -> None:
        self.path = path
        self.run = run
        self.trouble = ""
        self._secrets = tuple(s for s in secrets if len(s) >= MASKED_LENGTH_MIN)

    @classmethod
    def of(cls, pair: str) -> Journal:
        """To be read: nothing is made or changed."""
        return cls(_path_of(pair))

    @classmethod
    def open(cls, pair: str, *, run: str = "", secrets: tuple[str, ...] = ()) -> Journal:
        """To be written: make the folder and the file where they are missing, and prune what has grown too large.

        `secrets` are masked wherever they occur. Raises UsageError `journal-unwritable`.
        """
        journal = cls(_path_of(pair), run, secrets)
        try:
            journal.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal.path.parent.chmod(0o700)
            with journal._locked():
                os.close(os.open(journal.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
                journal.path.chmod(0o600)
                if journal.path.stat().st_size > SIZE_MAX_BYTES:
                    journal._prune()
        except OSError as error:
            raise _unwritable(journal._said(error)) from error
        return journal

    def append(self, kind: str, **values: object) -> None:
        """Write one line and wait until it is on disk. Trouble is kept in `trouble`, not raised."""
        head = {"at": rfc3339(time.time()), "run": self.run, "kind": kind}
        body = {k: self._clean(plain(v, k), k) for k, v in values.items() if k not in head}
        data = json.dumps({**head, **body}, separators=(",", ":")).encode() + b"\n"
        try:
            with self._locked():
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                try:
                    _write_line(descriptor, data)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            self.trouble = self._said(error)

    def must_append(self, kind: str, **values: object) -> None:
        """The same for what nobody could do without later. Raises UsageError `journal-unwritable`."""
        self.append(kind, **values)
        if self.trouble:
            raise _unwritable(self.trouble)

    def _said(self, error: OSError) -> str:
        return f"the journal {self.path} cannot be written: {error.strerror}"

    def read(self) -> Reading:
        """All that can be read, and what can not. A journal that does not exist yet is empty."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Reading((), ())
        except OSError as error:
            return Reading((), (f"the journal {self.path} cannot be read: {error.strerror}",))
        return parse(data)

    def entries(self) -> tuple[Entry, ...]:
        return self.read().entries

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time: pruning replaces the file. Raises OSError when another holds it for LOCK_WAIT_S."""
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline_s = time.monotonic() + LOCK_WAIT_S
            while not _try_lock(lock):
                if time.monotonic() > deadline_s:
                    raise TimeoutError(errno.ETIMEDOUT, "another process keeps it locked")
                time.sleep(0.01)
            yield
        finally:
            os.close(lock)

    def _prune(self) -> None:
        """Keep the newest runs and every measured cutover; replace the file in one rename."""
        kept = _worth_keeping(parse(self.path.read_bytes()).entries)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".journal-")
        try:
            with os.fdopen(descriptor, "wb") as new:
                for entry in kept:
                    line = {"at": entry.at, "run": entry.run, "kind": entry.kind, **entry.fields}
                    new.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
                new.flush()
                os.fsync(new.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _clean(self, value: Any, key: str = "") -> Any:  # noqa: ANN401 (what JSON holds)
        """No secret is written: neither by the name of its key nor inside a text."""
        if isinstance(value, dict):
            return {k: self._clean(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self._clean(v, key) for v in value]
        if _SECRET_KEY.search(key) and value and not key.endswith("_file"):
            return MASK
        return mask(value, self._secrets) if isinstance(value, str) else value


def _unwritable(what: str) -> UsageError:
    hint = "make room or set XDG_STATE_HOME to a folder of yours"
    return UsageError("journal-unwritable", what, hint=hint, serving="nothing was touched")


def mask(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets in it."""
    for secret in secrets:
        if len(secret) >= MASKED_LENGTH_MIN:
            text = text.replace(secret, MASK)
    return text


def parse(data: bytes) -> Reading:
    """Pure: the lines of a journal. A last line without an end is read when it is whole."""
    entries: list[Entry] = []
    damaged: list[str] = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip(b" \t\r\0"):
            if line:
                damaged.append(f"line {number} of the journal is blank where an entry was; it is left out")
            continue
        entry = _entry(line)
        if entry is not None:
            entries.append(entry)
        elif number == len(lines):
            damaged.append(f"the last line of the journal ({number}) was cut in the middle; it is left out")
        else:
            damaged.append(f"line {number} of the journal is damaged; it is left out")
    return Reading(tuple(entries), tuple(damaged))


def earlier(entries: Iterable[Entry], run: str = "") -> History:
    """What outlives a run: the cutovers that this pair has measured, as the start of a new run's history.

    Cutovers that failed count against one run's attempts only, so those of other runs are left out.
    """
    known = list(entries)
    return History(cutovers=_tried(known, run, "cutover"), switchovers=_tried(known, run, "switchover"))


def _tried(entries: list[Entry], run: str, kind: str) -> tuple[CutoverTried, ...]:
    found = ((e, _cutover(e)) for e in entries if e.kind == kind)
    return tuple(tried for e, tried in found if tried is not None and (tried.ok or e.run == run))


def _cutover(entry: Entry) -> CutoverTried | None:
    """Entries of the kinds `cutover` and `switchover` carry the fields of CutoverTried."""
    numbers = ("predicted_p50_ms", "predicted_p90_ms", "blocked_ms")
    if not isinstance(entry.get("ok"), bool) or not all(isinstance(entry.get(n), int | float) for n in numbers):
        return None
    if not isinstance(entry.get("delta_bytes", 0), int) or not isinstance(entry.get("fed", False), bool):
        return None  # journals of earlier versions lack them
    known = {f.name for f in fields(CutoverTried)}
    tried = CutoverTried(**{k: v for k, v in entry.fields.items() if k in known})
    return replace(tried, error=str(tried.error))


def _entry(line: bytes) -> Entry | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    kind, run, at = (value.pop(k, "") for k in ("kind", "run", "at"))
    if not all(isinstance(v, str) for v in (kind, run, at)) or not kind:
        return None
    return Entry(kind, run, at, value)


def _worth_keeping(entries: tuple[Entry, ...]) -> list[Entry]:
    """The newest runs that fit half the size, and measured cutovers however old."""
    kept: list[Entry] = []
    runs: list[str] = []
    room_bytes = SIZE_MAX_BYTES // 2
    for entry in reversed(entries):
        if entry.run not in runs:
            runs.append(entry.run)
        room_bytes -= len(json.dumps(dict(entry.fields))) + 100
        if (len(runs) <= RUNS_KEPT and room_bytes > 0) or (entry.kind in ("cutover", "switchover") and entry.get("ok")):
            kept.append(entry)
    return kept[::-1]


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_line(descriptor: int, data: bytes) -> None:
    """Append one line, after an end of line when the last one was cut."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        data = b"\n" + data
    while data:
        data = data[os.write(descriptor, data) :]


def told(action: Action) -> dict[str, Any]:
    """The fields of an action that say what it rests on."""
    named = getattr(action, "__dataclass_fields__", {})
    return {name: plain(getattr(action, name), name) for name in named}


def fields_of(value: Any) -> dict[str, Any]:  # noqa: ANN401 (a dataclass)
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
