"""``python -m raftq``: the same as ``raftq``."""

from __future__ import annotations

import sys

from raftq.cli import main

if __name__ == "__main__":
    sys.exit(main())
