"""Syncs by the kernel: told of on the loop, refused where they are not to be had."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from raftq.disk import OsDisk
from raftq.kernel_syncs import KernelSyncs

TIMEOUT_S = 10.0


async def ended(disk: OsDisk, path: Path) -> OSError | None:
    """What became of a sync of that file."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[OSError | None] = loop.create_future()
    file = disk.open(str(path), create=True)
    try:
        file.pwrite(b"entry", 0)
        assert file.begin_sync(told.set_result)
        assert not told.done(), "on the loop, not at once"
        return await asyncio.wait_for(told, TIMEOUT_S)
    finally:
        file.close()


def kernel_syncs() -> KernelSyncs:
    try:
        return KernelSyncs(asyncio.get_running_loop())
    except OSError as error:
        pytest.skip(f"not on this machine: {error}")


def test_a_sync_ends_on_the_loop(tmp_path: Path) -> None:
    async def run() -> None:
        disk = OsDisk(kernel_syncs().begin)
        for _ in range(20):
            assert await ended(disk, tmp_path / "log") is None

    asyncio.run(run())


def test_what_cannot_begin_is_left_to_a_thread(tmp_path: Path) -> None:
    async def run() -> None:
        syncs = kernel_syncs()
        reading, writing = os.pipe()
        try:
            assert not syncs.begin(writing, pytest.fail), "a pipe has nothing to sync"
        finally:
            os.close(reading)
            os.close(writing)
        assert not syncs.begin(writing, pytest.fail), "closed"
        file = OsDisk().open(str(tmp_path / "log"), create=True)
        assert not file.begin_sync(pytest.fail), "nobody to do it"
        file.close()

    asyncio.run(run())


def test_a_failed_sync_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        """As caio's, with a disk that fails."""

        def __init__(self, _at_once: int) -> None:
            self.fileno, self._other_end = os.pipe()

        def submit(self, operation: Operation) -> int:
            self._told = operation.told
            os.write(self._other_end, b"!")
            return 1

        def poll(self) -> None:
            os.read(self.fileno, 1)

        def process_events(self, _at_once: int) -> None:
            self._told(2**64 - errno.EIO)
            os.close(self._other_end)

    class Operation:
        """See ``Context``."""

        @classmethod
        def fdsync(cls, _descriptor: int) -> Operation:
            return cls()

        def set_callback(self, told: object) -> None:
            self.told = told

    monkeypatch.setattr("caio.linux_aio.Context", Context)
    monkeypatch.setattr("caio.linux_aio.Operation", Operation)

    async def run() -> OSError | None:
        told: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        assert KernelSyncs(asyncio.get_running_loop()).begin(0, told.set_result)
        return await asyncio.wait_for(told, TIMEOUT_S)

    failed = asyncio.run(run())
    assert failed is not None
    assert failed.errno == errno.EIO


def test_without_it_there_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_at_once: int) -> None:
        raise SystemError("Operation not permitted")

    monkeypatch.setattr("caio.linux_aio.Context", refused)

    async def run() -> None:
        with pytest.raises(OSError, match="not permitted"):
            KernelSyncs(asyncio.get_running_loop())

    asyncio.run(run())
