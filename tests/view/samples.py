"""One value of each kind, with everything in it that a view has to draw, foreign text included."""

from __future__ import annotations

from dataclasses import replace

from snaprep.core.document import Document
from snaprep.core.errors import ErrorInfo
from snaprep.core.model import Finding, RunInfo
from snaprep.core.report import (
    BaseReport,
    CheckReport,
    CutoverReport,
    Fact,
    Forecast,
    HostChecks,
    HostStatus,
    Kept,
    LaneReport,
    Lost,
    Plan,
    PlanStep,
    Report,
    RoundReport,
    RunState,
    Status,
)

GIB = 1 << 30
MIB = 1 << 20
STARTED_AT = 1_700_000_000.0

FULL = RoundReport(
    number=0,
    kind="full",
    state="done",
    expected_bytes=412 * GIB,
    sent_bytes=412 * GIB,
    rate_bytes_per_s=301.0 * MIB,
    elapsed_ms=1_371_000,
    freeze_ms=380.2,
    blocked_ms=384,
)
ROUNDS = (
    FULL,
    RoundReport(
        number=1,
        state="done",
        sent_bytes=8 * GIB,
        arrived_bytes=3 * GIB,
        rate_bytes_per_s=290.0 * MIB,
        elapsed_ms=28_250,
    ),
    RoundReport(number=2, state="done", sent_bytes=310 * MIB, rate_bytes_per_s=298.0 * MIB, elapsed_ms=1_040),
    RoundReport(number=3, expected_bytes=24 * MIB, sent_bytes=17 * MIB, rate_bytes_per_s=290.0 * MIB, elapsed_ms=59),
)
LANE = LaneReport(
    name="pages",
    why="increments 11.2 MB/s, log 1.9 MB/s; cutover P90 1430 ms, from a feed 1500 ms",
    page_bytes_per_s=11.2e6,
    log_bytes_per_s=1.9e6,
)
FORECAST = Forecast(budget_ms=3000, undo_ms=1000, p50_ms=840.4, p90_ms=1430)

