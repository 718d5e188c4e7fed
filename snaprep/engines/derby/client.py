"""SQL against Derby from Python: one JVM with named connections, spoken to over its stdin and stdout.

The helper (helper/SnaprepSql.java describes the lines) reaches the JVM in a memory file, so nothing is written to
the host's disk; user and password go down its stdin as JDBC properties, so they are in no argv, environment or URL.
What a SQLState means is decided here in Python: Derby answers success with an exception more often than not.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import itertools
import os
import pkgutil
import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Self

from snaprep.agent import process

_JAR = "helper/snaprep-sql.jar"
_SHORT_SECRET = 4  # a shorter one is blotted out of messages only where it stands as a word
_JVM_OPTIONS = (
    "-XX:+IgnoreUnrecognizedVMOptions",  # the ones below are HotSpot's
    "-XX:TieredStopAtLevel=1",  # it lives for minutes: start fast
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",  # no file in /tmp
    "-XX:+DisableAttachMechanism",  # it holds a password
    "-Xmx64m",
)


@dataclass(frozen=True, slots=True)
class SqlCause:
    """One link of a SQLException's chain. `code` is Derby's severity: 40000 session ends, 45000 database ends."""

    sqlstate: str
    code: int
    message: str


class SqlError(Exception):
    """The server or the driver answered with a SQLException. `chain` is never empty, the outermost comes first."""

    def __init__(self, chain: tuple[SqlCause, ...], elapsed_us: int = 0) -> None:
        super().__init__("; ".join(f"{c.sqlstate}: {c.message}" for c in chain))
        self.chain = chain
        self.elapsed_us = elapsed_us

    @property
    def sqlstates(self) -> tuple[str, ...]:
        """Every SQLState, the outermost first. The network server folds inner exceptions into the outer's message."""
        found = (
            state
            for cause in self.chain
            for state in (cause.sqlstate, *re.findall(r"SQLSTATE: ([0-9A-Z]{5})\b", cause.message))
        )
        return tuple(dict.fromkeys(found))


class SqlTimeout(Exception):
    """No answer within the deadline. The request goes on in the helper: wait again, or abandon the connection."""


class ClientDied(Exception):
    """The helper is gone, and its connections with it: Derby rolled them back, a freeze of theirs stays."""


class ClientError(Exception):
    """The helper refused a request: no such connection, no such prepared statement."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Rows as text, in order; none when the statement has no result set. `elapsed_us` was measured in the JVM."""

    rows: tuple[tuple[str | None, ...], ...]
    elapsed_us: int

    @property
    def value(self) -> str | None:
        """The first cell. Raises IndexError when there are no rows."""
        return self.rows[0][0]


