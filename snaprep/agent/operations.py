"""What an operator can ask of an agent: the allow-list.

`configure` comes first and tells the agent its pair. `observe` reads, `perform` acts: it runs the steps of a recipe
that belong to this host, in order, and when one fails takes back its own part at once, before it answers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from snaprep.agent import check as checks
from snaprep.agent import feed_steps as _feed_steps  # noqa: F401 (they register themselves)
from snaprep.agent import locks, probe, process
from snaprep.agent import switch_steps as _switch_steps  # noqa: F401 (they register themselves)
from snaprep.agent.host import AgentHost, from_spec, need_owner
from snaprep.agent.link import Way
from snaprep.agent.serve import Cancelled, Progress, run
from snaprep.agent.steps import invoke
from snaprep.core.errors import ErrorInfo, SnaprepError, Stale, UsageError
from snaprep.core.model import Checked, FeedFacts, HostFacts, RunInfo
from snaprep.core.perform import Performed, Rests, StepCall, StepDone, fill, undo_calls
from snaprep.core.spec import HostSpec

_host: AgentHost | None = None
_probes: list[probe.Listening] = []  # one at most
_acting = threading.Lock()  # one call acts at a time; observing goes on beside it


def configure(spec: HostSpec) -> None:
    """Tell the agent which pair it serves. Raises UsageError for an engine or volume it does not have."""
    global _host  # noqa: PLW0603 (an agent serves one pair for its life)
    _host = from_spec(spec)


def the_host() -> AgentHost:
    if _host is None:
        raise UsageError("not-configured", "the agent was not told its pair")
    return _host


def observe() -> HostFacts:
    """All facts of this host."""
    return the_host().facts()


def estimate(point: str, base_guid: int | None, flags: tuple[str, ...]) -> int:
    """The size of the live image's stream up to a point, where the filesystem can say. Raises `base-missing`."""
    host = the_host()
    return host.volume.estimate_bytes(host.spec.dataset, point, base_guid, flags=flags)


def written() -> int | None:
    """What an increment of this moment would carry beyond the newest snapshot: the database writes its dirty pages
    first, as it does in each round. Asked where the volume has the cap `written`. Raises `checkpoint-failed`.
    """
    host = the_host()
    host.engine.halt.checkpoint()
    return host.volume.written_bytes(host.spec.dataset)


def lock(info: RunInfo, database: bool) -> None:  # noqa: FBT001 (decoded by name)
    """Take the locks of a run. Raises `locked`."""
    the_host().lock(info, database=database)


def perform(steps: list[StepCall], rests: Rests | None, progress: Progress, cancelled: Cancelled) -> Performed:
    """Run steps in order. A failure ends the call; what this call did is then undone, newest first.

    Raises Stale, before anything is done, when this host is no longer what the action rests on.
    """
    host = the_host()
    with _acting:
        if rests is not None and (changed := rests.differs(host.rests())):
            raise Stale("stale", f"{host.spec.name}: {changed}", hint="it is looked at anew")
        host.streams.watch(progress, cancelled)
        known = process.newest_command()
        done: list[StepDone] = []
        results: dict[str, Any] = {}
        for call in steps:
            outcome = _one(host, call, results)
            done.append(outcome)
            if outcome.error is not None:
                break
            results[call.key] = outcome.value
        undone: list[StepDone] = []
        if done and done[-1].error is not None:
            undone = [_one(host, call, results) for call in undo_calls(steps[: len(done)])]
        commands = process.commands_since(known)
    return Performed(done=tuple(done), undone=tuple(undone), commands=commands)


def _one(host: AgentHost, call: StepCall, results: dict[str, Any]) -> StepDone:
    began_s = time.monotonic()
    value: Any = None
    error: ErrorInfo | None = None
    try:
        value = invoke(host, call.op, fill(call.args, results), call.deadline_s)
    except SnaprepError as failure:
        error = failure.info
    except Exception as failure:  # noqa: BLE001 (a bug must not keep the undo from running)
        error = ErrorInfo("bug", f"{call.op}: {type(failure).__name__}: {failure}", hint="please report this")
    return StepDone(call.key, call.op, began_s, time.monotonic(), value, error)