RUNNING = Report(
    run="20231114T221320Z-7f3a",
    pair="bank",
    verb="rebuild",
    state=RunState.HELD,
    reason="held: `snaprep cutover` goes on",
    source="db1",
    target="db2",
    serves="db1",
    serving="db1 serves",
    started_at=STARTED_AT,
    elapsed_ms=1_574_000,
    rounds=ROUNDS,
    lane=LANE,
    forecast=FORECAST,
    base=BaseReport(name="snaprep-bank-002", guid=17_293_822_569_102_704_641),
    source_free_bytes=61 * GIB,
    target_free_bytes=402 * GIB,
    pinned_bytes=1_288_490_188,
    limit_bytes_per_s=None,
    notes=("tank/[red]bank was set aside", "the server said: \x1b[31mno\x1b[0m\nsecond line"),
    journal="/home/olga/.local/state/snaprep/bank/journal.jsonl",
)
DONE = replace(
    RUNNING,
    state=RunState.DONE,
    reason="",
    serving="db1 serves, db2 is its replica",
    elapsed_ms=1_862_000,
    rounds=(*ROUNDS[:3], replace(ROUNDS[3], state="done", sent_bytes=24 * MIB)),
    cutover=CutoverReport(ok=True, blocked_ms=812.4, p50_ms=840.4, p90_ms=1430, position="log3,10448"),
    verified=("both logs ended at log3,10448", "replication is attached"),
    kept=(
        Kept(host="db2", name="tank/bank.isolated-g2", why="it was a primary until it failed: its own tail is in it"),
    ),
    lost=(
        Lost(host="db2", where="tank/bank.isolated-g2", since="log2,88", until="log2,412", commits=3, tail_bytes=324),
    ),
    hint="when you are sure: snaprep clean --isolated tank/bank.isolated-g2",
)
FAILED = replace(
    RUNNING,
    state=RunState.FAILED,
    reason="PLATEAU: rounds no longer shrink",
    error=ErrorInfo(
        id="not-converging",
        what="PLATEAU: rounds no longer shrink (last ratio 0.97); the budget is 3000 ms, what would work is 4100 ms",
        serving="db1 serves",
        hint="a larger --budget, a higher --limit or a faster link, a quieter hour, or --hold to wait for one",
        exit_code=12,
        details=("db1: primary, generation 3, last known as primary, at log3,10448",),
    ),
)
PLAN = Plan(
    pair="bank",
    engine="derby 10.14.2.0",
    source="db1",
    target="db2",
    source_dataset="tank/bank",
    target_dataset="tank/my bank",
    serves="db1",
    serving="db1 serves",
    facts=(
        Fact(label="now", what="412 GiB in 2 datasets, 6.1 MiB/s changed"),
        Fact(label="link", what="db1 -> db2 direct, 0.8 ms, 310 MiB/s measured"),
        Fact(label="common", what="none: the first send is full"),
    ),
    lane=LaneReport(name="log", why="as asked"),
    steps=(
        PlanStep(name="freeze", what="one atomic snapshot", time_ms=100, blocked_ms=100, effect="commits wait"),
        PlanStep(name="send", what="full, can be resumed", step_bytes=412 * GIB, time_ms=1_380_000),
        PlanStep(name="round 1", what="what was written meanwhile", step_bytes=None, time_ms=None),
        PlanStep(
            name="cutover", what="gate, last delta, attach", step_bytes=6 * MIB, time_ms=840, blocked_ms=840,
            effect="clients are cut off",
        ),
    ),
    forecast=Forecast(budget_ms=3000, undo_ms=1000),
    warnings=("tank/bank on db1 has recordsize 128K: sends will be 2 to 4 times what was changed, because of it",),
    keeps=("db2:tank/my bank as tank/my bank.isolated-g2",),
    hint="snaprep rebuild --hold",
)  # fmt: skip
STATUS = Status(
    pair="bank",
    serves="db1",
    serving="db1 serves",
    hosts=(
        HostStatus(
            name="db1",
            role="primary",
            engine_state="primary",
            generation=3,
            position="log3,10448",
            replicating=True,
            server_up=True,
            dataset="tank/bank",
            mounted_at="/srv/bank",
            newest="snaprep-bank-003",
            store_health="ONLINE",
            free_bytes=61 * GIB,
            pinned_bytes=0,
            guarded="gated",
            held_by=RunInfo("20231114T221320Z-7f3a", "rebuild", "olga@desk", 4711),
        ),
        HostStatus(
            name="db2", dataset="tank/bank", error="host-unreachable: db2 cannot be reached at 10.0.0.2:22: timed out"
        ),
    ),
    base=BaseReport(name="snaprep-bank-003", guid=17_293_822_569_102_704_641),
    replication="not known: db2 could not be looked at",
    last_run="20231114T221320Z-7f3a",
    last_verb="rebuild",
    last_state="running",
    warnings=(
        "tank/bank on db1 is mounted at boot, before its role is known",
        "db2 told nothing: host-unreachable",
    ),
    journal="/home/olga/.local/state/snaprep/bank/journal.jsonl",
)
GATED = replace(
    STATUS,
    serves=None,
    serving="nobody serves: db1 is gated",
    error=ErrorInfo(
        id="gate-left-closed",
        what="the gate of db1 was left closed by a run that died",
        serving="NOBODY SERVES",
        hint="`snaprep abort` opens it",
        exit_code=21,
    ),
)
CHECK = CheckReport(
    pair="bank",
    serves="db1",
    serving="db1 serves",
    hosts=(
        HostChecks(
            host="db1",
            role="source",
            findings=(
                Finding("python", "ok", "Python 3.11, zfs 2.1.11, Derby 10.14.2.0"),
                Finding(
                    "recordsize",
                    "warn",
                    "recordsize 128K on tank/bank: sends will be 2 to 4 times what was changed, because of it",
                    "a new dataset with recordsize=16K",
                ),
            ),
        ),
        HostChecks(
            host="db2",
            role="target",
            findings=(Finding("target-foreign", "fail", "tank/[red]bank exists and is not ours", "--isolate-foreign"),),
        ),
    ),
)
ERROR = ErrorInfo(
    id="frozen-too-long",
    what="db1 stayed frozen for 10.0 s, the whole lease",
    serving="db1 serves: the guard thawed it",
    hint="lower the write load, then `snaprep resume`",
    exit_code=10,
    details=("round 2 is kept", "tank/[red] \x1b[2J \u202e"),
)

DOCUMENTS: dict[str, Document] = {
    "running": RUNNING,
    "done": DONE,
    "failed": FAILED,
    "plan": PLAN,
    "status": STATUS,
    "gated": GATED,
    "check": CHECK,
}
