from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from snaprep import config
from snaprep.core.errors import UsageError
from snaprep.core.model import Policy
from snaprep.core.spec import Pair
from snaprep.units import parse_duration_ms, parse_rate, parse_size

SMALL = """
pair = "bank"
[hosts.db1]
ssh = "db1"
dataset = "tank/bank"
address = "10.0.0.1"
[hosts.db2]
ssh = "ops@db2:2222"
dataset = "tank/bank"
address = "10.0.0.2"
[derby]
database = "/srv/bank/db"
"""


def parse(text: str) -> tuple[Pair, Policy]:
    return config.parse(text.encode())


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(text)
    return caught.value


def test_small_file_is_enough() -> None:
    """Hosts, datasets, addresses and the database are all that has to be said; the rest has defaults."""
    pair, policy = parse(SMALL)
    assert policy == Policy()
    one, two = pair.hosts
    assert (one.name, one.dataset, one.mountpoint) == ("db1", "tank/bank", "/srv/bank")
    assert (one.derby.listen_address, one.derby.listen_port) == ("10.0.0.1", 4851)
    assert (one.derby.peer_address, one.derby.peer_port) == ("10.0.0.2", 4851)
    assert two.derby.peer_address == "10.0.0.1"
    assert pair.reach_of("db2").ssh == "ops@db2:2222"
    assert pair.reach_of("db2").data_address == "10.0.0.2"


def test_example_is_the_defaults() -> None:
    """What `init` writes loads, and holds the defaults for everything that has one."""
    written, policy = parse(config.example())
    small, _ = parse(SMALL.replace("10.0.0.1", "db1").replace("10.0.0.2", "db2").replace("ops@db2:2222", "db2"))
    assert policy == Policy()
    assert written == small


def test_every_key_of_the_example_has_a_sentence() -> None:
    """Each key stands under a comment, once for each table; hosts after the first say that they are the same."""
    text = config.example()
    first_host, rest = text.split("\n[hosts.db2]\n")
    after = rest[rest.index("\n[derby]\n") :]
    for part in (first_host, after):
        lines = part.splitlines()
        for before, line in itertools.pairwise(lines):
            if re.match(r"[a-z_]+ = ", line):
                assert before.startswith("#") or re.match(r"(data_port|host) = ", before), line


def test_example_takes_names() -> None:
    """Names given to `init` stand in the file, quoted where TOML wants it."""
    text = config.example("shop", ("a.example", "b"), dataset="tank/my shop", database="/var/lib/shop/db")
    pair, _ = parse(text)
    assert pair.name == "shop"
    assert [h.name for h in pair.hosts] == ["a.example", "b"]
    assert pair.hosts[0].dataset == "tank/my shop"


