"""A relay (``relay``) as a process of its own, told from here how long everything takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from relay import Delay

RELAY = Path(__file__).with_name("relay.py")


class RelayProcess:
    """From one address to another; ``enter`` is the command that enters its host, if any."""

    def __init__(self, listen: str, target: str, enter: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*enter, sys.executable, str(RELAY), listen, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._expect(b"ready\n")

    def tell(self, delays: Mapping[tuple[str, str], Delay]) -> None:
        """These delays hold from now on, by addresses, and no others."""
        assert self._process.stdin is not None
        told = [[*pair, *delay] for pair, delay in delays.items()]
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()
        self._expect(b"told\n")

    def close(self) -> None:
        with self._process:  # Ends its input and waits for it.
            pass

    def _expect(self, line: bytes) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == line, f"a relay said {said!r} and ended with {self._process.poll()}"
