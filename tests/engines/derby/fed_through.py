"""Feeds all of a log to a stand-in that throws it away: `fed_through.py DIRECTORY`.

Prints how many bytes, in how many seconds, and the most memory that the feeder had, in KiB.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from pathlib import Path

from snaprep.engines.derby.feed.peer import Feeding, PeerLost, StandIn
from snaprep.engines.derby.log.reader import LogReader
from snaprep.engines.derby.log.scan import HEADER_BYTES, LogPosition


def receive(listener: socket.socket, start: LogPosition) -> None:
    stand_in = StandIn.accept(listener, start)
    try:
        while True:
            stand_in.receive(30)
    except PeerLost:
        os._exit(0)


def main() -> None:
    start = LogPosition(1, HEADER_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if os.fork() == 0:
            receive(listener, start)
        feeding = Feeding.begin("127.0.0.1", listener.getsockname()[1], start)
    began_s, sent = time.monotonic(), 0
    with LogReader(Path(sys.argv[1]), start) as reader:
        while (piece := reader.read()) is not None:
            feeding.play(piece)
            sent += len(piece.data)
            if not piece.data:
                reader.delta_bytes()
    took_s = time.monotonic() - began_s
    feeding.close()
    os.wait()
    (memory,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    sys.stdout.write(f"{sent} {took_s:.3f} {memory}\n")


if __name__ == "__main__":
    main()
