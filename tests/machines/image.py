"""The machines' disk image: Debian with OpenZFS, built once and kept below ~/.cache/snaprep.

DKMS builds OpenZFS natively in the image's own tree: in an emulated machine that would take an hour.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.machines import recipe

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "scripts/constraints.txt"
INSTALL_S = 3600.0
STEP_S = 600.0
END_S = 30.0
SILENT_S = 20.0  # of the build, until its last line is shown
# What of this machine's way to the mirror the image's apt has to know as well.
APT_ACQUIRE = ("Proxy", "CaInfo", "Verify-Peer", "Check-Valid-Until", "Check-Date", "Retries", "Timeout")

Say = Callable[[str], None]


class ImageError(Exception):
    """The image cannot be built; the message says what failed and where the log is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The files to boot from. `disk` is never written to: machines have an overlay of their own."""

    kernel: Path
    initrd: Path
    disk: Path


def cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home, "snaprep")


def _name(what: str, *made_from: object) -> Path:
    digest = hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
    return cache_directory() / f"machines-{what}-{digest}"


def _tree() -> Path:
    """Where the installed packages are kept: the slow part, named after nothing but the packages."""
    return _name("tree", recipe.SUITE, recipe.COMPONENTS, recipe.PACKAGES, recipe.DPKG_OPTIONS)


def _disk() -> Path:
    """Where the finished image is kept."""
    values = {name: value for name, value in vars(recipe).items() if name.isupper()}
    return _name("image", values, CONSTRAINTS.read_text())


def ready() -> Image | None:
    """The image, when it has been built."""
    folder = _disk()
    return _image(folder) if folder.exists() else None


def build(say: Say) -> Image:
    """The image, from the cache or made now, in about ten minutes; `say` is told how it goes. Raises ImageError."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "machines.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another builder's image will do as well
        found = ready()
        if found is not None:
            return found
        steps = _Steps(cache / "machines.log", say)
        if not _tree().exists():
            steps.say(f"installing Debian {recipe.SUITE} with OpenZFS (about ten minutes); log: {steps.log}")
            with _fresh(cache, _tree()) as tree:
                steps.run(_mmdebstrap(tree), deadline_s=INSTALL_S)
        with _fresh(cache, _disk()) as image:
            _make(image, steps)
    return _image(_disk())


@contextlib.contextmanager
def _fresh(cache: Path, name: Path) -> Iterator[Path]:
    """A path to make something at; it gets its name when it is whole, and is gone otherwise."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as folder:
        place = Path(folder, "new")
        yield place
        place.rename(name)


def _image(folder: Path) -> Image:
    return Image(kernel=folder / "vmlinuz", initrd=folder / "initrd.img", disk=folder / "disk.img")


def _make(image: Path, steps: _Steps) -> None:
    """From the installed packages to a disk that boots."""
    image.mkdir()
    tree = image.parent / "tree"
    steps.say("making the image")
    steps.run(["cp", "-a", "--reflink=auto", str(_tree()), str(tree)])
    for name, text in recipe.FILES.items():
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    steps.run(_pip(tree))
    for command in recipe.COMMANDS:
        inside = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={tree}/proc", "chroot", str(tree)]
        steps.run([*inside, "sh", "-c", command])
    shutil.copy(_only(tree / "boot", "vmlinuz-*"), image / "vmlinuz")
    shutil.copy(_only(tree / "boot", "initrd.img-*"), image / "initrd.img")
    disk = image / "disk.img"
    with disk.open("wb") as file:
        file.truncate(recipe.DISK_MB << 20)
    steps.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(tree), str(disk)])
    steps.say(
        f"done: {sum(path.stat().st_blocks * 512 for path in image.iterdir()) >> 20} MiB in {image.parent.parent}"
    )


def _mmdebstrap(tree: Path) -> list[str]:
    options = [word for option in _apt_options() for word in ("--aptopt", option)]
    options += [word for option in recipe.DPKG_OPTIONS for word in ("--dpkgopt", option)]
    return [
        "nice", "-n", "10", "mmdebstrap", "--mode=root", "--variant=apt", "--verbose",
        f"--components={','.join(recipe.COMPONENTS)}", f"--include={','.join(recipe.PACKAGES)}", *options,
        recipe.SUITE, str(tree), _mirror(),
    ]  # fmt: skip


def _pip(tree: Path) -> list[str]:
    platforms = [word for platform in recipe.WHEELS_PLATFORMS for word in ("--platform", platform)]
    return [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
        "--only-binary=:all:", "--python-version", recipe.WHEELS_PYTHON, *platforms,
        "--target", str(tree / recipe.WHEELS_PLACE), "-c", str(CONSTRAINTS), *recipe.WHEELS,
    ]  # fmt: skip


def _mirror() -> str:
    """The Debian mirror that this machine's own apt uses."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(CODENAME)", "Created-By: Packages"]
    said = subprocess.run([*asked, "Origin: Debian"], capture_output=True, text=True, timeout=60, check=False).stdout
    for line in said.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] == "main" and "-" not in words[2]:
            return words[0]
    return recipe.MIRROR


def _apt_options() -> list[str]:
    """How this machine's apt reaches its mirror: proxies, certificates, clocks."""
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=60, check=False).stdout
    lines = (line.rstrip(";") for line in said.splitlines() if line.startswith("Acquire::"))
    return [line for line in lines if line.split(" ")[0].rpartition("::")[2] in APT_ACQUIRE]


class _Steps:
    """Runs one program after the other with their output in a log, and tells how it goes."""

    def __init__(self, log: Path, tell: Say) -> None:
        self.log = log
        self._tell = tell
        self._started = time.monotonic()
        log.write_bytes(b"")

    def say(self, words: str) -> None:
        self._tell(f"{time.monotonic() - self._started:5.0f} s  {words}")

    def run(self, argv: list[str], *, deadline_s: float = STEP_S) -> None:
        """While the program works, the log's last line is shown now and then. Raises ImageError."""
        end = time.monotonic() + deadline_s
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        try:
            code = self._wait(process, end)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(END_S)
            raise
        if code != 0:
            raise ImageError(f"{' '.join(argv)[:300]}: exit {code}: {_last_line(self.log)}; see {self.log}")

    def _wait(self, process: subprocess.Popen[bytes], end: float) -> int:
        while True:
            try:
                return process.wait(min(SILENT_S, max(0.1, end - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= end:
                    raise ImageError(f"not done in time: {_last_line(self.log)}; see {self.log}") from None
                if words := _last_line(self.log):
                    self.say(words)


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][:90] if lines else ""


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ImageError(f"{folder} holds {len(found)} of {pattern}")
    return found[0]


def main() -> int:
    """Builds the image when there is none."""

    def tell(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    try:
        build(tell)
    except ImageError as error:
        tell(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
