from __future__ import annotations

import io
import json
import signal
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from snaprep import config
from snaprep.cli.app import App
from snaprep.cli.main import main
from snaprep.cli.signals import Interrupted, Listener
from snaprep.control import Control, Sink
from snaprep.core.errors import CheckFailed, Locked, UsageError
from snaprep.core.report import RoundReport, RunState
from snaprep.journal import Journal
from tests.cli.standin import Ended, StandIn, Terminal, snaprep
from tests.view import samples


@pytest.mark.parametrize(
    ("argv", "call"),
    [
        (["check"], ("check", {})),
        (["plan"], ("plan", {})),
        (["rebuild"], ("rebuild", {"resume": False})),
        (["rebuild", "--dry-run"], ("plan", {})),
        (["resume"], ("rebuild", {"resume": True})),
        (["refresh"], ("refresh", {})),
        (["status"], ("status", {})),
        (["cutover"], ("command", {"command": "cutover", "value": None})),
        (["abort"], ("command", {"command": "abort", "value": None})),
        (["limit", "50MB/s"], ("command", {"command": "limit", "value": 50_000_000})),
        (["limit", "none"], ("command", {"command": "limit", "value": None})),
        (["verify", "--deep"], ("verify", {"deep": True})),
        (["clean", "--dry-run"], ("clean", {"isolated": (), "dry_run": True})),
        (["clean", "--isolated", "a/b", "--yes"], ("clean", {"isolated": ("a/b",), "dry_run": False})),
        (["takeover", "--yes"], ("takeover", {"host": None, "confirmed": True})),
        (["switchover", "--yes"], ("switchover", {"host": None, "confirmed": True})),
        (["switchover", "db2", "--yes", "--budget", "3s"], ("switchover", {"host": "db2", "confirmed": True})),
        (["takeover", "db2", "--yes"], ("takeover", {"host": "db2", "confirmed": True})),
    ],
)
def test_verbs_call_the_run(argv: list[str], call: tuple[str, dict[str, Any]]) -> None:
    """Each verb asks the run for what its name says, and prints the answer on stdout."""
    run = StandIn()
    ended = snaprep(*argv, run=run)
    assert run.calls == [call]
    assert ended.code == (3 if argv == ["check"] else 0)
    assert ended.out


@pytest.mark.parametrize("argv", [["--json", "status"], ["status", "--json"]])
def test_json_stands_before_or_after_the_verb(argv: list[str]) -> None:
    """Shared options count wherever they stand; stdout then holds one document and nothing else."""
    document = json.loads(snaprep(*argv).out)
    assert (document["schema"], document["kind"], document["serves"]) == ("snaprep/1", "status", "db1")


def test_options_change_the_policy() -> None:
    """What the command line says lies over the configuration, for this run only."""
    run = StandIn()
    line = "rebuild --source db2 --hold --budget 5s --limit 400Mbit/s --freeze never --relay --isolate-foreign"
    assert snaprep(*line.split(), run=run).code == 0
    assert run.policy is not None
    assert run.pair is not None
    assert run.pair.relay
    _, policy = config.load(Path("snaprep.toml"))
    assert run.policy == replace(
        policy,
        source="db2",
        hold=True,
        budget_ms=5000,
        limit_bytes_per_s=50_000_000,
        freeze="never",
        isolate_foreign=True,
    )


def test_options_fit_the_volume() -> None:
    """What a configuration cannot say of a pair without snapshots, the command line cannot either."""
    file = Path("snaprep.toml")
    hosts = "".join(f'[hosts.{name}]\nssh = "{name}"\naddress = "10.0.0.1"\n' for name in ("db1", "db2"))
    file.write_text(f'pair = "bank"\nvolume = "directory"\n{hosts}[derby]\ndatabase = "/srv/bank/db"\n')
    run = StandIn()
    assert snaprep("rebuild", "--lane", "auto", run=run).code == 0
    assert run.policy is not None
    assert (run.policy.lane, run.policy.freeze) == ("log", "never")
    for words in (["--lane", "pages"], ["--freeze", "always"]):
        refused = snaprep("rebuild", *words)
        assert (refused.code, "error[config-volume]" in refused.err) == (2, True), refused.err


def test_resume_uses_the_options_of_the_run() -> None:
    """`resume` takes what the stopped run was told, unless it is told otherwise, even after a torn journal line."""
    snaprep("rebuild", "--source", "db2", "--hold", "--limit", "1MB/s")
    with Journal.open("bank").path.open("ab") as file:
        file.write(b'{"kind": "opt')
    run = StandIn()
    ended = snaprep("resume", "--no-hold", "--limit", "none", run=run)
    assert "cut in the middle" in ended.err
    assert "stopped: --source db2 --hold --limit 1000000B/s" in ended.err
    assert run.policy is not None
    assert (run.policy.source, run.policy.hold, run.policy.limit_bytes_per_s) == ("db2", False, None)


