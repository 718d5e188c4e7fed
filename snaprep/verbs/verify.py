"""`snaprep verify`: whether the replica is what it should be."""

from __future__ import annotations

from dataclasses import replace

from snaprep.act import settle
from snaprep.act.context import Context
from snaprep.control import Sink
from snaprep.core.action import Roles, Verify
from snaprep.core.errors import SnaprepError, VerifyFailed
from snaprep.core.model import Policy
from snaprep.core.recipe import Step
from snaprep.core.report import Report, RunState
from snaprep.core.spec import Pair
from snaprep.observe import judge, observe, opened
from snaprep.verbs.upkeep import context_of, report_of, roles_of


def verify(pair: Pair, policy: Policy, sink: Sink, *, deep: bool) -> Report:
    """Prove that the replica is attached and shares a point with its source; `deep` reads every row at that point."""
    with opened(pair) as session:
        session.need_all()
        facts = observe(session)
        report = report_of(pair, "verify", facts)
        try:
            roles = roles_of(facts, policy)
            context = context_of(session, policy, sink, facts)
            proven = settle.verify(context, Verify(roles=roles))
            if deep:
                session.lock("verify", "verify", ())
                proven = (*proven, *_compare(context, roles))
        except SnaprepError as error:
            info = judge(session, error.info)
            return replace(report, state=RunState.FAILED, error=info, hint=info.hint)
        return replace(report, source=roles.source, target=roles.target, verified=proven)


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
        what = f"tables differ at {base.point.name}: {', '.join(tables)}"
        raise VerifyFailed("rows-differ", what, hint="do not take over from this replica: docs/what-if.md")
    return (f"{len(first)} tables are equal, row by row, at {base.point.name}",)
