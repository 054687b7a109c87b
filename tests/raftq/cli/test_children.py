"""Children are kept running, but not for ever; their lines come through whole."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from raftq.cli import children
from raftq.cli.children import ATTEMPTS_MAX, Child

WITHIN_S = 30.0


class Lines(list[str]):
    """What was said, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = asyncio.Event()

    def say(self, name: str, text: str) -> None:
        assert name == "n1"
        self.append(text)
        self._heard.set()

    async def until(self, part: str, count: int = 1) -> None:
        async with asyncio.timeout(WITHIN_S):
            while sum(part in line for line in self) < count:
                self._heard.clear()
                await self._heard.wait()


def child(lines: Lines, code: str) -> Child:
    return Child("n1", [sys.executable, "-c", code], dict(os.environ), lines.say)


def test_lines_come_through_however_they_are_written() -> None:
    code = (
        "import os\n"
        "os.write(1, b'one\\ntw'); os.write(2, b'o\\n\\xff\\n')\n"
        "os.write(1, b'x' * 200000 + b'\\nlast')"
    )

    async def scenario() -> list[str]:
        lines = Lines()
        running = child(lines, code)
        task = asyncio.ensure_future(running.run())
        await lines.until("last")
        running.stop()
        await asyncio.wait_for(task, WITHIN_S)
        return lines

    lines = asyncio.run(scenario())
    assert lines[:5] == ["one", "two", "\N{REPLACEMENT CHARACTER}", "x" * 200_000, "last"]


def test_who_dies_at_once_again_and_again_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PAUSE_S", 0.0)

    async def scenario() -> tuple[list[str], bool]:
        lines = Lines()
        running = child(lines, "raise SystemExit(3)")
        await asyncio.wait_for(running.run(), WITHIN_S)
        return lines, running.gave_up

    lines, gave_up = asyncio.run(scenario())
    assert gave_up
    assert lines == ["exited with code 3; starting it again"] * (ATTEMPTS_MAX - 1) + [
        f"exited with code 3 {ATTEMPTS_MAX} times in a row; left alone now"
    ]


def test_who_was_of_use_is_started_again_however_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "AT_ONCE_S", 0.0)
    monkeypatch.setattr(children, "PAUSE_S", 0.0)

    async def scenario() -> bool:
        lines = Lines()
        running = child(lines, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        task = asyncio.ensure_future(running.run())
        await lines.until("was ended by SIGKILL; starting it again", ATTEMPTS_MAX + 1)
        running.stop()
        await asyncio.wait_for(task, WITHIN_S)
        return running.gave_up

    assert asyncio.run(scenario()) is False


@pytest.mark.parametrize("kills", [False, True])
def test_stopping_ends_the_process_and_does_not_start_another(kills: bool) -> None:
    ignores = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if kills else ""
    code = f"import os, signal, time;{ignores} print(os.getpid(), flush=True); time.sleep(600)"

    async def scenario() -> int:
        lines = Lines()
        running = child(lines, code)
        task = asyncio.ensure_future(running.run())
        await lines.until("")
        running.stop()
        if kills:
            running.kill()
        await asyncio.wait_for(task, WITHIN_S)
        return int(lines[0])

    pid = asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    inner = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import asyncio, os, sys\n"
        "from raftq.cli.children import Child\n"
        f"command = [sys.executable, '-c', {inner!r}]\n"
        "say = lambda name, text: print(text, flush=True)\n"
        "asyncio.run(Child('n1', command, dict(os.environ), say).run())\n"
    )

    async def scenario() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, parent, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        pid = int(await process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        # The child holds the other end of this pipe no longer than it lives.
        await asyncio.wait_for(process.stdout.read(), WITHIN_S)
        await process.wait()
        deadline_s = asyncio.get_running_loop().time() + WITHIN_S
        while _alive(pid):
            assert asyncio.get_running_loop().time() < deadline_s
            await asyncio.sleep(0.01)

    asyncio.run(scenario())


def _alive(pid: int) -> bool:
    """Whether it runs; one that waits to be collected by its new parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
