"""What libzfs_core saves: an atomic snapshot of several datasets and a hold on each, by the C library in this process
and by the `zfs` command, turn by turn; and the decoding of a large nvlist, by this project and by pyzfs.

    python -m tests.volumes.bench_lzc [--json]        as root, on a machine with OpenZFS in its kernel

`snapshot_ratio` is the command's median time over the library's, `decode_ratio` pyzfs's best over ours.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from snaprep.volumes.zfs.ops import CommandOps, ZfsOps
from snaprep.volumes.zfs.ops_library import LibraryOps
from tests.volumes import bench_nvlist
from tests.volumes.lzc_on_kernel import POOL, command, machine_pool, why_not

DATASETS, ROUNDS = 20, 5
TAG = "bench"
Figures = dict[str, float]


def measure() -> Figures:
    """Needs root and the kernel module."""
    ways: dict[str, ZfsOps] = {"library": LibraryOps(), "command": CommandOps(frozenset({"multi"}), "asked for")}
    took_ms: dict[str, list[float]] = {name: [] for name in ways}
    with machine_pool():
        datasets = [f"{POOL.decode()}/db{number}" for number in range(DATASETS)]
        for dataset in datasets:
            command("zfs", "create", dataset)
        for number in range(-1, ROUNDS):  # the first round is not counted: it opens the library
            for name, ops in ways.items():
                snapshots = [f"{dataset}@{name}{number}" for dataset in datasets]
                start = time.perf_counter()
                ops.snapshot(snapshots, {})
                ops.hold(TAG, snapshots)
                if number >= 0:
                    took_ms[name].append((time.perf_counter() - start) * 1000)
                ops.release(TAG, snapshots)
                ops.destroy(snapshots)
    library_ms, command_ms = (statistics.median(took_ms[name]) for name in ("library", "command"))
    return {
        "datasets": DATASETS,
        "snapshot_library_ms": round(library_ms, 1),
        "snapshot_command_ms": round(command_ms, 1),
        "snapshot_ratio": round(command_ms / library_ms, 2),
        **bench_nvlist.bench(),
    }


def main(words: list[str]) -> int:
    if reason := why_not():
        sys.stderr.write(f"not measured: {reason}\n")
        return 1
    figures = measure()
    lines = "\n".join(f"{key:20} {value}" for key, value in figures.items())
    sys.stdout.write(f"{json.dumps(figures) if '--json' in words else lines}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