@pytest.mark.parametrize("verb", ["rebuild", "resume"])
def test_resume_knows_when_a_run_has_ended_well(verb: str) -> None:
    """What was said for a run that is done is not said for what `resume` begins months later."""
    snaprep("rebuild", "--source", "db2")
    journal = Journal.open("bank", run="1")
    journal.append("begin", verb=verb)
    journal.append("end", state="done")
    run = StandIn()
    ended = snaprep("resume", run=run)
    assert "with the options of" not in ended.err
    assert run.policy is not None
    assert run.policy.source is None


@pytest.mark.parametrize(
    ("argv", "id"),
    [
        (["statu"], "usage"),
        (["status", "--wrong"], "usage"),
        (["limit", "50"], "usage"),
        (["rebuild", "--budget", "3"], "usage"),
        (["rebuild", "--budget", "900ms"], "config-value"),
        (["rebuild", "--source", "db9"], "unknown-host"),
        (["takeover", "db9", "--yes"], "unknown-host"),
        (["takeover"], "needs-yes"),
        (["switchover", "db9", "--yes"], "unknown-host"),
        (["switchover"], "needs-yes"),
        (["clean", "--isolated", "tank/bank.isolated-g2"], "needs-yes"),
        (["-c", "missing.toml", "status"], "config-not-found"),
        (["--json", "--events", "-", "status"], "options-conflict"),
        (["--events", "/nowhere/x", "status"], "events-unwritable"),
        (["init"], "config-exists"),
        (["init", "-", "--dataset", "tank"], "config-dataset"),
    ],
)
def test_wrong_use(argv: list[str], id: str) -> None:
    """What is wrong with the command line has an id, exit code 2, and touches nothing."""
    run = StandIn()
    ended = snaprep(*argv, run=run)
    assert ended.code == 2
    assert f"error[{id}]" in ended.err
    assert "nothing was touched" in ended.err
    assert [name for name, _ in run.calls] in ([], ["takeover"][: len(run.calls)], ["clean"])
    assert all(said["dry_run"] for name, said in run.calls if name == "clean")


def test_errors_of_a_run() -> None:
    """An error that a run raises keeps its exit code, on stderr for people and on stdout for programs."""

    def locked(_sink: Sink, _control: Control | None) -> None:
        raise Locked("locked", "run x holds the lock", serving="db1 serves", hint="wait")

    ended = snaprep("--json", "rebuild", run=StandIn(during=locked))
    assert ended.code == 75
    assert json.loads(ended.out)["error"]["id"] == "locked"
    assert "error[locked]: run x holds the lock\n  db1 serves\n\nhint: wait\n" in ended.err
    assert snaprep("rebuild", run=StandIn(report=samples.FAILED)).code == 12


def test_a_mistake_of_ours() -> None:
    """An unexpected exception is error[bug], exit code 1, with who serves as far as it was seen."""

    def wrong(sink: Sink, _control: Control | None) -> None:
        sink.report(samples.RUNNING)
        raise KeyError('hunter2"x')

    ended = snaprep("rebuild", run=StandIn(during=wrong))
    assert ended.code == 1
    assert "error[bug]: KeyError" in ended.err
    assert "when last looked: db1 serves" in ended.err
    assert "Traceback" not in ended.err
    assert "Traceback" in snaprep("-vv", "rebuild", run=StandIn(during=wrong)).err


def test_takeover_asks_on_a_terminal() -> None:
    """The loss and what is not fenced are said first; only the host's name goes on."""
    for typed, wanted in (("db2\n", True), ("yes\n", False), ("", False)):
        run = StandIn()
        ended = snaprep("takeover", run=run, stdin=Terminal(typed))
        assert run.calls == [("takeover", {"host": None, "confirmed": wanted})]
        assert ended.err.index("loss: at most 3 commits") < ended.err.index("Type db2 to go on")
        assert "not fenced: db1 cannot be reached" in ended.err


def test_clean_asks_for_each_name() -> None:
    """What was set aside is destroyed only when its name is typed, with its host; a dry run has found it before."""
    image = "tank/bank.isolated-g2"
    for named in (image, f"db2:{image}"):
        run = StandIn()
        ended = snaprep("clean", "--isolated", named, run=run, stdin=Terminal("tank/bank\n"))
        assert ended.code == 11
        assert f"{image} on db2 will be destroyed" in ended.err
        assert run.calls == [("clean", {"isolated": (named,), "dry_run": True})]
        assert snaprep("clean", "--isolated", named, run=run, stdin=Terminal(f"db2:{image}\n")).code == 0
        assert run.calls[-1] == ("clean", {"isolated": (f"db2:{image}",), "dry_run": False})


