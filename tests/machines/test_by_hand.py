"""`scripts/rig`: two machines to work with by hand, from `up` to `down`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.machines import rig as by_hand
from tests.machines.world import parts
from tests.rig.pair import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Rig = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.machines, pytest.mark.timeout(3600)]
CALL_S = 2400.0
NEEDED = ("zfs", "sshd", "java", "derbyctl", "lvcreate", "thin_check", "mkfs.xfs", "psql")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has the image and nothing else: other machines by hand are not touched."""
    folder = parts()[0].disk.parent
    cache = tmp_path / "snaprep"
    cache.mkdir()
    (cache / folder.name).symlink_to(folder)
    return cache


@pytest.fixture
def rig(rig_tools: None, cache: Path) -> Iterator[Rig]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.machines.rig", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "XDG_CACHE_HOME": str(cache.parent)},
            timeout=CALL_S,
            check=False,
        )

    try:
        yield run
    finally:
        run("down")


def listening(pid: int) -> list[str]:
    """The addresses at which a process can be reached over TCP."""
    shown = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, timeout=30, check=True).stdout
    return [line.split()[3] for line in shown.splitlines() if f"pid={pid}," in line]


def test_up_and_down(rig: Rig, cache: Path) -> None:
    """Two machines come up from the cached image, with OpenZFS 2.3, a pool, all programs and a cable between them, and
    are reached on loopback only; a second `up` is refused, and `down` leaves nothing but the image.
    """
    assert rig("status").returncode == 1
    up = rig("up")
    assert up.returncode == 0, up.stderr
    assert "installing" not in up.stderr
    assert rig("up").returncode == 1
    shown = rig("status")
    assert shown.returncode == 0, shown
    pids = [int(pid) for pid in re.findall(r"\bpid (\d+)", shown.stdout)]
    assert len(pids) == 2
    for pid in pids:
        addresses = listening(pid)
        assert addresses
        assert all(address.startswith("127.0.0.1:") for address in addresses)
    for name, peer in (("db1", "db2"), ("db2", "db1")):
        assert rig("ssh", name, "cat /sys/module/zfs/version").stdout.startswith("2.3.")
        assert rig("ssh", name, "zpool list -H -o name").stdout.split() == [by_hand.POOL]
        found = rig(
            "ssh", name, f"PATH={PATH}; for p in {' '.join(NEEDED)}; do command -v $p >/dev/null || echo $p; done"
        )
        assert (found.returncode, found.stdout) == (0, "")
        banner = rig("ssh", name, f"echo | timeout 60 socat - TCP:{peer}:22 | head -c 8")
        assert banner.stdout == "SSH-2.0-", banner
    assert rig("down").returncode == 0
    assert [by_hand._started(pid) for pid in pids] == ["", ""]
    assert [path.name for path in cache.iterdir() if path.name != "machines.lock"] == [parts()[0].disk.parent.name]
    assert rig("status").returncode == 1
