"""`scripts/rig up|down|ssh|status`: two machines to work with by hand; they stay until `down`.

up       builds the image if there is none, boots db1 and db2, and makes a pool `tank` on each
status   says what runs; the exit status is 0 when both machines answer
ssh      `scripts/rig ssh db1 [COMMAND...]`, as root
down     ends both machines at once and removes all that belongs to them, the image excepted
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.machines import accelerator, image
from tests.machines import guest as machine
from tests.machines.guest import Forward, Guest, GuestError, Plug

NAMES = ("db1", "db2")
POOL = "tank"
END_S = 10.0
CALL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process that `up` started. `started` is when, in the kernel's count: a pid alone may be another's by now."""

    pid: int
    started: str
    port: int


def folder() -> Path:
    return image.cache_directory() / "rig"


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


# ---------------------------------------------------------------------- what runs


def known() -> dict[str, Running]:
    """What `up` has started, by name, whether or not it still runs."""
    try:
        found = json.loads((folder() / "running.json").read_text())
    except FileNotFoundError:
        return {}
    return {name: Running(**values) for name, values in found.items()}


def _remember(running: dict[str, Running]) -> None:
    values = {name: {"pid": r.pid, "started": r.started, "port": r.port} for name, r in running.items()}
    fresh = folder() / "running.json.new"
    fresh.write_text(json.dumps(values))
    fresh.replace(folder() / "running.json")


def _started(pid: int) -> str:
    """When the process started, in the kernel's count; empty when there is none, or it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if words[0] == "Z" else words[19]


def alive(running: Running) -> bool:
    return _started(running.pid) == running.started


# ---------------------------------------------------------------------- ssh


def ssh_argv(name: str, *words: str) -> list[str]:
    return ["ssh", "-F", str(folder() / "ssh_config"), name, *words]


def run(name: str, command: str, *, timeout_s: float = CALL_S) -> subprocess.CompletedProcess[str]:
    """A shell command as root on a machine; 255 when it does not answer in time."""
    argv = ssh_argv(name, "-o", "BatchMode=yes", command)
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 255, "", f"no answer within {timeout_s:g} s")


def _write_ssh_config(ports: dict[str, int], host_keys: dict[str, str]) -> None:
    here = folder()
    (here / "known_hosts").write_text("".join(f"{name} {key}\n" for name, key in host_keys.items()))
    (here / "ssh_config").write_text(
        "".join(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias {name}\n  User root\n"
            f"  IdentityFile {here}/login\n  IdentitiesOnly yes\n  UserKnownHostsFile {here}/known_hosts\n"
            "  StrictHostKeyChecking yes\n  ConnectTimeout 10\n"
            for name, port in ports.items()
        )
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---------------------------------------------------------------------- up


def _guests(built: image.Image, way: accelerator.Accelerator, ports: dict[str, int]) -> list[Guest]:
    def plug(own: int, peer: int) -> Plug:
        to = NAMES[peer - 1]
        return Plug(peer=to, interface=f"to-{to}", address=f"10.91.0.{own}/24", mac=f"02:00:00:91:00:0{own}")

    return [
        Guest(
            name=name,
            folder=folder() / name,
            image=built,
            accelerator=way,
            forwards=(Forward(host="127.0.0.1", port=ports[name], guest_port=machine.SSH_PORT),),
            plug=plug(number, 3 - number),
        )
        for number, name in enumerate(NAMES, start=1)
    ]


def _prepare(guests: Sequence[Guest], ports: dict[str, int]) -> None:
    machine.make_key(folder() / "login", "rig")
    public = (folder() / "login.pub").read_text()
    host_keys = {}
    for guest in guests:
        guest.folder.mkdir()
        host_keys[guest.name] = machine.prepare(guest, authorized_key=public)
        names = "".join(f"10.91.0.{number} {name}\n" for number, name in enumerate(NAMES, start=1))
        (guest.seed / "etc/hosts").write_text(f"127.0.0.1 localhost\n{names}")
    _write_ssh_config(ports, host_keys)


def up() -> int:
    if any(map(alive, known().values())):
        say("the machines are up already; see scripts/rig status")
        return 1
    began = time.monotonic()

    def step(text: str) -> None:
        say(f"{time.monotonic() - began:5.0f} s  {text}")

    built = image.build(say)
    step("trying whether KVM runs a machine here")
    way = accelerator.choose(built)
    shutil.rmtree(folder(), ignore_errors=True)
    folder().mkdir(parents=True)
    ports = {name: _free_port() for name in NAMES}
    guests = _guests(built, way, ports)
    _prepare(guests, ports)
    running = {}
    for guest in guests:
        process = machine.boot(guest, machine.spawn_here)
        running[guest.name] = Running(pid=process.pid, started=_started(process.pid), port=ports[guest.name])
        _remember(running)
    step(f"{' and '.join(NAMES)} started under {way.name}")
    try:
        for guest in guests:
            _await(guest, running[guest.name])
            step(f"{guest.name} answers")
            step(f"{guest.name}: pool {POOL}, {' and '.join(_make_pool(guest.name).split())}")
    except GuestError as error:
        say(f"{error}\nlogs: {folder()}")
        _end_all()
        return 1
    say("scripts/rig ssh db1, scripts/rig down")
    return 0


def _make_pool(name: str) -> str:
    """The versions of the userland and the module that made it. Raises GuestError."""
    made = run(name, f"zpool create -m none -O atime=off {POOL} {machine.DATA_DISKS[0]} && zfs version")
    if made.returncode != 0:
        raise GuestError(f"{name}: {made.stdout}{made.stderr}")
    return made.stdout


def _await(guest: Guest, running: Running) -> None:
    machine.await_answer(guest, lambda: alive(running), lambda: run(guest.name, "true").returncode == 0)


# ---------------------------------------------------------------------- the others


def down() -> int:
    if not _end_all():
        return 1
    shutil.rmtree(folder(), ignore_errors=True)
    return 0


def _end_all() -> bool:
    """Ends the machines and leaves their files."""
    for name, running in known().items():
        if alive(running):
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)
        end = time.monotonic() + END_S
        while alive(running) and time.monotonic() < end:
            time.sleep(0.05)
        if alive(running):
            say(f"{name} (pid {running.pid}) does not end; its files stay in {folder()}")
            return False
    return True


def status() -> int:
    found = known()
    if not found:
        say("no machines; scripts/rig up makes them")
        return 1
    answers = []
    for name, running in found.items():
        told = "off"
        if alive(running):
            done = run(name, "cat /sys/module/zfs/version; zpool list -H -o name,size,health")
            answers.append(done.returncode == 0)
            told = " ".join(done.stdout.split()) if answers[-1] else f"does not answer: {done.stderr.strip()}"
        sys.stdout.write(f"{name}  pid {running.pid}  127.0.0.1:{running.port}  {told}\n")
    return 0 if len(answers) == len(found) and all(answers) else 1


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/rig", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("up", "down", "status"):
        verbs.add_parser(verb)
    login = verbs.add_parser("ssh")
    login.add_argument("name", choices=NAMES)
    login.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    if given.verb == "ssh":
        argv = ssh_argv(given.name, *given.command)
        os.execvp(argv[0], argv)  # noqa: S606 - the terminal is ssh's from here on
    return {"up": up, "down": down, "status": status}[given.verb]()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (image.ImageError, GuestError) as failed:
        say(str(failed))
        sys.exit(1)
