"""What the rest of snaprep knows of a host: a name, and operations that can be called there.

Errors of reaching a host are `HostUnreachable` with one of these ids, each with a hint: `host-unreachable`,
`host-key-unknown`, `host-key-changed`, `login-refused`, `no-python`, `privilege`, `agent-died`, `deadline`. Errors of
an operation come as the agent raised them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from snaprep.agent.connection import OnProgress
from snaprep.agent.wire import Hello

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """One call under way."""

    def result(self) -> T_co:
        """Wait for the reply, at most to the call's deadline. Raises what the operation raised, or `deadline`."""

    def done(self) -> bool:
        """Whether `result` would return or raise at once."""

    def cancel(self) -> None:
        """Ask the agent to give the operation up; `result` then raises what the operation makes of it."""


class Host(Protocol):
    @property
    def name(self) -> str:
        """The name that the configuration gives this host."""

    @property
    def alive(self) -> bool:
        """False from the moment in which the agent or the way to it is known to be gone."""

    @property
    def hello(self) -> Hello:
        """Who the agent said it is."""

    def call(
        self,
        op: str,
        args: Mapping[str, object],
        result_type: type[T],
        *,
        deadline_s: float,
        on_progress: OnProgress | None = None,
    ) -> T:
        """Run an operation there and wait for its result."""

    def begin(
        self,
        op: str,
        args: Mapping[str, object],
        result_type: type[T],
        *,
        deadline_s: float,
        on_progress: OnProgress | None = None,
    ) -> Pending[T]:
        """Start an operation there."""

    def close(self) -> None:
        """End the session; the agent runs its own closing and exits. Bounded; may be called twice."""
