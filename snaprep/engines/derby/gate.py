"""The gate: three database properties that let in nobody but our own user.

It refuses new sessions and leaves existing ones alone, so it is closed just before a shutdown. It is a property of the
database: it survives a restart and travels in every copy. So the former values are stored beside it, in the database,
before anything is closed, and whoever finds the gate closed can open it: another operator, on either host, after a
power cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from snaprep.engines.derby.client import DerbyClient

_GET = "VALUES SYSCS_UTIL.SYSCS_GET_DATABASE_PROPERTY(?)"
_SET = "CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY(?, ?)"
_SAVED = "snaprep.gate.saved"
_OPENING = "snaprep.gate.opening"
_ABSENT = "(none)"  # stands for a property that was not set; Derby cannot tell an empty value from none
GENERATION = "snaprep.generation"

_MODE = "derby.database.defaultConnectionMode"
# property -> its value while the gate is closed; {user} is ours
_CLOSED = {
    "derby.database.fullAccessUsers": "{user}",
    "derby.database.readOnlyAccessUsers": None,
    _MODE: "noAccess",
}


@dataclass(frozen=True, slots=True)
class GateState:
    saved: bool  # former values are stored
    closed: bool


def get_property(client: DerbyClient, name: str, key: str, deadline_s: float) -> str | None:
    return client.execute(name, _GET, [key], deadline_s=deadline_s).value


def set_property(client: DerbyClient, name: str, key: str, value: str | None, deadline_s: float) -> None:
    client.execute(name, _SET, [key, value], deadline_s=deadline_s)


def state(client: DerbyClient, name: str, deadline_s: float) -> GateState:
    """Read from an open connection whether the gate is closed, and whether its former values are known.

    A site may let in only whom it names, all the time: its gate is closed when what stands is not what was saved.
    """
    if get_property(client, name, _SAVED, deadline_s) is None:
        return GateState(saved=False, closed=False)
    stands = {key: get_property(client, name, key, deadline_s) for key in _CLOSED}
    former = {key: _former(client, name, key, deadline_s) for key in _CLOSED}
    return GateState(saved=True, closed=(stands[_MODE] or "").lower() == "noaccess" and stands != former)


def save(client: DerbyClient, name: str, deadline_s: float) -> None:
    """Store the present values, unless some are stored already: those are the true ones."""
    if get_property(client, name, _SAVED, deadline_s) is not None:
        return
    with client.transaction(name, deadline_s):
        for key in _CLOSED:
            value = get_property(client, name, key, deadline_s)
            set_property(client, name, _place(key), value if value is not None else _ABSENT, deadline_s)
        set_property(client, name, _SAVED, "1", deadline_s)


def close(client: DerbyClient, name: str, user: str, deadline_s: float) -> None:
    """From its commit on, new sessions of anybody else get 08004."""
    with client.transaction(name, deadline_s):
        for key, value in _CLOSED.items():
            set_property(client, name, key, value.format(user=user) if value else None, deadline_s)


def open_again(client: DerbyClient, name: str, deadline_s: float) -> bool:
    """Put the former values back, in one commit, and forget them. False when there was nothing to put back.

    Two may open at once, a guard and an operator: the first write takes the lock, and what is read after it is true.
    """
    if get_property(client, name, _SAVED, deadline_s) is None:
        return False
    with client.transaction(name, deadline_s):
        set_property(client, name, _OPENING, "1", deadline_s)
        set_property(client, name, _OPENING, None, deadline_s)
        if get_property(client, name, _SAVED, deadline_s) is None:
            return False
        for key in _CLOSED:
            set_property(client, name, key, _former(client, name, key, deadline_s), deadline_s)
            set_property(client, name, _place(key), None, deadline_s)
        set_property(client, name, _SAVED, None, deadline_s)
    return True


def _former(client: DerbyClient, name: str, key: str, deadline_s: float) -> str | None:
    value = get_property(client, name, _place(key), deadline_s)
    return None if value == _ABSENT else value


def _place(key: str) -> str:
    return f"snaprep.gate.{key.rsplit('.', 1)[1]}"
