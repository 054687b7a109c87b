"""Streams of events from the real service, and from real HTTP servers."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from api.rest import streams
from http_connection import Connection
from local_service import LocalService
from raftq.replica.waiters import Waiters
from served_api import served

QUEUE = "/v1/default/queues/jobs"
DEADLINE_S = 10.0


class Stream:
    """Blocks as ``curl -N`` would print them; reads no more than it is asked for."""

    def __init__(self, url: str, path: str, last: str = "", *, buffer_bytes: int = 0) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.socket()
        if buffer_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect((host, int(port)))
        resumed = f"Last-Event-ID: {last}\r\n" if last else ""
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{resumed}\r\n"
        self._socket.sendall(head.encode())
        self._file = self._socket.makefile("rb")

    def events(self) -> Iterator[tuple[str, Any]]:
        """Id and data of each event until the stream ends."""
        found = dict[bytes, bytes]()
        for line in self._file:
            name, _, value = line.strip().partition(b": ")
            if name:
                found[name] = value
            elif b"data" in found:
                yield found.get(b"id", b"").decode(), json.loads(found[b"data"])
                found = {}

    def close(self) -> None:
        self._file.close()
        self._socket.close()


async def put(url: str, count: int, padding: int = 1) -> None:
    connection = Connection(int(url.rpartition(":")[2]), timeout_s=DEADLINE_S)
    for _ in range(count):
        body = {"messages": [{"body": 1}] * padding}
        answer = await connection.request("POST", f"{QUEUE}/messages", body)
        assert answer.status == 201
    connection.close()


def test_each_event_comes_once_over_several_replicas() -> None:
    """Two servers of one state stand for two replicas that have applied the same log."""
    service = LocalService()
    with served(service) as first, served(service) as second:
        asyncio.run(put(first, 20))
        seen: list[str] = []
        for turn in range(7):
            url = (first, second)[turn % 2]
            stream = Stream(url, f"{QUEUE}/events?from=1", seen[-1] if seen else "")
            for event_id, _ in stream.events():
                seen.append(event_id)
                if len(seen) % 3 == 0:
                    break
            stream.close()
        assert len(seen) == len(set(seen)) == 21
        assert seen == sorted(seen, key=lambda one: [int(part) for part in one.split(".")])


def test_a_stopping_node_ends_its_streams() -> None:
    service = LocalService()
    with served(service) as url:
        asyncio.run(put(url, 1))
        stream = Stream(url, "/v1/default/events?from=now")
        until_s = time.monotonic() + DEADLINE_S
        while not service.watching and time.monotonic() < until_s:
            time.sleep(0.01)
        service.stopping = True
        asyncio.run(put(url, 1))
        assert [data.get("kind") or data["reason"] for _, data in stream.events()] == [
            "enqueued",
            "stopping",
        ]
        stream.close()


def test_a_reader_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SEND_TIMEOUT_S", 0.2)
    service = LocalService()
    with served(service) as url:
        asyncio.run(put(url, 1))
        stream = Stream(url, f"{QUEUE}/events?from=now", buffer_bytes=4_096)
        until_s = time.monotonic() + DEADLINE_S
        while not service.watching and time.monotonic() < until_s:
            time.sleep(0.01)
        # Each event is about 45 KB of ids: more than sockets hold.
        asyncio.run(put(url, 150, padding=1_000))
        while service.watching and time.monotonic() < until_s:
            time.sleep(0.01)
        assert service.watching == 0
        stream.close()


class Heard:
    """What a watcher is told."""

    def __init__(self) -> None:
        self.queues: list[str] = []
        self.any = 0

    def tell(self, queue: str) -> None:
        self.queues.append(queue)

    def tell_any(self) -> None:
        self.any += 1


def test_watchers_hear_of_their_queue_or_of_all_of_the_account() -> None:
    waiters, one, account = Waiters(), Heard(), Heard()
    waiters.noted([("a", "q")])
    forget = [waiters.watch("a", "q", one), waiters.watch("a", None, account)]
    waiters.noted([("a", "q"), ("a", "p"), ("b", "q"), ("a", "")])
    assert (one.queues, account.queues) == (["q"], ["q", "p", ""])
    waiters.wake_everybody(5)
    assert (one.any, account.any, waiters.watching) == (1, 1, 2)
    for stop in forget * 2:
        stop()
    assert waiters.watching == 0
    waiters.noted([("a", "q")])
    assert one.queues == ["q"]
