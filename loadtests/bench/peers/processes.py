"""The processes of a peer, with all that they fork: what they use, and that none is left."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import NotInTime
from loadtests.bench import machine

KIB = 1024
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_S = 20.0
ONCE_S = 120.0
LOG_LINES_SHOWN = 20
UNPRIVILEGED = "postgres"


class Processes:
    """Servers by name, each the first of a tree, with their files in one directory."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str] | None, user: str | None
    ) -> None:
        """``user``: whom they run as, who then owns the directory; None: as we do."""
        self.directory = directory
        self._user = user
        self._environment = {**os.environ, **(environment or {})}
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        directory.mkdir(parents=True)
        if user is not None:
            directory.parent.chmod(0o711)  # A temporary directory lets nobody else through.
            shutil.chown(directory, user)

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """One more server."""
        with self._log(name).open("ab") as log:
            self._servers[name] = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self._environment | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Not a session of its own, to which the kernel's autogroups would give its own
                # share of the processors: raftq's nodes have none either.
                process_group=0,
                user=self._user,
            )

    def run(self, command: Sequence[str]) -> str:
        """What a command prints that ends by itself, and well."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ONCE_S,
            user=self._user,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def all_run(self) -> None:
        """``NotInTime`` if one of them has ended."""
        for name, server in self._servers.items():
            if server.poll() is not None:
                raise NotInTime(f"{name} has ended with {server.returncode}")

    def cpu_s(self) -> float:
        """Of all processes, with those that have ended.

        A process has its own time and that of the children it has waited for; what lives
        is found by its parents. So all is counted whose parents are alive or have waited.
        """
        return sum(_cpu_s(pid) for tree in self._trees().values() for pid in tree)

    def memory_mib(self) -> dict[str, float]:
        """Of each server with its children; what they share is shared out among them."""
        return {
            name: round(sum(_proportional_kib(pid) for pid in tree) / KIB, 1)
            for name, tree in self._trees().items()
        }

    def stop(self, how: signal.Signals) -> None:
        """Ask all to end, wait, and end what still is there."""
        trees = self._trees()
        for server in self._servers.values():
            if server.poll() is None:
                server.send_signal(how)
        until_s = time.monotonic() + STOP_S
        for name, server in self._servers.items():
            try:
                server.wait(max(until_s - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                for pid in trees[name]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                server.wait()

    def logs(self) -> str:
        """The end of what each server has said."""
        parts = []
        for name in self._servers:
            lines = self._log(name).read_text(errors="replace").splitlines()
            parts += [f"--- {name}", *lines[-LOG_LINES_SHOWN:]]
        return "\n".join(parts)

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _trees(self) -> dict[str, list[int]]:
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*"):
            if fields := _stat(int(path.name)):
                children.setdefault(int(fields[1]), []).append(int(path.name))
        return {
            name: _descent(server.pid, children)
            for name, server in self._servers.items()
            if server.poll() is None
        }


def unprivileged() -> str | None:
    """Whom to run a server as that refuses to run as root; ``KeyError`` if there is no such."""
    return pwd.getpwnam(UNPRIVILEGED).pw_name if os.geteuid() == 0 else None


def _descent(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    return [pid, *(one for child in children.get(pid, []) for one in _descent(child, children))]


def _stat(pid: int) -> list[str]:
    """The fields behind the name, from the state on; none of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    """User and system time, own and of children that were waited for."""
    with contextlib.suppress(OSError):
        return machine.cpu_s(pid) + sum(int(ticks) for ticks in _stat(pid)[13:15]) / TICKS_PER_S
    return 0.0


def _proportional_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
