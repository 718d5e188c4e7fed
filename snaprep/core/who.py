"""Who serves, found by looking: engine state first, then the generation stamped in database and dataset.

The configuration names two hosts, not roles. When looking does not settle it, the answer is an error that shows both
positions, and the operator's `--source` decides.
"""

from __future__ import annotations

from dataclasses import replace

from snaprep.core.action import Roles
from snaprep.core.errors import ErrorInfo, NobodyServes, named
from snaprep.core.model import HALTED_STATES, OPEN_STATES, REPLICA_STATES, EngineState, Facts, HostFacts


def who(facts: Facts, wished_source: str | None = None) -> Roles | ErrorInfo:
    """The roles for a run that needs a serving source."""
    if wished_source is not None:
        return _roles(facts, wished_source)
    candidates = [h for h in facts.hosts if may_serve(h)]
    if not candidates and (why := next((h.error for h in facts.hosts if h.error), None)) is not None:
        return replace(why, serving=serving(facts))
    if not candidates and all(h.claims_replica for h in facts.hosts):
        return ErrorInfo(
            id="two-replicas",
            what="both hosts hold a replica: a change of roles died before one of them was the primary",
            serving="nobody serves",
            hint="`snaprep takeover` makes the newer one serve",
            exit_code=21,
            details=tuple(describe(h) for h in facts.hosts),
        )
    if not candidates:
        return ErrorInfo(
            id="no-database",
            what="neither host holds a database of this pair that could serve",
            serving=serving(facts),
            hint="check `dataset` and `database` in snaprep.toml; for a first rebuild one host has the live database",
            exit_code=3,
            details=tuple(describe(h) for h in facts.hosts),
        )
    if len(candidates) == 1:
        return _roles(facts, candidates[0].name)
    opened = [h for h in candidates if h.engine.state in OPEN_STATES and not stands_apart(h)]
    newest = max(h.claimed_generation for h in candidates)
    leading = [h for h in candidates if h.claimed_generation == newest and (h.claims_primary or newest == 0)]
    if len(opened) == 1 and (opened == leading or not leading):
        return _roles(facts, opened[0].name)
    if not opened and len(leading) == 1:
        return _roles(facts, leading[0].name)
    return ErrorInfo(
        id="ambiguous-source",
        what="both hosts hold a database that could be the right one",
        serving=", ".join(f"{h.name} is open" for h in opened) or "nobody serves",
        hint="compare the two positions, then say which is right: --source HOST; the other is set aside, not lost",
        exit_code=3,
        details=tuple(describe(h) for h in facts.hosts),
    )


def stands_apart(host: HostFacts) -> bool:
    """Its image is mounted, but not where clients look: what is open there no client finds.

    A take-over that died between its promotion and its mount leaves a copy so.
    """
    at = host.live.mounted_at if host.live else None
    return at is not None and not host.stands_at_path


def opened_copy(host: HostFacts) -> bool:
    """A replica's copy that is open as an ordinary database with its gate closed, or put away.

    Nobody but snaprep can have been let in, so it is shut down and replaced like any replica that broke. Derby makes
    one of a replica that ends in the moment in which somebody looks at it: the first session that comes boots it. A
    switchover that was undone, or died, leaves one too.
    """
    return host.claims_replica and host.engine.state is EngineState.GATED


def stepped_down(host: HostFacts, other: HostFacts) -> bool:
    """A primary until a switchover: out of its clients' reach, with its gate closed, and not marked so any more."""
    older = host.claims_primary and host.claimed_generation < other.claimed_generation
    return older and stands_apart(host) and host.engine.state is EngineState.GATED


def handing_over(facts: Facts) -> HostFacts | None:
    """The host to which a switchover that died was handing over: all but open, and nobody finds the former primary."""
    for host in facts.hosts:
        other = facts.other(host.name)
        if opened_copy(host) and host.stands_at_path and not (other.error or other.stands_at_path):
            return host
    return None


def takes_sessions(host: HostFacts) -> bool:
    """Open, and where clients look."""
    return host.engine.state is EngineState.PRIMARY and not stands_apart(host)


def servers(facts: Facts) -> tuple[str, ...]:
    """The hosts that serve: those that take sessions; else the one whose first session would open the database."""
    takes = tuple(h.name for h in facts.hosts if takes_sessions(h))
    if takes or any(_halted(h) for h in facts.hosts):
        return takes
    idle = [h for h in facts.hosts if h.engine.state is EngineState.CLOSED and h.engine.server_up and may_serve(h)]
    return (idle[0].name,) if len(idle) == 1 and idle[0].stands_at_path else ()


