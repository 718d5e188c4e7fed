"""`snaprep clean`: remove what runs have left and nobody needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from snaprep.act import feed as act_feed
from snaprep.act import settle
from snaprep.act.context import Context
from snaprep.control import Sink
from snaprep.core import keep
from snaprep.core.action import Roles
from snaprep.core.errors import CheckFailed
from snaprep.core.follow import others_fed
from snaprep.core.model import Facts, Policy
from snaprep.core.recipe import Step
from snaprep.core.report import Kept, Report
from snaprep.core.spec import Pair
from snaprep.journal import Journal
from snaprep.observe import observe, opened
from snaprep.verbs.upkeep import context_of, report_of, roles_of


def clean(pair: Pair, policy: Policy, sink: Sink, *, isolated: tuple[str, ...], dry_run: bool) -> Report:
    """Remove what runs have left and nobody needs; images that were set aside only when they are named."""
    with opened(pair) as session:
        session.need_all()
        facts = observe(session)
        roles = roles_of(facts, policy)
        named = _named(facts, isolated)
        what = keep.keeping(facts, roles, pair.name, named)
        goes = [*what.release, *what.destroy_points, *what.destroy_images]
        lines = (*map(_name, goes), *_kept_log(facts, roles, pair))
        report = replace(report_of(pair, "clean", facts), kept=_stays(facts, named))
        if dry_run:
            return replace(report, notes=lines or ("nothing to remove",), hint="nothing was changed")
        journal = Journal.open(pair.name, run="clean")
        session.lock("clean", "clean", ())
        lines = _remove(context_of(session, policy, sink, facts), roles, what, lines)
        journal.append("clean", removed=lines)
        said = (*lines, journal.trouble) if journal.trouble else lines
        return replace(report, notes=said or ("nothing to remove",))


def _named(facts: Facts, isolated: Collection[str]) -> list[tuple[str, str]]:
    """The images that are to go by their names, with their hosts. Raises `not-isolated`, `not-ours`."""
    named = [(i.host, i.image) for i in keep.isolated_images(facts) if i.image in isolated]
    if unknown := set(isolated) - {image for _, image in named}:
        what = f"{min(unknown)} was not set aside by this pair"
        raise CheckFailed("not-isolated", what, hint="`snaprep status` lists what was")
    for name, image in named:
        found = facts.host(name).volume
        if found is not None and not any(i.name == image and i.ours for i in found.images):
            raise CheckFailed(
                "not-ours",
                f"{image} on {name} was made by you, not by a run of this pair; snaprep never destroys such",
                hint="remove it yourself, when nothing depends on it: docs/what-if.md",
            )
    return named


def _stays(facts: Facts, named: Collection[tuple[str, str]]) -> tuple[Kept, ...]:
    return tuple(
        Kept(host=i.host, name=i.image, why="set aside; name it with --isolated to remove it")
        for i in keep.isolated_images(facts)
        if (i.host, i.image) not in named
    )


def _remove(context: Context, roles: Roles, what: keep.Keeping, lines: tuple[str, ...]) -> tuple[str, ...]:
    """Have it removed: of the `lines` that said what would go those that did, what refused to, and what was tidied."""
    refused = settle.let_go(context, what)
    act_feed.keep_no_log(context, roles)
    stay = {_name(item) for item, _ in refused}
    done = [line for line in lines if line not in stay]
    done += [f"{_name(item)} stays: {error.what}" for item, error in refused]
    for host in context.facts.hosts:
        tidied = context.interpreter.must((Step(host=host.name, op="tidy", deadline_s=60),)).results["tidy"]
        done += [f"{host.name}: {line}" for line in tidied]
    return tuple(done)


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
