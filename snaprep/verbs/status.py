"""`snaprep status`: how the pair stands."""

from __future__ import annotations

from dataclasses import replace

from snaprep.control import Sink
from snaprep.core import lineage
from snaprep.core.decide import attached
from snaprep.core.errors import ErrorInfo
from snaprep.core.follow import feedable, origin_of
from snaprep.core.model import HALTED_STATES, REPLICA_STATES, EngineState, Facts, HostFacts, ImageRole, Policy
from snaprep.core.report import HostStatus, Replica, Status, base_report, feed_report
from snaprep.core.spec import Pair
from snaprep.core.who import describe, opened_copy, servers, serves, serving, stands_apart, takes_sessions, who
from snaprep.journal import Entry, Journal
from snaprep.observe import observe, opened
from snaprep.verbs.clean import set_aside

_RESUMABLE = ("rebuild", "resume", "switchover")  # what `resume` goes on with: of a refresh it would make a rebuild


def status(pair: Pair, policy: Policy, sink: Sink) -> Status:
    """How the pair stands: who serves, whether the replica is attached, what the last run did."""
    del sink
    with opened(pair) as session:
        facts = observe(session)
    journal = Journal.of(pair.name)
    reading = journal.read()
    roles = who(facts, policy.source)
    source = facts.host(roles.source) if not isinstance(roles, ErrorInfo) else None
    target = facts.host(roles.target) if not isinstance(roles, ErrorInfo) else None
    base = lineage.base_between(source, target) if source is not None and target is not None else None
    last = _last_run(reading.entries)
    if any(h.held_by is not None and h.held_by.run == last[0] for h in facts.hosts):
        last = (last[0], last[1], "running")
    error = _alarm(facts)
    replica, replication = _replica(source, target)
    return Status(
        pair=pair.name,
        serves=serves(facts),
        serving=serving(facts),
        hosts=tuple(_host_status(h, max(x.claimed_generation for x in facts.hosts)) for h in facts.hosts),
        base=base_report(base),
        feed=feed_report(source.feed) if source is not None and source.feed is not None else None,
        replica=replica,
        replication=replication,
        last_run=last[0],
        last_verb=last[1],
        last_state=last[2],
        resumable=last[1] in _RESUMABLE and last[2] in ("stopped", "failed", "killed"),
        warnings=(*_warnings(facts), *reading.damaged),
        kept=set_aside(facts, "`snaprep clean --isolated` removes it"),
        journal=str(journal.path),
        error=error,
        hint=error.hint if error else "",
    )


def _alarm(facts: Facts) -> ErrorInfo | None:
    """What somebody has to act on now."""
    for host in facts.hosts:
        halted = host.engine.state in HALTED_STATES
        if halted and not stands_apart(host) and not opened_copy(host) and not host.guarded and host.held_by is None:
            return ErrorInfo(
                id="gate-left-closed",
                what=f"{host.name} is {host.engine.state}, and no run keeps it so",
                serving="nobody serves",
                hint="`snaprep abort` opens it",
                exit_code=21,
            )
    taking = [h for h in facts.hosts if takes_sessions(h)]
    if len(taking) > 1:
        return ErrorInfo(
            id="two-primaries",
            what="both hosts take sessions: they write different histories",
            serving=serving(facts),
            hint="stop the clients of the wrong one; then `snaprep rebuild --source HOST` sets the other aside",
            exit_code=21,
            details=tuple(describe(h) for h in facts.hosts),
        )
    reasons = [h.error for h in facts.hosts if h.error]
    untold = [h.error for h in facts.hosts if h.error and h.engine.state is not EngineState.ABSENT]
    if untold or len(reasons) == len(facts.hosts):  # it may serve all the same
        return replace((*untold, *reasons)[0], serving=serving(facts), details=tuple(map(describe, facts.hosts)))
    if not servers(facts):
        return ErrorInfo(
            id="nobody-serves",
            what="no host of this pair serves, as far as can be seen",
            serving=serving(facts),
            hint="snaprep takeover",
            exit_code=21,
            details=tuple(describe(h) for h in facts.hosts),
        )
    return None


def _warnings(facts: Facts) -> tuple[str, ...]:
    said = []
    for host in facts.hosts:
        if host.live is not None and host.live.automounts and host.live.role is ImageRole.LIVE:
            said.append(f"{host.live.name} on {host.name} is mounted at boot, before its role is known")
        if host.error:
            said.append(f"{host.name} told nothing: {host.error.id}")
    return tuple(said)


def _replica(source: HostFacts | None, target: HostFacts | None) -> tuple[Replica, str]:
    """How the replica stands, as a word for programs and as a sentence for people."""
    if source is None or target is None:
        return "unknown", ""
    if (unseen := next((h.name for h in (source, target) if h.error), None)) is not None:
        return "unknown", f"not known: {unseen} could not be looked at"
    if source.feed is not None and target.feed is not None:
        return "fed", f"{target.name} is fed the log of {source.name}"
    if attached(source, target):
        return "attached", f"{target.name} replays what {source.name} sends"
    if origin_of(target.live) is not None and not source.engine.replicating:
        at = f"{target.name} holds a replica up to {target.engine.position_text}"
        on = "goes on with it" if feedable(source, target) is not None else "ships a new base first"
        return "stopped", f"not fed: {at}; `snaprep follow` {on}"
    if target.engine.state in REPLICA_STATES:
        why = f"{target.name} is {target.engine.state}, but {source.name} does not send"
        return "broken", f"broken: {why}; `snaprep rebuild`"
    if target.claims_replica:
        return "broken", f"broken: {target.name} holds a replica that does not run; `snaprep rebuild`"
    return "none", f"none: {target.name} is no replica of {source.name}"


def _host_status(host: HostFacts, newest: int) -> HostStatus:
    """`newest` is the newest generation that either host claims: an older primary is none any more."""
    role = "replica" if host.claims_replica else "other"
    if host.engine.state in REPLICA_STATES:
        role = "replica"
    elif takes_sessions(host) or (host.claims_primary and host.claimed_generation == newest):
        role = "primary"
    point = host.live.newest if host.live else None
    error = f"{host.error.id}: {host.error.what}" if host.error else ""
    if error and host.volume is None:  # it told nothing: what its facts say besides is not known
        return HostStatus(name=host.name, dataset=host.live_name, error=error)
    return HostStatus(
        name=host.name,
        role="unknown" if host.error else role,  # type: ignore[arg-type]
        engine_state=str(host.engine.state),
        generation=host.claimed_generation,
        position=host.engine.position_text,
        replicating=host.engine.replicating,
        server_up=host.engine.server_up,
        dataset=host.live_name,
        mounted_at=(host.live.mounted_at or "") if host.live else "",
        newest=point.name if point else "",
        store_health=host.volume.store_health if host.volume else "",
        free_bytes=host.volume.free_bytes if host.volume else None,
        pinned_bytes=host.live.pinned_bytes if host.live else None,
        guarded=host.guarded,
        held_by=host.held_by,
        error=error,
    )


def _last_run(entries: tuple[Entry, ...]) -> tuple[str, str, str]:
    """(run, verb, state) of the newest run that acted; a run without an end was killed."""
    begun = next((e for e in reversed(entries) if e.kind == "begin"), None)
    if begun is None:
        return ("", "", "")
    end = next((e for e in reversed(entries) if e.kind == "end" and e.run == begun.run), None)
    return (begun.run, str(begun.get("verb", "")), str(end.get("state", "")) if end else "killed")
