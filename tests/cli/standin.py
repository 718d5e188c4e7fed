"""A stand-in for the module `snaprep.run`: it records what the verbs ask, and answers with what a test gives it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from snaprep.cli.main import main
from snaprep.control import Control, Sink
from snaprep.core.model import Policy
from snaprep.core.report import CheckReport, Plan, Report, Status, SwitchQuestion, TakeOverQuestion
from snaprep.core.spec import Pair
from tests.view import samples

SWITCH = SwitchQuestion(source="db1", target="db2", p50_ms=700, p90_ms=1190, budget_ms=4000)
QUESTION = TakeOverQuestion(target="db2", loss=("at most 3 commits",), not_fenced=("db1 cannot be reached",))


@dataclass
class StandIn:
    """`during` runs inside a verb, as the run itself would."""

    report: Report = samples.DONE
    during: Callable[[Sink, Control | None], None] = lambda _sink, _control: None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    pair: Pair | None = None
    policy: Policy | None = None

    def _call(self, name: str, pair: Pair, policy: Policy, sink: Sink, control: Control | None, **said: object) -> None:
        self.calls.append((name, said))
        self.pair, self.policy = pair, policy
        self.during(sink, control)

    def check(self, pair: Pair, policy: Policy, sink: Sink, /) -> CheckReport:
        self._call("check", pair, policy, sink, None)
        return samples.CHECK

    def plan(self, pair: Pair, policy: Policy, sink: Sink, /) -> Plan:
        self._call("plan", pair, policy, sink, None)
        return samples.PLAN

    def rebuild(self, pair: Pair, policy: Policy, sink: Sink, /, *, resume: bool, control: Control) -> Report:
        self._call("rebuild", pair, policy, sink, control, resume=resume)
        return self.report

    def follow(self, pair: Pair, policy: Policy, sink: Sink, /, *, control: Control) -> Report:
        self._call("follow", pair, policy, sink, control)
        return self.report

    def take_over(
        self,
        pair: Pair,
        policy: Policy,
        sink: Sink,
        /,
        *,
        host: str | None,
        confirm: Callable[[TakeOverQuestion], bool],
    ) -> Report:
        self._call("takeover", pair, policy, sink, None, host=host, confirmed=confirm(QUESTION))
        return self.report

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
    ) -> Report:
        self._call("switchover", pair, policy, sink, control, host=host, confirmed=confirm(SWITCH))
        return self.report

    def refresh(self, pair: Pair, policy: Policy, sink: Sink, /, *, control: Control) -> Report:
        self._call("refresh", pair, policy, sink, control)
        return self.report

    def status(self, pair: Pair, policy: Policy, sink: Sink, /) -> Status:
        self._call("status", pair, policy, sink, None)
        return samples.STATUS

    def command(
        self,
        pair: Pair,
        policy: Policy,
        sink: Sink,
        /,
        command: Literal["cutover", "abort", "limit"],
        value: int | None,
    ) -> Report:
        self._call("command", pair, policy, sink, None, command=command, value=value)
        return self.report

    def verify(self, pair: Pair, policy: Policy, sink: Sink, /, *, deep: bool) -> Report:
        self._call("verify", pair, policy, sink, None, deep=deep)
        return self.report

    def clean(self, pair: Pair, policy: Policy, sink: Sink, /, *, isolated: tuple[str, ...], dry_run: bool) -> Report:
        self._call("clean", pair, policy, sink, None, isolated=isolated, dry_run=dry_run)
        return self.report


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def snaprep(*argv: str, run: StandIn | None = None, stdin: io.StringIO | None = None) -> Ended:
    """One command line against the stand-in."""
    out, err = io.StringIO(), io.StringIO()
    code = main(argv, run=run or StandIn(), streams=(out, err, stdin or io.StringIO()))
    return Ended(code, out.getvalue(), err.getvalue())
