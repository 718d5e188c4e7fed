"""`python -m snaprep`."""

from __future__ import annotations

import sys

from snaprep.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
