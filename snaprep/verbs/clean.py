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
from snaprep.core.errors import CheckFailed, UsageError
from snaprep.core.follow import others_fed
from snaprep.core.model import Facts, Policy
from snaprep.core.recipe import Step
from snaprep.core.report import Kept, Report
from snaprep.core.spec import Pair
from snaprep.journal import Journal
from snaprep.observe import observe, opened
from snaprep.verbs.upkeep import context_of, report_of, roles_of

_YOURS = "you made it, so snaprep never destroys it (docs/what-if.md)"


def clean(pair: Pair, policy: Policy, sink: Sink, *, isolated: tuple[str, ...], dry_run: bool) -> Report:
    """Remove what runs have left and nobody needs; images that were set aside only when they are named.

    `isolated` names them, as `DATASET` or `HOST:DATASET`.
    """
    with opened(pair) as session:
        session.need_all()
        if not dry_run:  # before the look: a run that ends after it may leave a point that goes as the only common one
            session.lock("clean", "clean", ())
        facts = observe(session)
        roles = roles_of(facts, policy)
        named = _named(facts, isolated)
        what = keep.keeping(facts, roles, pair.name, [(i.host, i.image) for i in named])
        _must_go(facts, named, what)
        goes = [*what.release, *what.destroy_points, *what.destroy_images]
        lines = (*map(_name, goes), *_kept_log(facts, roles, pair))
        report = replace(report_of(pair, "clean", facts), kept=_stays(facts, named, dry_run=dry_run))
        if dry_run:
            return replace(report, notes=lines or ("nothing to remove",), hint="nothing was changed")
        journal = Journal.open(pair.name, run="clean")
        lines = _remove(context_of(session, policy, sink, facts), roles, what, lines)
        journal.append("clean", removed=lines)
        said = (*lines, journal.trouble) if journal.trouble else lines
        return replace(report, notes=said or ("nothing to remove",))


def set_aside(facts: Facts, ours: str) -> tuple[Kept, ...]:
    """The images that were set aside for people; `ours` says how one goes that a run of this pair made."""
    return tuple(
        Kept(host=i.host, name=i.image, why=f"set aside; {ours if _is_ours(facts, i) else _YOURS}")
        for i in keep.isolated_images(facts)
    )


def _is_ours(facts: Facts, item: keep.OnHost) -> bool:
    found = facts.host(item.host).volume
    image = found.image(item.image) if found is not None else None
    return image is not None and image.ours


def _named(facts: Facts, isolated: Collection[str]) -> list[keep.OnHost]:
    """The images that are to go by their names. Raises `not-isolated`, `not-ours`, `ambiguous-dataset`."""
    named = [_find(facts, name) for name in dict.fromkeys(isolated)]
    for item in named:
        if not _is_ours(facts, item):
            raise CheckFailed(
                "not-ours",
                f"{item.image} on {item.host} was made by you, not by a run of this pair; snaprep never destroys such",
                hint="remove it yourself, when nothing depends on it: docs/what-if.md",
            )
    return named


def _find(facts: Facts, name: str) -> keep.OnHost:
    """`DATASET`, or `HOST:DATASET`. Both are compared whole, as a dataset's name may have a colon in it."""
    found = [i for i in keep.isolated_images(facts) if name in (i.image, _full_name(i))]
    if not found:
        what = f"{name} was not set aside by this pair"
        raise CheckFailed("not-isolated", what, hint="`snaprep status` lists what was")
    if len(found) > 1:
        which = " or ".join(f"--isolated {_full_name(i)}" for i in found)
        raise UsageError("ambiguous-dataset", f"{name} was set aside on both hosts", hint=f"say which: {which}")
    return found[0]


def _full_name(item: keep.OnHost) -> str:
    return f"{item.host}:{item.image}"


def _must_go(facts: Facts, named: Collection[keep.OnHost], what: keep.Keeping) -> None:
    """Who names an image, and confirms it, wants it gone: one that has to stay is refused. Raises `still-needed`."""
    for item in named:
        if item in what.destroy_images:
            continue
        unseen = [h.name for h in facts.hosts if h.volume is None]
        why = "something stands on it, holds it or uses it, or the newest common snapshot is in it"
        if unseen:
            why = f"what {unseen[0]} holds is not known"
        raise CheckFailed(
            "still-needed",
            f"{item.image} on {item.host} cannot go yet: {why}",
            hint="docs/what-if.md; without this name `clean` removes the rest",
        )


def _stays(facts: Facts, named: Collection[keep.OnHost], *, dry_run: bool) -> tuple[Kept, ...]:
    """A dry run lists those that are named, too: nothing goes yet, and whoever asks about them learns their hosts."""
    names = {(i.host, i.image) for i in named}
    return tuple(
        replace(kept, why="set aside; goes, as it is named") if (kept.host, kept.name) in names else kept
        for kept in set_aside(facts, "name it with --isolated to remove it")
        if dry_run or (kept.host, kept.name) not in names
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