@pytest.mark.parametrize(
    ("change", "id", "path", "hint"),
    [
        (("ssh = ", "shs = "), "config-unknown-key", "hosts.db1.shs", "`ssh`"),
        (('pair = "bank"', 'pari = "bank"'), "config-unknown-key", "pari", "`pair`"),
        (("[derby]", "[derby]\nprot = 1"), "config-unknown-key", "derby.prot", "`port`"),
        (("[derby]", "[rounds]\nbudge = '3s'\n[derby]"), "config-unknown-key", "rounds.budge", "`budget`"),
        (("[derby]", "[derby.replication]\nprot = 1\n[derby]"), "config-unknown-key", "derby.replication.prot", "port"),
        (("[derby]", "[hosts.db2.derby]\nusr = 1\n[derby]"), "config-unknown-key", "hosts.db2.derby.usr", "`user`"),
        (("[derby]", "[rounds]\nbudget = 3\n[derby]"), "config-type", "rounds.budget", "unit"),
        (("[derby]", "[derby]\nport = '1527'"), "config-type", "derby.port", ""),
        (("[derby]", "[derby]\nclasspath = ['a', 1]"), "config-type", "derby.classpath[1]", ""),
        (("[derby]", "[derby]\nport = 70000"), "config-value", "derby.port", ""),
        (("[derby]", "[rounds]\nbudget = '3'\n[derby]"), "config-value", "rounds.budget", "3s"),
        (("[derby]", "[rounds]\nbudget = '1s'\n[derby]"), "config-value", "rounds.budget", ""),
        (("[derby]", "[rounds]\nfreeze = 'often'\n[derby]"), "config-value", "rounds.freeze", ""),
        (("[derby]", "[leases]\nfreeze = '1ms'\n[derby]"), "config-value", "leases.freeze", ""),
        (("[derby]", "[hosts.db3]\nssh='x'\ndataset='a/b'\n[derby]"), "config-hosts", "hosts", ""),
        (('"ops@db2:2222"', '"db1"'), "config-hosts", "hosts.db2.ssh", ""),
        (('ssh = "db1"', 'ssh = "-oProxyCommand=x"'), "config-value", "hosts.db1.ssh", ""),
        (('ssh = "db1"\n', ""), "config-missing-key", "hosts.db1.ssh", ""),
        (('database = "/srv/bank/db"', ""), "config-missing-key", "derby.database", ""),
        (('"/srv/bank/db"', '"srv/bank/db"'), "config-value", "derby.database", ""),
        (('"/srv/bank/db"', '"/srv/bank/db;create=true"'), "config-value", "derby.database", ""),
        (('address = "10.0.0.1"', ""), "config-missing-key", "hosts.db1.address", "tunnel"),
        (('address = "10.0.0.1"', 'mountpoint = "/srv/other"'), "config-missing-key", "hosts.db1.address", ""),
        (('"10.0.0.1"', '"10.0.0.1"\nmountpoint = "/srv/other"'), "config-value", "hosts.db1.mountpoint", "whole"),
        (('pair = "bank"', 'pair = "../bank"'), "config-value", "pair", ""),
        (('pair = "bank"', 'pair = "bank"\nengine = "oracle"'), "unknown-engine", "engine", ""),
        (('pair = "bank"', "pair = bank"), "config-syntax", "line 2", ""),
    ],
)
def test_mistakes_are_refused(change: tuple[str, str], id: str, path: str, hint: str) -> None:
    """Each mistake is refused with its own id, the key's path, and a hint that helps."""
    assert change[0] in SMALL
    error = refused(SMALL.replace(*change, 1))
    assert error.id == id
    assert path in error.info.what
    assert hint in error.info.hint
    assert error.exit_code == 2


@pytest.mark.parametrize(
    "name", ["tank", "tank/", "tank//a", "1tank/a", "tank/a'b", "tank/[red]", "tank/a@b", "tank/ a", "-r/x", "tank/é"]
)
def test_bad_dataset_names(name: str) -> None:
    """What ZFS would not take as a dataset of its own is refused before anything is asked of a host."""
    error = refused(SMALL.replace('"tank/bank"', f'"{name}"', 1))
    assert error.id == "config-dataset"
    assert "hosts.db1.dataset" in error.info.what


def test_dataset_with_a_space() -> None:
    """A space inside a name is allowed, because ZFS allows it."""
    pair, _ = parse(SMALL.replace('"tank/bank"', '"tank/my bank"'))
    assert pair.hosts[1].dataset == "tank/my bank"


def test_own_values_of_a_host() -> None:
    """A table [hosts.NAME.derby] lies over [derby], key by key, and the other host learns of its port."""
    text = SMALL + '[hosts.db2.derby]\ndatabase = "/data/bank"\n[hosts.db2.derby.replication]\nport = 4900\n'
    one, two = parse(text)[0].hosts
    assert (one.derby.database, two.derby.database) == ("/srv/bank/db", "/data/bank")
    assert two.mountpoint == "/data"
    assert (one.derby.listen_port, one.derby.peer_port) == (4851, 4900)
    assert (two.derby.listen_port, two.derby.peer_port) == (4900, 4851)


def test_tunnel_stays_on_the_loopback() -> None:
    """With a tunnel both ends are on 127.0.0.1, no address is needed, and the two ports differ."""
    text = re.sub(r"address = .*\n", "", SMALL) + '[derby.replication]\nmode = "tunnel"\n'
    one, two = parse(text)[0].hosts
    for derby in (one.derby, two.derby):
        assert (derby.listen_address, derby.listen_port) == ("127.0.0.1", 4851)
        assert (derby.peer_address, derby.peer_port) == ("127.0.0.1", 4852)
    assert "differ" in refused(text + "tunnel_port = 4851\n").info.what


