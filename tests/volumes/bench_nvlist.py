"""How fast a large nvlist becomes a dictionary: this project's way and pyzfs's, of one C list, turn by turn.

    python -m tests.volumes.bench_nvlist [--json]

The list is what a listing of 10,000 snapshots with three properties each looks like. Both start from the C nvlist and
end with a dictionary; the dictionaries are compared. `decode_ratio` is pyzfs's best time over ours.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from time import perf_counter

from snaprep.agent.process import patient_s
from tests.volumes import zfs_userland

SNAPSHOTS, ROUNDS = 10_000, 5
BENCH_S = 60.0
Figures = dict[str, float]


def listing(count: int) -> dict[bytes, object]:
    return {
        b"tank/data/bank@snaprep-bank-%06d" % number: {
            b"guid": 2**63 + number * 7919,
            b"createtxg": 100 + number,
            b"creation": 1_700_000_000 + number,
        }
        for number in range(count)
    }


def plain(value: object) -> object:
    """A decoded value in JSON's types, without what tells C types apart."""
    if isinstance(value, dict):
        return {name.hex(): plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else int(value) if isinstance(value, int) else value


def measure() -> Figures:
    """Both ways in this process, which has pyzfs."""
    # Known only to the process that is started for it.
    import ctypes  # noqa: PLC0415

    from snaprep.volumes import nvlist  # noqa: PLC0415
    from snaprep.volumes.lzc import library as lzc_library  # noqa: PLC0415
    from tests.volumes import pyzfs_peer  # noqa: PLC0415

    wanted = listing(SNAPSHOTS)
    start = perf_counter()
    packed = nvlist.pack(wanted)
    encode_ms = (perf_counter() - start) * 1000
    ours_ms, theirs_ms = [], []
    with pyzfs_peer.c_list(packed) as made:
        pointer = ctypes.c_void_p(pyzfs_peer.address(made))
        for _ in range(ROUNDS):
            gc.collect()
            start = perf_counter()
            ours = lzc_library.from_nvlist(pointer)
            ours_ms.append((perf_counter() - start) * 1000)
            gc.collect()
            start = perf_counter()
            theirs = pyzfs_peer.walk(made)
            theirs_ms.append((perf_counter() - start) * 1000)
            assert ours == theirs == wanted
    return {
        "snapshots": SNAPSHOTS,
        "decode_ours_ms": round(min(ours_ms), 1),
        "decode_pyzfs_ms": round(min(theirs_ms), 1),
        "decode_ratio": round(min(theirs_ms) / min(ours_ms), 1),
        "encode_ours_ms": round(encode_ms, 1),
    }


def bench() -> Figures:
    """The figures, measured in a process of its own. Raises RuntimeError, which says why, when they cannot be."""
    if reason := zfs_userland.why_no_pyzfs():
        raise RuntimeError(reason)
    done = zfs_userland.run_pyzfs(str(Path(__file__)), "--here", deadline_s=patient_s(BENCH_S))
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    figures: Figures = json.loads(done.stdout)
    return figures


def main(words: list[str]) -> None:
    figures = measure() if "--here" in words else bench()
    lines = "\n".join(f"{key:18} {value}" for key, value in figures.items())
    as_json = "--json" in words or "--here" in words
    sys.stdout.write(f"{json.dumps(figures) if as_json else lines}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
