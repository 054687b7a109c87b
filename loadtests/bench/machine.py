"""The machine under the figures: its name, its disk, and what processes take of it."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles

CPUCLOCK_SCHED = 2  # Of the kernel's posix-timers.h.
MIB = 1 << 20
BLOCK_BYTES = 512  # The unit of st_blocks, whatever the file system has.


def describe(root: Path) -> dict[str, object]:
    """What a reader must know to compare figures."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(root),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def cpu_s(pid: int) -> float:
    """User and system time of a process with all its threads; ``OSError`` if it has ended."""
    # Its own clock, as clock_getcpuclockid(3) names it: /proc tells ticks of 10 ms only.
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)


def total_cpu_s(pids: Iterable[int]) -> float:
    """Of some processes together."""
    return sum(cpu_s(pid) for pid in pids)


def cpu_percents(pids: Sequence[int], seconds: float) -> list[float]:
    """What each process takes of a core in the ``seconds`` from now."""
    before_s = [cpu_s(pid) for pid in pids]
    time.sleep(seconds)
    return [100 * (cpu_s(pid) - was_s) / seconds for pid, was_s in zip(pids, before_s, strict=True)]


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MIB, 1)


def disk_mib(directory: Path) -> float:
    """What the files under a directory take, while others may write and delete them."""
    blocks = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            blocks += path.lstat().st_blocks
    return round(blocks * BLOCK_BYTES / MIB, 1)


def sync_loop(directory: Path, append_bytes: int, seconds: float) -> dict[str, float]:
    """Appends, each with its own fdatasync: what the disk alone would do."""
    path = directory / "sync-loop"
    data = b"x" * append_bytes
    latencies_s = []
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        end_s = time.perf_counter() + seconds
        while (started_s := time.perf_counter()) < end_s:
            os.write(file, data)
            os.fdatasync(file)
            latencies_s.append(time.perf_counter() - started_s)
    finally:
        os.close(file)
        path.unlink()
    return {
        "append_bytes": append_bytes,
        "syncs_per_s": round(len(latencies_s) / seconds, 1),
        **percentiles(latencies_s),
    }


def percentiles(latencies_s: Iterable[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    values = list(latencies_s)
    if len(values) < 2:
        values = [*values, *values] or [0.0, 0.0]
    return {
        "p50_ms": round(median(values) * 1000, 3),
        "p99_ms": round(quantiles(values, n=100, method="inclusive")[98] * 1000, 3),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit(root: Path) -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"
