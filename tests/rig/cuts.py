"""One held rebuild whose streams are cut in their middle again and again. It goes on by itself, each time from what had
arrived, and ends by a cutover that is asked for.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.rig.harm import RELAY, SOURCE, TARGET
from tests.rig.node import RigError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from tests.rig.pair import Pair, Running
    from tests.rig.workload import Workload

POOL_MB = 2048
BANK_MB = 10
RECORD = "32K"  # each small change is sent as a record of this size: few commits make a stream that has a middle
RATE = 50.0  # of commits
LIMIT = "400KB/s"  # so that a stream takes a few seconds, and its sender never runs far ahead
CHANGES = {"rounds": {"hold_pace": "1s"}, "feed": {"lane": "pages"}}
EVERY = (3, 8)  # rounds from one cut to the next
AGAIN = 0.25  # of the streams are cut once more when they were gone on with
WITHIN_S = 2.0  # of the first sign of bytes, on emulated machines: a cut comes at a random moment of the stream
ROUNDS_S = 120.0  # for the rounds up to the next cut
ENDS_S = 120.0
TWICE_MOST = 0.05
PROLOGUE_BYTES = 32 << 10  # more than what a stream that is gone on with has at its beginning: 28 344 by whole streams
# What is killed on which host, as pkill finds it: either end of the stream, and either end of the connection.
VICTIMS = {
    "sender": (SOURCE, "^zfs send "),
    "receiver": (TARGET, "^zfs receive "),
    "connection": (SOURCE, "^ssh "),
    "relay": (TARGET, f"[{RELAY[0]}]{RELAY[1:]}"),  # and not the shell that starts pkill
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One try at a stream: how much of it was there before, what was sent now, and whether that was the rest."""

    number: int
    arrived_bytes: int | None
    sent_bytes: int
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What the rounds sent in all, and what of it was sent before."""

    rounds: int
    breaks: int
    most_in_one: int  # breaks of one stream
    sent_bytes: int
    twice_bytes: int

    @property
    def twice(self) -> float:
        return self.twice_bytes / self.sent_bytes if self.sent_bytes else 1.0


def pieces(events: Iterable[dict[str, Any]], decided: Sequence[dict[str, Any]]) -> list[Piece]:
    """Of the rounds; the copy before them and what the cutover ships are left out.

    A try may fail when all of it has arrived; then the next decision, in the journal, begins at what it brought.
    """
    bases = [(d["at"], d["base"]["point"]["guids"]) for d in decided if d["kind"] == "decision" and d.get("base")]
    found = []
    for event in events:
        if event["event"] != "round" or event["kind"] != "delta" or event["state"] not in ("done", "failed"):
            continue
        before = [guids for at, guids in bases if at <= event["at"]][-1:]
        after = [guids for at, guids in bases if at > event["at"]][:1]
        found.append(
            Piece(
                number=event["number"],
                arrived_bytes=event["arrived_bytes"],
                sent_bytes=event["sent_bytes"],
                done=event["state"] == "done" or before != after != [],
            )
        )
    return found


def count(tried: Sequence[Piece]) -> Counted:
    """A stream's last piece says how much of it the ones before have brought; the rest of them was for nothing.

    Of a stream that is still broken nobody knows yet, so it is not counted.
    """
    whole = [piece for piece in tried if piece.done]
    ended = {piece.number for piece in whole}
    broken = [piece for piece in tried if not piece.done and piece.number in ended]
    of_one = Counter(piece.number for piece in broken)
    return Counted(
        rounds=len(whole),
        breaks=len(broken),
        most_in_one=max(of_one.values(), default=0),
        sent_bytes=sum(piece.sent_bytes for piece in (*whole, *broken)),
        twice_bytes=sum(p.sent_bytes for p in broken) - sum(_of_use_bytes(p, of_one) for p in whole),
    )


def _of_use_bytes(whole: Piece, breaks: Counter[int]) -> int:
    """What is not sent again of what had arrived, as the token counts it: with what each piece began with."""
    return max(0, (whole.arrived_bytes or 0) - breaks[whole.number] * PROLOGUE_BYTES)


def cut_and_end(pair: Pair, clients: Workload, rounds: int, dice: random.Random, say: Callable[[str], None]) -> Counted:
    """Cut streams until so many rounds are done, then ask for the cutover. Raises RigError when the run ends before,
    or not well.
    """
    running = pair.start("rebuild", "--hold", "--limit", LIMIT)
    number = dice.randint(*EVERY)
    while number < rounds:
        cut(pair, running, number, dice, again=False)
        if dice.random() < AGAIN:
            cut(pair, running, number, dice, again=True)
        say(_shown(number, _counted(pair, running)))
        number += dice.randint(*EVERY)
    running.wait_event(partial(_tells, rounds, "done"), ROUNDS_S)
    clients.wait_for(5)
    pair.must("cutover")
    result = running.wait(ENDS_S)
    if (result.code, result.document.get("state")) != (0, "done"):
        raise RigError(f"the run did not end well: {result}")
    return _counted(pair, running)


def cut(pair: Pair, running: Running, number: int, dice: random.Random, *, again: bool) -> None:
    """Kill one end of a stream at a random moment of it, or of its connection; too late when it has ended. `again` is
    after it was gone on with.
    """
    running.wait_event(partial(_moves_or_ended, number, again), ROUNDS_S)
    begun = len(running.events())
    time.sleep(dice.uniform(0, WITHIN_S))
    name, pattern = VICTIMS[dice.choice(tuple(VICTIMS))]
    while not any(_tells(number, state, e) for e in running.events()[begun:] for state in ("done", "failed")):
        if not running.running:
            raise RigError(f"the run ended in round {number}: {running.wait(5)}")
        if pair.world[name].run(["pkill", "-9", "-f", pattern], check=False).returncode == 0:
            return


def _counted(pair: Pair, running: Running) -> Counted:
    return count(pieces(running.events(), [json.loads(line) for line in pair.journal().splitlines()]))


def _shown(number: int, until_now: Counted) -> str:
    sent = f"{until_now.sent_bytes / 1e6:.1f} MB sent, {until_now.twice_bytes / 1e6:.2f} MB of it twice"
    return f"round {number:3}: {until_now.breaks} streams broke; {sent}"


def _tells(number: int, state: str, event: dict[str, Any]) -> bool:
    return event["event"] == "round" and (event["number"], event["kind"], event["state"]) == (number, "delta", state)


def _moves_or_ended(number: int, again: bool, event: dict[str, Any]) -> bool:  # noqa: FBT001 (a partial's)
    moving = event.get("round") if event["event"] == "progress" else None
    if moving and (moving["number"], moving["kind"]) == (number, "delta"):
        return moving["sent_bytes"] > 0 and (moving["arrived_bytes"] is not None) == again
    return _tells(number, "done", event)
