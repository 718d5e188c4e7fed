"""Whether this agent may do what a run does. Root may; another user may what was given to him, and nothing less does.

That user has to be the one to whom the database's files belong: its files, its log and what the kernel tells of its
server are then readable, and copies are his.
"""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

from snaprep.agent.identity import login_user
from snaprep.core.errors import CheckFailed
from snaprep.core.model import Finding
from snaprep.core.spec import HostSpec
from snaprep.volumes.base import Place, Volume

_PTRACE = Path("/proc/sys/kernel/yama/ptrace_scope")
# An image that was set aside is looked into under its name: of generation 1 to 999, and again of the same one.
_NUMBERS = ("[0-9]", "[0-9][0-9]", "[0-9][0-9][0-9]")
_ASIDE = tuple(f"isolated-g{number}{again}" for again in ("", "-[0-9]") for number in _NUMBERS)


def need_rights(spec: HostSpec, volume: Volume) -> None:
    """Raises `privilege`."""
    found = lacking(spec, volume)
    if not found:
        return
    if found[0].id == "privilege":
        raise CheckFailed("privilege", found[0].what, hint=found[0].hint)
    details = tuple(f"{finding.what}: {finding.hint}" for finding in found)
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    hint = "`snaprep check` names each right and each line that is missing, ready to be copied"
    raise CheckFailed("privilege", f"{found[0].what}{more}", hint=hint, details=details)


def need_account(user: str) -> None:
    """The files will belong to `user`: an agent that is not root has to be his. Raises `privilege`."""
    if os.geteuid() != 0 and _account().pw_name != user:
        stranger = _stranger(user)
        raise CheckFailed(stranger.id, stranger.what, hint=stranger.hint)


def lacking(spec: HostSpec, volume: Volume) -> list[Finding]:
    """What is missing, each with what gives it. Nothing for root."""
    if os.geteuid() == 0:
        return []
    account = _account()
    found = volume.lacking(_places(spec), account.pw_name, grp.getgrgid(account.pw_gid).gr_name)
    if found is None:
        return [_root_only()]
    owner = _owner(spec)
    if owner not in ("", account.pw_name):
        return [_stranger(owner)]
    return [*found, *_ptrace()]


def _account() -> pwd.struct_passwd:
    return pwd.getpwuid(os.geteuid())


def _places(spec: HostSpec) -> tuple[Place, ...]:
    """Everything that a run mounts."""
    return (
        Place(images=(spec.dataset,), path=spec.mountpoint),
        Place(images=(spec.dataset,), path=spec.replica_mountpoint, given=True),
        *(Place(images=(f"{spec.dataset}.{word}",), path=spec.beside(word), given=True) for word in ("warm", "verify")),
        Place(images=tuple(f"{spec.dataset}.{name}" for name in _ASIDE), path=spec.beside("look")),
    )


def _owner(spec: HostSpec) -> str:
    """To whom the database's files belong, or will; empty when that is not known here."""
    for place in (spec.mountpoint, spec.replica_mountpoint):
        try:
            return Path(spec.derby.database.replace(spec.mountpoint, place, 1)).owner()
        except (OSError, KeyError):
            continue
    return spec.owner.partition(":")[0]


def _root_only() -> Finding:
    what = f"{login_user()} may not mount datasets, which `zfs allow` cannot give, nor see who has files open"
    line = f"{login_user()} ALL=(root) NOPASSWD: {sys.executable}"
    hint = f'log in as root, or set `become = "sudo"` in its section and write "{line}" into /etc/sudoers.d/snaprep'
    return Finding("privilege", "fail", what, hint)


def _stranger(owner: str) -> Finding:
    what = f"{login_user()} is neither root nor {owner}, to whom the database's files belong"
    hint = f'log in as {owner}, and let `snaprep check` say what {owner} lacks; as root; or set `become = "sudo"`'
    return Finding("privilege", "fail", what, hint)


def _ptrace() -> Iterator[Finding]:
    """A connection of the server's that hangs is cut from outside, which the kernel may keep for root."""
    try:
        scope = int(_PTRACE.read_text())
    except FileNotFoundError:
        return
    if scope:
        what = f"kernel.yama.ptrace_scope is {scope}: only root may cut a connection on which Derby's server hangs"
        hint = "as root, into /etc/sysctl.d/snaprep.conf: kernel.yama.ptrace_scope = 0; then sysctl --system"
        yield Finding("ptrace-scope", "fail", what, hint)
