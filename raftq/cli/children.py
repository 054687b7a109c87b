"""A child process that is kept running, and whose output is handed on line by line."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
from collections.abc import Callable, Mapping, Sequence

AT_ONCE_S = 5.0  # Whoever dies sooner after its start has not been of use.
ATTEMPTS_MAX = 3
PAUSE_S = 0.5
LINE_BYTES_MAX = 1 << 20
CHUNK_BYTES = 1 << 16
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class Child:
    """Runs ``command`` until ``stop``; starts it again when it dies, but not for ever."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        say: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.gave_up = False
        self._command = command
        self._environment = environment
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self) -> None:
        """Return after ``stop``, or when it died at once several times in a row."""
        clock = asyncio.get_running_loop().time
        attempts = 0
        while not self._stopping:
            started_s = clock()
            code = await self._once()
            if self._stopping:
                return
            attempts = attempts + 1 if clock() - started_s < AT_ONCE_S else 1
            if attempts == ATTEMPTS_MAX:
                self.gave_up = True
                self._say(self.name, f"{_ending(code)} {attempts} times in a row; left alone now")
                return
            self._say(self.name, f"{_ending(code)}; starting it again")
            await asyncio.sleep(PAUSE_S)

    def stop(self) -> None:
        """Ask it to end, and do not start it again."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._stopping = True
        self._signal(signal.SIGKILL)

    async def _once(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Its own session: Ctrl-C reaches the parent alone, who ends the children in order.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        if self._stopping:
            self._signal(signal.SIGTERM)
        assert self._process.stdout is not None
        await self._hand_on(self._process.stdout)
        return await self._process.wait()

    async def _hand_on(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await output.read(CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._say(self.name, line.decode(errors="replace"))
        if rest:
            self._say(self.name, rest.decode(errors="replace"))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"exited with code {code}"


def _end_with_parent() -> None:
    """Runs in the child before it starts: a parent that is killed must not leave a cluster."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