class Pending:
    """A request that was sent; its answer comes by itself."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._answered = threading.Event()
        self._reply: Reply | None = None
        self._error: SqlError | ClientError | ClientDied | None = None

    def __repr__(self) -> str:
        return f"<Pending {self._what} {'answered' if self.done() else 'open'}>"

    def done(self) -> bool:
        return self._answered.is_set()

    def wait(self, deadline_s: float) -> Reply:
        """The answer. Raises SqlError, SqlTimeout, ClientDied, ClientError; may be called again after SqlTimeout."""
        deadline_s = process.patient_s(deadline_s)
        if not self._answered.wait(deadline_s):
            raise SqlTimeout(f"{self._what}: no answer within {deadline_s:g} s")
        if self._error is not None:
            raise self._error.with_traceback(None)
        assert self._reply is not None
        return self._reply

    def _settle(self, answer: Reply | SqlError | ClientError | ClientDied) -> None:
        if isinstance(answer, Reply):
            self._reply = answer
        else:
            self._error = answer
        self._answered.set()


class DerbyClient:
    """The helper, running. Any thread may call; calls on one name run in order, names do not wait for each other."""

    @classmethod
    def start(
        cls, classpath: Sequence[str], *, java: str = "java", properties: Mapping[str, str] | None = None
    ) -> Self:
        """Start the JVM with the site's own Derby jars (`derbyclient.jar`; from 10.15 on `derbyshared.jar` too).

        Raises CommandMissing when there is no Java. A JVM that cannot run shows itself at the first call.
        """
        jar = _memory_file(pkgutil.get_data("snaprep.engines.derby", _JAR) or b"")
        try:
            path = os.pathsep.join([f"/proc/self/fd/{jar}", *classpath])
            defines = [f"-D{key}={value}" for key, value in (properties or {}).items()]
            argv = [java, *_JVM_OPTIONS, *defines, "-cp", path, "SnaprepSql"]
            jvm = process.start(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(jar,),
            )
        finally:
            os.close(jar)
        return cls(jvm)

    def __init__(self, jvm: subprocess.Popen[bytes]) -> None:
        assert jvm.stdin is not None
        assert jvm.stdout is not None
        assert jvm.stderr is not None
        self._jvm = jvm
        self._stdin: IO[bytes] = jvm.stdin
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._secrets: set[str] = set()
        self._dead = False
        self._said: collections.deque[str] = collections.deque(maxlen=20)
        for target, stream in ((self._read_replies, jvm.stdout), (self._read_stderr, jvm.stderr)):
            threading.Thread(target=target, args=(stream,), name="derby-client", daemon=True).start()

    def __repr__(self) -> str:
        return f"<DerbyClient pid={self.pid}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    @property
    def pid(self) -> int:
        return self._jvm.pid

    @property
    def alive(self) -> bool:
        return not self._dead

    # -- connections ---------------------------------------------------------------------------------------------

    def begin_open(
        self, name: str, url: str, user: str, password: str, properties: Mapping[str, str] | None = None
    ) -> Pending:
        """Connect in the background (`startSlave` waits for its peer, `startMaster` may wait for ever).

        `url` carries attributes such as `;shutdown=true` but neither user nor password. An open connection of this
        name is closed first.
        """
        if re.search(r";\s*(user|password|bootPassword|encryptionKey)\s*=", url, re.IGNORECASE):
            raise ValueError("secrets and users go in as arguments, not in the URL")
        if password:
            self._secrets.add(password)
        # The driver refuses an empty password; without one it sends the user's name only.
        pairs = {"user": user, **({"password": password} if password else {}), **(properties or {})}
        return self._send("open", name, url, *itertools.chain.from_iterable(pairs.items()))

    def open(self, name: str, url: str, user: str, password: str, deadline_s: float) -> Reply:
        """Raises SqlError, SqlTimeout, ClientDied."""
        return self.begin_open(name, url, user, password).wait(deadline_s)

    def close(self, name: str, deadline_s: float) -> Reply:
        """Close a connection, rolling back what it has open; its name can be opened again."""
        return self._send("close", name).wait(deadline_s)

    def abandon(self, name: str, deadline_s: float = 5.0) -> None:
        """Give up a connection that may hang: the name is free at once, the server ends it when the JVM ends."""
        self._send("drop", name).wait(deadline_s)

    # -- statements ----------------------------------------------------------------------------------------------

    def begin(self, name: str, sql: str, params: Sequence[str | None] = ()) -> Pending:
        """Start a statement that may block; parameters are bound as text."""
        return self._send("execute", name, sql, *params)

    def execute(self, name: str, sql: str, params: Sequence[str | None] = (), *, deadline_s: float) -> Reply:
        """Raises SqlError, SqlTimeout, ClientDied, ClientError."""
        return self.begin(name, sql, params).wait(deadline_s)

    def prepare(self, name: str, key: str, sql: str, deadline_s: float) -> Reply:
        """Compile a statement on its connection now, to be run under `key` when it matters."""
        return self._send("prepare", name, key, sql).wait(deadline_s)

    def begin_run(self, name: str, key: str, params: Sequence[str | None] = ()) -> Pending:
        return self._send("run", name, key, *params)

    def run(self, name: str, key: str, deadline_s: float, params: Sequence[str | None] = ()) -> Reply:
        """Run a prepared statement. Raises SqlError, SqlTimeout, ClientDied, ClientError."""
        return self.begin_run(name, key, params).wait(deadline_s)

    def digest(self, name: str, sql: str, *, deadline_s: float) -> Reply:
        """One row: how many rows a query has, and the sum of their hashes modulo 2^256, in whatever order they come.

        Memory is bounded however long a row is. Raises SqlError, SqlTimeout, ClientDied, ClientError.
        """
        return self._send("digest", name, sql).wait(deadline_s)

    @contextlib.contextmanager
    def transaction(self, name: str, deadline_s: float) -> Iterator[None]:
        """Statements inside are one transaction: committed at the end, rolled back when the body raises."""
        self._send("begin", name).wait(deadline_s)
        try:
            yield
        except BaseException:
            with contextlib.suppress(SqlError, SqlTimeout, ClientDied):
                self._send("rollback", name).wait(deadline_s)
            raise
        self._send("commit", name).wait(deadline_s)

    def set_last_words(self, statements: Iterable[tuple[str, str]], bound_s: float) -> None:
        """Prepared statements, as (name, key), to run when our end of stdin is gone; none takes them back.

        Only for statements that are right at any moment, as a thaw is. Opening a gate is not: see ADR 0003.
        """
        flat = itertools.chain.from_iterable(statements)
        self._send("lastwords", str(int(bound_s * 1000)), *flat).wait(5.0)

    # -- the end -------------------------------------------------------------------------------------------------

    def shutdown(self, deadline_s: float = 5.0) -> None:
        """Take back the last words and end the JVM; it is killed when it does not go within the deadline."""
        with contextlib.suppress(ClientDied, SqlTimeout):
            self._send("lastwords", "0").wait(deadline_s)
        with self._lock, contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._jvm.wait(deadline_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._jvm.pid, signal.SIGKILL)
            self._jvm.wait(deadline_s)

    # -- the wire ------------------------------------------------------------------------------------------------

    def _send(self, verb: str, name: str, *arguments: str | None) -> Pending:
        pending = Pending(f"{verb} on {name!r}")
        words = [verb, *(_encode(text) for text in (name, *arguments))]
        with self._lock:
            if self._dead:
                raise ClientDied(self._last_words_of_the_jvm())
            number = next(self._ids)
            self._pending[number] = pending
            try:
                self._stdin.write(f"{number} {' '.join(words)}\n".encode("ascii"))
            except (OSError, ValueError) as error:
                del self._pending[number]
                raise ClientDied(self._last_words_of_the_jvm()) from error
        return pending

    def _read_replies(self, stream: IO[bytes]) -> None:
        with stream, os.fdopen(os.dup(stream.fileno()), "rb") as lines:
            for line in lines:
                self._answer(line.decode("ascii", "replace").split())
        self._jvm.wait()
        with self._lock:
            self._dead = True
            orphans, self._pending = list(self._pending.values()), {}
        for pending in orphans:
            pending._settle(ClientDied(self._last_words_of_the_jvm()))  # noqa: SLF001 (its maker)

    def _answer(self, words: list[str]) -> None:
        number, status, elapsed_us, cells = int(words[0]), words[1], int(words[2]), words[3:]
        with self._lock:
            pending = self._pending.pop(number, None)
        if pending is None:
            return  # last words
        if status == "ok":
            answer: Reply | SqlError | ClientError = Reply(_rows(cells), elapsed_us)
        elif cells[0] == "~":
            answer = ClientError(self._discreet(_decode(cells[2]) or ""))
        else:
            answer = SqlError(self._chain(cells), elapsed_us)
        pending._settle(answer)  # noqa: SLF001 (its maker)

    def _chain(self, cells: list[str]) -> tuple[SqlCause, ...]:
        texts = [_decode(cell) or "" for cell in cells]
        triples = zip(texts[0::3], texts[1::3], texts[2::3], strict=True)
        return tuple(SqlCause(state, int(code), self._discreet(message)) for state, code, message in triples)

    def _discreet(self, message: str) -> str:
        """The message without any password: Derby quotes URLs and properties in some of its errors."""
        for secret in self._secrets:
            word = re.escape(secret)
            pattern = word if len(secret) >= _SHORT_SECRET else rf"(?<!\w){word}(?!\w)"
            message = re.sub(pattern, "***", message)
        return message

    def _read_stderr(self, stream: IO[bytes]) -> None:
        with stream, os.fdopen(os.dup(stream.fileno()), "rb") as lines:
            for line in lines:
                self._said.append(self._discreet(line.decode("utf-8", "replace").rstrip()[:500]))

    def _last_words_of_the_jvm(self) -> str:
        return f"the Java helper is gone (status {self._jvm.poll()}): {' | '.join(self._said) or 'it said nothing'}"


def _memory_file(data: bytes) -> int:
    if not data:
        raise FileNotFoundError(_JAR)
    file = os.memfd_create("snaprep-sql.jar", os.MFD_CLOEXEC)
    os.write(file, data)
    return file


def _encode(text: str | None) -> str:
    if text is None:
        return "~"
    return base64.b64encode(text.encode()).decode("ascii") or "="


def _decode(token: str) -> str | None:
    if token == "~":  # noqa: S105 (not a secret: the sign for null)
        return None
    return "" if token == "=" else base64.b64decode(token).decode()  # noqa: S105


def _rows(cells: list[str]) -> tuple[tuple[str | None, ...], ...]:
    columns = int(cells[0])
    values = [_decode(cell) for cell in cells[1:]]
    return tuple(tuple(values[i : i + columns]) for i in range(0, len(values), columns)) if columns else ()