def check(as_target: bool, owner: str) -> Checked:  # noqa: FBT001 (decoded by name)
    """Everything on this host that could stop a run. Changes nothing."""
    return checks.look(the_host(), as_target=as_target, owner=owner)


def probe_link() -> None:
    """On the source: hear the target's agent on the way to it. Raises `link-lost` and its kin."""
    the_host().streams.reach()


def probe_owner(owner: str) -> None:
    """On the target: know the account that the files will belong to, "user:group". Raises `unknown-user`."""
    need_owner(owner)


def probe_listen(nonce: str) -> None:
    """On the target: listen for a moment where its replica would. Raises `replication-port-taken` and its kin."""
    spec = the_host().spec.derby
    probe_end()
    _probes.append(probe.Listening(spec.listen_address, spec.listen_port, nonce))


def probe_call(nonce: str) -> None:
    """On the source: connect as its server would. Raises `replication-unreachable`, `replication-leads-elsewhere`."""
    spec = the_host().spec.derby
    probe.call(spec.peer_address, spec.peer_port, nonce)


def probe_end() -> bool:
    """On the target: stop listening. Whether the word was heard."""
    heard = False
    while _probes:
        heard = _probes.pop().close()
    return heard


def feed() -> FeedFacts:
    """How far the feed of this agent is, or how it ended; asked beside everything else. Raises `not-feeding`."""
    return the_host().feeds.facts


def commands() -> list[str]:
    """What a second terminal has said to the run that holds this host's lock."""
    return list(locks.collect(the_host().spec.pair))


def post(command: str) -> bool:
    """Leave a command for the run that holds this host's lock. False when no run does."""
    host = the_host()
    if locks.holder("pair", host.spec.pair) is None:
        return False
    locks.post(host.spec.pair, command)
    return True


def limit(bytes_per_s: int | None) -> None:
    """Change the rate of the streams of this host."""
    the_host().streams.limit(bytes_per_s)


def link_key(run: str) -> str:
    """On the source: the public half of a key made for this run."""
    return the_host().streams.open_key(run)


def link_listen(run: str, public_key: str) -> str:
    """On the target: let that key in, to one socket. Returns the user to log in as."""
    return the_host().streams.listen(run, public_key)


def link_relay(run: str, sends: bool) -> list[str]:  # noqa: FBT001 (decoded by name)
    """For hosts that cannot see each other: the program that the operator's ssh runs here to join the two."""
    return the_host().streams.relay(run, sends=sends)


def link_aim(way: Way) -> None:
    """On the source: where the target is, and what its host keys are."""
    the_host().streams.aim(way)


def keep_journal(text: str) -> None:
    """Keep a copy of the operator's journal beside the data, for another operator."""
    folder = Path("/var/lib/snaprep") if os.geteuid() == 0 else Path.home() / ".local/state/snaprep"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = folder / f"{the_host().spec.pair}.journal.jsonl"
    fresh = copy.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text, "utf-8")
    fresh.replace(copy)


def _close() -> None:
    probe_end()
    if _host is not None:
        _host.close()


REGISTRY: dict[str, Callable[..., object]] = {
    f.__name__: f
    for f in (
        check,
        commands,
        configure,
        estimate,
        feed,
        keep_journal,
        limit,
        link_aim,
        link_key,
        link_listen,
        link_relay,
        lock,
        observe,
        perform,
        post,
        probe_call,
        probe_end,
        probe_link,
        probe_listen,
        probe_owner,
        written,
    )
}
ON_CLOSE: Sequence[Callable[[], None]] = [_close]


def main(code: str | None = None) -> NoReturn:
    """An agent, on its own stdio; `code` is the path of the zip that it runs from, None when it is installed."""
    run(REGISTRY, ON_CLOSE, code)
