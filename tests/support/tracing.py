"""What a running process asks of the system, and when, as ``strace`` tells."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cluster import STOP_TIMEOUT_S, until

STRING_BYTES = 1 << 16
"""As much of what is written is told."""

_CALL = re.compile(
    r"(?P<at>\d+\.\d+) (?P<name>\w+)\(\d+<(?P<path>[^>]*)>(?P<rest>.*) = (?P<result>-?\d+).*"
    r" <(?P<took>\d+\.\d+)>\n?"
).fullmatch
_BEGUN = re.compile(
    r"(?P<at>\d+\.\d+) io_submit\(.*aio_data=(?P<which>\w+), aio_lio_opcode=IOCB_CMD_FDSYNC,"
    r" aio_fildes=\d+<(?P<path>[^>]*)>.* = 1 <.*\n?"
).fullmatch
_ENDED = re.compile(
    r"(?P<at>\d+\.\d+) io_getevents\(.*data=(?P<which>\w+), .*res=(?P<result>-?\d+), .* = 1"
    r" <(?P<took>\d+\.\d+)>\n?"
).fullmatch


class Call(NamedTuple):
    """A system call on a file that has returned. Times are in seconds since the epoch."""

    name: str
    path: str
    arguments: str
    result: int
    began_at: float
    ended_at: float


def unavailable() -> str | None:
    """Why nothing can be traced here, or nothing."""
    if os.geteuid() != 0:
        return "strace needs root, to attach to what runs"
    return None if shutil.which("strace") else "missing: apt-get install strace"


@contextlib.contextmanager
def traced(pid: int, *options: str) -> Iterator[None]:
    """While it lasts, strace with these options is attached to the process."""
    trace = subprocess.Popen(
        ["strace", *options, "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # A Ctrl-C is not for it: it must let go of the node in order.
    )
    try:
        until(lambda: trace.poll() is not None or _is_traced(pid), "strace has attached")
        yield
    finally:
        trace.send_signal(signal.SIGINT)
        try:
            trace.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            trace.kill()
            trace.wait()


@contextlib.contextmanager
def writes_and_syncs(pid: int, output: Path) -> Iterator[None]:
    """Have what the process writes to files and syncs in ``output``, for ``calls`` to read."""
    # A file for each thread: in one for all, calls of one are cut by those of another.
    told = ("-ff", "-ttt", "-T", "-y", "-s", str(STRING_BYTES), "-o", str(output))
    syncs = "fdatasync,fsync,io_submit,io_getevents"
    with traced(pid, *told, "-e", f"trace=pwrite64,pwritev,{syncs}"):
        yield


def calls(output: Path) -> list[Call]:
    """All that was told, by the time at which it was over.

    A sync by the kernel is an fdatasync as well, from where it was asked for to where it was
    heard of.
    """
    found: list[Call] = []
    for file in output.parent.glob(f"{output.name}.*"):
        with file.open(errors="replace") as lines:
            found += _calls(lines)
    return sorted(found, key=lambda call: call.ended_at)


def _calls(lines: Iterable[str]) -> Iterator[Call]:
    """Those of one thread."""
    begun: dict[str, tuple[str, float]] = {}
    for line in lines:
        if call := _CALL(line):
            at, result = float(call["at"]), int(call["result"])
            ended_at = at + float(call["took"])
            yield Call(call["name"], call["path"], call["rest"], result, at, ended_at)
        elif call := _BEGUN(line):
            begun[call["which"]] = call["path"], float(call["at"])
        elif (call := _ENDED(line)) and call["which"] in begun:
            path, at = begun.pop(call["which"])
            ended_at = float(call["at"]) + float(call["took"])
            yield Call("fdatasync", path, "", int(call["result"]), at, ended_at)


def _is_traced(pid: int) -> bool:
    """Whether all threads of the process are under a tracer."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        texts = [(task / "status").read_text() for task in tasks]
    except OSError:
        return True  # It ended, and has no threads left to wait for.
    return all("TracerPid:\t0\n" not in text for text in texts)
