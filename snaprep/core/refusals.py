"""The errors with which `decide` refuses: what happened, who serves, what to do; and what counts as a repetition."""

from __future__ import annotations

from dataclasses import replace

from snaprep.core.action import Action, Adopt, GiveUp, Hold, Prepare, Refuse, Reopen, SetAside, TakeOver
from snaprep.core.errors import ErrorInfo
from snaprep.core.estimate import Trend
from snaprep.core.model import Facts, History, HostFacts, Policy
from snaprep.core.volume import Image
from snaprep.core.who import serving

PACE_S = 1.0  # between two looks at what is waited for


def error(id: str, exit_code: int, what: str, facts: Facts, hint: str = "", details: tuple[str, ...] = ()) -> ErrorInfo:
    return ErrorInfo(id=id, what=what, serving=serving(facts), hint=hint, exit_code=exit_code, details=details)


def unseen(why: ErrorInfo, facts: Facts) -> ErrorInfo:
    """A host that tells nothing: its own reason, hint and code."""
    return replace(why, serving=serving(facts))


def foreign(facts: Facts, host: HostFacts, image: Image) -> ErrorInfo:
    what = f"{image.name} on {host.name} exists and was not made by this pair; it will not be touched"
    hint = f"rename it, choose another dataset for {host.name}, or let snaprep set it aside: --isolate-foreign"
    return error("target-foreign", 3, what, facts, hint)


def other_pair(facts: Facts, host: HostFacts, owner: str) -> ErrorInfo:
    what = f"{host.live_name} on {host.name} belongs to the pair {owner}"
    hint = "use that pair's configuration; if it is gone for good, take its mark off: docs/what-if.md"
    return error("other-pair", 3, what, facts, hint)


def not_converging(facts: Facts, policy: Policy, direction: Trend, written: str) -> ErrorInfo:
    """`written`: how fast, in words; empty when that is not known."""
    needed = f"{direction.needed_ms + policy.undo_ms:.0f} ms" if direction.needed_ms else "not known"
    what = (
        f"{direction.kind.upper()}: rounds no longer shrink enough (last ratio {direction.ratio:.2f}); "
        f"the budget is {policy.budget_ms} ms, what would work is {needed}"
    )
    if direction.needed_bytes_per_s:
        what += f", or {direction.needed_bytes_per_s / 1e6:.1f} MB/s on the way"
    if written:
        what += f"; {written}"
    hint = (
        "a larger --budget, a higher --limit or a faster link, the log in place of pages (--lane log), a quieter hour, "
        "or --hold to wait for one"
    )
    return error("not-converging", 12, what, facts, hint)


def overdue(
    facts: Facts, policy: Policy, history: History, reasons: list[str], *, what: str, hint: str
) -> ErrorInfo | None:
    """What waits for old transactions has waited for as long as is allowed."""
    waited_s = history.now_s - (history.waiting_since_s if history.waiting_since_s is not None else history.now_s)
    if waited_s <= policy.transaction_wait_s:
        return None
    return error("old-transactions", 10, f"{what} waited {waited_s:.0f} s: {'; '.join(reasons)}", facts, hint)


def wait_for(
    facts: Facts,
    policy: Policy,
    history: History,
    reasons: list[str],
    *,
    what: str,
    hint: str,
    expected_ms: tuple[float, float],
) -> Hold | Refuse:
    """Hold while old work is open, for as long as is allowed. `expected_ms`: P50 and P90 of what comes then."""
    if (late := overdue(facts, policy, history, reasons, what=what, hint=hint)) is not None:
        return Refuse(error=late)
    return Hold(
        reason="waiting: " + "; ".join(reasons),
        pace_s=PACE_S,
        for_work=True,
        p50_ms=expected_ms[0],
        p90_ms=expected_ms[1],
    )


def undone(facts: Facts, policy: Policy, history: History) -> ErrorInfo | None:
    """Cutovers have failed as often as is allowed; each was taken back."""
    failed = [c for c in history.cutovers if not c.ok]
    if len(failed) < policy.cutover_attempts:
        return None
    what = f"{policy.cutover_attempts} cutovers were begun and undone; the last because: {failed[-1].error}"
    return error("cutover-undone", 20, what, facts, "see the cause above; what the target has got is kept")


def held_up(facts: Facts, source: str, policy: Policy) -> list[str]:
    """Open work that shutting the source down would roll back, or that its gate would not stop; in words."""
    transactions, reasons = facts.host(source).engine.transactions, []
    if transactions.in_doubt:
        reasons.append(f"{transactions.in_doubt} XA transactions are in doubt")
    if transactions.oldest_s > policy.transaction_old_s:
        reasons.append(f"a transaction is open for {transactions.oldest_s:.0f} s; the cutover would roll it back")
    if transactions.of_our_user:
        reasons.append(
            f"{transactions.of_our_user} sessions log in as snaprep's own user: the gate would not stop them"
        )
    return reasons


def primary_answers(facts: Facts, host: HostFacts) -> ErrorInfo:
    if host.engine.halted:
        hint = f"`snaprep abort` opens {host.name} again"
    else:
        hint = "nothing has to be taken over; `snaprep switchover` changes sides on purpose"
    return error("primary-answers", 3, f"{host.name} answers as primary", facts, hint)


def about(action: Action) -> tuple[object, ...]:
    """What makes two actions the same one, where doing it again and again would lead nowhere; empty elsewhere."""
    match action:
        case Adopt(roles=roles) | GiveUp(roles=roles) | Prepare(roles=roles):
            return (type(action), roles)
        case SetAside(image=image, roles=roles):
            return (type(action), roles.target, image)
        case Reopen(host=name) | TakeOver(target=name):
            return (type(action), name)
        case _:
            return ()


def sealed(facts: Facts, source: HostFacts, target: HostFacts) -> ErrorInfo | None:
    """An encrypted database: the target must be able to hold it, and to open it when it has been received."""
    assert source.live is not None
    assert target.volume is not None
    if source.live.encrypted and "encryption" not in target.volume.caps:
        what = f"{source.live_name} on {source.name} is encrypted, and pool {target.volume.store} on {target.name}"
        what += " cannot hold it so; it is not sent in the clear"
        return error("feature-mismatch", 3, what, facts, f"zpool upgrade {target.volume.store}")
    if target.recv is not None and target.recv.locked and target.recv.points:
        what = f"{target.name} has received {target.recv.name}, and its key is not loaded there: nothing can be started"
        return key_missing(facts, target, target.recv, what, 10, "`snaprep resume`")
    return None


def key_missing(facts: Facts, host: HostFacts, image: Image, what: str, exit_code: int, then: str) -> ErrorInfo:
    hint = f"on {host.name}: `zfs load-key {image.key_of or image.name}`; then {then}"
    return error("key-not-loaded", exit_code, what, facts, hint)