def test_password_file(tmp_path: Path) -> None:
    """The password comes from a file of mode 600, without its last end of line, and is not in the value's repr."""
    secret = tmp_path / "pw"
    secret.write_text("o p;en'\n")
    secret.chmod(0o600)
    file = tmp_path / "snaprep.toml"
    file.write_text(SMALL + 'password_file = "pw"\n')
    pair, _ = config.load(file)
    assert pair.hosts[0].derby.password == "o p;en'"
    assert "o p;en" not in repr(pair)
    secret.chmod(0o640)
    with pytest.raises(UsageError) as caught:
        config.load(file)
    assert caught.value.id == "password-file-mode"
    secret.unlink()
    with pytest.raises(UsageError) as caught:
        config.load(file)
    assert caught.value.id == "password-file-unreadable"


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said wins, then ./snaprep.toml, then the one under the configuration folder; else both are named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    with pytest.raises(UsageError) as caught:
        config.find()
    assert caught.value.id == "config-not-found"
    assert "snaprep init" in caught.value.info.hint
    (tmp_path / "conf" / "snaprep").mkdir(parents=True)
    home = tmp_path / "conf" / "snaprep" / "snaprep.toml"
    home.write_text(SMALL)
    assert config.find() == home
    Path("snaprep.toml").write_text(SMALL)
    assert config.find() == Path("snaprep.toml")
    assert config.find(str(home)) == home


def test_policy_from_the_command_line_is_checked() -> None:
    """A budget that leaves nothing beside the undo is refused wherever it came from."""
    with pytest.raises(UsageError):
        config.check_policy(replace(Policy(), budget_ms=900))


@pytest.mark.parametrize("text", ["3", "s", "3 s s", "-1s", "1e3s", "3S", "3m", "٣s", "inf s", "3s\n"])
def test_durations_are_strict(text: str) -> None:
    """A duration is a plain number and a known unit, nothing else."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration_ms(text)


def test_units() -> None:
    """Decimal and binary units differ, rates may be in bits, fractions are allowed."""
    assert parse_duration_ms("1.5min") == 90_000
    assert parse_duration_ms("250 ms") == 250
    assert (parse_size("1 GiB"), parse_size("1 GB"), parse_size("0.5 kB")) == (1 << 30, 10**9, 500)
    assert (parse_rate("50 MB/s"), parse_rate("400 Mbit/s")) == (50_000_000, 50_000_000)
    for wrong in ("50 MB", "50/s", "0 MB/s", "50 MB/h"):
        with pytest.raises(ValueError, match=r"rate|nothing"):
            parse_rate(wrong)


PLAIN = 'volume = "directory"\n' + SMALL.replace('dataset = "tank/bank"\n', "")


def test_a_directory_is_the_databases_own() -> None:
    """Without datasets the image is the database's directory; the lane is the log's, and nothing is frozen."""
    pair, policy = parse(PLAIN)
    one = pair.hosts[0]
    assert (one.volume, one.dataset, one.mountpoint) == ("directory", "/srv/bank/db", "/srv/bank/db")
    assert one.replica_mountpoint == "/srv/bank/db.replica"
    assert policy == Policy(lane="log", freeze="never", archive="backup")
    assert parse(PLAIN + '[rounds]\nfreeze = "never"\n[feed]\nlane = "log"\n')[1] == policy


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (PLAIN.replace('ssh = "db1"\n', 'ssh = "db1"\ndataset = "tank/bank"\n'), "hosts.db1.dataset"),
        (PLAIN.replace('ssh = "db1"\n', 'ssh = "db1"\nmountpoint = "/srv/bank"\n'), "hosts.db1.mountpoint"),
        (PLAIN.replace('ssh = "db1"\n', 'ssh = "db1"\nchildren = ["log"]\n'), "hosts.db1.children"),
        (PLAIN + '[feed]\nlane = "pages"\n', "feed.lane"),
        (PLAIN + '[rounds]\nfreeze = "base"\n', "rounds.freeze"),
    ],
)
def test_what_needs_snapshots_is_refused(text: str, path: str) -> None:
    """What names datasets or needs snapshots is refused beside a directory, by its path."""
    error = refused(text)
    assert error.id == "config-volume"
    assert f": {path}: " in error.info.what


def test_a_dataset_is_needed_otherwise() -> None:
    """On ZFS every host's dataset has to be said."""
    error = refused(SMALL.replace('dataset = "tank/bank"\n', "", 1))
    assert error.id == "config-missing-key"
    assert ": hosts.db1.dataset: " in error.info.what
