"""What on this host could stop a run, now or at three in the morning. Changes nothing."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from snaprep.agent import keys, locks, process
from snaprep.agent.host import AgentHost, need_owner
from snaprep.agent.identity import login_user
from snaprep.agent.rights import lacking
from snaprep.core.errors import CheckFailed, SnaprepError
from snaprep.core.model import Checked, Finding

_PROGRAMS = {"ssh": "openssh-client", "ssh-keygen": "openssh-client"}
# Where tools that take snapshots say that they are at work here.
_TOOL_FILES = (
    "etc/sanoid/sanoid.conf",
    "etc/zrepl/zrepl.yml",
    "etc/cron.*/zfs-auto-snapshot",
    "etc/systemd/system/*.target.wants/*",
    "etc/cron.d/*",
    "etc/crontab",
    "var/spool/cron/crontabs/*",
)
_TOOLS = ("sanoid", "syncoid", "zfs-auto-snapshot", "zrepl", "znapzend", "zfs-autobackup", "pyznap", "bzfs")
_UNITS = ("etc/systemd/system/*.service", "lib/systemd/system/*.service", "etc/init.d/*", "etc/rc.local", "etc/crontab")
_READ_BYTES = 1 << 16


def look(host: AgentHost, *, as_target: bool, owner: str) -> Checked:
    """A finding for each thing looked at. `owner` is whose the files are on the other side, "user:group"."""
    rights = _told(lambda: _privilege(host))
    found = [_agent(), *rights, *_programs({**host.volume.programs, **_PROGRAMS}), *_left(host)]
    if any(finding.level == "fail" for finding in rights):
        return Checked(findings=tuple(found))  # to a login that sees half of it much would look wrong that is not
    found += _told(lambda: _storage(host, as_target=as_target))
    found += _told(lambda: host.engine.check(as_target=as_target))
    if as_target:
        found += _accounts(host.spec.owner or owner)
        found += _units(host.spec.derby.database)
    found += _tools(host.spec.dataset)
    return Checked(findings=tuple(found), traits=host.engine.traits())


def _told(ask: Callable[[], list[Finding]]) -> list[Finding]:
    """What cannot be looked at is a failure of its own."""
    try:
        return ask()
    except SnaprepError as error:
        return [Finding(error.id, "fail", error.info.what, error.info.hint)]


def _storage(host: AgentHost, *, as_target: bool) -> list[Finding]:
    spec = host.spec
    found = host.volume.check(mountpoints=(spec.mountpoint, spec.replica_mountpoint), as_target=as_target)
    if host.engine.places and not any(f.id in ("unknown-dataset", "not-mounted") for f in found):
        found += host.volume.outside(spec.dataset, host.engine.places)
    return found


def _agent() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    user = pwd.getpwuid(os.geteuid()).pw_name
    through = f", by sudo from {login_user()}" if login_user() != user else ""
    return Finding("agent", "ok", f"Python {version} runs as {user}{through}")


def _privilege(host: AgentHost) -> list[Finding]:
    """What an agent lacks that is not root."""
    missing = lacking(host.spec, host.volume)
    if missing or os.geteuid() == 0:
        return missing
    return [Finding("delegated", "ok", "it has what it needs without being root, by zfs allow and by lines of sudoers")]


def _programs(needed: Mapping[str, str]) -> Iterator[Finding]:
    path = process.environment()["PATH"]
    missing = {program: package for program, package in needed.items() if shutil.which(program, path=path) is None}
    for program, package in missing.items():
        yield Finding("program-missing", "fail", f"there is no {program} on this host", f"install {package}")
    if not missing:
        yield Finding("programs", "ok", f"{', '.join(needed)} are there")


def _left(host: AgentHost) -> Iterator[Finding]:
    """Locks and keys of runs, under way or dead."""
    held = locks.holder("pair", host.spec.pair)
    if held is not None:
        what = f"{held.verb} by {held.operator} is on its way (run {held.run}): what it uses is not tried"
        yield Finding("run-under-way", "warn", what, "run check again when it is over")
    for left in keys.leftovers(login_user()):
        if held is not None and left.run == held.run:
            continue
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(left.expires_s))
        state = "expired" if left.expired else f"is good until {until}"
        what = f"a key of run {left.run}, which is over, stands in {left.path}; it {state}"
        yield Finding("leftover-key", "warn", what, "`snaprep clean` takes it back")


def _accounts(owner: str) -> Iterator[Finding]:
    """Streams carry numbers; the files are given to the same names here."""
    if not owner:
        what = "the files' owner is not known by name, so a copy keeps the numbers that it has"
        yield Finding("owner-unnamed", "warn", what, "set `owner` for both hosts")
        return
    try:
        need_owner(owner)
    except CheckFailed as error:
        yield Finding(error.id, "fail", error.info.what, error.info.hint)
    else:
        yield Finding("owner", "ok", f"{owner} is known here, too")


def _units(database: str) -> Iterator[Finding]:
    """Things that start at boot and name the database: one of them may open a copy before its role is known."""
    naming = [str(path) for path, text in _texts(_UNITS) if database in text]
    if naming:
        what = f"{', '.join(naming)} names {database}, and may open a copy when this host starts"
        yield Finding("starts-at-boot", "warn", what, "let it start the server only; clients open the database")


def _tools(dataset: str) -> Iterator[Finding]:
    """Other snapshot tools that are set up to work here."""
    seen: dict[str, str] = {}
    for path, text in _texts(_TOOL_FILES):
        words = f"{path}\n{text}"
        for tool in _TOOLS:
            if tool in words:
                seen.setdefault(tool, str(path))
    for tool, file in seen.items():
        what = f"{tool} is set up on this host ({file})"
        yield Finding("foreign-tool", "warn", what, f"let it leave {dataset} and its siblings alone")


def _texts(patterns: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    for pattern in patterns:
        for path in sorted(Path("/").glob(pattern)):
            with contextlib.suppress(OSError), path.open("rb") as file:
                yield path, file.read(_READ_BYTES).decode("utf-8", "replace")
