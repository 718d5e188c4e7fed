"""Which way of running a machine works here. /dev/kvm may exist and still not run a guest, so each way is tried until
a kernel has answered on the serial line.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from dataclasses import dataclass

from tests.machines.image import Image

QEMU = "qemu-system-x86_64"
ANSWER = b"Run /init as init process"
FAILURE = b"KVM internal error"  # after it the machine stands still
KVM_S = 12.0
# Every deadline that waits for an emulated machine is multiplied: it is ten times slower, and a JVM more than that.
TCG_SLOWNESS = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    name: str
    options: tuple[str, ...]
    slowness: float


# The second one is for hosts that are guests themselves and may not set every register that they show.
KVM = tuple(
    Accelerator(name="KVM", options=("-accel", "kvm", "-cpu", cpu), slowness=1.0)
    for cpu in ("host", "host,-arch-capabilities")
)
# QEMU 7.2 computes the flags of cmpxchg16b wrongly when a machine has one processor, and Linux dies of it; page tables
# of five levels are walked in vain.
TCG = Accelerator(
    name="TCG", options=("-accel", "tcg,thread=multi", "-cpu", "max,cx16=off,la57=off"), slowness=TCG_SLOWNESS
)


def choose(image: Image) -> Accelerator:
    """The first way that runs this image's kernel up to its first process; emulation when none does."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        for candidate in KVM:
            if _answers(candidate, image):
                return candidate
    return TCG


def _answers(candidate: Accelerator, image: Image) -> bool:
    argv = [
        QEMU, *candidate.options, "-smp", "2", "-m", "512", "-nodefaults", "-no-user-config", "-display", "none",
        "-no-reboot", "-serial", "stdio", "-kernel", str(image.kernel), "-initrd", str(image.initrd),
        "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            return _seen(process)
        finally:
            process.kill()


def _seen(process: subprocess.Popen[bytes]) -> bool:
    """Whether the answer stands on the serial line in time; False as soon as the machine has stopped."""
    assert process.stdout is not None
    end, said = time.monotonic() + KVM_S, b""
    while (left := end - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            return False
        chunk = os.read(process.stdout.fileno(), 65536)
        said = (said + chunk)[-65536 - len(ANSWER) :]
        if not chunk or FAILURE in said:
            return False
        if ANSWER in said:
            return True
    return False