def test_clean_does_not_ask_about_what_stays() -> None:
    """What the look refuses is said before anything has to be typed."""

    def refused(_sink: Sink, _control: Control | None) -> None:
        raise CheckFailed("not-ours", "a/b on db1 was made by you", serving="db1 serves")

    run = StandIn(during=refused)
    ended = snaprep("clean", "--isolated", "a/b", run=run, stdin=Terminal("a/b\n"))
    assert ended.code == 3
    assert "error[not-ours]" in ended.err
    assert "Type" not in ended.err


def test_events(tmp_path: Path) -> None:
    """Events are JSON lines: states, rounds, notes and what the run says, each with time and schema."""

    def working(sink: Sink, _control: Control | None) -> None:
        sink.report(samples.RUNNING)
        sink.event({"event": "command", "host": "db1", "line": "zfs list", "password": "x"})
        sink.note("said")
        sink.report(samples.DONE)

    ended = snaprep("rebuild", "--events", "events", "--show-commands", run=StandIn(during=working))
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    kinds = [e["event"] for e in events]
    assert kinds[:2] == ["state", "round"]
    assert {"state", "round", "lane", "progress", "command", "note", "serving"} == set(kinds)
    assert all(e["schema"] == "snaprep/1" and e["at"].endswith("Z") for e in events)
    assert "db1$ zfs list" in ended.err


def test_no_secret_in_any_output(tmp_path: Path) -> None:
    """The password shows up nowhere: not on either stream, in events, in JSON, or in the journal."""

    def leaking(sink: Sink, _control: Control | None) -> None:
        told = replace(samples.RUNNING, notes=('password=hunter2"x',), reason='hunter2"x')
        sink.report(told)
        sink.event({"event": "step", "text": 'hunter2"x'})
        sink.note('hunter2"x')
        raise UsageError("x", 'hunter2"x', hint='hunter2"x')

    ended = snaprep("-v", "--json", "--events", "events", "rebuild", run=StandIn(during=leaking))
    journal = Journal.open("bank").path.read_text()
    for text in (ended.out, ended.err, (tmp_path / "events").read_text(), journal):
        assert text
        assert "hunter2" not in text


def test_init_writes_a_file_that_loads(tmp_path: Path) -> None:
    """`init` writes a new file that `check` can read, says what comes next, and never overwrites."""
    ended = snaprep("init", "new.toml", "--pair", "shop", "--hosts", "ops@a.example:22", "b", "--dataset", "tank/shop")
    assert ended.code == 0
    assert "snaprep check" in ended.err
    pair, _ = config.load(tmp_path / "new.toml")
    assert pair.reach_of("a.example").ssh == "ops@a.example:22"
    assert tomllib.loads(snaprep("init", "-").out)["pair"] == "bank"


def test_version_and_completion() -> None:
    """The version is data; completion scripts name the program."""
    document = json.loads(snaprep("version", "--json").out)
    assert (document["kind"], document["exit_code"]) == ("version", 0)
    for shell in ("bash", "zsh", "fish"):
        assert "_SNAPREP_COMPLETE" in snaprep("completion", shell).out


def test_live_screen_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the run is drawn on stderr and goes away; the summary stays on stdout."""
    monkeypatch.setenv("TERM", "xterm")
    out, err = io.StringIO(), Terminal()

    def working(sink: Sink, _control: Control | None) -> None:
        sink.report(replace(samples.RUNNING, state=RunState.ROUND, rounds=(RoundReport(number=1),)))

    code = main(["rebuild"], run=StandIn(during=working), streams=(out, err, io.StringIO()))
    ended = Ended(code, out.getvalue(), err.getvalue())
    assert "\x1b[?25l" in ended.err
    assert "\x1b" not in ended.out
    assert "rebuild done" in ended.out


def test_the_screen_is_taken_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A verb that only says something leaves the terminal with its cursor."""
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    assert main(["init", str(tmp_path / "new.toml")], run=StandIn(), streams=(io.StringIO(), err, io.StringIO())) == 0
    hidden, shown = (err.getvalue().rfind(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert 0 <= hidden < shown


def test_a_question_is_left_at_the_first_signal() -> None:
    """While it waits for a person nothing is under way that would have to be finished first."""
    listener = Listener(lambda _: None, lambda: None)
    listener.control = control = Control()

    def interrupted() -> str:
        with pytest.raises(Interrupted):
            listener.on_stop(signal.SIGINT, None)
        return "db2\n"

    person = Terminal()
    person.readline = interrupted  # type: ignore[method-assign, assignment]
    app = App(stdout=io.StringIO(), stderr=io.StringIO(), stdin=person, listener=listener)
    assert app.asks("db2 will serve.", "db2")
    assert listener.control is control
    assert not control.stop.is_set()