def serves(facts: Facts) -> str | None:
    """The host that serves; None when none does, both do, or nobody knows."""
    names = servers(facts)
    return names[0] if len(names) == 1 else None


def closed_to_us(host: HostFacts) -> bool:
    """Its database is open in a process that does not answer us; it may well answer others."""
    return host.engine.state is EngineState.UNKNOWN and not stands_apart(host)


def _closed_to_us(facts: Facts) -> tuple[str, ...]:
    return tuple(h.name for h in facts.hosts if closed_to_us(h))


def _halted(host: HostFacts) -> bool:
    return host.engine.state in HALTED_STATES and not stands_apart(host)


def may_serve(host: HostFacts) -> bool:
    """Open for sessions, or closed and not known to be a copy."""
    if host.engine.state in REPLICA_STATES or opened_copy(host):
        return False
    if host.engine.state in OPEN_STATES and not stands_apart(host):
        return True
    return host.has_database and not host.claims_replica


def serving(facts: Facts) -> str:
    """One sentence on who serves now, for every error and report."""
    names = servers(facts)
    if len(names) > 1:
        return f"{' and '.join(names)} both take sessions"
    if names and takes_sessions(facts.host(names[0])):
        return f"{names[0]} serves"
    if names:
        return f"{names[0]} serves (idle: the first session opens the database)"
    halted = [h for h in facts.hosts if _halted(h)]
    if halted:
        return f"nobody serves: {halted[0].name} is {halted[0].engine.state}"
    if closed := _closed_to_us(facts):
        return f"{closed[0]} has its database open, but does not let snaprep in to look"
    unseen = [h for h in facts.hosts if h.error]
    if len(unseen) == len(facts.hosts):
        return f"not known: neither {unseen[0].name} nor {unseen[1].name} could be looked at"
    return "nobody serves, as far as can be seen" + (f"; {unseen[0].name} could not be looked at" if unseen else "")


_STANDS = frozenset({2, 30, 75})  # usage, a host out of reach, a lock: true whoever serves
_NOBODY = NobodyServes.exit_code


def judged(info: ErrorInfo, facts: Facts, *, acted: bool) -> ErrorInfo:
    """An error with who serves in it, and with the code of the safety state that was found.

    Once something was done, an error of storage, link or engine means: stopped, if somebody serves; else nobody does,
    whatever the error thought. `CheckFailed` and `Stale` promise that nothing was touched, so they do not outlive that.
    """
    code, served = info.exit_code, bool(servers(facts))
    if info.id == "primary-answers":  # it does so out of our sight, or nothing would have been tried
        return replace(info, serving=info.serving or serving(facts))
    if acted and not served and not _closed_to_us(facts) and code not in _STANDS:
        return replace(info, serving=serving(facts), exit_code=_NOBODY)
    if acted and served and code in (1, 3, 4) and info.id != "bug":
        code = 10
    elif served and code == _NOBODY:
        return replace(info, serving=serving(facts), exit_code=20)
    return replace(info, serving=info.serving or serving(facts), exit_code=code)


def unknown_host(facts: Facts, name: str) -> ErrorInfo | None:
    """An error when no host of the pair has this name."""
    first, second = (h.name for h in facts.hosts)
    if name in (first, second):
        return None
    return ErrorInfo(
        id="unknown-host",
        what=f"{name} is not one of this pair's hosts",
        serving=serving(facts),
        hint=f"the hosts are {first} and {second}",
        exit_code=2,
    )


def describe(host: HostFacts) -> str:
    """One host's position, as a line under an error."""
    if host.error:
        note = f"; {host.engine.note}" if host.engine.note else ""
        return f"{named(host.error, host.name).what} [{host.error.id}]{note}"
    claim = "last known as primary" if host.claims_primary else "no mark of a primary"
    newest = host.live.newest if host.live else None
    snapshot = f", newest snapshot {newest.name}" if newest else ""
    position = f", at {host.engine.position_text}" if host.engine.position_text else ""
    return f"{host.name}: {host.engine.state}, generation {host.claimed_generation}, {claim}{position}{snapshot}"


def _roles(facts: Facts, source: str) -> Roles | ErrorInfo:
    if (unknown := unknown_host(facts, source)) is not None:
        return unknown
    mine, other = facts.host(source), facts.other(source)
    generation = max(1, mine.claimed_generation, other.claimed_generation)
    if other.claims_primary and other.claimed_generation >= mine.claimed_generation:
        generation = other.claimed_generation + 1  # the operator's word is stamped, so that it need not be said again
    return Roles(source=source, target=other.name, generation=generation)
