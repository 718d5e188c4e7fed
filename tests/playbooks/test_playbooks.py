"""The shipped playbooks, by the real ansible-playbook where the operator sits, on two real hosts."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig.aftermath import nothing_lost
from tests.rig.derby import create_bank
from tests.rig.node import patience_s, wait_until
from tests.rig.pair import ROOT, Pair
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.rig

PLAYBOOKS = ROOT / "playbooks"
PLAY_S = 200.0
# What is done on each host: the test restarts its server meanwhile.
WORK = """\
- name: Begin
  ansible.builtin.file: { path: /run/work-begun, state: touch, mode: "0600" }
- name: Wait for the end
  ansible.builtin.wait_for: { path: /run/work-done, timeout: 60, sleep: 1 }
"""


@dataclass(frozen=True, slots=True)
class Played:
    """How a play ended: its exit code, what it changed where the operator sits, and all that it printed."""

    code: int
    changed: int | None
    text: str


@pytest.fixture(scope="module")
def pair(rig_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with World.start(tmp_path_factory.mktemp("world")) as world:
        yield Pair(world, create_bank(world["db1"], size_mb=20))


@pytest.fixture(scope="module")
def inventory(pair: Pair) -> Path:
    """As an operator would write it."""
    program = pair.home / "snaprep"
    program.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m snaprep "$@"\n')
    program.chmod(0o755)
    path = pair.home / "hosts.ini"
    path.write_text(
        f"[operator]\nlocalhost ansible_connection=local ansible_python_interpreter={sys.executable}\n"
        f"[operator:vars]\nsnaprep_program={program}\nsnaprep_config={pair.config}\n"
        "[pair]\ndb1\ndb2\n[pair:vars]\nansible_python_interpreter=auto_silent\n"
    )
    return path


def play(pair: Pair, inventory: Path, name: str, *words: str) -> Played:
    """Plays one to its end."""
    program = Path(sys.executable).with_name("ansible-playbook")
    # No shared connections: the sockets' paths would be too long for the kernel.
    settings = ["env", f"ANSIBLE_HOME={pair.home}/ansible", "ANSIBLE_FORCE_COLOR=0", "ANSIBLE_SSH_ARGS=-C"]
    argv = [*settings, str(program), "-i", str(inventory), str(PLAYBOOKS / name), *words]
    done = pair.world.operator.run(argv, check=False, timeout_s=patience_s(PLAY_S), cwd=pair.home)
    counts = re.search(r"^localhost +: .*changed=(\d+)", done.stdout, re.MULTILINE)
    return Played(done.returncode, int(counts.group(1)) if counts else None, done.stdout + done.stderr)


def test_rebuild_twice(pair: Pair, inventory: Path) -> None:
    """A rebuild is rehearsed without a change, changes something once, and nothing when all is as wanted."""
    rehearsed = play(pair, inventory, "rebuild.yml", "--check")
    assert (rehearsed.code, rehearsed.changed) == (0, 0), rehearsed.text
    assert pair.status()["hosts"][1]["role"] != "replica"
    first = play(pair, inventory, "rebuild.yml")
    assert (first.code, first.changed) == (0, 1), first.text
    again = play(pair, inventory, "rebuild.yml")
    assert (again.code, again.changed) == (0, 0), again.text
    looked = play(pair, inventory, "status.yml")
    assert (looked.code, looked.changed) == (0, 0), looked.text
    assert "db1 serves" in looked.text


def test_wrong_is_said(pair: Pair, inventory: Path) -> None:
    """What snaprep refuses fails the play with the error's id, who serves, and the hint; without its host, `takeover`
    is not even tried.
    """
    pair.must("rebuild")
    refused = play(pair, inventory, "takeover.yml", "-e", "serve=db2")
    assert refused.code == 2
    assert "primary-answers" in refused.text
    assert "db1 serves" in refused.text
    assert "Hint: " in refused.text
    unnamed = play(pair, inventory, "takeover.yml")
    assert unnamed.code == 2
    assert "serve=HOST" in unnamed.text
    assert "snaprep takeover" not in unnamed.text


def test_maintenance(pair: Pair, inventory: Path) -> None:
    """Both servers are restarted, one after the other, each while the other one serves; no commit is lost."""
    pair.must("rebuild")
    work = pair.home / "work.yml"
    work.write_text(WORK)
    served: list[str] = []

    def restart(name: str) -> None:
        host = pair.world[name]
        wait_until(host.inside("/run/work-begun").exists, f"the work on {name}", 90)
        served.append(pair.status()["serves"])
        host.restart_derby()
        host.inside("/run/work-done").touch()

    with pair.writers() as clients, ThreadPoolExecutor() as pool:
        clients.wait_for(50)
        done = [pool.submit(restart, name) for name in ("db1", "db2")]
        said = {"work": str(work), "and_back": True, "snaprep_options": ["--budget", "30s"]}
        played = play(pair, inventory, "maintain.yml", "-e", json.dumps(said))
        assert played.code == 0, played.text
        for each in done:
            each.result(timeout=1)
        clients.wait_for(50)
        clients.stop()
    assert served == ["db1", "db2"]
    assert pair.status()["serves"] == "db1"
    nothing_lost(pair, clients, "db1", "db2")
