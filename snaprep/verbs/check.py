"""`snaprep check`: everything that could stop a run, on each host and between them. Changes nothing.

What can be proven is proven: the one-run key lets the source in, and the replication port of each host is reached from
the other by a word that only this check knows. The key is taken back when the session ends.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from snaprep.act.preflight import prove_way
from snaprep.control import Sink
from snaprep.core.action import Refuse, Roles
from snaprep.core.decide import attached
from snaprep.core.errors import ErrorInfo, SnaprepError
from snaprep.core.lane import decide_lane
from snaprep.core.model import REPLICA_STATES, Checked, EngineState, Facts, Finding, History, HostFacts, Policy
from snaprep.core.report import CheckReport, HostChecks
from snaprep.core.spec import Pair
from snaprep.core.who import serves, serving, who
from snaprep.core.words import size
from snaprep.observe import observe, opened
from snaprep.session import Session

_CHECK_S = 90.0
_CALL_S = 30.0
_SKEW_S = 60.0


def check(pair: Pair, policy: Policy, sink: Sink) -> CheckReport:
    """Everything that could stop a run, on both hosts and between them. Changes nothing."""
    del sink
    with opened(pair) as session:
        facts = observe(session)
        roles = who(facts, policy.source)
        target = roles.target if isinstance(roles, Roles) else ""
        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(lambda h: _host(session, facts, h, as_target=h.name == target), facts.hosts))
        found = [(*t.findings, *_space(h, policy)) for t, h in zip(told, facts.hosts, strict=True)]
        between = list(_between(facts, told))
        seen = {f.id for findings in found for f in findings if f.level == "fail"}
        between += [f for f in _decided(facts, roles, policy) if f.id not in seen]
        if isinstance(roles, Roles):
            between += _ways(session, facts, roles)
    role_of = {roles.source: "source", roles.target: "target"} if isinstance(roles, Roles) else {}
    return CheckReport(
        pair=pair.name,
        serves=serves(facts),
        serving=serving(facts),
        hosts=(
            *(
                HostChecks(host=h.name, role=role_of.get(h.name, ""), findings=f)
                for h, f in zip(facts.hosts, found, strict=True)
            ),
            HostChecks(host="", findings=tuple(between)),
        ),
    )


def _fail(error: ErrorInfo) -> Finding:
    return Finding(error.id, "fail", error.what, error.hint)


# -- each host ---------------------------------------------------------------------------------------------------------


def _host(session: Session, facts: Facts, host: HostFacts, *, as_target: bool) -> Checked:
    """What its agent finds. A host that could not tell facts may still tell what is wrong with it."""
    args = {"as_target": as_target, "owner": facts.other(host.name).owner}
    try:
        found = session.host(host.name).call("check", args, Checked, deadline_s=_CHECK_S)
    except SnaprepError as error:
        return Checked((_fail(error.info),))
    if host.error and not any(f.level == "fail" for f in found.findings):
        return Checked((*found.findings, _fail(host.error)), found.traits)
    return found


def _space(host: HostFacts, policy: Policy) -> Iterator[Finding]:
    if host.volume is None:
        return
    free, whole = size(host.volume.free_bytes), size(host.volume.size_bytes)
    floor = size(policy.floor_bytes)
    if host.volume.free_bytes < policy.floor_bytes:
        what = f"{free} of {whole} are free, and the floor is {floor}: a replica would be given up"
        yield Finding("no-space", "fail", what, "free space there, or lower rounds.floor")
    else:
        yield Finding("space", "ok", f"{free} of {whole} are free; the floor is {floor}")
    if host.live is not None and host.live.points:
        pinned = size(host.live.pinned_bytes)
        yield Finding("pinned", "ok", f"{len(host.live.points)} snapshots pin {pinned} of {host.live.name}")


# -- between them ------------------------------------------------------------------------------------------------------


def _between(facts: Facts, told: list[Checked]) -> Iterator[Finding]:
    first, second = facts.hosts
    if first.volume is not None and second.volume is not None:
        both = sorted(first.volume.caps & second.volume.caps)
        yield Finding("volume-caps", "ok", f"both can: {', '.join(both) or 'plain send'}")
        skew_s = abs(first.clock_s - second.clock_s)
        if skew_s > _SKEW_S:
            what = f"the clocks differ by {skew_s:.0f} s"
            yield Finding("clock-skew", "warn", what, "nothing here rests on them; mend it")
    one, other = told[0].traits, told[1].traits
    if not one or not other:
        return
    yield from _versions(facts, one, other)
    if {one.get("server"), other.get("server")} == {"network", "loopback"}:
        closed = first.name if one["server"] == "loopback" else second.name
        what = f"the server on {closed} listens on the loopback only, the other one for the network"
        yield Finding("listens-differ", "warn", what, "after a take-over clients would not reach it: derby.drda.host")
    keys = {k for k in one.keys() | other.keys() if k.startswith("property ") and one.get(k) != other.get(k)}
    if keys:
        names = ", ".join(sorted(k.removeprefix("property ") for k in keys))
        what = f"the servers' properties differ: {names}"
        yield Finding("properties-differ", "warn", what, "after a take-over the database would behave differently")
    else:
        yield Finding("properties", "ok", "both servers have the same properties")


def _versions(facts: Facts, one: dict[str, str], other: dict[str, str]) -> Iterator[Finding]:
    names = [h.name for h in facts.hosts]
    for what, left, right in ((w, one.get(w, ""), other.get(w, "")) for w in ("Derby", "Java")):
        if not left or not right:
            continue
        said = f"{names[0]} runs {what} {left}, {names[1]} {right}"
        if left == right:
            yield Finding(f"{what.lower()}-versions", "ok", f"both run {what} {left}")
        elif what == "Derby":
            yield Finding("version-differs", "fail", said, "replication needs equal versions")
        else:
            yield Finding("java-differs", "warn", said, "it works, and nobody tests it: give both the same")


def _decided(facts: Facts, roles: Roles | ErrorInfo, policy: Policy) -> Iterator[Finding]:
    """What a rebuild would say now."""
    if isinstance(roles, Roles):
        yield Finding("roles", "ok", f"{roles.source} is the source, {roles.target} the target")
        if facts.host(roles.source).engine.state is EngineState.GATED:
            what = f"the gate of {roles.source} is closed"
            yield Finding("gate-left-closed", "fail", what, "`snaprep abort` opens it, unless a run keeps it so")
    action = decide_lane(facts, policy, History())
    if isinstance(action, Refuse):
        yield Finding(action.error.id, "fail", action.error.what, action.error.hint)


# -- the ways ----------------------------------------------------------------------------------------------------------


def _ways(session: Session, facts: Facts, roles: Roles) -> list[Finding]:
    """From source to target a run needs; back again `refresh` and a fail-back do."""
    if any(h.error for h in facts.hosts) or any(h.held_by is not None for h in facts.hosts):
        return []
    found: list[Finding] = []
    for sender, receiver, back in ((roles.source, roles.target, False), (roles.target, roles.source, True)):
        for prove in (_link, _port):
            finding = prove(session, facts, sender, receiver)
            worse = back and finding.level == "fail"
            what = f"{finding.what} (needed after a take-over)" if worse else finding.what
            found.append(Finding(finding.id, "warn" if worse else finding.level, what, finding.hint))
    return found


def _link(session: Session, facts: Facts, sender: str, receiver: str) -> Finding:
    """A key made for this check lets the sender's agent reach the receiver's, as a run's would."""
    del facts
    try:
        began_s = time.monotonic()
        session.link(sender, receiver, f"check-{secrets.token_hex(4)}", None)
        session.host(sender).call("probe_link", {}, type(None), deadline_s=_CALL_S)
    except SnaprepError as error:
        what = f"data cannot go from {sender} to {receiver}: {error.info.what}"
        return Finding(error.id, "fail", what, error.info.hint)
    took_ms = 1000 * (time.monotonic() - began_s)
    return Finding("link", "ok", f"data can go from {sender} to {receiver} (open after {took_ms:.0f} ms)")


def _port(session: Session, facts: Facts, sender: str, receiver: str) -> Finding:
    """The receiver listens for a moment where its replica would wait, and the sender connects as its primary would."""
    if facts.host(receiver).engine.state in REPLICA_STATES:
        if attached(facts.host(sender), facts.host(receiver)):
            return Finding("replication-port", "ok", f"{receiver} replays what {sender} sends")
        what = f"a replica waits on {receiver}; its port was not tried, for it takes one connection only"
        return Finding("replication-waits", "warn", what, "`snaprep rebuild` attaches it")
    spec = session.pair.host(sender).derby
    where = f"{spec.peer_address}:{spec.peer_port}"
    try:
        prove_way(session, sender, receiver)
    except SnaprepError as error:
        what = f"replication cannot go from {sender} to {receiver}: {error.info.what}"
        return Finding(error.id, "fail", what, error.info.hint)
    return Finding("replication-port", "ok", f"{sender} reaches {receiver} for replication at {where}")
