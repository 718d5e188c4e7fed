"""How Python code gets onto a host without being installed: streamed through stdin into a memory file.

`START` runs there as `python3 -I -S -c START <bytes> <entry>`: one line without newlines or exclamation marks, so
that any login shell leaves it alone. It reads exactly the announced number of bytes (frames follow in the same
stream), and looks for a newer Python when the one it was started with is too old.
"""

from __future__ import annotations

import hashlib
import shlex
import sys

TOO_OLD = 96  # exit status: this Python is too old and no newer one was found
CUT_SHORT = 97  # exit status: the code did not arrive whole

# Must parse with any Python 3.
_START = """\
import os,sys
if sys.version_info<(3,11):
 for v in '14','13','12','11':
  try: os.execvp('python3.'+v,['python3.'+v,'-I','-S','-c',sys.argv[3]]+sys.argv[1:])
  except OSError: pass
 sys.stderr.write('Python '+sys.version.split()[0]+' at '+sys.executable+' is older than 3.11')
 sys.exit(96)
n=int(sys.argv[1]);f=os.memfd_create('snaprep')
while n:
 b=os.read(0,min(n,1048576))
 if b==b'': sys.exit(97)
 n-=len(b)
 while b: b=b[os.write(f,b):]
p='/proc/self/fd/%d'%f;sys.path.insert(0,p)
m,e=sys.argv[2].split(':')
getattr(__import__(m,fromlist=[e]),e)(p)
"""

START = 'exec("' + _START.replace("\n", "\\n") + '")'

ENTRY = "snaprep.agent.operations:main"


def start_argv(code_bytes: int, *, python: str = "python3", entry: str = ENTRY, become: str = "") -> list[str]:
    """The program that an operator starts on a host, and then feeds the code to. `become` is "" or "sudo"."""
    prefix = ["sudo", "-n"] if become == "sudo" else []
    return [*prefix, python, "-I", "-S", "-c", START, str(code_bytes), entry, START]


def start_command(argv: list[str]) -> str:
    """The same as one line for a login shell."""
    return shlex.join(argv)


def child_argv(entry: str) -> tuple[list[str], tuple[int, ...]]:
    """argv of another Python process that runs `module:function` of this same code, and the descriptors it needs.

    The function gets no arguments; what follows in argv is in `sys.argv[1:]`. A streamed agent hands its memory file
    down, so the child works after the agent is gone.
    """
    module, function = entry.split(":")
    code = next((p for p in sys.path if p.startswith("/proc/self/fd/")), None)
    paths = [code] if code is not None else [p for p in sys.path if p]
    start = f"import sys;sys.path[:0]={paths!r};from {module} import {function} as f;f()"
    pass_fds = (int(code.rpartition("/")[2]),) if code is not None else ()
    return [sys.executable, "-I", "-S", "-c", start], pass_fds


def digest(code: bytes) -> str:
    """The SHA-256 that the agent must report for this code."""
    return hashlib.sha256(code).hexdigest()
