"""What a run says of the hosts, of what is to come, and of its own end."""

from __future__ import annotations

from snaprep.core.action import Cutover, FeedCutover, Switchover
from snaprep.core.errors import ErrorInfo, SnaprepError
from snaprep.core.estimate import Prediction
from snaprep.core.model import CutoverTried, Facts, Policy
from snaprep.core.report import CutoverReport, Forecast, Report, RunState
from snaprep.core.who import judged, serves, serving, who
from snaprep.journal import fields_of
from snaprep.loop.state import Run
from snaprep.observe import observe


def hosts(run: Run, facts: Facts) -> None:
    """Who is who, and how much room there is."""
    roles = who(facts, run.policy.source)
    source = facts.host(roles.source) if not isinstance(roles, ErrorInfo) else None
    target = facts.host(roles.target) if not isinstance(roles, ErrorInfo) else None
    run.say(
        source=source.name if source else run.report.source,
        target=target.name if target else run.report.target,
        serving=serving(facts),
        serves=serves(facts),
        source_free_bytes=source.volume.free_bytes if source and source.volume else None,
        target_free_bytes=target.volume.free_bytes if target and target.volume else None,
        pinned_bytes=source.live.pinned_bytes if source and source.live else None,
        limit_bytes_per_s=run.policy.limit_bytes_per_s,
    )


def journal_trouble(run: Run) -> None:
    """A journal that can no longer be written does not stop a run, but nobody must rely on it unknowing."""
    trouble = run.journal.trouble
    if trouble and trouble not in run.report.notes:
        run.say(notes=(*run.report.notes, trouble))


def cutting_over(run: Run, action: Cutover | FeedCutover) -> None:
    run.say(
        state=RunState.CUTTING_OVER,
        reason="clients are cut off until replication is on",
        forecast=forecast(run.policy, Prediction(action.p50_ms, action.p90_ms, 0)),
    )


def attempted(run: Run, action: Cutover | FeedCutover | Switchover, tried: CutoverTried, shown: CutoverReport) -> None:
    """How a cutover or a switchover went; the journal and the next decision know it, too."""
    what = "switchover" if isinstance(action, Switchover) else "cutover"
    run.journal.append(what, **fields_of(tried))
    run.say(cutover=shown)
    run.attempted(action, tried)
    if not tried.ok:
        run.sink.note(f"the {what} was undone after {tried.blocked_ms:.0f} ms: {tried.error}")


def forecast(policy: Policy, prediction: Prediction | None) -> Forecast:
    return Forecast(
        budget_ms=policy.budget_ms,
        undo_ms=policy.undo_ms,
        p50_ms=prediction.p50_ms if prediction else None,
        p90_ms=prediction.p90_ms if prediction else None,
    )


def ended(run: Run, error: ErrorInfo) -> Report:
    state = {10: RunState.STOPPED, 11: RunState.ABORTED}.get(error.exit_code, RunState.FAILED)
    return run.say(state=state, reason=error.what, error=error, hint=error.hint)


def failed(run: Run, error: SnaprepError) -> Report:
    """The report of a run that an exception ended: who serves now is looked at once more."""
    facts = observe(run.session)
    run.say(serving=serving(facts), serves=serves(facts))
    return ended(run, judged(error.info, facts, acted=run.session.acted))
