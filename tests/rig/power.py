"""Power cuts: a host of a pair is switched off in the middle of a rebuild, boots again, and the run is resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.rig import harm
from tests.rig.aftermath import nothing_lost
from tests.rig.harm import SOURCE, TARGET
from tests.rig.node import RigError

if TYPE_CHECKING:
    from tests.rig.pair import Pair, Result

# In the middle of a full copy, and at the beginning of each phase that `harm` knows.
PLACES = ("receive", "landing", "round", "prepare", "close", "arm", "attach")
SCENES = tuple((side, place) for place in PLACES for side in (TARGET, SOURCE))
CORE = ((TARGET, "receive"), (SOURCE, "close"))
FULL = frozenset({"receive", "landing"})  # on a target without anything
RECEIVED_BYTES = 4_000_000
LIMIT = "4MB/s"  # so that a full copy has a middle
RATE = 50.0  # of commits, few enough for rounds to shrink at that limit
PHASE_S = 120.0
ENDS_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Survived:
    """How the run that was cut ended, what the one after it took, and the longest time that a client waited."""

    ended: str
    resume_s: float
    gap_s: float


def moment(place: str) -> Callable[[dict[str, Any]], bool]:
    if place != "receive":
        return harm.begins(place)
    return lambda event: event["event"] == "progress" and (event["round"] or {}).get("sent_bytes", 0) > RECEIVED_BYTES


def survive(pair: Pair, side: str, place: str) -> Survived:
    """One rebuild under load in which a host loses its power: after its next boot `resume` makes the replica, nothing
    that was acknowledged is missing, and rows are equal. Raises RigError, saying what did not hold.
    """
    if place in FULL:
        harm.forget_target(pair, TARGET)
    else:
        pair.world[TARGET].restart_derby()  # a replica is none any more, and what it holds is outdated
    with pair.writers(rate=RATE) as clients:
        clients.wait_for(20)
        running = pair.start("rebuild", *(("--limit", LIMIT) if place == "receive" else ()))
        running.wait_event(moment(place), PHASE_S)
        pair.world.power_off(side)
        pair.world.boot(side)
        first = running.wait(ENDS_S)
        serves = pair.status()["serves"]
        if side == SOURCE and serves is None:
            serves = pair.must("takeover", SOURCE, "--yes").document["serves"]
        if serves != SOURCE:
            raise RigError(f"{serves} serves after the cut; the run said {first}")
        clients.wait_for(20)
        began_s = time.monotonic()
        pair.must("resume")
        resume_s = time.monotonic() - began_s
        clients.wait_for(20)
        clients.stop()
    nothing_lost(pair, clients, SOURCE, TARGET)
    return Survived(ended=_ending(first), resume_s=resume_s, gap_s=clients.gaps().worst_s)


def _ending(result: Result) -> str:
    return f"exit {result.code}{f', {result.error_id}' if result.error_id else ''}"
