"""Verbs that act on what runs have left or are doing: commands to a live run, verify, clean."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from snaprep.act import feed as act_feed
from snaprep.act import settle
from snaprep.act.context import Context
from snaprep.act.interpreter import Interpreter
from snaprep.control import Sink
from snaprep.core import keep
from snaprep.core.action import Roles, Verify
from snaprep.core.errors import CheckFailed, ErrorInfo, SnaprepError, VerifyFailed, from_info
from snaprep.core.follow import others_fed
from snaprep.core.model import EngineState, Facts, Policy
from snaprep.core.recipe import Step
from snaprep.core.report import Kept, Report, RunState
from snaprep.core.spec import Pair
from snaprep.core.who import handing_over, opened_copy, serving, stands_apart, who
from snaprep.engines.derby import recipe as derby_recipe
from snaprep.journal import Journal
from snaprep.observe import judge, observe, opened
from snaprep.session import Session

_POST_S = 15.0
_LISTEN = {  # the verbs whose runs obey a command
    "abort": ("rebuild", "resume", "refresh", "takeover", "switchover", "follow"),
    "cutover": ("rebuild", "resume"),
    "refresh": ("follow",),
    "limit": ("rebuild", "resume", "refresh", "follow"),
}


def command(
    pair: Pair, policy: Policy, sink: Sink, command: Literal["cutover", "abort", "limit", "refresh"], value: int | None
) -> Report:
    """Say something to the live run, through the hosts that it holds.

    `abort` without a live run puts back what a dead one has left.
    """
    del policy  # the live run has its own
    with opened(pair) as session:
        words = command if value is None else f"{command} {value}"
        facts = observe(session)
        reached = [
            h.name
            for h in facts.hosts
            if h.held_by is not None
            and h.held_by.verb in _LISTEN[command]
            and session.host(h.name).call("post", {"command": words}, bool, deadline_s=_POST_S)
        ]
        report = Report(pair=pair.name, verb=command, state=RunState.DONE, serving=serving(facts))
        if reached:
            return replace(report, notes=(f"the run that holds {' and '.join(reached)} was told: {words}",))
        held = next((h.held_by for h in facts.hosts if h.held_by is not None), None)
        if held is not None:
            what = f"{held.verb} by {held.operator} holds the pair (run {held.run}); it does not listen to `{command}`"
            raise CheckFailed("no-run", what, hint="wait until it is over: `snaprep status` shows it")
        if command != "abort":
            raise CheckFailed("no-run", "no run of this pair is on its way", hint="`snaprep rebuild --hold`")
        return _put_back(session, facts, sink, report)


def _put_back(session: Session, facts: Facts, sink: Sink, report: Report) -> Report:
    """Open what is gated or frozen, drop what was half received, take back keys that were left."""
    session.lock("abort", "abort", [h.name for h in session.pair.hosts if h.name in session.hosts])
    interpreter = Interpreter(session, sink.event)
    notes, halfway = [], handing_over(facts)
    for host in facts.hosts:
        if host.error:
            continue
        closed = host.engine.state in (EngineState.GATED, EngineState.FROZEN) or host.engine.gate_saved
        if closed and not stands_apart(host) and not opened_copy(host):
            interpreter.must((Step(host=host.name, op="gate_open", deadline_s=90),))
            notes.append(f"{host.name} is open again")
        if host is halfway:
            notes.append(f"a switchover to {host.name} has died: `snaprep switchover` finishes it")
        elif host.engine.state is EngineState.WAITING or opened_copy(host):
            interpreter.must((Step(host=host.name, op="stop_replica", deadline_s=60),))
            notes.append(f"the replica on {host.name}, which has no primary, was stopped")
        tidied = interpreter.must((Step(host=host.name, op="tidy", deadline_s=60),)).results["tidy"]
        notes += [f"{host.name}: {line}" for line in tidied]
    report = replace(report, state=RunState.ABORTED, serving=serving(observe(session)), notes=tuple(notes))
    if (why := next((h.error for h in facts.hosts if h.error), None)) is not None:
        left = replace(why, hint=f"what a run has left there stays until `snaprep abort` reaches it; {why.hint}")
        return replace(report, state=RunState.FAILED, error=judge(session, left), hint=left.hint)
    return report if notes else replace(report, notes=("nothing had to be put back",))


def _context(session: Session, policy: Policy, sink: Sink, facts: Facts) -> Context:
    return Context(
        pair=session.pair,
        policy=policy,
        session=session,
        engine=derby_recipe,
        interpreter=Interpreter(session, sink.event),
        facts=facts,
        run="upkeep",
        number=lambda: 0,
        tell=lambda _: None,
        stop=lambda: False,
    )


def _roles(facts: Facts, policy: Policy) -> Roles:
    roles = who(facts, policy.source)
    if isinstance(roles, ErrorInfo):
        raise from_info(roles)
    return roles


def verify(pair: Pair, policy: Policy, sink: Sink, *, deep: bool) -> Report:
    """Prove that the replica is attached and shares a point with its source; `deep` reads every row at that point."""
    with opened(pair) as session:
        session.need_all()
        facts = observe(session)
        report = Report(pair=pair.name, verb="verify", state=RunState.DONE, serving=serving(facts))
        try:
            roles = _roles(facts, policy)
            context = _context(session, policy, sink, facts)
            proven = settle.verify(context, Verify(roles=roles))
            if deep:
                session.lock("verify", "verify", ())
                proven = (*proven, *_compare(context, roles))
        except SnaprepError as error:
            info = judge(session, error.info)
            return replace(report, state=RunState.FAILED, error=info, hint=info.hint)
        return replace(report, source=roles.source, target=roles.target, serves=roles.source, verified=proven)


def _compare(context: Context, roles: Roles) -> tuple[str, ...]:
    """Boot a throw-away clone of the common point on both hosts; compare every row of every table by digest."""
    base = settle.shared(context, roles)
    if base is None:
        what = "the rows cannot be compared: there is no common point, because a plain directory keeps none"
        raise VerifyFailed("no-common-base", what, hint="compare them by queries while nobody writes")
    looked = {}
    for host, image, point in (
        (roles.source, base.source_image, base.point.name),
        (roles.target, base.target_image, base.target_point),
    ):
        args = {"image": image, "point": point, "owner": context.facts.host(host).owner}
        done = context.interpreter.must((Step(host=host, op="digest", args=args, deadline_s=24 * 3600),))
        looked[host] = done.results["digest"]
    first, second = looked[roles.source], looked[roles.target]
    if first != second:
        tables = sorted(t for t in {*first, *second} if first.get(t) != second.get(t))
        raise VerifyFailed("rows-differ", f"tables differ at {base.point.name}: {', '.join(tables)}")
    return (f"{len(first)} tables are equal, row by row, at {base.point.name}",)


def _name(item: keep.OnHost) -> str:
    return f"{item.host}: {item.image}{'@' + item.point if item.point else ''}"


def _kept_log(facts: Facts, roles: Roles, pair: Pair) -> tuple[str, ...]:
    """What is said of the log that the source keeps for a replica."""
    source = facts.host(roles.source)
    kept = source.engine.kept_log
    if kept is None or not kept.ours:
        return ()
    if others := others_fed(source, pair.name):
        return (f"{source.name}: its log is kept on for {', '.join(others)}",)
    return (f"{source.name}: its log is kept no longer",)


def clean(pair: Pair, policy: Policy, sink: Sink, *, isolated: tuple[str, ...], dry_run: bool) -> Report:
    """Remove what runs have left and nobody needs; images that were set aside only when they are named."""
    with opened(pair) as session:
        session.need_all()
        facts = observe(session)
        roles = _roles(facts, policy)
        named = [(i.host, i.image) for i in keep.isolated_images(facts) if i.image in isolated]
        if unknown := set(isolated) - {image for _, image in named}:
            raise CheckFailed(
                "not-isolated", f"{min(unknown)} was not set aside by this pair", hint="`snaprep status` lists what was"
            )
        for name, image in named:
            found = facts.host(name).volume
            if found is not None and not any(i.name == image and i.ours for i in found.images):
                raise CheckFailed(
                    "not-ours",
                    f"{image} on {name} was made by you, not by a run of this pair; snaprep never destroys such",
                    hint="remove it yourself, when nothing depends on it: docs/what-if.md",
                )
        what = keep.keeping(facts, roles, pair.name, named)
        goes = [*what.release, *what.destroy_points, *what.destroy_images]
        lines = (*map(_name, goes), *_kept_log(facts, roles, pair))
        stays = tuple(
            Kept(host=i.host, name=i.image, why="set aside; name it with --isolated to remove it")
            for i in keep.isolated_images(facts)
            if (i.host, i.image) not in named
        )
        report = Report(
            pair=pair.name, verb="clean", state=RunState.DONE, serving=serving(facts), serves=roles.source, kept=stays
        )
        if dry_run:
            return replace(report, notes=lines or ("nothing to remove",), hint="nothing was changed")
        session.lock("clean", "clean", ())
        context = _context(session, policy, sink, facts)
        refused = settle.let_go(context, what)
        act_feed.keep_no_log(context, roles)
        stay = {_name(item) for item, _ in refused}
        lines = (
            *(line for line in lines if line not in stay),
            *(f"{_name(item)} stays: {error.what}" for item, error in refused),
        )
        for host in facts.hosts:
            tidied = context.interpreter.must((Step(host=host.name, op="tidy", deadline_s=60),)).results["tidy"]
            lines = (*lines, *(f"{host.name}: {line}" for line in tidied))
        Journal.open(pair.name, run="clean").append("clean", removed=lines)
        return replace(report, notes=lines or ("nothing to remove",))
