"""What the one-run key may run: a few lines that hand sshd's own descriptors to the agent of the run.

The relay connects to the agent's UNIX socket, passes its stdin and stdout over, closes its own, and waits until the
agent says that it is done. So the agent reads straight from sshd, and no byte is copied in between. It imports
nothing but built-in modules: it has to start within the time of one round trip.
"""

from __future__ import annotations

import sys

AGENT_GONE = 98  # exit status: nobody listens on the socket
CUT_OFF = 99  # exit status: the agent died or gave up on this connection

_CODE = """\
import _socket as s,os,sys
try:
 c=s.socket(s.AF_UNIX,s.SOCK_STREAM);c.connect(sys.argv[1])
 c.sendmsg([b'r'],[(s.SOL_SOCKET,s.SCM_RIGHTS,b''.join(n.to_bytes(4,sys.byteorder) for n in (0,1)))])
except OSError as e:
 sys.stderr.write('snaprep: nobody listens for this run: '+str(e));sys.stderr.flush();os._exit(98)
os.close(0);os.close(1)
try: r=c.recv(1)
except OSError: r=b''
os._exit(0 if r==b'0' else 99)
"""

_ONE_LINE = 'exec("' + _CODE.replace("\n", "\\n") + '")'


def relay_argv(socket_path: str) -> list[str]:
    """The fixed program for a forced command, or for the operator's own ssh. Isolated, without site-packages."""
    return [sys.executable or "python3", "-I", "-S", "-c", _ONE_LINE, socket_path]
