"""What must hold after anything: somebody serves, status says who, the run can be ended, and nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.rig import check, harm
from tests.rig.node import RigError, patience_s

if TYPE_CHECKING:
    from tests.rig.pair import Pair, Result
    from tests.rig.workload import Workload

# The gate's lease is over before the budget (4 s) is, the freeze's after 10 s; a server that has to be started again,
# or a step that has to be waited for, comes on top.
LONGEST_GAP_S = 14.0
# A replica that dies in the middle of the handshake leaves Derby waiting for its answer, and clients behind it.
HANDSHAKE_S = 30.0
ENDS_S = 120.0
SWITCH_BUDGET = "20s"  # busy hosts are slow, and what does not fit is refused
NOBODY = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """How a run and its clients came through."""

    first: Result | None  # None: the operator itself was killed
    gap_s: float
    resumed: Result


def survive(pair: Pair, victim: str, phase: str, *, ending: str = "resume") -> Struck:
    """One rebuild under load in which one part is killed; ends with `resume`, or with `abort` and a new rebuild.
    Raises RigError, saying what did not hold.
    """
    longest_s = LONGEST_GAP_S + (HANDSHAKE_S if phase == "attach" else 0)
    with pair.writers(rate=200) as clients:
        clients.wait_for(100)
        running = pair.start("rebuild")
        harm.strike(pair, running, victim, phase)
        first = None if victim == "operator" else running.wait(ENDS_S)
        clients.wait_for(50, longest_s + 10)
        if (serves := pair.must("status").document["serves"]) != "db1":
            raise RigError(f"status says that {serves} serves, clients write to db1")
        if ending == "abort":
            pair.must("abort", timeout_s=ENDS_S)
            clients.wait_for(50, LONGEST_GAP_S)
        resumed = pair.must("resume" if ending == "resume" else "rebuild", timeout_s=ENDS_S)
        clients.wait_for(50, LONGEST_GAP_S)
        clients.stop()
    gap_s = clients.gaps().worst_s
    if gap_s > patience_s(longest_s):
        raise RigError(f"a client got no commit for {gap_s:.1f} s")
    nothing_lost(pair, clients, "db1", "db2")
    return Struck(first=first, gap_s=gap_s, resumed=resumed)


def survive_switch(pair: Pair, victim: str, phase: str, *, ending: str = "resume") -> Struck:
    """One switchover under load in which one part is killed: somebody serves then, or `ending` makes it so, and a
    `resume` gives the pair a replica. Raises RigError, saying what did not hold.
    """
    pair.must("rebuild")
    switch = ("switchover", "db2", "--yes", "--budget", SWITCH_BUDGET)
    with pair.writers(rate=100) as clients:
        clients.wait_for(100)
        running = pair.start(*switch)
        harm.strike(pair, running, victim, phase)
        first = None if victim == "operator" else running.wait(ENDS_S)
        status = pair.snaprep("status")
        if (status.document["serves"] is None) != (status.code == NOBODY):
            raise RigError(f"status does not know who serves: {status}")
        if status.document["serves"] is not None:
            clients.wait_for(30, LONGEST_GAP_S)
        resumed = pair.snaprep(*(switch if ending == "switchover" else (ending,)), timeout_s=ENDS_S)
        if ending != "resume" or resumed.code != 0:
            resumed = pair.must("resume", timeout_s=ENDS_S)
        clients.wait_for(50, LONGEST_GAP_S)
        clients.stop()
    serves = resumed.document["serves"]
    nothing_lost(pair, clients, serves, next(name for name in pair.names if name != serves))
    return Struck(first=first, gap_s=clients.gaps().worst_s, resumed=resumed)


def nothing_lost(pair: Pair, clients: Workload, source: str, target: str) -> None:
    """Every acknowledged commit is on the source, and the replica holds the same rows. Raises RigError."""
    served = pair.served(source)
    lost = check.missing(clients.acked(), served.journal)
    if lost:
        raise RigError(f"{len(lost)} acknowledged commits are lost, the first is {lost[0]}")
    if differences := pair.replica_differences(source, target, served):
        raise RigError(f"the replica differs: {differences}")
