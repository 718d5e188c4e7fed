"""One-run keys in authorized_keys: let in, taken away, and nothing else of the file touched."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from snaprep.agent import keys
from snaprep.core.errors import SnaprepError
from tests.host.sshd import USER

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMLPqGvC6nNhBcEjYyDiO7Pp7d7Lh2mYo8w2c9Jf0aXk"


def line(run: str, *, lifetime_s: float = 600) -> str:
    return keys.authorized_line(PUBLIC, run, ["/usr/bin/python3", "-c", 'exec("a b")', "/run/x"], lifetime_s=lifetime_s)


@pytest.mark.parametrize("content", [b"", b"ssh-rsa AAAA me\n", b"# no newline at the end", b"\n\r\nodd\xff\n"])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_the_file_comes_back_byte_for_byte(tmp_path: Path, content: bytes, mode: int) -> None:
    """Content, mode and owner are kept while the key is in, and the content is the old one afterwards."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(content)
    path.chmod(mode)
    os.chown(path, 0, 7)
    authorized = keys.authorize(line("run-1"), "run-1", USER, str(path))
    assert path.read_bytes() == line("run-1").encode() + b"\n" + content
    for _ in range(2):
        state = path.stat()
        assert (state.st_mode & 0o7777, state.st_uid, state.st_gid) == (mode, 0, 7)
        keys.withdraw(authorized)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_did_not_exist_is_gone_again(tmp_path: Path) -> None:
    """A folder and a file that were made for the key disappear with it; made private."""
    path = tmp_path / ".ssh" / "authorized_keys"
    authorized = keys.authorize(line("run-1"), "run-1", USER, str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    keys.withdraw(authorized)
    keys.withdraw(authorized)
    assert not path.parent.exists()


def test_what_somebody_else_added_meanwhile_stays(tmp_path: Path) -> None:
    """A key that was added during the run is kept, also in a file that we made."""
    path = tmp_path / "authorized_keys"
    authorized = keys.authorize(line("run-1"), "run-1", USER, str(path))
    path.write_bytes(path.read_bytes() + b"ssh-rsa AAAA other\n")
    keys.withdraw(authorized)
    assert path.read_bytes() == b"ssh-rsa AAAA other\n"


def test_a_symlink_stays_one(tmp_path: Path) -> None:
    """The file behind a symbolic link is replaced, the link is not."""
    real = tmp_path / "elsewhere" / "keys"
    real.parent.mkdir()
    real.write_bytes(b"ssh-rsa AAAA me\n")
    link = tmp_path / "authorized_keys"
    link.symlink_to(real)
    authorized = keys.authorize(line("run-1"), "run-1", USER, str(link))
    assert link.is_symlink()
    assert real.read_bytes().startswith(b"restrict,expiry-time=")
    keys.withdraw(authorized)
    assert real.read_bytes() == b"ssh-rsa AAAA me\n"


def test_a_file_of_a_stranger_is_refused(tmp_path: Path) -> None:
    """Root is not led to rewrite a third user's file."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"x\n")
    os.chown(path, 12345, 12345)
    with pytest.raises(SnaprepError) as caught:
        keys.authorize(line("run-1"), "run-1", USER, str(path))
    assert caught.value.id == "authorized-keys"
    assert path.read_bytes() == b"x\n"


def test_many_runs_at_once(tmp_path: Path) -> None:
    """Runs that come and go at the same time do not lose each other's line."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"ssh-rsa AAAA me\n")
    missing: list[str] = []

    def come_and_go(run: str) -> None:
        for _ in range(10):
            authorized = keys.authorize(line(run), run, USER, str(path))
            if run not in {left.run for left in keys.leftovers(USER, str(path))}:
                missing.append(run)
            keys.withdraw(authorized)

    threads = [threading.Thread(target=come_and_go, args=(f"run-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not missing
    assert path.read_bytes() == b"ssh-rsa AAAA me\n"


def test_leftovers_are_found_and_cleaned(tmp_path: Path) -> None:
    """Lines of ours are listed with their expiry; cleaning takes only those of the runs that are named."""
    path = tmp_path / "authorized_keys"
    path.write_bytes(b"ssh-rsa AAAA snaprep:not-ours\n")
    keys.authorize(line("old", lifetime_s=-7200), "old", USER, str(path))
    keys.authorize(line("new", lifetime_s=7200), "new", USER, str(path))
    found = {left.run: left for left in keys.leftovers(USER, str(path))}
    assert {run: left.expired for run, left in found.items()} == {"old": True, "new": False}
    assert abs(found["new"].expires_s - time.time() - 7200) < 60
    assert keys.clean(USER, frozenset({"old", "nobody"}), str(path)) == 1
    assert [left.run for left in keys.leftovers(USER, str(path))] == ["new"]
    assert keys.clean(USER, frozenset({"new"}), str(path)) == 1
    assert path.read_bytes() == b"ssh-rsa AAAA snaprep:not-ours\n"
    assert keys.leftovers(USER, str(tmp_path / "none")) == ()


@pytest.mark.parametrize("run", ["", "a b", "../x", 'x" ssh-rsa', "x\ny", "-x", "x" * 65])
def test_a_run_that_is_no_word_is_refused(run: str) -> None:
    """Nothing but a plain word gets into the file."""
    with pytest.raises(SnaprepError):
        line(run)


@pytest.mark.parametrize("key", ["", "ssh-rsa AAAA", PUBLIC + "\nssh-rsa AAAA", PUBLIC + " comment", "x " + PUBLIC])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    """Only one ed25519 public key, without options or comment, is written."""
    with pytest.raises(SnaprepError):
        keys.authorized_line(key, "run", ["true"], lifetime_s=1)
