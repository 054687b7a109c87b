"""Accepting when the machine has nothing left to accept with."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

import pytest

from raftq.transport import listening
from raftq.transport.listening import Listening, Patience, anybody

if TYPE_CHECKING:  # pytest loads conftest.py itself; as a module it has no importable name.
    from conftest import Lab

PATIENCE = Patience(handshake_timeout_s=1.0, handshakes_max=1, goodbye_s=1.0)


class Exhausted(socket.socket):
    """Has no descriptor for the first callers."""

    refusals = 2

    def accept(self) -> tuple[socket.socket, object]:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@pytest.mark.anyio
async def test_without_descriptors_it_pauses_and_goes_on_by_itself(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PAUSE_S", 0.02)
    with Exhausted() as plug:
        plug.bind(("127.0.0.1", 0))
        plug.listen()
        plug.setblocking(False)
        found = Listening(
            [plug],
            create=lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), hello),
            tls=None,
            patience=PATIENCE,
            may_open=anybody,
            refused=lambda _address, _reason: None,
        )
        wire = lab.wrap(*await asyncio.open_connection(*plug.getsockname()))
        assert await wire.reader.read() == b"hello"
        assert plug.refusals == 0
        found.stop()
        await found.wait_stopped()


@pytest.mark.anyio
async def test_stopped_in_a_pause_it_does_not_go_on(lab: Lab) -> None:
    with Exhausted() as plug:
        plug.bind(("127.0.0.1", 0))
        plug.listen()
        plug.setblocking(False)
        found = Listening(
            [plug],
            create=asyncio.Protocol,
            tls=None,
            patience=PATIENCE,
            may_open=anybody,
            refused=lambda _address, _reason: None,
        )
        with socket.create_connection(plug.getsockname()):
            await lab.until(lambda: plug.refusals == 1)
        found.stop()
        await found.wait_stopped()
    assert plug.refusals == 1


async def hello(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()
