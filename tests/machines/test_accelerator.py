"""KVM is taken where it runs a guest, which a device file does not prove; a program stands in for QEMU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machines import accelerator
from tests.machines.image import Image

ANSWERS = f"echo '[    1.9] {accelerator.ANSWER.decode()}'; exec sleep 60"
DIES = f"echo '{accelerator.FAILURE.decode()}. Suberror: 1'; exec sleep 60"
ENDS = "echo 'Could not access KVM kernel module'; exit 1"
SILENT = "exec sleep 60"
KVM, KVM_OF_A_GUEST = accelerator.KVM


@pytest.mark.parametrize(
    ("first", "second", "device", "chosen"),
    [
        (ANSWERS, ENDS, True, KVM),
        (DIES, ANSWERS, True, KVM_OF_A_GUEST),
        (ENDS, SILENT, True, accelerator.TCG),
        (ANSWERS, ANSWERS, False, accelerator.TCG),
    ],
)
def test_the_first_way_that_runs_a_guest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
    device: bool,  # noqa: FBT001
    chosen: accelerator.Accelerator,
) -> None:
    """A guest that answers decides; one that stops, ends or says nothing makes way for the next, then for emulation."""
    qemu = tmp_path / "qemu"
    qemu.write_text(f'#!/bin/sh\ncase "$*" in *{KVM_OF_A_GUEST.options[-1]}*) {second} ;; *) {first} ;; esac\n')
    qemu.chmod(0o755)
    monkeypatch.setattr(accelerator, "QEMU", str(qemu))
    monkeypatch.setattr(accelerator, "KVM_S", 2.0)
    monkeypatch.setattr(os, "access", lambda *_: device)
    image = Image(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd", disk=tmp_path / "disk")
    assert accelerator.choose(image) == chosen
