"""What `zfs allow` and sudoers say, and what is said to them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from snaprep.volumes import owner, sudoers
from snaprep.volumes.zfs import privileged
from snaprep.volumes.zfs.rights import permitted

# As OpenZFS 2.3.9 prints it: a dataset, and the one that it lies in, each with rights of its own.
ALLOWED = """\
---- Permissions on tank/x/db ----------------------------------------
Permission sets:
\t@copy @make,receive
\t@make clone,create
Create time permissions:
\trollback
Descendent permissions:
\tuser root quota
Local+Descendent permissions:
\tuser derby @copy,promote,rename
\tgroup dba hold,release
\teveryone diff
---- Permissions on tank/x -------------------------------------------
Local permissions:
\tuser derby share
Local+Descendent permissions:
\tuser derby snapshot
"""
DERBY = {"receive", "create", "clone", "rename", "promote", "snapshot", "diff"}


def test_rights_of_a_user() -> None:
    """What a user has on a dataset and on all below it: of his own, of everyone, of sets, from further up."""
    assert {p for p in permitted(ALLOWED, "tank/x/db", "derby", ()) if not p.startswith("@")} == DERBY
    assert permitted(ALLOWED, "tank/x/db", "derby", ("dba",)) >= DERBY | {"hold", "release"}
    assert permitted(ALLOWED, "tank/x/db", "nobody", ()) == {"diff"}
    long = f"tank/{'x' * 70}"  # then no line is drawn behind it
    text = f"---- Permissions on {long} \nLocal+Descendent permissions:\n\tuser derby hold\n"
    assert permitted(text, long, "derby", ()) == {"hold"}


def test_rights_on_one_dataset_only() -> None:
    """What holds for a dataset alone, or only below it, does not do: images come and go there."""
    here, below = "Local permissions:\n\tuser derby create\n", "Descendent permissions:\n\tuser derby hold\n"
    only = f"---- Permissions on tank ---\n{here}{below}"
    assert permitted(only, "tank", "derby", ()) == frozenset()
    assert permitted(only, "tank/db", "derby", ()) == {"hold"}
    assert permitted("", "tank", "derby", ()) == frozenset()


def test_a_line_means_what_it_says(tmp_path: Path) -> None:
    """Whatever is in a dataset's name or a path, the line is one that sudo reads."""
    commands = [
        ["/usr/bin/mount", "-o", "zfsutil,nosuid", "tank/a:b c.isolated-g[0-9]", "/srv/a=b #1[x]"],
        ["/usr/bin/umount", "/srv/bank"],
    ]
    line = sudoers.line("derby", commands)
    assert line == (
        r"derby ALL=(root) NOPASSWD: /usr/bin/mount -o zfsutil\,nosuid tank/a\:b\ c.isolated-g[0-9]"
        r" /srv/a\=b\ \#1\[x\], /usr/bin/umount /srv/bank"
    )
    if shutil.which("visudo") is None:
        pytest.skip("there is no sudo")
    file = tmp_path / "snaprep"
    file.write_text(f"{line}\n")
    subprocess.run(["visudo", "-cf", str(file)], check=True, capture_output=True)


def test_what_sudo_lists() -> None:
    """Commands of root that need no password are known from one list; others are not believed to be free."""
    listed = r"""
Matching Defaults entries for derby on db1:
    env_reset, use_pty

User derby may run the following commands on db1:
    (root) NOPASSWD: /usr/bin/mount -o zfsutil\,nosuid tank/a /srv/a, /usr/bin/umount /srv/a, PASSWD: /bin/id, /bin/ls
    (ALL) NOPASSWD: /usr/bin/true
    (root) /usr/bin/false
"""
    mount = r"/usr/bin/mount -o zfsutil\,nosuid tank/a /srv/a"
    assert sudoers.parse_list(listed) == {mount, "/usr/bin/umount /srv/a"}


def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root mounts as ever; another user says what is mounted and where, in the words of his line of sudoers."""
    assert privileged.mount("tank/bank", "/srv/bank") == ["zfs", "mount", "tank/bank"]
    assert privileged.unmount("tank/bank", "/srv/bank") == ["zfs", "unmount", "tank/bank"]
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    mount = privileged.mount("tank/bank", "/srv/bank")
    assert mount[:2] == ["sudo", "-n"]
    assert Path(mount[2]).is_absolute()
    assert mount[3:] == ["-t", "zfs", "-o", "zfsutil,nosuid,nodev,X-mount.mkdir", "tank/bank", "/srv/bank"]
    assert privileged.unmount("tank/bank", "/srv/bank")[3:] == ["/srv/bank"]


def test_files_are_given_without_following_links(tmp_path: Path) -> None:
    """The program that gives files away for others than root changes a link and not what it leads to."""
    if os.geteuid() != 0:
        pytest.skip("gives files away")
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.write_text("")
    (tree / "file").write_text("")
    (tree / "link").symlink_to(outside)
    said = subprocess.run(
        owner.give(str(tree), "nobody", "nogroup"), check=True, capture_output=True, text=True, env={"LC_ALL": "C"}
    )
    assert len(said.stdout.splitlines()) == 3
    assert (tree / "link").lstat().st_uid == (tree / "file").stat().st_uid != 0
    assert outside.stat().st_uid == 0
