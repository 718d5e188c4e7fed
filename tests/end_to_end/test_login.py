"""Hosts that let nobody in as root: an ordinary login, without sudo and with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.test_bad_input import configured, state
from tests.rig.aftermath import nothing_lost

if TYPE_CHECKING:
    from tests.rig.host import Host
    from tests.rig.pair import Pair

pytestmark = pytest.mark.rig

USER = "ada"
HOME = f"/var/lib/{USER}"
LOGIN = {f"hosts.{name}": {"ssh": f"{USER}@{name}"} for name in ("db1", "db2")}
SUDO = {name: {**login, "become": "sudo"} for name, login in LOGIN.items()}


def let_in(host: Host) -> None:
    """An ordinary user who may log in with the operator's key."""
    host.run(["useradd", "--create-home", "--home-dir", HOME, "--password", "*", USER])
    host.run(["install", "-d", "-o", USER, "-m", "700", f"{HOME}/.ssh"])
    host.run(["install", "-o", USER, "-m", "600", "/root/.ssh/authorized_keys", f"{HOME}/.ssh"])


@pytest.mark.parametrize("verb", ["rebuild", "takeover", "status", "abort"])
def test_an_ordinary_login_is_told_what_it_lacks(shared_pair: Pair, verb: str) -> None:
    """Without privilege every verb says so and what to do, claims nothing about who serves, and touches nothing."""
    for host in shared_pair.world.hosts.values():
        if host.run(["id", USER], check=False).returncode != 0:
            let_in(host)
    before = state(shared_pair.world)
    with configured(shared_pair, LOGIN):
        refused = shared_pair.snaprep(verb)
    assert (refused.code, refused.error_id) == (3, "privilege"), refused
    error = refused.document["error"]
    assert 'become = "sudo"' in error["hint"]
    assert error["serving"].startswith("not known")
    assert state(shared_pair.world) == before


def test_sudo_does_everything(pair: Pair) -> None:
    """A user with sudo rebuilds, takes over and fails back; afterwards his authorized_keys is as it was."""
    hosts = pair.world.hosts.values()
    if any(host.run(["sudo", "--version"], check=False).returncode != 0 for host in hosts):
        pytest.skip("there is no sudo")
    for host in hosts:
        let_in(host)
    pair.config.write_text(pair.toml(SUDO))
    refused = pair.snaprep("rebuild")
    assert (refused.code, refused.error_id) == (30, "privilege"), refused
    for host in hosts:
        host.run(["tee", f"/etc/sudoers.d/{USER}"], stdin=f"{USER} ALL=(root) NOPASSWD: ALL\n")
    pair.must("check")
    with pair.writers(rate=50) as clients:
        clients.wait_for(50)
        pair.must("rebuild")
        clients.wait_for(50)
        clients.stop()
    nothing_lost(pair, clients, "db1", "db2")
    pair.world.power_off("db1")
    pair.must("takeover", "--yes")
    pair.world.boot("db1")
    pair.must("rebuild")
    assert pair.must("status").document["serves"] == "db2"
    kept = pair.world["db1"].run(["cat", "/root/.ssh/authorized_keys"]).stdout
    for host in hosts:
        assert host.run(["cat", f"{HOME}/.ssh/authorized_keys"]).stdout == kept
