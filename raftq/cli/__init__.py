"""The command line: the composition root, and a client of the API.

``serve`` and ``dev`` run nodes; ``queue`` and ``cluster`` are plain HTTP clients;
``config``, ``journal`` and ``store`` look at files. What only one command needs is
imported when it runs, so that a node does not carry the clients along.

Exit codes: 0 done; 1 refused, damaged or failed; 2 wrong usage or configuration;
3 no replica could be reached; 4 the outcome is unknown; 5 there was nothing to get.
"""

from __future__ import annotations

from raftq.cli.app import main

__all__ = ["main"]
