"""The command line as a script sees it: arguments and input in, output and exit code out."""

from __future__ import annotations

import io
from typing import NamedTuple

import pytest

from raftq.cli import main


class Result(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        for name in ("RAFTQ_URL", "RAFTQ_ACCOUNT", "RAFTQ_KEY", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("NO_COLOR", "1")

    def __call__(self, *arguments: object, stdin: bytes = b"") -> Result:
        """Run one command to its end."""
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)
