"""Whether a port of this host can be reached from the other one: proven by a word that only this check knows.

The target listens for a moment where its replica would wait, the source connects as its primary would. A port that
answers proves nothing by itself: a tunnel's near end takes every connection.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import socket
import threading

from snaprep.core.errors import CheckFailed

_LISTENS_S = 15.0
_CALL_S = 5.0
_WORD_BYTES = 64


def answer_to(nonce: str) -> bytes:
    return hashlib.sha256(b"snaprep reached " + nonce.encode()).hexdigest().encode()


class Listening:
    """A listener that answers one word, and ends by itself."""

    def __init__(self, address: str, port: int, nonce: str) -> None:
        """Raises `replication-address`, `replication-port-taken`."""
        self._nonce = nonce
        self._heard = threading.Event()
        _must_be_seen(address)
        try:
            self._socket = socket.create_server((address, port), family=_family(address))
        except OSError as error:
            raise _refused(address, port, error) from error
        self._socket.settimeout(_LISTENS_S)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="probe")
        self._thread.start()

    def close(self) -> bool:
        """Whether the word was heard."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()
        self._thread.join(_CALL_S + 1)
        return self._heard.is_set()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self._heard.is_set():
                connection, _ = self._socket.accept()
                with connection, contextlib.suppress(TimeoutError):
                    connection.settimeout(_CALL_S)
                    if _receive(connection) == self._nonce.encode():
                        connection.sendall(answer_to(self._nonce))
                        self._heard.set()


def call(address: str, port: int, nonce: str) -> None:
    """Say the word there and compare the answer. Raises `replication-unreachable`, `replication-leads-elsewhere`."""
    try:
        with socket.create_connection((address, port), timeout=_CALL_S) as connection:
            connection.sendall(nonce.encode().ljust(_WORD_BYTES))
            answer = _receive(connection)
    except OSError as error:
        what = f"{address}:{port} cannot be reached from here: {error}"
        hint = "open the port in the firewalls between the hosts, or start the tunnel"
        raise CheckFailed("replication-unreachable", what, hint=hint) from error
    if answer != answer_to(nonce):
        what = f"what answers at {address}:{port} is not the other host"
        raise CheckFailed("replication-leads-elsewhere", what, hint="see where the address or the tunnel leads")


def _receive(connection: socket.socket) -> bytes:
    word = b""
    while len(word) < _WORD_BYTES and (piece := connection.recv(_WORD_BYTES - len(word))):
        word += piece
    return word.rstrip()


def _must_be_seen(name: str) -> None:
    """Debian's installer writes "127.0.1.1 HOST" into /etc/hosts: by its name a host then listens for itself only."""
    with contextlib.suppress(OSError, ValueError):
        here = socket.getaddrinfo(name, None)[0][4][0]
        if here != name and ipaddress.ip_address(here).is_loopback:
            what = f"{name} means {here} on that host itself, where no other host can reach a replica"
            hint = "set `replication_address` of this host to its IP address, or mend its /etc/hosts"
            raise CheckFailed("replication-address", what, hint=hint)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _refused(address: str, port: int, error: OSError) -> CheckFailed:
    if error.errno == errno.EADDRINUSE:
        what = f"somebody listens on {address}:{port} already"
        return CheckFailed("replication-port-taken", what, hint="set derby.replication.port to a free one")
    what = f"nothing can listen on {address}:{port} here: {error.strerror or error}"
    return CheckFailed("replication-address", what, hint="set `replication_address` to an address of this host")
