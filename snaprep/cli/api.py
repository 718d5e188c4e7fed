"""What the verbs call: the shape of the module `snaprep.run`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from snaprep.control import Control, Sink
from snaprep.core.model import Policy
from snaprep.core.report import CheckReport, Plan, Report, Status, SwitchQuestion, TakeOverQuestion
from snaprep.core.spec import Pair


class Run(Protocol):
    """Each may raise SnaprepError, or answer with a report that carries one."""

    def check(self, pair: Pair, policy: Policy, sink: Sink, /) -> CheckReport: ...
    def plan(self, pair: Pair, policy: Policy, sink: Sink, /) -> Plan: ...
    def rebuild(self, pair: Pair, policy: Policy, sink: Sink, /, *, resume: bool, control: Control) -> Report: ...
    def follow(self, pair: Pair, policy: Policy, sink: Sink, /, *, control: Control) -> Report: ...
    def take_over(
        self,
        pair: Pair,
        policy: Policy,
        sink: Sink,
        /,
        *,
        host: str | None,
        confirm: Callable[[TakeOverQuestion], bool],
    ) -> Report: ...
    def switch_over(
        self,
        pair: Pair,
        policy: Policy,
        sink: Sink,
        /,
        *,
        host: str | None,
        confirm: Callable[[SwitchQuestion], bool],
        control: Control,
    ) -> Report: ...
    def refresh(self, pair: Pair, policy: Policy, sink: Sink, /, *, control: Control) -> Report: ...
    def status(self, pair: Pair, policy: Policy, sink: Sink, /) -> Status: ...
    def command(
        self,
        pair: Pair,
        policy: Policy,
        sink: Sink,
        /,
        command: Literal["cutover", "abort", "limit"],
        value: int | None,
    ) -> Report: ...
    def verify(self, pair: Pair, policy: Policy, sink: Sink, /, *, deep: bool) -> Report: ...
    def clean(
        self, pair: Pair, policy: Policy, sink: Sink, /, *, isolated: tuple[str, ...], dry_run: bool
    ) -> Report: ...
