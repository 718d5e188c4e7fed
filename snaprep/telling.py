"""What a run tells: one report that is kept up to date, sampled by every view."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snaprep.act.context import Memory
from snaprep.control import Sink
from snaprep.core.errors import ErrorInfo, SnaprepError
from snaprep.core.model import Facts, FeedFacts, Policy
from snaprep.core.report import Report, RoundReport, RunState, feed_report
from snaprep.core.who import serving, who
from snaprep.observe import judge
from snaprep.session import Session


class Telling:
    """The part of a run that talks."""

    def __init__(self, session: Session, policy: Policy, sink: Sink, memory: Memory) -> None:
        self.session = session
        self.policy = policy
        self.sink = sink
        self.memory = memory
        self._began_s = time.monotonic()
        self._lock = threading.Lock()

    def _look(self, facts: Facts) -> None:
        roles = who(facts, self.policy.source)
        source = facts.host(roles.source) if not isinstance(roles, ErrorInfo) else None
        target = facts.host(roles.target) if not isinstance(roles, ErrorInfo) else None
        self._say(
            source=source.name if source else self.memory.report.source,
            target=target.name if target else self.memory.report.target,
            serving=serving(facts),
            serves=source.name if source is not None and source.engine.server_up else None,
            source_free_bytes=source.volume.free_bytes if source and source.volume else None,
            target_free_bytes=target.volume.free_bytes if target and target.volume else None,
            pinned_bytes=source.live.pinned_bytes if source and source.live else None,
            limit_bytes_per_s=self.policy.limit_bytes_per_s,
        )

    def _say(self, **changed: Any) -> Report:  # noqa: ANN401 (fields of Report)
        with self._lock:
            elapsed_ms = 1000 * (time.monotonic() - self._began_s)
            self.memory.report = replace(self.memory.report, elapsed_ms=elapsed_ms, **changed)
            report = self.memory.report
        self.sink.report(report)
        return report

    def _tell_round(self, shown: RoundReport) -> None:
        current = self.memory.report.current
        if shown.state == "failed" and current is not None:
            shown = replace(current, state="failed")  # with what was sent of it
        others = tuple(r for r in self.memory.report.rounds if (r.number, r.kind) != (shown.number, shown.kind))
        self._say(rounds=(*others, shown))

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "progress" and "sent_bytes" in event and self.memory.report.current is not None:
            current = self.memory.report.current
            self._tell_round(
                replace(
                    current,
                    sent_bytes=event["sent_bytes"],
                    rate_bytes_per_s=event.get("rate_bytes_per_s"),
                    elapsed_ms=event.get("elapsed_ms", 0.0),
                )
            )
            return
        if event.get("event") != "command" or self.sink.show_commands:
            self.sink.event(event)

    def _tell_feed(self, facts: FeedFacts) -> None:
        self._say(state=RunState.FOLLOWING, reason="", feed=feed_report(facts))

    def _end(self, error: ErrorInfo) -> Report:
        state = {10: RunState.STOPPED, 11: RunState.ABORTED}.get(error.exit_code, RunState.FAILED)
        return self._say(state=state, reason=error.what, error=error, hint=error.hint)

    def failed(self, error: SnaprepError) -> Report:
        """The report of a run that an exception ended: who serves now is looked at once more."""
        return self._end(judge(self.session, error.info))
